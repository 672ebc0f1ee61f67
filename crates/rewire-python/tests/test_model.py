"""Tokens, runs, activations, hooks, gradients and generation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import read_safetensors

import rewire

PROMPT = "When John and Mary went to the shops, John gave the bag to"


def test_tokens_and_texts_are_inverse(model):
    tokens = model.to_tokens(PROMPT)
    assert tokens.dtype == np.int64 and tokens.shape[0] == 1
    assert tokens[0, 0] == model.cfg.bos_token_id
    assert model.to_string(tokens[0, 1:]) == PROMPT
    assert "".join(model.to_str_tokens(PROMPT)[1:]) == PROMPT
    assert model.to_tokens(PROMPT, prepend_bos=False).tolist() == tokens[:, 1:].tolist()
    assert model.to_str_tokens(tokens[0])[1:] == model.to_str_tokens(PROMPT, prepend_bos=False)


def test_short_prompts_are_padded_on_the_right_which_changes_no_logit(model):
    short = "When John and Mary"
    both = model([short, PROMPT])
    alone = model(short)
    np.testing.assert_allclose(both[0, : alone.shape[1]], alone[0], rtol=0, atol=1e-4)


def test_generation_continues_with_the_likeliest_tokens(model):
    text = model.generate(PROMPT, 2)
    assert text.startswith(PROMPT)
    best = int(model(PROMPT)[0, -1].argmax())
    assert text.startswith(PROMPT + model.to_string([best]))


def test_the_cache_has_all_hook_points_in_their_shapes(model):
    logits, cache = model.run_with_cache(PROMPT)
    cfg, pos = model.cfg, logits.shape[1]
    assert list(cache) == model.hook_names
    assert cache["blocks.1.attn.hook_z"].shape == (1, pos, cfg.n_heads, cfg.d_head)
    assert cache["blocks.0.attn.hook_pattern"].shape == (1, cfg.n_heads, pos, pos)
    assert cache["blocks.0.hook_resid_pre"].shape == (1, pos, cfg.d_model)
    np.testing.assert_allclose(cache["blocks.0.attn.hook_pattern"].sum(-1), 1, atol=1e-5)
    total = cache["blocks.0.hook_resid_pre"] + cache["blocks.0.hook_attn_out"]
    np.testing.assert_allclose(total, cache["blocks.0.hook_resid_mid"], atol=1e-5)
    assert logits.tobytes() == model(PROMPT).tobytes()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("blocks.3.attn.hook_z", ["blocks.3.attn.hook_z"]),
        (["blocks.2.hook_mlp_out", "hook_embed"], ["hook_embed", "blocks.2.hook_mlp_out"]),
        (lambda name: name.endswith("attn.hook_q"), [f"blocks.{layer}.attn.hook_q" for layer in range(4)]),
        ([], []),
    ],
)
def test_names_choose_hook_points(model, names, expected):
    assert list(model.run_with_cache(PROMPT, names=names)[1]) == expected


def test_unknown_hook_points_are_refused_with_a_suggestion(model):
    with pytest.raises(rewire.HookError, match=r"blocks\.0\.attn\.hook_zz.*did you mean `blocks\.0\.attn\.hook_z`"):
        model.run_with_cache(PROMPT, names="blocks.0.attn.hook_zz")
    with pytest.raises(rewire.HookError, match=r"blocks\.9\.hook_mlp_out"):
        model.run_with_hooks(PROMPT, [("blocks.9.hook_mlp_out", lambda x: x)])


def test_hooks_see_and_replace_activations(model):
    seen = []

    def zero(z, hook):
        seen.append((hook.name, hook.layer(), z.shape[2]))
        z[:, :, 7] = 0  # in place

    name = "blocks.3.attn.hook_z"
    in_place = model.run_with_hooks(PROMPT, fwd_hooks=[(name, zero)])
    assert seen == [(name, 3, model.cfg.n_heads)]

    def returned(z):
        z = z.copy()
        z[:, :, 7] = 0
        return z

    assert in_place.tobytes() == model.run_with_hooks(PROMPT, [(name, returned)]).tobytes()
    assert np.abs(in_place - model(PROMPT)).max() > 0.1


def test_a_hook_that_changes_nothing_changes_no_bit(model):
    logits = model.run_with_hooks(PROMPT, [(lambda name: True, lambda x, hook: None)])
    assert logits.tobytes() == model(PROMPT).tobytes()


def test_a_patch_by_hand_equals_activation_patching(model, pairs):
    native = pairs.for_model(model)
    (clean, corrupt), (right, wrong) = native.tokens(), native.answers()
    _, cache = model.run_with_cache(clean, names="blocks.3.attn.hook_z")

    def patch(z, hook):
        z[:, :, 7] = cache[hook.name][:, :, 7]

    def logit_diff(logits):
        rows = np.arange(len(right))
        return logits[rows, -1, np.ravel(right)] - logits[rows, -1, np.ravel(wrong)]

    patched = logit_diff(model.run_with_hooks(corrupt, [("blocks.3.attn.hook_z", patch)]))
    low, high = logit_diff(model(corrupt)).mean(), logit_diff(model(clean)).mean()
    expected = (patched.mean() - low) / (high - low)
    found = rewire.activation_patching(model, pairs).values[3, 7]
    assert found == pytest.approx(expected, abs=1e-5)


def test_hooks_that_fail_raise_their_own_exception(model):
    with pytest.raises(ZeroDivisionError):
        model.run_with_hooks(PROMPT, [("hook_embed", lambda x: 1 / 0)])
    with pytest.raises(rewire.HookError, match=r"hook_embed returned the shape \[3\]"):
        model.run_with_hooks(PROMPT, [("hook_embed", lambda x: np.zeros(3))])
    assert model(PROMPT).shape[0] == 1


def test_gradients_equal_finite_differences(model):
    name = "blocks.2.attn.hook_z"
    tokens = model.to_tokens(PROMPT)
    weights = np.zeros(model(tokens).shape, dtype=np.float32)
    weights[0, -1, model.to_single_token(" Mary")] = 1
    weights[0, -1, model.to_single_token(" John")] = -1
    gradient = model.cache_gradients(tokens, weights, name)[name]
    direction = np.random.default_rng(0).standard_normal(gradient.shape).astype(np.float32)

    def loss(step: float) -> float:
        logits = model.run_with_hooks(tokens, [(name, lambda z: z + step * direction)])
        return float((logits.astype(np.float64) * weights).sum())

    step = 1e-2
    slope = (loss(step) - loss(-step)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=2e-2)
    of_function = model.cache_gradients(tokens, lambda logits: weights, name)[name]
    assert of_function.tobytes() == gradient.tobytes()


def test_a_gradient_of_logits_in_another_shape_is_refused(model):
    with pytest.raises(rewire.ArgumentError, match=r"gradient of the logits has the shape \[3\]"):
        model.cache_gradients(PROMPT, np.zeros(3), "hook_embed")


def test_impossible_inputs_are_refused(model):
    with pytest.raises(rewire.ModelError, match="999999"):
        model([[999999]])
    with pytest.raises(rewire.ModelError):
        model([])
    with pytest.raises(rewire.ArgumentError, match="-1 is no token id"):
        model([-1])
    with pytest.raises(rewire.ModelError, match="toy-gpt2|unknown model"):
        rewire.load("toy-gpt3")
    with pytest.raises(rewire.TokenizerError):
        model.to_single_token(" Montgomery the second")


def test_errors_about_weights_in_memory_name_no_temporary_file():
    weights = {"model.w": np.zeros((2, 2), dtype=np.float32)}
    with pytest.raises(rewire.ModelError, match="unheard") as caught:
        rewire.from_state_dict(weights, {"model_type": "unheard"})
    assert "/tmp" not in str(caught.value)


@pytest.mark.parametrize("name", ["toy-gpt2", "toy-neox"])
def test_weights_in_memory_give_the_model_of_their_files(name, pairs):
    folder = Path(__file__).parents[2] / "rewire-toy" / "models" / name
    weights = read_safetensors(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    in_memory = rewire.from_state_dict(weights, config, tokenizer=folder / "tokenizer.json")
    of_name = rewire.load(name)
    assert in_memory.name == "model" and vars(in_memory.cfg) == vars(of_name.cfg)
    assert in_memory(PROMPT).tobytes() == of_name(PROMPT).tobytes()
    found = rewire.activation_patching(in_memory, pairs).per_prompt
    assert found.tobytes() == rewire.activation_patching(of_name, pairs).per_prompt.tobytes()
    without = rewire.from_state_dict(weights, config)
    assert without(of_name.to_tokens(PROMPT)).tobytes() == of_name(PROMPT).tobytes()
    with pytest.raises(rewire.TokenizerError, match="give token ids instead of text"):
        without(PROMPT)


def test_unprocessed_weights_give_the_same_probabilities(model):
    raw = rewire.load("toy-gpt2", process_weights=False)
    both = [logits[0] - logits[0].max(-1, keepdims=True) for logits in (raw(PROMPT), model(PROMPT))]
    probabilities = [np.exp(logits) / np.exp(logits).sum(-1, keepdims=True) for logits in both]
    np.testing.assert_allclose(*probabilities, atol=1e-5)
    assert rewire.load("toy-gpt2", keep_in_files=True)(PROMPT).tobytes() == model(PROMPT).tobytes()
