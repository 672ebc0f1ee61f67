"""The results of an analysis."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _heat_map, _rewire
from ._errors import RewireError

if TYPE_CHECKING:
    import pandas

PREFIXES = {"layer": "L", "head": "H", "neuron": "N"}
INPUTS = ("q", "k", "v")


class Ranked(NamedTuple):
    """A node and its mean effect."""

    node: str
    effect: float


@dataclass(frozen=True, eq=False)
class Effects:
    """The effects of all nodes of one kind, or of a list of nodes.

    In a notebook, the last line ``effects`` shows a heat map. Effects can be pickled.

    Attributes
    ----------
    values : numpy.ndarray
        Mean effects over prompts, float32, with the axes ``axes``.
    per_prompt : numpy.ndarray
        The effects of each prompt: the same axes after a leading axis of prompts. Positions after
        the end of a shorter prompt have no meaning (see ``lengths``).
    axes : tuple of str
        Names of the axes of ``values``, such as ``("layer", "head")``.
    labels : dict of str to list of str
        The labels along each axis: ``L0``, ``H3``, or the token at a position if it is the same in
        all clean prompts.
    kind : str
        The kind of node, such as ``head_z@position``.
    method, direction, metric : str
        How the effects were found.
    unit : str
        The unit of the effects.
    normalized : bool
        Whether effects are shares of the change of the metric from corrupted to clean.
    clean, corrupted : numpy.ndarray
        The metric of each prompt on the unpatched runs, ``[prompt]``.
    warnings : tuple of str
        Reasons to doubt the effects.
    details : dict
        What only this method reports, such as the completeness gap of integrated gradients.
    """

    values: NDArray[np.float32]
    per_prompt: NDArray[np.float32]
    axes: tuple[str, ...]
    labels: dict[str, list[str]]
    kind: str
    method: str
    direction: str
    metric: str
    unit: str
    normalized: bool
    clean: NDArray[np.float32]
    corrupted: NDArray[np.float32]
    lengths: list[int]
    nodes: list[str]
    model: str
    warnings: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        shape = ", ".join(f"{axis}: {size}" for axis, size in zip(self.axes, self.values.shape))
        best = ", ".join(f"{node} {effect:.4f}" for node, effect in self.top(3))
        return f"<Effects of {self.kind} [{shape}], {self.method}, {self.direction}; largest: {best}>"

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype)

    @property
    def baselines(self) -> tuple[float, float]:
        """The mean of the metric on the clean and on the corrupted prompts."""
        return float(self.clean.mean(dtype=np.float64)), float(self.corrupted.mean(dtype=np.float64))

    def name(self, index: tuple[int, ...]) -> str:
        """Returns the name of the node at an index of ``values``: ``L3H7``, or ``L3H7@14``."""
        by_axis = dict(zip(self.axes, index))
        if "node" in by_axis:
            name = self.nodes[by_axis.pop("node")]
        else:
            layer = by_axis.pop("layer", None)
            units = "".join(f"{PREFIXES[a]}{by_axis.pop(a)}" for a in ("head", "neuron") if a in by_axis)
            name = f"L{layer}{units}" if layer is not None else ""
            component = self.kind.split("@")[0]
            if layer is not None and not component.startswith("head_"):
                name = f"{component}:{name}"
        if "writer" in by_axis:
            return f"{self.labels['writer'][by_axis['writer']]}->{self.labels['reader'][by_axis['reader']]}"
        if "layer_start" in by_axis:
            start, end = (f"a{by_axis.pop('layer_' + at)}.h{by_axis.pop('head_' + at)}" for at in ("start", "end"))
            name = f"{start}->{end}<{INPUTS[by_axis.pop('input')]}>"
        places = list(by_axis.values())
        return name + ("@" + "<-".join(map(str, places)) if places else "")

    def top(self, n: int = 10) -> list[Ranked]:
        """Returns the nodes of largest absolute mean effect, the largest first.

        Parameters
        ----------
        n : int
            How many nodes.

        Returns
        -------
        list of (node, effect)
        """
        sizes = np.abs(self.values).ravel()
        order = np.argsort(-np.where(np.isnan(sizes), -1.0, sizes), kind="stable")[:n]
        known = [int(place) for place in order if not np.isnan(sizes[place])]
        indices = [tuple(int(i) for i in np.unravel_index(place, self.values.shape)) for place in known]
        return [Ranked(self.name(index), float(self.values[index])) for index in indices]

    def to_pandas(self) -> pandas.DataFrame:
        """Returns a table with one row per node: a column for each axis, and ``effect``.

        Axes have numbers; ``labels`` has their names.
        """
        library = _need("pandas", "to_pandas")
        index = library.MultiIndex.from_product([range(size) for size in self.values.shape], names=self.axes)
        table: pandas.DataFrame = library.DataFrame({"effect": self.values.ravel()}, index=index).reset_index()
        return table

    def plot(self) -> Any:
        """Returns a plotly figure with a heat map of ``values``. Needs plotly."""
        graph_objects = _need("plotly.graph_objects", "plot")
        table = _heat_map.table(self)
        reach = _heat_map.reach(table.values)
        map_ = graph_objects.Heatmap(
            z=table.values, x=table.columns, y=table.rows, colorscale="RdBu", zmid=0, zmin=-reach, zmax=reach
        )
        figure = graph_objects.Figure(map_)
        figure.update_layout(
            title=f"{self.kind}: {self.method}, {self.direction}",
            xaxis={"title": table.column_axis, "type": "category"},
            yaxis={"title": table.row_axis, "type": "category", "autorange": "reversed"},
        )
        return figure

    def report(self, path: str | os.PathLike[str]) -> None:
        """Writes a report: one HTML file, which needs no network.

        Parameters
        ----------
        path : path
            The file. It is written whole, or stays unchanged on an error.
        """
        names = ("method", "direction", "normalized", "metric", "kind", "per_prompt", "lengths", "nodes")
        parts = {name: getattr(self, name) for name in names}
        parts["clean"] = self.clean.tolist()
        parts["corrupted"] = self.corrupted.tolist()
        if self.kind in ("edges", "head_edges"):
            raise RewireError("report draws nodes; display the effects of edges in a notebook, or use to_pandas()")
        _rewire.report(parts, os.fspath(path))

    def _repr_html_(self) -> str:
        return _heat_map.html(self)


def _need(module: str, method: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.split(".")[0]
        raise RewireError(f"{method}() needs {package}, which is not installed: pip install {package}") from None


def from_native(found: dict[str, Any], model: str, tokens: list[list[str]]) -> list[Effects]:
    """Makes effects of the dictionary of the native module."""
    shared = {name: found[name] for name in ("method", "direction", "metric", "unit", "normalized")}
    shared.update(
        clean=np.asarray(found["clean"], dtype=np.float32),
        corrupted=np.asarray(found["corrupted"], dtype=np.float32),
        warnings=tuple(found["warnings"]),
        model=model,
    )
    effects = []
    for of_kind in found["effects"]:
        axes = tuple(axis for axis in of_kind["axes"] if axis != "prompt")
        labels = of_kind.get("labels") or {
            axis: _labels(axis, size, of_kind["nodes"], tokens) for axis, size in zip(axes, of_kind["values"].shape)
        }
        details = {**found.get("details", {}), **of_kind.get("details", {})}
        own = {name: of_kind[name] for name in ("values", "per_prompt", "kind", "lengths", "nodes")}
        effects.append(Effects(axes=axes, labels=labels, details=details, **own, **shared))
    return effects


def with_details(effects: Effects, **details: Any) -> Effects:
    """Returns the same effects with further details."""
    return replace(effects, details={**effects.details, **details})


def _labels(axis: str, size: int, nodes: list[str], tokens: list[list[str]]) -> list[str]:
    if axis == "node":
        return nodes
    if axis == "input":
        return list(INPUTS)
    if axis.split("_")[0] in PREFIXES:
        return [f"{PREFIXES[axis.split('_')[0]]}{i}" for i in range(size)]

    def label(place: int) -> str:
        here = {prompt[place] for prompt in tokens if place < len(prompt)}
        return f"{place} {here.pop()}" if len(here) == 1 else str(place)

    return [label(place) for place in range(size)]
