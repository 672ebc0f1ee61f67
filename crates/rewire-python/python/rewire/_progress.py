"""Progress of long analyses, by tqdm where it is installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Union

Progress = Union[bool, Callable[[int, int], object]]
"""True for tqdm, False for nothing, or a function of the patches done and of all patches."""


@contextmanager
def shown(progress: Progress, name: str) -> Iterator[Callable[[int, int], object] | None]:
    """Gives the function that the native module calls, or None."""
    if callable(progress):
        yield progress
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        yield None
        return
    if not progress:
        yield None
        return
    with tqdm(desc=name, unit="patch", leave=False, disable=None) as bar:

        def update(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        yield update


def workers() -> int | None:
    """The number of threads that ``RAYON_NUM_THREADS`` allows, or None for all cores."""
    limit = os.environ.get("RAYON_NUM_THREADS", "")
    return int(limit) if limit.isdigit() and int(limit) > 0 else None
