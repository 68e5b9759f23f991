"""The record of one rollout: the only hand that writes it, and that tells clients of it.

Rule 1: a step that failed and the turning back it causes are one transaction, and so are a decision and the demand
that follows from it.
Rule 2: what a person says is written down before he is answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from segue.core import demand as demands
from segue.core import verdict
from segue.core.demand import Demand
from segue.core.steps import Plan
from segue.core.verdict import Basis, Judgement
from segue.engine.clock import Clock
from segue.engine.journal import Journal
from segue.engine.records import RolloutRecord, StepRecord
from segue.engine.setback import Setback


class Book:
    """The record of the rollout `record`, kept in `journal`."""

    def __init__(self, record: RolloutRecord, journal: Journal, clock: Clock) -> None:
        self.record = record
        self._journal, self._clock = journal, clock

    def together(self) -> AbstractContextManager[None]:
        """What is written inside is written together or not at all."""
        return self._journal.transaction()

    # Steps

    def begun(self) -> Mapping[int, StepRecord]:
        """The steps of the plan that is carried out which have begun, by number."""
        return {step.number: step for step in self._journal.steps(self.record.id) if step.way == self.record.way}

    @property
    def fresh(self) -> bool:
        """Whether no step has begun in either plan."""
        return not self._journal.steps(self.record.id)

    def start(self, demand: Demand) -> None:
        """What is demanded before the first step."""
        self._journal.set_demand(self.record.service, demand)

    def begin(self, number: int, demand: Demand) -> datetime:
        """The `number`-th step begins: from now on its demand is what must be true. Returns when."""
        with self.together():
            self._journal.begin(self.record, number, demand)
            self.tell("began", **self._named(number), demand=demands.encode(demand))
        return self._clock.now()

    def end(self, number: int, judged: Judgement | None, began: datetime) -> None:
        """The `number`-th step is true."""
        seconds = (self._clock.now() - began) / timedelta(seconds=1)
        with self.together():
            self._journal.end(self.record, number, "done", _encoded(judged))
            self._tell_end(number, "done", judged, seconds)

    # Ends

    def turn_back(self, setback: Setback, back: Plan, at: Demand, number: int | None) -> None:
        """From now on only the way `back` exists; `number` is the step that is under way, if one is."""
        outcome = "cut short" if setback.person or setback.replaced else "failed"
        with self.together():
            if number:
                self._journal.end(self.record, number, outcome, _encoded(setback.judgement))
                self._tell_end(number, outcome, setback.judgement, None, setback.reason)
            person = replace(self.record.person, asked=None, paused=False)
            record = replace(self.record, replaced=setback.replaced, basis=setback.basis.value, person=person)
            self.record = self._journal.turn_back(record, back, at, setback.reason, setback.log)
            self.tell("turned_back", reason=setback.reason, steps=[str(step) for step in back])

    def finish(self, outcome: str, exit: int, reason: str, demand: Demand, **changes: Any) -> None:
        """The rollout is decided, and `demand` is what must be true; what follows never changes how it ended.

        `changes` are made to the service's record.
        """
        with self.together():
            if changes:
                self._journal.change_service(self.record.service, **changes)
            self._journal.set_demand(self.record.service, demand)
            self.record = replace(self.record, decided=self._clock.now(), outcome=outcome, exit=exit, reason=reason)
            self._journal.put_rollout(self.record)
            self.tell_finished()

    def rest_on(self, basis: Basis) -> None:
        """What the decision rests on, written with it."""
        self.record = replace(self.record, basis=basis.value)

    def degrade(self, reason: str) -> None:
        """Say that the service needs somebody's attention."""
        self._journal.change_service(self.record.service, degraded=reason)
        self.tell("note", text=reason)

    def seal(self, hook: str) -> None:
        """Nothing older than the version that serves can be gone back to any more: `hook` begins."""
        sealed = {"hook": hook, "at": self._clock.now().isoformat(), "version": self.record.new}
        self._journal.change_service(self.record.service, sealed=sealed)

    def close(self) -> None:
        """The rollout has ended, with all that was to tidy up."""
        self.record = replace(self.record, ended=self._clock.now())
        self._journal.put_rollout(self.record)
        self._journal.copy(self.record.id)

    # What persons are asked, and say

    def ask(self, number: int, question: str) -> datetime:
        """Ask a person at the `number`-th step, once; returns since when the question stands."""
        person = self.record.person
        if person.asked is None or person.step != number or person.since is None:
            since = self._clock.now()
            until = since + self.record.answered_within
            with self.together():
                self._put(asked=question, step=number, since=since)
                self.tell("holding", step=number, text=question, until=until.isoformat())
            return since
        return person.since

    def let_pass(self, who: str, reason: str | None, *, full: bool) -> None:
        """A person lets the question pass; with `full` all that would still be judged and asked, too."""
        person = self.record.person
        step = person.step if person.asked is not None else person.passed
        with self.together():
            self._put(asked=None, passed=step, full=person.full or full, paused=False, who=who)
            how = ", without further judging" if full else ""
            self.tell("went_on", text=f"{who} promoted it{how}{f': {reason}' if reason else ''}")

    def pause(self, who: str, *, paused: bool) -> None:
        """No further step begins while it is paused."""
        with self.together():
            self._put(paused=paused)
            self.tell("paused" if paused else "resumed", text=f"{'paused' if paused else 'resumed'} by {who}")

    def _put(self, **changes: Any) -> None:
        self.record = replace(self.record, person=replace(self.record.person, **changes))
        self._journal.put_rollout(self.record)

    # What clients are told

    def tell(self, event: str, **body: Any) -> None:
        """Tell clients that something happened in this rollout."""
        self._journal.tell(event, service=self.record.service, rollout=self.record.id, **body)

    def tell_finished(self) -> None:
        """Tell how it was decided."""
        record = self.record
        assert record.decided is not None
        self.tell(
            "finished",
            kind=record.kind,
            **record.versions,
            outcome=record.outcome,
            basis=record.basis,
            reason=record.reason,
            exit=record.exit,
            seconds=round((record.decided - record.started).total_seconds(), 3),
            log=list(record.log),
        )

    def tell_once(self, event: str, **body: Any) -> None:
        """Tell clients, unless they were told before a restart."""
        if not self.told(event, **body):
            self.tell(event, **body)

    def told(self, event: str, **body: Any) -> bool:
        """Whether clients were told so: events are another file, which a crash may leave a commit behind."""
        told = (each.body for each in self._journal.all_events(self.record.id) if each.event == event)
        return any(body.items() <= each.items() for each in told)

    def _named(self, number: int) -> dict[str, Any]:
        steps = self.record.steps
        return {"step": number, "of": len(steps), "text": str(steps[number - 1]), "way": self.record.way}

    def _tell_end(
        self, number: int, outcome: str, judged: Judgement | None, seconds: float | None, detail: str | None = None
    ) -> None:
        self.tell(
            "ended",
            **self._named(number),
            outcome=outcome,
            verdict=judged and judged.verdict.value,
            basis=judged and judged.basis.value,
            detail=detail or (judged and judged.reason),
            seconds=seconds and round(seconds, 3),
        )


def _encoded(judgement: Judgement | None) -> dict[str, Any] | None:
    return None if judgement is None else verdict.encode(judgement)
