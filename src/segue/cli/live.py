"""The live view of a rollout: a compact block that is redrawn in place, then the summary that stays."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from textwrap import wrap
from typing import Self

import rich.live
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from segue.cli import text
from segue.cli.picture import Event, Line, Picture
from segue.cli.status import local
from segue.cli.text import STATE_COLOURS, plain
from segue.cli.views import COLOURS, MARKS, TO_ANSWER, ending, header, names
from segue.core.quantities import count

_BAR = 24
_NARROW = 40
_BEFORE, _AFTER = 3, 3
"""How many steps are shown before and after the current one."""


class Live:
    """The view for terminals."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, emoji=False, markup=False)
        self._live = rich.live.Live(console=self._console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, picture: Picture, event: Event | None) -> None:
        """Draw the block again."""
        self._live.update(block(picture, datetime.now(UTC), self._console.width), refresh=True)
        if picture.finished is not None:
            self._live.stop()
            self._console.out(ending({**names(picture), **picture.finished}, on=True), highlight=False)

    def leave(self, sentence: str, *, held: bool) -> None:
        """Print one sentence under the block."""
        self._console.out(sentence, highlight=False)


def block(picture: Picture, now: datetime, width: int = 80) -> RenderableType:
    """The whole block for a terminal of this width: header, steps, shares with instances, what is judged."""
    return Group(*_parts(picture, now, width))


def _parts(picture: Picture, now: datetime, width: int) -> Iterator[RenderableType]:
    yield _header(picture, now)
    if picture.preparing:
        yield Text(f"  ▸ {plain(picture.preparing)}", style="cyan")
    if picture.turned:
        yield Text(f"  ↩ turned back: {plain(picture.turned)}", style="yellow")
    yield from _steps(picture)
    if picture.shares or picture.instances:
        yield _versions(picture)
        for instance, copy in picture.instances.items():
            if copy.state == "draining" and copy.detail:
                yield Text(f"  {instance}: {plain(copy.detail)}", style="dim")
    if picture.hold:
        until = f", at most until {local(picture.until, seconds=False)}" if picture.until else ""
        yield Text(f"  held: {plain(picture.hold)}{until}\n  Next: {TO_ANSWER}", style="yellow")
    if picture.paused:
        yield Text("  paused. Next: segue resume, or segue rollback", style="yellow")
    if picture.judging:
        yield _judging(picture.judging, width)


def _judging(said: str, width: int) -> Text:
    """What is judged, whole: what it waits for stands at its end.

    A line that fills the terminal would not do: the ``^C`` of who leaves would be a line more than we know of.
    """
    first = "  judging: "
    room = max(width, _NARROW) - len("^C")
    lines = wrap(plain(said), room, initial_indent=first, subsequent_indent=" " * len(first))
    return Text("\n".join(lines), style="cyan", no_wrap=True)


def _header(picture: Picture, now: datetime) -> Text:
    end = picture.latest if picture.finished is not None else now
    took = text.seconds(max(0.0, (end - picture.began).total_seconds())) if picture.began and end else ""
    service, _, rest = header(picture).partition("  ")
    return Text.assemble((service, "bold"), f"  {rest}  ", (took, "dim"))


def _steps(picture: Picture) -> Iterator[Text]:
    way = picture.way
    at = next((i for i, line in enumerate(way) if line.state in ("running", "waiting")), len(way))
    first, last = max(0, at - _BEFORE), min(len(way), at + _AFTER + 1)
    yield from _left_out(first, "before", "done")
    for number, line in enumerate(way[first:last], first + 1):
        yield _step(line, number, len(way))
        if line.verdict == "pass" and line.basis == "health" and line.detail:
            yield Text(f"      {plain(line.detail)}", style="yellow")
    yield from _left_out(len(way) - last, "to come", "waiting")


def _left_out(number: int, where: str, state: str) -> Iterator[Text]:
    if number:
        yield Text(f"  {MARKS[state]} {count(number, 'step')} {where}", style="dim")


def _step(line: Line, number: int, of: int) -> Text:
    took = f"  {text.seconds(line.seconds)}" if line.seconds is not None else ""
    more = f"  {plain(line.detail)}" if line.detail and line.state == "failed" else ""
    verdict = f"  {line.verdict}" if line.verdict else ""
    return Text.assemble(
        (f"  {MARKS.get(line.state, '?')} ", COLOURS.get(line.state, "")),
        (line.text, "bold" if line.state == "running" else "dim" if line.state == "waiting" else ""),
        (verdict, "green" if line.verdict == "pass" else "yellow"),
        (took, "dim"),
        (more, "red"),
        no_wrap=True,
        overflow="ellipsis",
    )


def _versions(picture: Picture) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    for revision in _revisions(picture):
        share = picture.shares.get(revision, 0.0)
        filled = round(share * _BAR)
        bar = Text.assemble(("█" * filled, "green"), ("░" * (_BAR - filled), "dim"))
        grid.add_row(Text(f"  {revision}"), bar, Text(f"{text.share(share):>5}"), _instances(picture, revision))
    return grid


def _revisions(picture: Picture) -> list[str]:
    """The revisions that have a share or an instance that is not gone, the old version first."""
    found = dict.fromkeys(_revision(picture, i) for i, copy in picture.instances.items() if copy.state != "stopped")
    return sorted(dict.fromkeys([*picture.shares, *found]), key=lambda r: (r.startswith(f"{picture.new}."), r))


def _revision(picture: Picture, instance: str) -> str:
    """``shop-v1.2-3`` is an instance of ``v1.2`` of ``shop``."""
    return instance.removeprefix(f"{picture.service}-").rpartition("-")[0]


def _instances(picture: Picture, revision: str) -> Text:
    counts: dict[str, int] = {}
    for instance, copy in picture.instances.items():
        if _revision(picture, instance) == revision and copy.state != "stopped":
            counts[copy.state] = counts.get(copy.state, 0) + 1
    if not counts and picture.shares.get(revision):  # nothing happened to them since the rollout began
        return Text("as before", style="dim")
    shown = Text(no_wrap=True, overflow="ellipsis")
    for state, number in counts.items():
        shown.append("●" * min(number, 12), STATE_COLOURS.get(state, ""))
        shown.append(f" {number} {state}  ")
    return shown
