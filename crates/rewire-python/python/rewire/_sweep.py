"""Several kinds of nodes in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import _rewire
from ._asked import Asked, Metric
from ._effects import Effects
from ._errors import ArgumentError
from ._model import Model
from ._pairs import Pairs
from ._progress import Progress

Native = Callable[..., "dict[str, Any]"]

# The native function of each method, and the defaults of the arguments that it alone has.
METHODS: dict[str, tuple[Native, dict[str, Any]]] = {
    "activation-patching": (_rewire.activation_patching, {}),
    "attribution-patching": (_rewire.attribution_patching, {}),
    "path-patching": (_rewire.path_patching, {"receivers": None, "freeze": "path-patching"}),
    "integrated-gradients": (
        _rewire.integrated_gradients,
        {
            "baseline": "corrupt",
            "steps": 50,
            "rule": "gauss-legendre",
            "tolerance": 0.01,
            "line": "layer",
            "mean_over": "all",
        },
    ),
    "ablation": (_rewire.ablation, {"replacement": "zero", "mean_over": "all"}),
}


def sweep(
    model: Model,
    pairs: Pairs,
    nodes: Sequence[str],
    by: str = "all",
    *,
    method: str = "activation-patching",
    metric: Metric = "logit-diff-normalized",
    direction: str = "denoising",
    metric_position: int | str = -1,
    normalized: bool = False,
    backward: str = "gradient",
    prompt_batch: int | None = None,
    progress: Progress = True,
    **options: Any,
) -> dict[str, Effects]:
    """Runs one method on several kinds of nodes. The unpatched runs, and the gradients, are shared.

    Parameters
    ----------
    nodes : list of str
        Kinds of nodes: ``["head_z", "head_pattern", "mlp_out"]``.
    method : {"activation-patching", "attribution-patching", "path-patching", \
"integrated-gradients", "ablation"}
        The method, as the command names it.
    **options
        Further arguments of the method's function, such as ``receivers`` of
        :func:`path_patching`.
    model, pairs, by, metric, direction, metric_position, normalized, backward, prompt_batch, progress
        As for the method's function.

    Returns
    -------
    dict of str to Effects
        The effects of each kind by its name, such as ``head_z@position``.
    """
    if method not in METHODS:
        raise ArgumentError(f"unknown method {method!r}; use {', '.join(METHODS)}")
    native, defaults = METHODS[method]
    unknown = [name for name in options if name not in defaults]
    if unknown:
        known = ", ".join(defaults) or "no further ones"
        raise ArgumentError(f"{method} has no argument {unknown[0]!r}; it has {known}")
    arguments = {**defaults, **options}
    if arguments.get("receivers", ()) is None:
        raise ArgumentError("path-patching needs receivers, such as receivers=\"head_q:L3H7\"")
    if isinstance(arguments.get("receivers"), str):
        arguments["receivers"] = [arguments["receivers"]]
    if method in ("integrated-gradients", "ablation"):
        direction = "noising"
    asked = Asked(model, pairs, metric, direction, metric_position, normalized, prompt_batch, progress, backward)
    names = [nodes] if isinstance(nodes, str) else list(nodes)
    found = asked.kinds(method, native, names, by, *arguments.values())
    return {effects.kind: effects for effects in found}
