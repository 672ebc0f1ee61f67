"""Circuits of edges: found, judged, read and written."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _progress, _rewire
from ._asked import Asked, Metric
from ._errors import RewireWarning
from ._heat_map import escape
from ._model import Model
from ._pairs import Pairs
from ._progress import Progress


class Share(NamedTuple):
    """A share of the behavior: 1 is the model, 0 no edge. NaN ends with fewer than four prompts."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f}" if np.isnan(self.low) else f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, eq=False)
class Circuit:
    """A circuit of edges with the scores of all edges. It can be pickled.

    Attributes
    ----------
    edges : list of str
        The edges inside, by auto-circuit's names: ``a0.h7->a3.h6<q>``.
    scores : numpy.ndarray
        The scores of all edges, ``[writer, reader]``. A positive score means that corrupting the
        edge hurts the behavior.
    writers, readers : list of str
        The names along the axes of ``scores``.
    shares : dict of str to Share
        Of a found circuit, on the judging prompts: the shares that ``found`` (the circuit),
        ``outside`` (all other edges) and ``shuffled`` (the circuit that the same search finds for
        shuffled labels) keep, with 95% intervals over prompts.
    random : list of float
        The shares that random circuits of the same size keep.
    prompts : tuple of int
        The number of choosing and of judging prompts.
    """

    edges: list[str]
    scores: NDArray[np.float32]
    writers: list[str]
    readers: list[str]
    n_edges: int
    shares: dict[str, Share] = field(default_factory=dict)
    random: list[float] = field(default_factory=list)
    prompts: tuple[int, int] | None = None

    @staticmethod
    def read(path: str | os.PathLike[str], model: Model) -> Circuit:
        """Reads a circuit file of EAP-IG or MIB for a model.

        Raises
        ------
        AnalysisError
            If it is no such file, or a circuit of another model.
        """
        found = _rewire.read_circuit(model._native, os.fspath(path))
        for warning in found["warnings"]:
            warnings.warn(warning, RewireWarning, stacklevel=2)
        return _from_native(found)

    def save(self, path: str | os.PathLike[str], model: Model) -> None:
        """Writes the circuit with the scores of all edges, as EAP-IG and MIB read it."""
        _rewire.write_circuit(model._native, self.edges, self.scores, os.fspath(path))

    def __len__(self) -> int:
        return len(self.edges)

    def __repr__(self) -> str:
        kept = f", keeps {self.shares['found']}" if self.shares else ""
        return f"<Circuit: {len(self)} of {self.n_edges} edges{kept}>"

    def _repr_html_(self) -> str:
        places = {name: i for i, name in enumerate(self.writers)}, {name: i for i, name in enumerate(self.readers)}

        def score(edge: str) -> float:
            writer, reader = edge.split("->")
            return float(self.scores[places[0][writer], places[1][reader]])

        rows = [(name, str(share)) for name, share in self.shares.items()]
        if self.random:
            rows.append(("random circuits", f"{min(self.random):.3f} to {max(self.random):.3f}"))
        best = sorted(self.edges, key=lambda edge: -abs(score(edge)))[:10]
        rows += [(edge, f"{score(edge):+.4f}") for edge in best]
        cells = "".join(f"<tr><td style='text-align:left'>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in rows)
        return f"<div>{escape(repr(self))}<table>{cells}</table></div>"


class Judged(NamedTuple):
    """How much of the behavior a circuit keeps."""

    kept: Share
    """The share that the circuit keeps."""
    left: Share
    """The share that all other edges keep without it."""
    pruned: int
    """The number of edges on paths from the input to the logits."""
    values: NDArray[np.float32]
    """The metric of the circuit on each prompt."""


def find_circuit(
    model: Model,
    pairs: Pairs,
    *,
    search: str = "exact-greedy",
    scores: str = "eap-ig-inputs",
    rank: str = "signed",
    edges: int = 100,
    threshold: float = 0.01,
    keep: float = 0.8,
    seed: int = 0,
    progress: Progress = True,
) -> Circuit:
    """Finds a circuit on one half of the pairs, and judges it on the other, as ``circuit find`` does.

    Parameters
    ----------
    model, pairs
        As for :func:`activation_patching`. The metric is the logit difference.
    search : {"exact-greedy", "acdc", "greedy", "top-n"}
        The fewest edges that keep ``keep`` of the behavior with 95% confidence; ACDC with
        ``threshold`` in logits; or the best ``edges`` by score, on paths to the logits or at all.
    scores : {"eap", "eap-ig-inputs", "eap-ig-activations", "relp", "gim", "exact"}
        How edges are scored.
    rank : {"signed", "absolute"}
        How ``greedy`` and ``top-n`` rank edges.
    seed : int
        Seed of the halves, of the bootstrap and of random circuits.
    progress : bool or function
        As for :func:`activation_patching`; each step begins again at 0.

    Returns
    -------
    Circuit
    """
    native = pairs.for_model(model, "logit-diff")
    for warning in native.warnings():
        warnings.warn(warning, RewireWarning, stacklevel=2)
    wanted = {
        "model": model._native,
        "pairs": native,
        "search": search,
        "scores": scores,
        "rank": rank,
        "edges": edges,
        "threshold": threshold,
        "keep": keep,
        "seed": seed,
        "workers": _progress.workers(),
    }
    with _progress.shown(progress, "circuit") as shown:
        found = _rewire.find_circuit({**wanted, "progress": shown})
    choosing, judging, are_same = found["prompts"]
    if are_same:
        warnings.warn(
            f"{judging} prompt pairs are too few to divide: the circuit is judged on the prompts that it was chosen "
            "on, and its figures are too good",
            RewireWarning,
            stacklevel=2,
        )
    shares = [Share(*share) for share in found["shares"]]
    return replace(
        _from_native(found),
        shares=dict(zip(("found", "outside", "shuffled"), shares)),
        random=[share.value for share in shares[3:]],
        prompts=(choosing, judging),
    )


def evaluate_circuits(
    model: Model,
    pairs: Pairs,
    circuits: Circuit | Sequence[Circuit | Sequence[str]],
    *,
    outside: str = "resample",
    metric: Metric = "logit-diff",
    seed: int = 0,
    prompt_batch: int | None = None,
    progress: Progress = True,
) -> list[Judged]:
    """Measures how much of the behavior circuits keep, as ``circuit evaluate`` does.

    Parameters
    ----------
    circuits : Circuit, or list of Circuit or of lists of edges
        The circuits.
    outside : {"resample", "zero", "mean"}
        What all other edges carry: the corrupted prompt, zeros, or the mean over the clean prompts.
    metric, model, pairs, prompt_batch, progress
        As for :func:`activation_patching`.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    list of Judged
        One per circuit.
    """
    several = [circuits] if isinstance(circuits, Circuit) else list(circuits)
    edges = [circuit.edges if isinstance(circuit, Circuit) else list(circuit) for circuit in several]
    asked = Asked(model, pairs, metric, prompt_batch=prompt_batch, progress=progress)
    found = asked.run("circuits", _rewire.evaluate, edges, outside, seed)
    shares = [Share(*share) for share in found["shares"]]
    return [
        Judged(shares[2 * i], shares[2 * i + 1], found["pruned"][i], found["values"][:, 2 * i])
        for i in range(len(edges))
    ]


def _from_native(found: dict[str, Any]) -> Circuit:
    return Circuit(*(found[name] for name in ("edges", "scores", "writers", "readers", "n_edges")))
