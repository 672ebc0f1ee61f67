"""The reproductions of published analyses. Their tables are those of the commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _progress, _rewire
from ._effects import Effects, from_native
from ._heat_map import escape
from ._load import load
from ._model import Model
from ._progress import Progress


class Check(NamedTuple):
    """A figure that the source document prints, beside ours."""

    what: str
    expected: str
    got: str
    verdict: str


@dataclass(frozen=True, eq=False)
class Reproduction:
    """The results of a reproduction. They can be pickled.

    Attributes
    ----------
    effects : dict of str to Effects
        The effects by the names that the tables of the command have, such as
        ``demo/activation patching/denoising/head_z``.
    arrays : dict of str to numpy.ndarray
        The command's other tables.
    figures : dict of str to float, str or list
        Further figures, such as the heads of a circuit.
    checks : list of Check
        The figures that the source document prints, if the model is the document's.
    """

    effects: dict[str, Effects]
    arrays: dict[str, NDArray[np.float32]]
    figures: dict[str, Any]
    checks: list[Check]

    def __repr__(self) -> str:
        wrong = sum(check.verdict != "agrees" for check in self.checks)
        return f"<Reproduction: {len(self.effects)} effects, {len(self.checks)} checks of which {wrong} differ>"

    def _repr_html_(self) -> str:
        rows = [(name, _short(value)) for name, value in self.figures.items()]
        rows += [(f"{c.what} (printed {c.expected})", f"{c.got}: {c.verdict}") for c in self.checks]
        rows += [(name, ", ".join(f"{node} {effect:+.4f}" for node, effect in effects.top(3)))
                 for name, effects in self.effects.items()]
        cells = "".join(
            f"<tr><td style='text-align:left'>{escape(name)}</td><td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in rows
        )
        return f"<table>{cells}</table>"


def reproduce_ioi(
    model: Model | None = None,
    *,
    prompts: int = 100,
    seed: int = 0,
    corruption: str = "s2-io",
    norm: str = "exact",
    progress: Progress = True,
) -> Reproduction:
    """Runs the attribution-patching demo on indirect object identification, as ``reproduce-ioi`` does.

    Parameters
    ----------
    model : Model, optional
        ``toy-gpt2`` by default. On ``gpt2``, the figures of the demo are checked.
    prompts : int
        Generated prompt pairs besides the demo's eight.
    seed : int
        Seed of the prompts.
    corruption : {"s2-io", "s1-other", "io-other", "abc"}
        How generated prompts are corrupted.
    norm : {"exact", "frozen"}
        As for :func:`head_edges`.
    progress : bool or function
        As for :func:`activation_patching`; each step begins again at 0.

    Returns
    -------
    Reproduction
    """
    model = model or load("toy-gpt2")
    return _run(model, "reproduce_ioi", progress, _rewire.reproduce_ioi, prompts, seed, corruption, norm)


def reproduce_ig(
    model: Model | None = None,
    *,
    prompts: int = 1000,
    generated_pairs: int | None = None,
    seed: int = 0,
    heads: Sequence[str] = (),
    steps: int = 50,
    rule: str = "gauss-legendre",
    tolerance: float = 0.001,
    progress: Progress = True,
) -> Reproduction:
    """Compares integrated gradients, activation patching and ablation, as ``reproduce-ig`` does.

    Parameters
    ----------
    model : Model, optional
        ``toy-gpt2`` by default. On ``gpt2``, the figures of the notebook are checked.
    prompts : int
        Generated prompts on which accuracy is measured; 0 skips the ablation study.
    generated_pairs : int, optional
        Generated pairs over which correlations are averaged. By default 100, or 5 for a model with
        more than 10,000 neurons.
    heads : list of str
        Heads to ablate besides the outliers: ``["L9H6"]``.
    steps, rule, tolerance
        As for :func:`integrated_gradients`.
    seed, progress
        As for :func:`reproduce_ioi`.

    Returns
    -------
    Reproduction
    """
    asked = {
        "prompts": prompts,
        "generated_pairs": generated_pairs,
        "seed": seed,
        "heads": list(heads),
        "steps": steps,
        "rule": rule,
        "tolerance": tolerance,
    }
    return _run(model or load("toy-gpt2"), "reproduce_ig", progress, _rewire.reproduce_ig, asked)


def reproduce_pythia(
    model: Model | None = None,
    *,
    prompts: int = 70,
    choose_prompts: int = 600,
    judge_prompts: int = 600,
    seed: int = 0,
    threshold: float = 0.02,
    edge_threshold: float | None = None,
    edges: int = 300,
    progress: Progress = True,
) -> Reproduction:
    """Finds the circuit for indirect object identification in steps, as ``reproduce-pythia`` does.

    Parameters
    ----------
    model : Model, optional
        ``toy-neox`` by default. On ``pythia-160m``, the figures of the notebook are checked.
    prompts, choose_prompts, judge_prompts : int
        Prompts of the steps, prompts that choose the circuit's heads, and prompts that judge it.
    threshold : float
        The smallest effect of a head that counts in a step, as a share.
    edge_threshold : float, optional
        The smallest effect of a path that is kept; a tenth of the largest by default.
    edges : int
        Paths that are patched exactly if the model has more than 2000.
    seed, progress
        As for :func:`reproduce_ioi`.

    Returns
    -------
    Reproduction
        ``figures`` has the circuit: its heads, their roles, and the shares that it keeps and leaves
        with the ends of their 95% intervals.
    """
    model = model or load("toy-neox")
    asked = {
        "prompts": prompts,
        "choose_prompts": choose_prompts,
        "judge_prompts": judge_prompts,
        "seed": seed,
        "threshold": threshold,
        "edge_threshold": edge_threshold,
        "edges": edges,
        "is_processed": model.is_processed,
    }
    return _run(model, "reproduce_pythia", progress, _rewire.reproduce_pythia, asked)


def reproduce_facts(model: Model | None = None, *, seed: int = 0, progress: Progress = True) -> Reproduction:
    """Runs the factual-recall example of the demo, as ``reproduce-facts`` does.

    Parameters
    ----------
    model : Model, optional
        ``toy-gpt2`` by default.
    seed, progress
        As for :func:`reproduce_ioi`.

    Returns
    -------
    Reproduction
        ``figures`` has the probability and the rank of each landmark's city.
    """
    return _run(model or load("toy-gpt2"), "reproduce_facts", progress, _rewire.reproduce_facts, seed)


def _run(
    model: Model, name: str, progress: Progress, study: Callable[..., dict[str, Any]], *arguments: Any
) -> Reproduction:
    with _progress.shown(progress, name) as shown:
        found = study(model._native, *arguments, shown)
    effects = {table: from_native(outcome, model.name, [])[0] for table, outcome in found["effects"].items()}
    return Reproduction(effects, found["arrays"], found["figures"], [Check(*check) for check in found["checks"]])


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(_short(item) for item in value) if isinstance(value, list) else str(value)
