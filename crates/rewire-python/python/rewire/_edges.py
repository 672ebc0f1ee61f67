"""The effects of edges between components."""

from __future__ import annotations

from collections.abc import Sequence

from . import _rewire
from ._asked import Asked, Metric
from ._effects import Effects
from ._model import Model
from ._pairs import Pairs
from ._progress import Progress


def edge_effects(
    model: Model,
    pairs: Pairs,
    *,
    method: str = "attribution-patching",
    integrate: str | None = None,
    steps: int = 5,
    rule: str = "riemann-right",
    backward: str = "gradient",
    metric: Metric = "logit-diff-normalized",
    direction: str = "denoising",
    metric_position: int | str = -1,
    prompt_batch: int | None = None,
    progress: Progress = True,
) -> Effects:
    """Returns the effect of every edge from the input, a head or an MLP to a later one.

    Parameters
    ----------
    method : {"attribution-patching", "activation-patching"}
        Estimate all edges from gradients (EAP), or patch each edge exactly (ACDC's question).
    integrate : {"inputs", "activations"}, optional
        Average the gradients over a line (EAP-IG), with ``steps`` and ``rule``.
    model, pairs, backward, metric, direction, metric_position, prompt_batch, progress
        As for :func:`attribution_patching`.

    Returns
    -------
    Effects
        ``values`` is ``[writer, reader]``, with auto-circuit's names in ``labels``; 0 where there
        is no edge.
    """
    asked = Asked(model, pairs, metric, direction, metric_position, False, prompt_batch, progress, backward)
    return asked.effects("edges", _rewire.edge_effects, method, integrate, steps, rule)


def head_edges(
    model: Model,
    pairs: Pairs,
    *,
    norm: str = "exact",
    backward: str = "gradient",
    metric: Metric = "logit-diff-normalized",
    direction: str = "denoising",
    metric_position: int | str = -1,
    prompt_batch: int | None = None,
    progress: Progress = True,
) -> Effects:
    """Estimates the effect of every edge from a head's output to a later head's queries, keys and values.

    It is path attribution: two forward passes and one backward pass for all edges.

    Parameters
    ----------
    norm : {"exact", "frozen"}
        Differentiate the norm before the later head, or hold its scale constant.
    model, pairs, backward, metric, direction, metric_position, prompt_batch, progress
        As for :func:`attribution_patching`.

    Returns
    -------
    Effects
        ``values`` is ``[layer_end, head_end, input, layer_start, head_start, pos]``; the inputs are
        queries, keys and values. 0 where there is no edge.
    """
    asked = Asked(model, pairs, metric, direction, metric_position, False, prompt_batch, progress, backward)
    return asked.effects("head edges", _rewire.head_edges, norm)


def head_edge_patching(
    model: Model,
    pairs: Pairs,
    edges: str | Sequence[str] = (),
    *,
    heads: Sequence[str] = (),
    freeze: str = "path-patching",
    metric: Metric = "logit-diff-normalized",
    direction: str = "denoising",
    metric_position: int | str = -1,
    normalized: bool = False,
    prompt_batch: int | None = None,
    progress: Progress = True,
) -> Effects:
    """Patches edges between heads, each alone. The effects are exact.

    Parameters
    ----------
    edges : str or list of str
        Edges by auto-circuit's names: ``"a0.h7->a3.h6<q>"`` goes from the output of head 7 in layer
        0 to the queries of head 6 in layer 3.
    heads : list of str
        Heads (``"L0H7"``) between which all edges are patched, besides ``edges``.
    freeze, model, pairs, metric, direction, metric_position, normalized, prompt_batch, progress
        As for :func:`path_patching`.

    Returns
    -------
    Effects
        ``values`` is ``[node]``, with the names of the edges in ``nodes``.
    """
    asked = Asked(model, pairs, metric, direction, metric_position, normalized, prompt_batch, progress)
    names = [edges] if isinstance(edges, str) else list(edges)
    return asked.effects("head edges", _rewire.head_edge_patching, names, list(heads), freeze)
