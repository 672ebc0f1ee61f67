"""Results: names, tables, heat maps, reports and pickles."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import rewire


@pytest.fixture(scope="module")
def heads(model, pairs):
    return rewire.activation_patching(model, pairs, nodes="head_z")


def test_effects_name_their_axes_and_nodes(heads):
    assert heads.axes == ("layer", "head") and heads.values.shape == (4, 8)
    assert heads.labels["layer"][3] == "L3" and heads.labels["head"][7] == "H7"
    best = heads.top(1)[0]
    assert best.node == "L3H7" and best.effect == heads.values[3, 7]
    sizes = [abs(ranked.effect) for ranked in heads.top(32)]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 32
    assert np.asarray(heads).tobytes() == heads.values.tobytes()
    assert "L3H7" in repr(heads)


def test_positions_are_labeled_with_tokens_that_all_prompts_share(model, pairs):
    effects = rewire.activation_patching(model, pairs, nodes="resid_pre", by="position")
    assert effects.axes == ("layer", "pos")
    assert effects.labels["pos"][1] == "1 When"
    assert effects.labels["pos"][2] == "2"
    assert effects.top(1)[0].node.startswith("resid_pre:L")


def test_effects_survive_pickling(heads):
    for same in (pickle.loads(pickle.dumps(heads)), copy.deepcopy(heads)):
        assert same.values.tobytes() == heads.values.tobytes()
        assert same.per_prompt.tobytes() == heads.per_prompt.tobytes()
        assert same.labels == heads.labels and same.top() == heads.top()
        assert same._repr_html_() == heads._repr_html_()


def test_the_heat_map_needs_no_network_and_escapes_text(heads):
    html = heads._repr_html_()
    assert html.count("<rect") == 32 and "L3 H7: 0." in html
    assert "<script" not in html and "http://" not in html.replace("http://www.w3.org/2000/svg", "")


def test_a_report_is_one_file(heads, tmp_path):
    path = tmp_path / "heads.html"
    heads.report(path)
    text = path.read_text()
    assert "head_z" in text and text.startswith("<!DOCTYPE html>")
    with pytest.raises(rewire.ReportError, match="nowhere"):
        heads.report(tmp_path / "nowhere" / "heads.html")


def test_reports_draw_single_nodes(model, pairs, tmp_path):
    effects = rewire.activation_patching(model, pairs, ["head_z:L3H7", "mlp_out:L2@end"])
    effects.report(tmp_path / "nodes.html")
    assert "head_z:L3H7" in (tmp_path / "nodes.html").read_text()


def test_tables_have_one_row_per_node(heads):
    pytest.importorskip("pandas")
    table = heads.to_pandas()
    assert list(table.columns) == ["layer", "head", "effect"] and len(table) == 32
    assert table[(table["layer"] == 3) & (table["head"] == 7)]["effect"].item() == heads.values[3, 7]


def test_plots_are_plotly_figures(heads):
    pytest.importorskip("plotly")
    assert heads.plot().data[0].z.shape == (4, 8)


def test_screening_reports_what_it_skipped(model, pairs):
    found = rewire.screen_then_verify(model, pairs, k=3)
    assert np.isfinite(found.values).sum() == 3 and len(found.top(10)) == 3
    assert found.details["skipped"] == 29
    assert isinstance(found.details["attribution"], rewire.Effects)
    exact = rewire.activation_patching(model, pairs)
    kept = np.isfinite(found.values)
    np.testing.assert_allclose(found.values[kept], exact.values[kept], rtol=0, atol=1e-6)


def test_integrated_gradients_report_their_gap(model, pairs):
    found = rewire.integrated_gradients(model, pairs, metric="logit-diff")
    gap, change = found.details["gap"], found.details["change"]
    assert gap.shape == change.shape == (2, 4)
    np.testing.assert_allclose(found.per_prompt.sum(-1) - change, gap, atol=1e-4)


def test_edges_are_named_as_in_auto_circuit(model, pairs):
    found = rewire.edge_effects(model, pairs)
    assert found.labels["writer"][0] == "input" and found.labels["reader"][-1] == "logits"
    assert "->" in found.top(1)[0].node
