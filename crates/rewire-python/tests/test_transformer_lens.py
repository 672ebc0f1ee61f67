"""Activations, gradients and effects are those of TransformerLens, on its fixtures.

`tests/fixtures/generate.py` made the fixtures: tiny random models, and TransformerLens' results on
them in float64.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import read_safetensors

import rewire

FIXTURES = Path(__file__).parents[3] / "tests" / "fixtures"
KINDS = ("resid_pre", "attn_out", "mlp_out")
PARTS = ("head_z", "head_q", "head_k", "head_v", "head_pattern")
# Effects are shares of the clean minus the corrupted logit difference.
TOLERANCE = 1e-4


class Fixture:
    """One model with the results of TransformerLens."""

    def __init__(self, name: str, prefix: str) -> None:
        folder = FIXTURES / name
        self.prefix = prefix
        self.model = rewire.load(folder / "model", process_weights=prefix == "proc")
        self.pairs = rewire.Pairs.read(folder / "pairs.jsonl")
        self.results = read_safetensors(folder / "results.safetensors")
        self.cache = read_safetensors(folder / f"cache_row0{'' if prefix == 'proc' else '_raw'}.safetensors")
        self.clean, self.corrupted = self.pairs.for_model(self.model).tokens()
        self.answers = self.pairs.for_model(self.model).answers()

    def expected(self, table: str) -> np.ndarray:
        return self.results[f"{self.prefix}/{table}"]

    def logit_gradient(self) -> np.ndarray:
        """The gradient of the normalized mean logit difference with respect to the logits of row 0."""
        right, wrong = (tokens[0][0] for tokens in self.answers)
        clean, corrupted = (self.logit_diffs(tokens) for tokens in (self.clean, self.corrupted))
        weights = np.zeros(self.model([self.clean[0]]).shape, dtype=np.float32)
        size = 1 / (len(self.clean) * (clean.mean() - corrupted.mean()))
        weights[0, -1, right], weights[0, -1, wrong] = size, -size
        return weights

    def logit_diffs(self, tokens: list[list[int]]) -> np.ndarray:
        rows = np.arange(len(tokens))
        right, wrong = (np.ravel(tokens_of_pairs) for tokens_of_pairs in self.answers)
        last = self.model(tokens)[:, -1].astype(np.float64)
        return last[rows, right] - last[rows, wrong]


@pytest.fixture(scope="module", params=["tiny-gpt2 proc", "tiny-gpt2 raw", "tiny-neox proc", "tiny-neox raw"])
def fixture(request):
    return Fixture(*request.param.split())


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """Compares to 1e-4 of the scale of the expected values."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * max(1.0, float(np.abs(expected).max())))


def test_run_with_cache_has_the_activations_of_transformer_lens(fixture):
    for run, tokens in (("clean", fixture.clean), ("corrupted", fixture.corrupted)):
        _, cache = fixture.model.run_with_cache([tokens[0]])
        of_run = [name for name in fixture.cache if name.startswith(f"{run}/")]
        expected = {name.split("/")[1]: fixture.cache[name] for name in of_run}
        common = set(cache) & set(expected)
        assert len(common) > 50, sorted(set(expected) - set(cache))
        for name in sorted(common):
            lower = np.isfinite(expected[name])
            close(np.where(lower, cache[name], 0), np.where(lower, expected[name], 0))


def test_logits_are_those_of_transformer_lens(fixture):
    close(fixture.model(fixture.clean), fixture.expected("clean_logits"))


def test_gradients_are_those_of_transformer_lens(fixture):
    weights = fixture.logit_gradient()
    sites = ("q", "k", "v", "z", "pattern", "resid_pre", "mlp_out", "post")
    ends = tuple(f".hook_{site}" for site in sites)
    for run, tokens in (("clean", fixture.clean), ("corrupted", fixture.corrupted)):
        found = fixture.model.cache_gradients([tokens[0]], weights, lambda name: name.endswith(ends))
        assert len(found) == len(ends) * fixture.model.cfg.n_layers
        for name, gradient in found.items():
            close(gradient, fixture.cache[f"{run}_grad/{name}"])


@pytest.mark.parametrize(("direction", "table"), [("denoising", "act"), ("noising", "noising")])
def test_exact_effects_are_those_of_transformer_lens(fixture, direction, table):
    found = rewire.sweep(fixture.model, fixture.pairs, PARTS, direction=direction)
    expected = fixture.expected(f"{table}/head_all_pos_every_per_prompt")
    close(np.stack([found[kind].per_prompt for kind in PARTS]), np.moveaxis(expected, -1, 1))
    found = rewire.sweep(fixture.model, fixture.pairs, KINDS, "position", direction=direction)
    close(np.stack([found[f"{kind}@position"].values for kind in KINDS]), fixture.expected(f"{table}/block_every"))


@pytest.mark.parametrize(("direction", "table"), [("denoising", "attr"), ("noising", "attr_noising")])
def test_estimates_are_those_of_transformer_lens(fixture, direction, table):
    arguments = {"method": "attribution-patching", "direction": direction}
    found = rewire.sweep(fixture.model, fixture.pairs, PARTS, **arguments)
    close(np.stack([found[kind].values for kind in PARTS]), fixture.expected(f"{table}/head_all_pos_every"))
    found = rewire.sweep(fixture.model, fixture.pairs, KINDS, "position", **arguments)
    close(np.stack([found[f"{kind}@position"].values for kind in KINDS]), fixture.expected(f"{table}/block_every"))


def test_head_edges_are_those_of_transformer_lens(fixture):
    found = rewire.head_edges(fixture.model, fixture.pairs).values
    heads = fixture.model.cfg.n_layers * fixture.model.cfg.n_heads
    close(found.reshape(3 * heads, heads, -1), fixture.expected("attr/head_path_exact"))


def test_ablations_are_those_of_transformer_lens(fixture):
    cases = (("zero", "all", "zero"), ("mean", "all", "mean"), ("mean", "position", "mean_by_position"))
    for replacement, mean_over, table in cases:
        found = rewire.ablation(
            fixture.model, fixture.pairs, replacement=replacement, mean_over=mean_over, metric="logit-diff"
        )
        close(found.values + found.baselines[0], fixture.expected(f"ablate/{table}"))
