"""The arguments that all analyses share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from . import _progress
from ._effects import Effects, from_native
from ._errors import ArgumentError, RewireWarning
from ._model import Model
from ._pairs import Pairs
from ._progress import Progress

Metric = Union[str, Callable[[NDArray[np.float32], list[int]], Any]]
"""The name of a metric, or a function of logits ``[row, d_vocab]`` and the pair of each row."""

Nodes = Union[str, Sequence[str]]


class Asked:
    """The arguments that all analyses share."""

    def __init__(
        self,
        model: Model,
        pairs: Pairs,
        metric: Metric = "logit-diff-normalized",
        direction: str = "denoising",
        metric_position: int | str = -1,
        normalized: bool = False,
        prompt_batch: int | None = None,
        progress: Progress = True,
        backward: str = "gradient",
    ) -> None:
        if prompt_batch is not None and prompt_batch < 1:
            raise ArgumentError(f"prompt_batch is {prompt_batch}; it must be at least 1")
        native = pairs.for_model(model, metric)
        for warning in native.warnings():
            warnings.warn(warning, RewireWarning, stacklevel=3)
        self._model = model.name
        self._progress = progress
        self._tokens = native.labels()
        self._asked = {
            "model": model._native,
            "pairs": native,
            "metric": metric,
            "normalized": normalized,
            "metric_position": str(metric_position),
            "direction": direction,
            "backward": backward,
            "prompt_batch": prompt_batch,
            "workers": _progress.workers(),
        }

    def named(self, found: dict[str, Any]) -> Effects:
        """Makes the effects of a further result of the native module."""
        (effects, *_) = from_native(found, self._model, self._tokens)
        return effects

    def run(self, name: str, method: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
        """Runs a native analysis under a progress bar."""
        with _progress.shown(self._progress, name) as progress:
            return method({**self._asked, "progress": progress}, *arguments)

    def kinds(
        self, name: str, method: Callable[..., dict[str, Any]], *arguments: Any, stacklevel: int = 3
    ) -> list[Effects]:
        """Runs a native analysis and returns the effects of each kind of node."""
        found = from_native(self.run(name, method, *arguments), self._model, self._tokens)
        for warning in found[0].warnings:
            warnings.warn(warning, RewireWarning, stacklevel=stacklevel)
        return found

    def effects(self, name: str, method: Callable[..., dict[str, Any]], *arguments: Any) -> Effects:
        """Runs a native analysis of one kind of node, or of a list of nodes."""
        (effects,) = self.kinds(name, method, *arguments, stacklevel=4)
        return effects


def one_kind(nodes: Nodes) -> list[str]:
    """Returns the names of nodes, of which at most one is a kind."""
    names = [nodes] if isinstance(nodes, str) else list(nodes)
    kinds = [name for name in names if ":" not in name and "." not in name and not name[:1] == "L"]
    if len(kinds) > 1:
        raise ArgumentError(
            f"nodes names the kinds {kinds[0]} and {kinds[1]}, and this function takes one kind per call; "
            "rewire.sweep takes several"
        )
    return names
