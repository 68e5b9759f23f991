"""`segue watch`: the status, live on a terminal; elsewhere every event as a line."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from segue.cli import text
from segue.cli.client import Absent, Broken
from segue.cli.context import Context, quote
from segue.cli.follow import stream
from segue.cli.picture import Event, Picture
from segue.cli.status import local, overview
from segue.cli.trouble import NothingYet
from segue.cli.views import Lines

_TICK = 1.0
_SOONEST = 0.2
"""Seconds between two looks at the status, however much happens."""
_LAST = 8
"""How many of the last events are shown under the status."""


def watch(context: Context) -> int:
    """Show what happens until Ctrl-C."""
    try:
        context.wake()
    except NothingYet:
        print(f"No service yet. Next: {context.first}", file=sys.stderr)
        return 0
    if context.json:
        for event in _events(context, None):
            if event is not None:
                context.print(event)
    elif sys.stdout.isatty() and text.colourful(sys.stdout):
        _live(context)
    else:
        for line in _Log().follow(_events(context, None)):
            print(line, flush=True)
    return 0


def _events(context: Context, tick: float | None) -> Iterator[Event | None]:
    path = "/v1/events" + (f"?service={quote(context.wanted)}" if context.wanted else "")
    return stream(context, path, None, tick, next="segue watch")


class _Log:
    """Events as lines, each with its time and service."""

    def __init__(self) -> None:
        self._pictures: dict[str, Picture] = {}
        self._lines = Lines()

    def follow(self, events: Iterator[Event | None]) -> Iterator[str]:
        """The lines that the events are worth, as they come."""
        for event in events:
            if event is not None:
                yield from self.lines(event)

    def lines(self, event: Event) -> Iterator[str]:
        """The lines that one event is worth."""
        picture = self._pictures.setdefault(str(event.get("rollout")), Picture())
        event = picture.seen(event)
        picture.add(event)
        service = event.get("service") or "-"
        before = f"{local(event['at'])}  {service}  "
        yield from (
            before + line.strip().removeprefix(f"{service}  ")
            for lines in self._lines.lines(picture, event)
            for line in lines.splitlines()
        )
        if event["event"] == "finished":
            del self._pictures[str(event.get("rollout"))]


def _live(context: Context) -> None:
    import rich.live
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, emoji=False, markup=False)
    log, last, looked = _Log(), deque[str](maxlen=_LAST), 0.0
    with rich.live.Live(console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        for event in _events(context, _TICK):
            if event is not None:
                last.extend(log.lines(event))
            if time.monotonic() - looked < _SOONEST:
                continue
            looked = time.monotonic()
            shown = "\n".join([_status(context), "", *last])
            live.update(Text.from_ansi(shown, no_wrap=True, overflow="ellipsis"), refresh=True)


def _status(context: Context) -> str:
    path = f"/v1/services/{quote(context.wanted)}" if context.wanted else "/v1/services"
    try:
        answer: Mapping[str, Any] = context.client.ask("GET", path)
    except (Absent, Broken):
        return "The control plane is away; the services go on without it."
    document = {"services": [answer]} if context.wanted else answer
    return overview(document, on=True) or f"No service yet. Next: {context.first}"
