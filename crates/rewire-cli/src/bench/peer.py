"""Runs the benchmark's works on TransformerLens. Standard input names one work per line.

    python peer.py DIRECTORY THREADS DEVICE

DIRECTORY holds setting.json and prompts.json. If the setting shares weights, it also holds
config.json and model.safetensors in Hugging Face layout. Otherwise this script makes random weights
in the setting's shape.

A line `WORK STRIDE OUT` runs every STRIDE-th patch of a work and writes the results as float32 to
OUT. The answer is `seconds patches` or `failed REASON`. Every patch is a whole forward pass.
Therefore the time of a work is about the time of these patches times STRIDE.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from transformer_lens import ActivationCache, HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
from transformers import GPT2LMHeadModel

directory, threads, device = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(threads)
# Float32 matmuls without TF32, as Rewire's default.
torch.backends.cuda.matmul.allow_tf32 = False
setting = json.loads((directory / "setting.json").read_text())


def load():
    hf = GPT2LMHeadModel.from_pretrained(directory).eval()
    c = hf.config
    config = HookedTransformerConfig(
        n_layers=c.n_layer, d_model=c.n_embd, n_ctx=c.n_positions, d_head=c.n_embd // c.n_head, n_heads=c.n_head,
        d_mlp=4 * c.n_embd, d_vocab=c.vocab_size, act_fn="gelu_new", normalization_type="LNPre",
        eps=c.layer_norm_epsilon, device=device,
    )
    state = convert_gpt2_weights(hf, config)
    model = HookedTransformer(config)
    model.cfg.normalization_type = "LN"
    model.load_and_process_state_dict(state)
    return model.eval()


def make():
    """Makes a model of the setting's shape, with random weights in processed form."""
    s = setting["shape"]
    rotary = dict(positional_embedding_type="rotary", rotary_dim=s["rotary_dim"], rotary_adjacent_pairs=False)
    return HookedTransformer(HookedTransformerConfig(
        n_layers=s["n_layers"], d_model=s["d_model"], n_ctx=s["n_ctx"], d_head=s["d_head"], n_heads=s["n_heads"],
        d_mlp=s["d_mlp"], d_vocab=s["d_vocab"], act_fn=s["gelu"], normalization_type="LNPre", eps=s["eps"],
        parallel_attn_mlp=s["parallel"], device=device, seed=0, **(rotary if s["rotary_dim"] else {}),
    )).eval()


model = load() if setting["shared"] else make()
LAYERS, HEADS = model.cfg.n_layers, model.cfg.n_heads
sets = json.loads((directory / "prompts.json").read_text())


class Prompts:
    def __init__(self, pairs):
        self.clean = torch.tensor([p["clean"] for p in pairs], device=device)
        self.corrupted = torch.tensor([p["corrupt"] for p in pairs], device=device)
        self.answers = torch.tensor([[p["answers"][0], p["wrong_answers"][0]] for p in pairs], device=device)
        with torch.no_grad():
            self.baselines = [self.difference(model(t)).item() for t in (self.clean, self.corrupted)]

    def differences(self, logits):
        chosen = logits[:, -1].gather(1, self.answers)
        return chosen[:, 0] - chosen[:, 1]

    def difference(self, logits):
        return self.differences(logits).mean()

    def metric(self, logits):
        clean, corrupted = self.baselines
        return (self.difference(logits) - corrupted) / (clean - corrupted)


PROMPTS = {name: Prompts(pairs) for name, pairs in sets.items()}
POS = PROMPTS["one"].clean.shape[1]


def both_caches(prompts, tokens, wanted):
    model.reset_hooks()
    cache, gradients = {}, {}

    def forward(activation, hook):
        cache[hook.name] = activation.detach()

    def backward(gradient, hook):
        gradients[hook.name] = gradient.detach()

    model.add_hook(wanted, forward, "fwd")
    model.add_hook(wanted, backward, "bwd")
    prompts.metric(model(tokens)).backward()
    model.reset_hooks()
    model.zero_grad()
    return ActivationCache(cache, model), ActivationCache(gradients, model)


def forward(stride):
    prompts = PROMPTS["one"]
    with torch.no_grad():
        return prompts.differences(model(prompts.clean)), 1


def forward_backward(stride):
    """Runs a forward and a backward pass that keep the gradients of q and z."""
    prompts = PROMPTS["one"]
    gradients = {}

    def keep(gradient, hook):
        gradients[hook.name] = gradient.detach()

    model.reset_hooks()
    model.add_hook(lambda name: name.endswith(("hook_q", "hook_z")), keep, "bwd")
    differences = prompts.differences(model(prompts.clean))
    differences.sum().backward()
    model.reset_hooks()
    model.zero_grad()
    return differences, 1


def head_vectors(name, clean, corrupted, gradients):
    stack = lambda cache: torch.stack([cache[name, layer] for layer in range(LAYERS)])
    return stack(gradients) * (stack(clean) - stack(corrupted))


def attribution(stride):
    """Attribution as in the demo.

    It takes caches and gradients of both runs, all views, and head edges divided by the scale.
    """
    prompts = PROMPTS["one"]
    model.set_use_attn_result(True)
    wanted = lambda name: not name.endswith(("_input", "attn_in", "mlp_in"))
    clean, clean_gradients = both_caches(prompts, prompts.clean, wanted)
    corrupted, gradients = both_caches(prompts, prompts.corrupted, wanted)
    _ = torch.stack([clean["pattern", l] * clean_gradients["pattern", l] for l in range(LAYERS)])
    for view in [
        lambda c: c.accumulated_resid(-1, incl_mid=not model.cfg.parallel_attn_mlp), lambda c: c.decompose_resid(-1),
        lambda c: c.stack_head_results(-1),
    ]:
        _ = (view(gradients) * (view(clean) - view(corrupted))).sum((1, 3))
    for name in ["k", "q", "v"]:
        _ = head_vectors(name, clean, corrupted, gradients).sum((1, 4))
    z = head_vectors("z", clean, corrupted, gradients).sum((1, 2, 4))
    _ = head_vectors("pattern", clean, corrupted, gradients).sum(1)
    into = torch.stack([
        torch.stack([
            torch.einsum(
                "bphd,bp,hmd->bphm", gradients[name, layer], 1 / corrupted["scale", layer, "ln1"].squeeze(-1),
                getattr(model.blocks[layer].attn, weight),
            )
            for layer in range(LAYERS)
        ])
        for name, weight in [("q", "W_Q"), ("k", "W_K"), ("v", "W_V")]
    ])
    written = (clean.stack_head_results(-1) - corrupted.stack_head_results(-1)).unflatten(0, (LAYERS, HEADS))
    paths = torch.einsum("xlbpem,kcbpm->xlekcp", into, written)
    layers = torch.arange(LAYERS, device=device)
    later = layers[:, None] > layers[None, :]
    paths = paths * later[None, :, None, :, None, None]
    model.set_use_attn_result(False)
    return z.flatten(), 1


def attribution_lean(stride):
    """Attribution without per-head results, with gradients on the corrupted run only."""
    prompts = PROMPTS["one"]
    sites = ["hook_q", "hook_k", "hook_v", "hook_z", "hook_pattern", "hook_resid_pre", "hook_resid_mid",
             "hook_resid_post", "hook_attn_out", "hook_mlp_out"]
    wanted = lambda name: any(name.endswith(site) for site in sites)
    with torch.no_grad():
        _, clean = model.run_with_cache(prompts.clean, names_filter=wanted)
    corrupted, gradients = both_caches(prompts, prompts.corrupted, wanted)
    mid = [] if model.cfg.parallel_attn_mlp else ["resid_mid"]
    for name in mid + ["resid_pre", "resid_post", "attn_out", "mlp_out", "q", "k", "v", "pattern"]:
        _ = head_vectors(name, clean, corrupted, gradients).sum(1)
    return head_vectors("z", clean, corrupted, gradients).sum((1, 2, 4)).flatten(), 1


def sweep(prompts, patches, stride):
    """Activation patching as in TransformerLens' `patching`: one whole forward pass per patch.

    `patches` are pairs of a hook name and an index.
    """
    names = {name for name, _ in patches}
    with torch.no_grad():
        _, clean = model.run_with_cache(prompts.clean, names_filter=lambda n: n in names)
        results = []
        for name, index in patches[::stride]:

            def patch(activation, hook, index=index):
                activation[index] = clean[hook.name][index]
                return activation

            results.append(prompts.metric(model.run_with_hooks(prompts.corrupted, fwd_hooks=[(name, patch)])))
    return torch.stack(results), len(results)


STEPS, OF_A_LINE = 50, 12


def lines(attribute, stride):
    """Runs every stride-th line of integrated gradients.

    The lines are the heads, then the neurons, of each layer.
    """
    prompts = PROMPTS["notebook"]
    with torch.no_grad():
        clean, corrupted = [model.run_with_cache(t)[1] for t in (prompts.clean, prompts.corrupted)]
    span = prompts.baselines[0] - prompts.baselines[1]
    right, wrong = prompts.answers[0]
    rows = lambda logits: (logits[:, -1, right] - logits[:, -1, wrong]) / span
    wanted = [(layer, kind) for layer in range(LAYERS) for kind in ("heads", "neurons")][::stride]
    results = [attribute(prompts, layer, kind, clean, corrupted, rows)[:OF_A_LINE] for layer, kind in wanted]
    return torch.cat(results), len(wanted)


def as_the_notebook(prompts, layer, kind, clean, corrupted, rows):
    """Captum's layer integrated gradients as in the notebook.

    They take whole forward passes, compute every head's result, and hook the inputs.
    """
    target, before = ("attn.hook_result", "attn.hook_z") if kind == "heads" else ("mlp.hook_post", "hook_mlp_in")
    target, before = [f"blocks.{layer}.{name}" for name in (target, before)]

    def forward(x):
        def replace(activation, hook):
            x.requires_grad_(True)
            return x

        return rows(model.run_with_hooks(prompts.clean, fwd_hooks=[(before, replace)]))

    attributions = LayerIntegratedGradients(forward, model.hook_dict[target]).attribute(
        corrupted[before], baselines=clean[before], attribute_to_layer_input=False, return_convergence_delta=True
    )[0]
    return attributions.sum((0, 1, 3)) if kind == "heads" else attributions.sum((0, 1))


def notebook(stride):
    model.set_use_attn_result(True)
    model.set_use_hook_mlp_in(True)
    done = lines(as_the_notebook, stride)
    model.set_use_attn_result(False)
    model.set_use_hook_mlp_in(False)
    return done


def lean(prompts, layer, kind, clean, corrupted, rows):
    """Integrated gradients of z or post.

    They start at the layer and compute no results of single heads.
    """
    name = f"blocks.{layer}.attn.hook_z" if kind == "heads" else f"blocks.{layer}.mlp.hook_post"
    start = clean[f"blocks.{layer}.hook_resid_pre"]

    def forward(x):
        hooks = [(name, lambda activation, hook: x)]
        with model.hooks(fwd_hooks=hooks):
            return rows(model(start.expand(len(x), -1, -1), start_at_layer=layer))

    attributions = IntegratedGradients(forward).attribute(corrupted[name], baselines=clean[name], n_steps=STEPS)
    return attributions.sum((0, 1, 3)) if kind == "heads" else attributions.sum((0, 1))


ALL = slice(None)
PARTS = ["z", "q", "k", "v", "pattern"]


def head(part, layer, head, pos=ALL):
    index = (ALL, head, pos) if part == "pattern" else (ALL, pos, head)
    return f"blocks.{layer}.attn.hook_{part}", index


def heads(which):
    return lambda stride: sweep(PROMPTS[which], [head("z", l, h) for l in range(LAYERS) for h in range(HEADS)], stride)


MOVERS = setting["movers"]


def paths(receivers):
    """Path patching from each head, noising, by its definition.

    Each sender takes two whole forward passes. The first holds z of every other head.
    """

    def run(stride):
        prompts = PROMPTS["one"]
        results = []
        with torch.no_grad():
            z = lambda name: name.endswith("hook_z")
            clean, corrupted = [model.run_with_cache(t, names_filter=z)[1] for t in (prompts.clean, prompts.corrupted)]
            senders = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)][::stride]
            for layer, head in senders:
                received = {}

                def hold(activation, hook):
                    activation = clean[hook.name].clone()
                    if hook.layer() == layer:
                        activation[:, :, head] = corrupted[hook.name][:, :, head]
                    return activation

                def keep(activation, hook):
                    received[hook.name] = activation.clone()

                names = {name for name, _ in receivers}
                model.run_with_hooks(prompts.clean, fwd_hooks=[(z, hold), (lambda name: name in names, keep)])

                def receive(activation, hook):
                    activation = activation.clone()
                    for name, index in receivers:
                        if name == hook.name:
                            activation[index] = received[name][index]
                    return activation

                logits = model.run_with_hooks(prompts.clean, fwd_hooks=[(lambda name: name in names, receive)])
                clean_difference, corrupted_difference = prompts.baselines
                change = prompts.difference(logits) - clean_difference
                results.append(change / (clean_difference - corrupted_difference))
        return torch.stack(results), len(results)

    return run


# The writers and readers of edges, in the order of EAP-IG (Hanna et al. 2024).
PARALLEL = model.cfg.parallel_attn_mlp
READERS = [
    reader for layer in range(LAYERS) for reader in
    [(f"blocks.{layer}.hook_{part}_input", layer, head) for part in "qkv" for head in range(HEADS)]
    + [(f"blocks.{layer}.hook_mlp_in", layer, None)]
] + [(f"blocks.{LAYERS - 1}.hook_resid_post", LAYERS, None)]
WRITERS = 1 + LAYERS * (HEADS + 1)


def writers_to(name, layer):
    """The number of writers before a reader."""
    of_its_block = HEADS if name.endswith("mlp_in") and not PARALLEL else 0
    return 1 + layer * (HEADS + 1) + of_its_block


def edge_hooks(on):
    model.set_use_split_qkv_input(on)
    model.set_use_hook_mlp_in(on)


def written(tokens):
    """The outputs of all writers, [batch, pos, writer, d_model]."""
    model.set_use_attn_result(True)
    wanted = lambda name: name == "hook_embed" or name.endswith(("hook_result", "hook_mlp_out"))
    with torch.no_grad():
        cache = model.run_with_cache(tokens, names_filter=wanted)[1]
    model.set_use_attn_result(False)
    blocks = [
        part for layer in range(LAYERS)
        for part in (cache["result", layer], cache["mlp_out", layer].unsqueeze(2))
    ]
    return torch.cat([cache["hook_embed"].unsqueeze(2), *blocks], dim=2)


def edges(stride):
    """Exact patching of edges, noising: one whole forward pass for each."""
    prompts = PROMPTS["one"]
    clean_difference, corrupted_difference = prompts.baselines
    change = written(prompts.corrupted) - written(prompts.clean)
    places = [(writer, reader) for reader in READERS for writer in range(writers_to(*reader[:2]))][::stride]
    results = []
    edge_hooks(True)
    with torch.no_grad():
        for writer, (name, _, head) in places:

            def read(activation, hook):
                activation = activation.clone()
                if head is None:
                    activation += change[:, :, writer]
                else:
                    activation[:, :, head] += change[:, :, writer]
                return activation

            difference = prompts.difference(model.run_with_hooks(prompts.clean, fwd_hooks=[(name, read)]))
            results.append((difference - clean_difference) / (clean_difference - corrupted_difference))
    edge_hooks(False)
    return torch.stack(results), len(results)


def estimates(steps):
    """EAP, and EAP-IG on inputs if there are steps, as the program of EAP-IG computes them.

    Each reader's gradient is multiplied by the change of every writer before it, in a hook of the
    backward pass.
    """

    def run(_):
        prompts = PROMPTS["one"]
        change = written(prompts.corrupted) - written(prompts.clean)
        scores = torch.zeros(WRITERS, len(READERS), device=device)
        of_name = {}
        for index, (name, layer, _) in enumerate(READERS):
            of_name.setdefault(name, (writers_to(name, layer), []))[1].append(index)

        def score(gradient, hook):
            writers, readers = of_name[hook.name]
            gradient = gradient if gradient.ndim == 4 else gradient.unsqueeze(2)
            of_hook = torch.einsum("bpwd,bprd->wr", change[:, :, :writers], gradient)
            scores[:writers, readers[0]:readers[-1] + 1] += of_hook

        edge_hooks(True)
        model.reset_hooks()
        with torch.no_grad():
            clean, corrupted = [model.run_with_cache(t, names_filter="hook_embed")[1]["hook_embed"]
                                for t in (prompts.clean, prompts.corrupted)] if steps else (None, None)
        for step in range(1, max(steps, 1) + 1):
            between = []
            if steps:
                point = (corrupted + step / steps * (clean - corrupted)).requires_grad_(True)
                between = [("hook_embed", lambda activation, hook: point)]
            with model.hooks(fwd_hooks=between, bwd_hooks=[(lambda name: name in of_name, score)]):
                prompts.metric(model(prompts.clean)).backward()
            model.zero_grad()
        edge_hooks(False)
        scores.div_(max(steps, 1))
        places = [(writer, index) for index, reader in enumerate(READERS) for writer in range(writers_to(*reader[:2]))]
        writers, readers = zip(*places)
        return scores[list(writers), list(readers)], 1

    return run


WORKS = {
    "edges": edges,
    "eap": estimates(0),
    "eap-ig": estimates(5),
    "forward": forward,
    "forward-backward": forward_backward,
    "paths-to-residual": paths([(f"blocks.{LAYERS - 1}.hook_resid_post", (ALL,))]),
    "paths-to-queries": paths([(f"blocks.{layer}.attn.hook_q", (ALL, ALL, head)) for layer, head in MOVERS]),
    "attribution": attribution,
    "attribution-lean": attribution_lean,
    "heads": heads("one"),
    "heads-differ-everywhere": heads("all"),
    "blocks-by-position": lambda stride: sweep(PROMPTS["one"], [
        (f"blocks.{l}.hook_{site}", (ALL, p))
        for site in ["resid_pre", "attn_out", "mlp_out"] for l in range(LAYERS) for p in range(POS)
    ], stride),
    "head-parts": lambda stride: sweep(PROMPTS["one"], [
        head(part, l, h) for part in PARTS for l in range(LAYERS) for h in range(HEADS)
    ], stride),
    "head-parts-by-position": lambda stride: sweep(PROMPTS["one"], [
        head(part, l, h, p) for part in PARTS for l in range(LAYERS) for h in range(HEADS) for p in range(POS)
    ], stride),
    "integrated-gradients": notebook,
    "integrated-gradients-lean": lambda stride: lines(lean, stride),
    "neurons-one-pair": lambda stride: sweep(PROMPTS["notebook"], [
        (f"blocks.{l}.mlp.hook_post", (ALL, ALL, n)) for l in range(LAYERS) for n in range(model.cfg.d_mlp)
    ], stride),
    "neurons": lambda stride: sweep(PROMPTS["one"], [
        (f"blocks.{l}.mlp.hook_post", (ALL, ALL, n)) for l in range(LAYERS) for n in range(model.cfg.d_mlp)
    ], stride),
}

print("ready", flush=True)
for line in sys.stdin:
    work, stride, out = line.strip().split(" ", 2)
    start = time.perf_counter()
    try:
        results, patches = WORKS[work](int(stride))
        if device != "cpu":
            torch.cuda.synchronize(device)
    except RuntimeError as error:
        print("failed", str(error).splitlines()[0], flush=True)
        results = None
    seconds = time.perf_counter() - start
    if device != "cpu":
        # PyTorch would keep freed memory, which Rewire needs on the same device.
        torch.cuda.empty_cache()
    if results is None:
        continue
    results.detach().cpu().numpy().astype(np.float32).tofile(out)
    print(seconds, patches, flush=True)
