"""The notebooks run on the toy models, and are stored without outputs."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import rewire

FOLDER = Path(__file__).parents[3] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_every_result_can_be_shown(path, capsys):
    variables: dict[str, object] = {}
    shown = 0
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    for cell in cells:
        assert cell["outputs"] == [] and cell["execution_count"] is None
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, path.name, "exec"), variables)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), path.name, "eval"), variables)
            if isinstance(value, rewire.Effects):
                assert "<svg" in value._repr_html_()
                shown += 1
    assert shown >= 3


def test_there_are_notebooks():
    assert len(NOTEBOOKS) == 2
