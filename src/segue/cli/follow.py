"""Follow a rollout by its events until it is decided, also over restarts of the control plane."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from segue.cli.client import Absent, Broken
from segue.cli.context import Context, quote
from segue.cli.picture import Event, Picture
from segue.cli.trouble import INTERRUPTED, NothingYet
from segue.cli.views import View, detached, held, view_for
from segue.errors import Refused, SegueError, Unreachable

if TYPE_CHECKING:
    from segue.cli.cancel import Cancel

PATIENCE = 30.0
"""Seconds for which a control plane that went away is waited for: its guardian starts it again."""
HELD = 6
_TICK = 0.25
_PAUSE = 0.1


class Left(Exception):
    """The client stops following, for the reason `why`. `sentence` is what is said, if not that it detaches."""

    def __init__(self, why: str, exit: int, sentence: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.exit = exit
        self.sentence = sentence


def wait(context: Context, rollout: str | None = None, timeout: float | None = None) -> int:
    """Until the rollout (or the service's latest) is decided; returns the status of its deploy."""
    try:
        context.wake()
    except NothingYet:
        if rollout is not None:
            raise
        return _nothing(context, f"No service yet. Next: {context.first}")
    if rollout is None:
        latest = context.ask("GET", f"/v1/rollouts?service={quote(context.service())}&limit=1")["rollouts"]
        if not latest:
            return _nothing(context, f"{context.service()} has had no rollout yet: there is nothing to wait for.")
        rollout = str(latest[0]["rollout"])
    return int(show(context, rollout, timeout=timeout)["exit"])


def _nothing(context: Context, sentence: str) -> int:
    if context.json:
        context.print({"event": "finished", "rollout": None, "outcome": None, "reason": "nothing to wait for"})
    else:
        print(sentence)
    return 0


def show(
    context: Context,
    rollout: str,
    *,
    timeout: float | None = None,
    stay: bool | None = None,
    cancel: Cancel | None = None,
) -> dict[str, Any]:
    """Show the rollout until it is decided; returns its `finished` event.

    `stay`: whether to stay while it is held (None: on a terminal). One who leaves early is given a `finished` with
    the status to exit with. `cancel` takes the rollout back when the client is told to end; without it that goes on.
    """
    view, picture = view_for(context), Picture()
    stay = sys.stdout.isatty() if stay is None else stay
    try:
        if cancel:
            cancel.follows(rollout)
        with view, nullcontext() if cancel else _told_to_end():
            return _finished(
                context, rollout, view, picture, _until(events(context, rollout, tick=_TICK), timeout), stay
            )
    except KeyboardInterrupt:
        left = cancel.take_back() if cancel else Left("interrupted", INTERRUPTED)
    except Left as early:
        left = early
    return _leave(context, view, picture, rollout, left)


def finished(context: Context, rollout: str) -> dict[str, Any]:
    """The `finished` event of a rollout that is decided, shown to nobody."""
    picture = Picture()
    for event in events(context, rollout):
        if event is not None:
            picture.add(picture.seen(event))
    return dict(picture.finished or {})


def _finished(
    context: Context, rollout: str, view: View, picture: Picture, source: Iterator[Event | None], stay: bool
) -> dict[str, Any]:
    """Show what comes from `source`; its `finished` event. Raises Left where a person is asked who is not here."""
    for event in source:
        if event is not None:
            event = picture.seen(event)
            picture.add(event)
        view.show(picture, event)
        if picture.finished is not None:
            return dict(picture.finished)
        if event is None and picture.hold and not stay and _asks(context, picture.service, rollout):
            raise Left(picture.hold, HELD, held(picture))
    raise Unreachable(f"The account of rollout {rollout} ends without its end.", next=f"segue report {rollout}")


def _leave(context: Context, view: View, picture: Picture, rollout: str, left: Left) -> dict[str, Any]:
    holds = left.exit == HELD
    finished = {
        "event": "finished",
        "rollout": rollout,
        "outcome": "holding" if holds else None,
        "basis": None,
        "reason": left.why,
        "exit": left.exit,
    }
    if context.json:
        context.print(finished)
    else:
        view.leave(left.sentence or detached(picture, rollout, left.why), held=holds)
    return finished


def _asks(context: Context, service: str, rollout: str) -> bool:
    """Whether a person is asked at this moment: the events told so far may be old ones."""
    try:
        running = context.client.ask("GET", f"/v1/services/{quote(service)}")["rollout"]
    except (Absent, Broken):
        return False
    return running is not None and running["id"] == rollout and running.get("hold") is not None


def events(context: Context, rollout: str, *, tick: float | None = None) -> Iterator[Event | None]:
    """All events of a rollout, each once, to its end; None whenever nothing came for `tick` seconds.

    A broken connection is made again from the last event on. Raises Unreachable after `PATIENCE` without one, and
    Refused if the rollout is not known, or not any more.
    """
    told = False
    try:
        for event in stream(context, f"/v1/rollouts/{quote(rollout)}/events", 0, tick, next=f"segue wait {rollout}"):
            yield event
            told = told or event is not None
            if event is not None and event["event"] == "finished":
                return
    except SegueError as refused:
        if not told or refused.exit != Refused.exit:
            raise
        raise Refused(_FORGOTTEN.format(rollout=rollout), next="segue status") from refused


_FORGOTTEN = "the rollout {rollout} is no longer known: the journal was damaged, and its last copy is older."


def stream(
    context: Context, path: str, after: int | None, tick: float | None, *, next: str
) -> Iterator[Event | None]:
    """The events at `path` that follow number `after` (None: from now on), for ever. Otherwise as `events`."""
    lost: float | None = None
    while True:
        try:
            with context.client.open("GET", path if after is None else _after(path, after)) as body:
                for line in body.lines(tick):
                    event = json.loads(line) if line and line.strip() else None
                    if event is not None:
                        after, lost = max(after or 0, event["seq"]), None
                    yield event
        except (Absent, Broken):
            pass
        now = time.monotonic()
        lost = now if lost is None else lost
        if now - lost > PATIENCE:
            raise Unreachable(
                f"The control plane went away and did not come back within {PATIENCE:g} s; "
                "what it was doing goes on when it does.",
                next=next,
            )
        yield None
        time.sleep(_PAUSE)


def _after(path: str, seq: int) -> str:
    return f"{path}{'&' if '?' in path else '?'}after={seq}"


def _until(source: Iterator[Event | None], timeout: float | None) -> Iterator[Event | None]:
    deadline = None if timeout is None else time.monotonic() + timeout
    for event in source:
        yield event
        if deadline is not None and time.monotonic() >= deadline:
            raise Left(f"not decided within {timeout:g} s", INTERRUPTED)


class _told_to_end:  # noqa: N801
    """While this lasts SIGTERM is a KeyboardInterrupt: a CI system cancels with it."""

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGTERM, _interrupt)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
