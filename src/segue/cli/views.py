"""The three ways to show a rollout: live on a terminal, a line a step, JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol, Self

from segue.cli import text
from segue.cli.context import Context
from segue.cli.picture import Event, Picture
from segue.cli.status import local
from segue.cli.text import paint, plain, words
from segue.cli.trouble import sentence
from segue.core.quantities import count

_JUDGING_EVERY = 30.0
"""Seconds between two lines about one judgement: a log needs fewer than a terminal."""

MARKS = {"done": "✓", "failed": "✗", "cut short": "–", "running": "▸", "waiting": "·"}
COLOURS = {"done": "green", "failed": "red", "cut short": "yellow", "running": "cyan", "waiting": "dim"}


class View(Protocol):
    """Shows a rollout while it goes on. `event` is what happened last, or None: time has passed."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, picture: Picture, event: Event | None) -> None:
        """Show what is known now; with a `finished` event also how it ended."""
        ...

    def leave(self, sentence: str, *, held: bool) -> None:
        """Say why the client leaves; `held`: because a person is asked, as the picture shows."""
        ...


def view_for(context: Context) -> View:
    """The view that suits what is printed to."""
    if context.json:
        return JsonLines(context)
    if sys.stdout.isatty() and text.colourful(sys.stdout):
        from segue.cli.live import Live

        return Live()
    return Lines()


class JsonLines:
    """Every event as one JSON object on a line."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, picture: Picture, event: Event | None) -> None:
        """Print the event."""
        if event is not None:
            self._context.print(event)

    def leave(self, sentence: str, *, held: bool) -> None:
        """Nothing: the last event says it."""


class Lines:
    """One plain line a step, for logs and pipes."""

    def __init__(self) -> None:
        self._judged = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, picture: Picture, event: Event | None) -> None:
        """Print the lines that the event is worth."""
        if event is None:
            return
        for line in self.lines(picture, event):
            print(line, flush=True)

    def leave(self, sentence: str, *, held: bool) -> None:
        """Print one sentence. That about a hold stands there since it began."""
        if not held:
            print(sentence, file=sys.stderr)

    def lines(self, picture: Picture, event: Event) -> Iterator[str]:
        """The lines that the event is worth."""
        match event["event"]:
            case "accepted":
                yield f"{header(picture)}  ({event['rollout']})"
            case "preparing":
                yield f"  {plain(event['text'])}"
            case "planned":
                yield f"  {count(len(event['steps']), 'step')}, at most {count(event['peak'], 'instance')}"
                yield from (f"  note: {plain(note)}" for note in event.get("notes") or [])
            case "ended":
                yield ended(event)
            case "judging":
                yield from self._judging(event)
            case "instance" if event.get("detail") and event["state"] in ("unready", "draining", "stopped"):
                yield f"  {event['instance']} is {event['state']}: {plain(event['detail'])}"
            case "holding" | "went_on" | "paused" | "resumed":
                yield _asked_and_answered(picture, event)
            case "turned_back":
                yield f"  turned back: {plain(event['reason'])}"
            case "hook":
                yield f"  {event['hook']} hook {event['state']}" + _with_status(event)
            case "note":
                yield f"  note: {plain(event['text'])}"
            case "finished":
                yield ending({**names(picture), **event})

    def _judging(self, event: Event) -> Iterator[str]:
        now = time.monotonic()
        self._judged = self._judged or now
        if now - self._judged >= _JUDGING_EVERY:
            self._judged = now
            yield f"  judging: {plain(event['text'])}"


def header(picture: Picture) -> str:
    """Which service, from where to where, how."""
    way = f"{picture.old or 'nothing'} → {picture.new or 'nothing'}" if picture.old or picture.new else ""
    return "  ".join(part for part in (picture.service, way, words(picture.strategy or picture.kind)) if part)


def ended(event: Event) -> str:
    """The line about a step that has ended."""
    width = len(str(event["of"]))
    verdict = f"  {event['verdict']}" if event.get("verdict") else ""
    took = f"  {text.seconds(event['seconds'])}" if event.get("seconds") is not None else ""
    detail = f"  {plain(event['detail'])}" if event.get("detail") else ""
    mark = MARKS.get(event["outcome"], "?")
    return f"  [{event['step']:>{width}}/{event['of']}] {mark} {event['text']}{verdict}{took}{detail}"


def names(picture: Picture) -> dict[str, Any]:
    """What the picture knows of the rollout as a whole, as the rollout's document has it."""
    judged = any(line.verdict for line in picture.way)
    versions = {"from": picture.old, "to": picture.new}
    return {"service": picture.service, "kind": picture.kind, "judged": judged, **versions}


def ending(rollout: Event, *, on: bool = False) -> str:
    """How a rollout ended: a sentence, and if it did not go well the reason, the last words, the next command."""
    good = rollout["exit"] == 0
    lines = [paint(f"{'✓' if good else '✗'} {_sentence(rollout)}", "green" if good else "red", on)]
    if rollout.get("reason") and (not good or (rollout.get("judged") and rollout.get("basis") == "health")):
        lines.append(f"  {'Why' if good else 'Reason'}: {plain(rollout['reason'])}")
    if rollout.get("log") and not good:
        lines.append("  The instance's last lines:")
        lines += (paint(f"    | {plain(line)}", "dim", on) for line in rollout["log"])
    if not good:
        lines.append(f"  Next: {_next(rollout)}")
    return "\n".join(lines)


def _sentence(rollout: Event) -> str:
    service, old, new = rollout.get("service") or "the service", rollout.get("from"), rollout.get("to")
    took = f"after {text.seconds(rollout.get('seconds') or 0)}"
    rest = f"{old} serves as before" if old else "nothing serves"
    match rollout["outcome"], rollout["exit"]:
        case "promoted" | "stopped", 0:
            return _success(rollout.get("kind") or "deploy", service, new, took)
        case "promoted", 5:
            return f"{service}: the old version is stopped, but the after hook has failed, {took}."
        case _, 5:
            return f"{service}: the way back from {new} was not completed; traffic is on what works, {took}."
        case "rolled_back" | "superseded", 7:
            how = "replaced by a newer deploy" if rollout["outcome"] == "superseded" else "turned back by hand"
            return f"{service}: {new} was {how}; {rest}, {took}."
        case "rolled_back" | "failed", _:
            return f"{service}: {new} was refused; {rest}, {took}."
        case outcome, _:
            return f"{service}: the rollout of {new} has ended: {words(outcome)}, {took}."


def _success(kind: str, service: str, new: str | None, took: str) -> str:
    match kind:
        case "scale":
            return f"{service} has its new size, {took}."
        case "restart":
            return f"{service} runs in fresh instances of {new}, {took}."
        case "retire":
            return f"{service}: the old version is stopped, {took}."
        case "down":
            return f"{service} is stopped, {took}."
        case _:
            return f"{service}: {new} serves all traffic, {took}."


def _next(rollout: Event) -> str:
    if rollout["exit"] == 5:
        return "segue status"
    return f"segue report {rollout['rollout']}" if rollout.get("rollout") else "segue report"


def _asked_and_answered(picture: Picture, event: Event) -> str:
    """The line about what a person is asked, or has said."""
    said = plain(event.get("text") or event["event"])
    match event["event"]:
        case "holding":
            return held(picture)
        case "went_on":
            return f"  went on: {said}"
        case "paused":
            return f"  {said}. Next: segue resume, or segue rollback"
    return f"  {said}"


def held(picture: Picture) -> str:
    """What a person is asked, for how long, and how to answer."""
    until = f", at most until {local(picture.until, seconds=False)}" if picture.until else ""
    return f"Held: {sentence(plain(picture.hold or ''))} The rollout stays{until}. Next: {TO_ANSWER}"


TO_ANSWER = "segue promote, or segue rollback"


def detached(picture: Picture, rollout: str, why: str) -> str:
    """What one is told who leaves a rollout that is not decided."""
    if picture.hold:
        return f"Detached ({why}): the rollout stays held. Next: {TO_ANSWER}"
    if picture.paused:
        return f"Detached ({why}): the rollout stays paused. Next: segue resume, or segue rollback"
    return f"Detached ({why}): the rollout goes on. Next: segue wait {rollout}"


def _with_status(event: Event) -> str:
    return f" with status {event['status']}" if event.get("status") not in (None, 0) else ""
