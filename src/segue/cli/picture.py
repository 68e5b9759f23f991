"""What is known of a rollout, put together from its events. Pure: the views print it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from segue.errors import NeedsPerson

Event = Mapping[str, Any]


@dataclass
class Line:
    """One step of the plan. `state`: waiting, running, done, failed or ``cut short``."""

    text: str
    state: str = "waiting"
    seconds: float | None = None
    verdict: str | None = None
    basis: str | None = None
    detail: str | None = None


@dataclass
class Copy:
    """One instance as its last event told it."""

    state: str
    detail: str | None = None


@dataclass
class Picture:
    """A rollout as far as its events tell it. `back` is there once it was turned back.

    `hold` is what a person is asked, if one is, and `until` when it goes back by itself. `paused`: no further step
    begins. `hook`: how the hook of the step that runs has failed. `degraded`: how the last hook of all has.
    """

    service: str = ""
    kind: str = "deploy"
    strategy: str = ""
    old: str | None = None
    new: str | None = None
    began: datetime | None = None
    latest: datetime | None = None
    preparing: str | None = None
    there: list[Line] = field(default_factory=list)
    back: list[Line] | None = None
    shares: dict[str, float] = field(default_factory=dict)
    instances: dict[str, Copy] = field(default_factory=dict)
    judging: str | None = None
    hold: str | None = None
    until: str | None = None
    paused: bool = False
    turned: str | None = None
    notes: list[str] = field(default_factory=list)
    hook: str | None = None
    degraded: str | None = None
    finished: Event | None = None

    @property
    def way(self) -> list[Line]:
        """The steps of the plan that is being carried out."""
        return self.there if self.back is None else self.back

    def seen(self, event: Event) -> Event:
        """The next event as it is shown: a hook after which a rollout goes on has failed all the same.

        After the last hook there is nothing to go back to: a person is needed, so the rollout ends with 5.
        """
        match event["event"]:
            case "ended" if self.hook:
                return {**event, "outcome": "failed", "detail": event.get("detail") or self.hook}
            case "finished" if self.degraded and event["exit"] == 0:
                return {**event, "exit": NeedsPerson.exit, "reason": f"{self.degraded}: {self.service} is degraded"}
        return event

    def add(self, event: Event) -> None:
        """Take in the next event; kinds that are not known are left out."""
        moment = datetime.fromisoformat(event["at"])
        self.began = self.began or moment
        self.latest = moment
        self.service = event.get("service") or self.service
        take = getattr(self, f"_{event['event']}", None)
        if take is not None:
            take(event)

    def _accepted(self, event: Event) -> None:
        self.kind = event.get("kind") or self.kind
        self.strategy = event.get("strategy") or ""
        self.old, self.new = event.get("from"), event.get("to")

    def _preparing(self, event: Event) -> None:
        self.preparing = event["text"]

    def _planned(self, event: Event) -> None:
        self.preparing = None
        self.there = [Line(text) for text in event["steps"]]
        self.notes += event.get("notes") or []

    def _turned_back(self, event: Event) -> None:
        self.turned = event["reason"]
        for line in self.there:
            if line.state == "running":
                line.state = "cut short"
        self.back = [Line(text) for text in event["steps"]]
        self._freed()

    def _began(self, event: Event) -> None:
        self.preparing = self.judging = None
        self._line(event).state = "running"

    def _ended(self, event: Event) -> None:
        line = self._line(event)
        line.state, line.seconds = event["outcome"], event.get("seconds")
        line.verdict, line.basis, line.detail = event.get("verdict"), event.get("basis"), event.get("detail")
        self.judging = self.hook = None

    def _line(self, event: Event) -> Line:
        """The step that the event is about; a plan that was never told is made up from its steps."""
        while len(self.way) < max(event["step"], event.get("of") or 0):
            self.way.append(Line("…"))
        line: Line = self.way[event["step"] - 1]
        line.text = event["text"]
        return line

    def _instance(self, event: Event) -> None:
        self.instances[event["instance"]] = Copy(event["state"], event.get("detail"))

    def _traffic(self, event: Event) -> None:
        self.shares = dict(event["shares"])

    def _judging(self, event: Event) -> None:
        self.judging = event["text"]

    def _holding(self, event: Event) -> None:
        self.hold, self.until = event["text"], event.get("until")
        self.judging = None

    def _went_on(self, event: Event) -> None:
        self._freed()

    def _paused(self, event: Event) -> None:
        self.paused = True

    def _resumed(self, event: Event) -> None:
        self.paused = False

    def _freed(self) -> None:
        """Nobody is asked any more, and nothing is waited for."""
        self.hold = self.until = self.judging = None
        self.paused = False

    def _hook(self, event: Event) -> None:
        name, status = event["hook"], event.get("status")
        self.preparing = f"the {name} hook runs" if event["state"] == "began" else None
        self.hook = f"the {name} hook exited with status {status}" if status else None
        self.degraded = self.hook if name == "after" else self.degraded

    def _note(self, event: Event) -> None:
        self.notes.append(event["text"])

    def _finished(self, event: Event) -> None:
        self.preparing = None
        self._freed()
        self.finished = event
