"""Edges between heads, circuits, and several kinds of nodes in one call."""

from __future__ import annotations

import json
import pickle
import subprocess

import numpy as np
import pytest

import rewire

NAMES = ["John and Mary", "Tom and James", "Dan and Sid", "Martin and Amy", "Mary and John", "James and Tom"]


@pytest.fixture(scope="module")
def many():
    """Enough pairs for two halves."""
    clean, corrupt, answers, wrong = [], [], [], []
    for names in NAMES:
        subject, other = names.split(" and ")
        text = f"When {names} went to the shops, {{}} gave the bag to"
        clean.append(text.format(subject))
        corrupt.append(text.format(other))
        answers.append(f" {other}")
        wrong.append(f" {subject}")
    return rewire.Pairs(clean, corrupt, answers, wrong)


@pytest.fixture(scope="module")
def many_file(many, tmp_path_factory):
    path = tmp_path_factory.mktemp("many") / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in many._records) + "\n")
    return path


@pytest.mark.parametrize(
    ("method", "options", "flags"),
    [
        ("activation-patching", {}, []),
        ("attribution-patching", {"backward": "relp"}, ["--backward", "relp"]),
        ("path-patching", {"receivers": "logits"}, ["--receivers", "logits"]),
        ("integrated-gradients", {"steps": 20}, ["--steps", "20"]),
    ],
)
def test_several_kinds_in_one_call_equal_the_command(command, model, pairs, method, options, flags):
    kinds = ["head_z", "mlp_out"] if method != "integrated-gradients" else ["head_z", "mlp_post"]
    expected = command.sweep("--method", method, "--nodes", ",".join(kinds), *flags)
    found = rewire.sweep(model, pairs, kinds, method=method, **options)
    assert list(found) == kinds
    for kind in kinds:
        assert found[kind].per_prompt.tobytes() == expected[kind].tobytes()
    if method == "integrated-gradients":
        assert found["mlp_post"].details["gap"].tobytes() == expected["mlp_post.gap"].tobytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "patching"}, "use activation-patching"),
        ({"method": "path-patching"}, "needs receivers"),
        ({"steps": 3}, "has no argument 'steps'"),
        ({"nodes": []}, "nodes is empty"),
    ],
)
def test_wrong_sweeps_are_refused(model, pairs, arguments, words):
    with pytest.raises(rewire.ArgumentError, match=words):
        rewire.sweep(model, pairs, **{"nodes": ["head_z"], **arguments})


def test_estimated_head_edges_equal_the_command(command, model, pairs):
    expected = command.sweep("--method", "attribution-patching", "--nodes", "head_edges")["head_edges"]
    found = rewire.head_edges(model, pairs)
    assert found.per_prompt.tobytes() == expected.tobytes()
    assert found.axes == ("layer_end", "head_end", "input", "layer_start", "head_start", "pos")
    assert found.labels["input"] == ["q", "k", "v"] and found.labels["head_start"][7] == "H7"
    best = found.top(1)[0].node
    start, end = best.split("@")[0].split("->")
    assert int(start[1]) < int(end[1]) and end.endswith(("<q>", "<k>", "<v>"))
    with pytest.raises(rewire.RewireError, match="report draws nodes"):
        found.report("edges.html")


def test_patched_head_edges_are_path_patching_into_one_head(model, pairs):
    found = rewire.head_edge_patching(model, pairs, ["a0.h7->a3.h6<q>", "a0.h7->a2.h1<v>"])
    assert found.axes == ("node",) and found.nodes == ["a0.h7->a3.h6<q>", "a0.h7->a2.h1<v>"]
    for receiver, effect in (("head_q:L3H6", found.values[0]), ("head_v:L2H1", found.values[1])):
        path = rewire.path_patching(model, pairs, receiver, "head_z:L0H7").values[0]
        np.testing.assert_allclose(effect, path, rtol=0, atol=1e-6)
    between = rewire.head_edge_patching(model, pairs, heads=["L0H7", "L2H1", "L3H6"])
    assert len(between.nodes) == 9
    assert between.values[between.nodes.index("a0.h7->a3.h6<q>")] == pytest.approx(found.values[0], abs=1e-6)


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ([], "there is no edge to patch"),
        (["a0.h7->m3"], "not an edge between heads"),
        (["L0H7"], "L0H7"),
        (["a3.h0->a3.h1<q>"], "later layer"),
    ],
)
def test_wrong_head_edges_are_refused(model, pairs, edges, words):
    with pytest.raises(rewire.RewireError, match=words):
        rewire.head_edge_patching(model, pairs, edges)


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("--search greedy --edges 40 --scores eap".split(), {"search": "greedy", "edges": 40, "scores": "eap"}),
        (["--keep", "0.5"], {"keep": 0.5}),
    ],
)
def test_a_found_circuit_is_that_of_the_command(command, many_file, model, many, tmp_path, flags, arguments):
    out = tmp_path / "out"
    done = subprocess.run(
        [command.program, "circuit", "find", "--pairs", str(many_file), "--out", str(out), *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    circuit = rewire.find_circuit(model, many, **arguments)
    circuit.save(tmp_path / "circuit.json", model)
    assert (tmp_path / "circuit.json").read_bytes() == (out / "circuit.json").read_bytes()
    notes = json.loads((out / "effects.json").read_text())
    expected = next(value for value in _values(notes, "faithfulness") if isinstance(value, list))
    shares = [list(circuit.shares[name]) for name in ("found", "outside", "shuffled")]
    np.testing.assert_allclose(shares, np.array(expected[:3], dtype=float), rtol=1e-12)
    assert len(circuit.random) == 20 and circuit.prompts == (3, 3)


def _values(node, key):
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _values(item, key)


def test_circuits_are_read_written_judged_and_pickled(model, many, tmp_path):
    circuit = rewire.find_circuit(model, many, search="greedy", edges=40, scores="eap")
    circuit.save(tmp_path / "circuit.json", model)
    again = rewire.Circuit.read(tmp_path / "circuit.json", model)
    assert again.edges == circuit.edges and (again.scores == circuit.scores).all()
    # Intervals over so few prompts are NaN, which does not equal itself.
    assert repr(pickle.loads(pickle.dumps(circuit)).shares) == repr(circuit.shares)
    assert "found" in circuit._repr_html_() and str(len(circuit)) in repr(circuit)
    one, whole = rewire.evaluate_circuits(model, many, [circuit, _all_edges(model, many)])
    assert one.kept.low <= one.kept.value <= one.kept.high and one.pruned == len(circuit)
    assert whole.kept.value == pytest.approx(1, abs=1e-5) and whole.left.value == pytest.approx(0, abs=1e-5)
    assert one.values.shape == (len(NAMES),)
    zero = rewire.evaluate_circuits(model, many, circuit, outside="zero")[0]
    assert zero.kept.value != one.kept.value


def _all_edges(model, pairs):
    found = rewire.edge_effects(model, pairs)
    writers, readers = found.labels["writer"], found.labels["reader"]

    def depth(name):
        layer = int("".join(c for c in name.split(".")[0] if c.isdigit()) or -1)
        return (10**6, 0) if name == "logits" else (layer, int(name.startswith("m")))

    return [f"{w}->{r}" for w in writers for r in readers if w == "input" or depth(w) < depth(r)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"search": "best"}, "use top-n"),
        ({"scores": "best"}, "use eap"),
        ({"rank": "best"}, "absolute or signed"),
        ({"search": "acdc", "threshold": 0.0}, "must be above 0"),
        ({"search": "acdc", "threshold": 1e9}, "lower threshold"),
    ],
)
def test_wrong_searches_are_refused(model, many, arguments, words):
    with pytest.raises(rewire.RewireError, match=words):
        rewire.find_circuit(model, many, **arguments)


def test_few_pairs_warn_that_the_judgment_is_too_good(model, pairs):
    with pytest.warns(rewire.RewireWarning, match="too few to divide"):
        rewire.find_circuit(model, pairs, search="top-n", edges=400, scores="eap")


def test_a_circuit_that_keeps_nothing_is_refused(model, many):
    with pytest.raises(rewire.ArgumentError, match="keeps nothing"):
        rewire.evaluate_circuits(model, many, [["a0.h7->a3.h6<q>"]])
