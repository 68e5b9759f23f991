"""Text for terminals and logs: tables, times, colours. Pure but for `colourful`.

Rule: nothing is imported at the top that `segue status` cannot afford.
"""

from __future__ import annotations

import os

from segue.core.quantities import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
STATE_COLOURS = {
    "steady": "green",
    "ready": "green",
    "rolling_out": "cyan",
    "starting": "cyan",
    "holding": "yellow",
    "paused": "yellow",
    "rolling_back": "yellow",
    "unready": "yellow",
    "degraded": "red",
    "stopped": "dim",
    "draining": "dim",
    "promoted": "green",
    "rolled_back": "yellow",
    "failed": "red",
}


def colourful(stream: TextIO) -> bool:
    """Whether colours may be printed to `stream`."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def paint(text: str, style: str | None, on: bool) -> str:
    """`text` in `style` if colours are `on`."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if on and style else text


def table(rows: Sequence[Sequence[str]], styles: Sequence[Sequence[str | None]] = (), on: bool = False) -> str:
    """`rows` in columns; the first one is the heading. `styles` as the rows, without the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        style = styles[number - 1] if number and styles else ("dim",) * len(row) if not number else (None,) * len(row)
        last = len(row) - 1
        cells = (
            paint(cell, style[i], on) + ("" if i == last else " " * (widths[i] - len(cell)))
            for i, cell in enumerate(row)
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def plain(text: str) -> str:
    """`text` from elsewhere without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else " " if c in "\t\n" else "�" for c in text)


def words(name: str) -> str:
    """The name of a strategy, or of an outcome, as people say it."""
    return {"blue_green": "blue/green", "in_place": "in place", "rolled_back": "rolled back"}.get(name, name)


def share(value: float) -> str:
    """A share of the traffic as people write it: ``25%``, ``33.3%``."""
    return f"{value * 100:.3g}%"


def seconds(value: float) -> str:
    """A length of time: ``8 ms``, ``1.2 s``, ``3 min 20 s``, ``2 h 5 min``, ``14 days``."""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    return clock(value)
