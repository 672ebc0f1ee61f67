"""The numbers of every function are those of the command, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

import rewire

CASES = [
    ([], lambda m, p: rewire.activation_patching(m, p), "head_z"),
    (
        ["--nodes", "head_pattern", "--by", "position", "--direction", "noising", "--metric", "logit-diff"],
        lambda m, p: rewire.activation_patching(
            m, p, "head_pattern", "position", direction="noising", metric="logit-diff"
        ),
        "head_pattern@position",
    ),
    (["--metric", "kl"], lambda m, p: rewire.activation_patching(m, p, metric="kl"), "head_z"),
    (
        ["--nodes", "resid_pre", "--by", "position", "--metric", "prob-diff"],
        lambda m, p: rewire.activation_patching(m, p, "resid_pre", "position", metric="prob-diff"),
        "resid_pre@position",
    ),
    (
        ["--method", "attribution-patching", "--nodes", "mlp_post"],
        lambda m, p: rewire.attribution_patching(m, p, "mlp_post"),
        "mlp_post",
    ),
    (
        ["--method", "attribution-patching", "--backward", "relp"],
        lambda m, p: rewire.attribution_patching(m, p, backward="relp"),
        "head_z",
    ),
    (
        ["--method", "attribution-patching", "--verify", "5"],
        lambda m, p: rewire.screen_then_verify(m, p, k=5),
        "verified/head_z",
    ),
    (
        ["--method", "path-patching", "--receivers", "head_q:L3H7@end"],
        lambda m, p: rewire.path_patching(m, p, "head_q:L3H7@end"),
        "head_z",
    ),
    (
        ["--method", "path-patching", "--receivers", "logits", "--freeze", "direct"],
        lambda m, p: rewire.path_patching(m, p, "logits", freeze="direct"),
        "head_z",
    ),
    (
        ["--method", "integrated-gradients", "--baseline", "mean", "--steps", "20"],
        lambda m, p: rewire.integrated_gradients(m, p, baseline="mean", steps=20),
        "head_z",
    ),
    (["--method", "logit-attribution"], lambda m, p: rewire.logit_attribution(m, p), "head_z"),
    (
        ["--nodes", "edges", "--method", "attribution-patching"],
        lambda m, p: rewire.edge_effects(m, p),
        "edges",
    ),
    (
        ["--nodes", "edges"],
        lambda m, p: rewire.edge_effects(m, p, method="activation-patching"),
        "edges",
    ),
]


@pytest.mark.parametrize(("flags", "function", "table"), CASES, ids=[" ".join(case[0]) or "sweep" for case in CASES])
def test_effects_equal_those_of_the_command(command, model, pairs, flags, function, table):
    expected = command.sweep(*flags)[table]
    found = function(model, pairs)
    assert found.per_prompt.dtype == np.float32
    assert found.per_prompt.shape == expected.shape
    assert found.per_prompt.tobytes() == expected.tobytes()


def test_single_nodes_equal_those_of_the_command(command, model, pairs):
    nodes = ["head_z:L3H7", "mlp_out:L2@end", "head_pattern:L0H1"]
    found = rewire.activation_patching(model, pairs, nodes)
    (expected,) = command.sweep("--nodes", ",".join(nodes)).values()
    assert found.axes == ("node",)
    assert found.per_prompt.tobytes() == expected.tobytes()


def test_ablation_is_the_change_that_the_command_shows_as_the_metric_after_it(command, model, pairs):
    after = command.sweep("--method", "ablation", "--ablate", "mean", "--metric", "logit-diff")["head_z"]
    found = rewire.ablation(model, pairs, replacement="mean", metric="logit-diff")
    np.testing.assert_allclose(found.per_prompt + found.clean[:, None, None], after, rtol=0, atol=1e-5)


def test_means_equal_those_of_the_command(command, model, pairs):
    expected = command.sweep("--nodes", "head_z").pop("head_z").astype(np.float64).mean(0).astype(np.float32)
    assert rewire.activation_patching(model, pairs).values.tobytes() == expected.tobytes()


def test_files_give_the_same_effects_as_lists(pairs_file, model, pairs):
    of_file = rewire.activation_patching(model, rewire.Pairs.read(pairs_file))
    assert of_file.per_prompt.tobytes() == rewire.activation_patching(model, pairs).per_prompt.tobytes()


def test_a_toy_with_rotary_embeddings_equals_the_command(command, neox, pairs):
    expected = command.sweep("--model", "toy-neox")["head_z"]
    assert rewire.activation_patching(neox, pairs).per_prompt.tobytes() == expected.tobytes()


def test_errors_have_the_words_of_the_command(command, model, pairs):
    with pytest.raises(rewire.AnalysisError) as caught:
        rewire.activation_patching(model, pairs, ["head_z:L9H0"])
    assert str(caught.value) == command.refused("--nodes", "head_z:L9H0")
    with pytest.raises(rewire.ModelError) as missing:
        rewire.load("/nowhere/model.gguf")
    assert str(missing.value) == command.refused("--model", "/nowhere/model.gguf")
