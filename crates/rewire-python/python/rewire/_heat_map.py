"""A heat map as HTML that needs no script and no network, for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ._effects import Effects

MOST_CELLS = 20_000
CELL = 16


class Table(NamedTuple):
    """Effects as a matrix: the last axis in columns, all other axes in rows."""

    values: NDArray[np.float32]
    row_axis: str
    column_axis: str
    rows: list[str]
    columns: list[str]


def table(effects: Effects) -> Table:
    """Folds all axes but the last into rows."""
    values, axes = effects.values, effects.axes
    if values.ndim == 1:
        return Table(values.reshape(-1, 1), axes[0], "", effects.labels[axes[0]], [""])
    rows = [""]
    for axis in axes[:-1]:
        rows = [f"{row} {label}".strip() for row in rows for label in effects.labels[axis]]
    columns = effects.labels[axes[-1]]
    return Table(values.reshape(len(rows), len(columns)), " ".join(axes[:-1]), axes[-1], rows, columns)


def reach(values: NDArray[np.float32]) -> float:
    """The size of effect that has the full color."""
    return float(np.nanmax(np.abs(values), initial=0.0)) or 1.0


def html(effects: Effects) -> str:
    """Draws effects: blue above 0, red below 0, and the nodes of largest effect beside them."""
    clean, corrupted = effects.baselines
    head = (
        f"<b>{escape(effects.kind)}</b>: {escape(effects.method)}, {escape(effects.direction)}, "
        f"{escape(effects.unit)}<br>{escape(effects.metric)}: clean {clean:.4g}, corrupted {corrupted:.4g}"
    )
    notes = "".join(f"<br>Warning: {escape(warning)}" for warning in effects.warnings)
    rows = "".join(
        f"<tr><td style='text-align:left'>{escape(node)}</td><td>{effect:+.4f}</td></tr>"
        for node, effect in effects.top(10)
    )
    top = f"<table><tr><th>node</th><th>effect</th></tr>{rows}</table>"
    folded = table(effects)
    drawn = _svg(folded) if folded.values.size <= MOST_CELLS else ""
    return f"<div>{head}{notes}<div style='display:flex;gap:1.5em;align-items:flex-start'>{drawn}{top}</div></div>"


def _svg(of: Table) -> str:
    left = 8 + 7 * max((len(row) for row in of.rows), default=0)
    top = 8 + 7 * max((len(column) for column in of.columns), default=0)
    width, height = left + CELL * len(of.columns) + 4, top + CELL * len(of.rows) + 4
    limit = reach(of.values)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
        "font-family='monospace' font-size='11' fill='currentColor'>"
    ]
    for i, column in enumerate(of.columns):
        x = left + CELL * i + 12
        parts.append(f"<text transform='translate({x},{top - 4}) rotate(-90)'>{escape(column)}</text>")
    for i, row in enumerate(of.rows):
        y = top + CELL * i
        parts.append(f"<text x='{left - 4}' y='{y + 12}' text-anchor='end'>{escape(row)}</text>")
        for j, value in enumerate(of.values[i]):
            title = escape(f"{row} {of.columns[j]}: {value:.4f}")
            parts.append(
                f"<rect x='{left + CELL * j}' y='{y}' width='{CELL - 1}' height='{CELL - 1}' "
                f"fill='{_color(float(value) / limit)}'><title>{title}</title></rect>"
            )
    parts.append("</svg>")
    return "".join(parts)


def escape(text: str) -> str:
    """Returns text for HTML. The module html takes longer to import than all of this package."""
    for character, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#x27;"), ('"', "&quot;")):
        text = text.replace(character, name)
    return text


def _color(share: float) -> str:
    if np.isnan(share):
        return "#cccccc"
    share = max(-1.0, min(1.0, share))
    end = (33, 102, 172) if share > 0 else (178, 24, 43)
    mixed = (round(247 + (channel - 247) * abs(share)) for channel in end)
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
