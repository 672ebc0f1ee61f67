"""The reproductions have the tables of the commands, bit for bit."""

from __future__ import annotations

import pickle
import subprocess

import numpy as np
import pytest
from conftest import read_safetensors

import rewire

STUDIES = {
    "reproduce-ioi": (["--prompts", "6"], lambda: rewire.reproduce_ioi(prompts=6)),
    "reproduce-facts": ([], lambda: rewire.reproduce_facts()),
    "reproduce-ig": (
        ["--prompts", "20", "--generated-pairs", "3", "--steps", "16"],
        lambda: rewire.reproduce_ig(prompts=20, generated_pairs=3, steps=16),
    ),
    "reproduce-pythia": (
        ["--prompts", "8", "--choose-prompts", "30", "--judge-prompts", "30"],
        lambda: rewire.reproduce_pythia(prompts=8, choose_prompts=30, judge_prompts=30),
    ),
}


@pytest.mark.parametrize("name", STUDIES)
def test_a_reproduction_has_the_tables_of_its_command(command, tmp_path, name):
    flags, function = STUDIES[name]
    done = subprocess.run(
        [command.program, name, *flags, "--out", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = read_safetensors(tmp_path / "out" / "effects.safetensors")
    found = function()
    tables = {table: effects.per_prompt for table, effects in found.effects.items()} | found.arrays
    assert sorted(tables) == sorted(expected)
    for table, values in expected.items():
        if values.ndim < tables[table].ndim:
            # The command stores means over prompts.
            tables[table] = found.effects[table].values
        assert tables[table].tobytes() == values.tobytes(), table
    assert found.checks == []
    assert pickle.loads(pickle.dumps(found)).figures.keys() == found.figures.keys()
    assert "<table>" in found._repr_html_()


def test_the_circuit_of_the_notebook_is_in_the_figures():
    found = rewire.reproduce_pythia(prompts=8, choose_prompts=30, judge_prompts=30)
    heads = found.figures["circuit/heads"]
    assert len(heads) >= 2 and all(f"circuit/roles/{head}" in found.figures for head in heads)
    kept, low, high = found.figures["circuit/kept on judging prompts"]
    assert low <= kept <= high


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda: rewire.reproduce_ioi(corruption="none"), "none"),
        (lambda: rewire.reproduce_ig(heads=["L99H0"]), "L99H0"),
        (lambda: rewire.reproduce_ig(tolerance=0), "must be above 0"),
        (lambda: rewire.reproduce_pythia(prompts=1), "at least 2"),
        (lambda: rewire.reproduce_pythia(judge_prompts=3), "judge_prompts must be at least 10"),
    ],
)
def test_wrong_settings_are_refused(function, words):
    with pytest.raises(rewire.RewireError, match=words):
        function()


def test_progress_begins_again_with_each_step():
    seen = []
    rewire.reproduce_facts(progress=lambda done, of: seen.append((done, of)))
    assert seen and all(done <= of for done, of in seen)
