"""Carrying out a rollout: begin a step by writing its demand down, wait until it is true, go on.

Rule 1: this is the only writer of a rollout's record.
Rule 2: a step that failed and the turning back it causes are one transaction; from then on only the way
back exists.
Rule 3: there is nothing to redo after a crash: the runner looks up which step had begun, and waits for it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from segue.core import demand as demands
from segue.core import strategies, verdict
from segue.core.demand import Demand
from segue.core.release import NOTHING, Return, version_of
from segue.core.steps import Plan, Run, Shift, decision
from segue.core.verdict import Basis, Judgement
from segue.engine.clock import Clock
from segue.engine.journal import Journal
from segue.engine.keeper import Keeper
from segue.engine.perform import Performer, Setback, Work
from segue.engine.records import RolloutRecord
from segue.engine.watch import Watch
from segue.errors import StartFailed

LOOK_EVERY = 1.0
"""Seconds between two looks at the evidence."""


class Runner:
    """Carries out the rollout `record`, from wherever the journal says it stands."""

    def __init__(
        self, record: RolloutRecord, *, keeper: Keeper, watch: Watch, journal: Journal, clock: Clock, work: Work
    ) -> None:
        self.record, self.watch = record, watch
        self.decided = asyncio.Event()
        self._keeper, self._journal, self._clock, self._work = keeper, journal, clock, work
        self._performer = Performer(keeper, watch, clock, work, self._tell, self._against)
        self._asked: Setback | None = None
        self._alarm: Judgement | None = None
        self._judged: Judgement | None = None

    def turn(self, setback: Setback) -> None:
        """Turn back as soon as possible. After the decision it is too late, and nothing happens."""
        if self._asked is None and self.record.decided is None and self.record.turned is None:
            self._asked = setback
            self._keeper.bell.ring()

    async def run(self) -> None:
        """Carry the rollout out to its end."""
        self._keeper.rollout = self.record.id
        watching = asyncio.create_task(self._look_out())
        try:
            if self.record.decided is None:
                await self._decide()
            elif not self._told_end():
                self._tell_finished()
            await self._tidy_up()
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        await self.watch.look()
        self._end()

    async def _decide(self) -> None:
        self._keeper.trial = self.record.trial
        if self.record.turned is None:
            try:
                await self._go_there()
                return
            except Setback as setback:
                if self.record.turned is None:  # nothing had begun yet: there is no step to end
                    self._turn_back(setback)
        await self._go_back()

    def _against(self) -> Setback | None:
        """What speaks against going on, if anything does; on a way back nothing does."""
        if self.record.turned is not None:
            return None
        if self._asked is not None:
            return self._asked
        if self._alarm is not None:
            return Setback(self._alarm.reason, judgement=self._alarm)
        if self._journal.disk_full and self._brings_something_new:
            return Setback("the disk is full")
        if (new := self.record.new) is None:
            return None
        if broken := self._keeper.fleet.broken(new):
            return Setback(broken.trouble, broken.log)
        lost = self._keeper.lost(new) if self.record.release else None
        return Setback(lost) if lost else None

    @property
    def _brings_something_new(self) -> bool:
        """Whether it can be done without: a way to what has served, or to fewer instances, must not want for room."""
        return self.record.release is not None and not isinstance(self.record.release.strategy, Return)

    async def _look_out(self) -> None:
        """Count all the time; while a version is on trial, judge as well."""
        while True:
            await self.watch.look()
            judgement = self.watch.judgement()
            if judgement.alarm and self.record.decided is None and self.record.trial is not None:
                self._alarm = judgement
                self._keeper.bell.ring()
            await self._clock.sleep(LOOK_EVERY)

    # There

    async def _go_there(self) -> None:
        if not self._journal.steps(self.record.id):
            await self._prepare()
        await self._walk(decision(self.record.plan))
        self._succeed()

    async def _prepare(self) -> None:
        try:
            await self._performer.until(self._work.prepare(self.record))
        except StartFailed as error:
            raise Setback(error.message, error.log) from error
        start = self.record.start
        self._journal.set_demand(self.record.service, start)
        self._keeper.want(start)
        await self._performer.until(self._keeper.tidy(lambda member: start.count(member.revision) > 0))

    async def _walk(self, end: int) -> None:
        """Perform the steps up to the `end`-th that are not yet done. Raises Setback."""
        begun = {step.number: step for step in self._journal.steps(self.record.id) if step.way == self.record.way}
        before = self.record.origin
        for number, step in enumerate(self.record.steps[:end], 1):
            demand = before.after(step)
            known = begun.get(number)
            if known is None or known.ended is None:
                began = known.began if known else await self._begin(number, demand)
                await self._perform(number, before, demand, began)
            before = demand

    async def _begin(self, number: int, demand: Demand) -> datetime:
        step = self.record.steps[number - 1]
        if isinstance(step, Shift) and self.record.turned is None and self.record.trial is not None:
            await self.watch.shifting()
        with self._journal.transaction():
            self._journal.begin(self.record, number, demand)
            self._tell("began", **self._named(number), demand=demands.encode(demand))
        return self._clock.now()

    async def _perform(self, number: int, before: Demand, demand: Demand, began: datetime) -> None:
        self._keeper.want(demand)
        try:
            judged = await self._performer.perform(self.record, number, before, began)
        except Setback as setback:
            if self.record.turned is None:
                self._turn_back(setback, number)
                raise
            if not isinstance(self.record.steps[number - 1], Run):
                raise
            self._degrade(setback.reason)
            judged = None
        self._judged = judged or self._judged
        with self._journal.transaction():
            self._journal.end(self.record, number, "done", _encoded(judged))
            self._tell_end(number, "done", judged, (self._clock.now() - began) / timedelta(seconds=1))

    # Back

    def _turn_back(self, setback: Setback, number: int | None = None) -> None:
        """From now on only the way back exists; `number` is the step that is under way, if one is."""
        at = self._keeper.demand
        back = self._way_back(at) if number else ()
        outcome = "cut short" if setback.person or setback.replaced else "failed"
        with self._journal.transaction():
            if number:
                self._journal.end(self.record, number, outcome, _encoded(setback.judgement))
                self._tell_end(number, outcome, setback.judgement, None, setback.reason)
            record = replace(self.record, replaced=setback.replaced, basis=_basis(setback))
            self.record = self._journal.turn_back(record, back, at, setback.reason, setback.log)
            self._tell("turned_back", reason=setback.reason, steps=[str(step) for step in back])

    def _way_back(self, at: Demand) -> Plan:
        if self.record.release is not None:
            return strategies.back(self.record.release, at)
        version = self.record.new
        return strategies.adjust(version, self.record.start.count(version)) if version else ()

    async def _go_back(self) -> None:
        back, asked = self.record.back, self.record.basis == Basis.PERSON or self.record.replaced
        walked = decision(back) if asked else len(back)  # refused: what was started is gone
        try:
            await self._walk(walked)
        except Setback as setback:
            reason = f"{self.record.turned}; and the way back failed: {setback.reason}"
            self._degrade(reason)
            self._finish("failed", 5, reason, self._keeper.demand)
            return
        outcome = "superseded" if self.record.replaced else "rolled_back"
        self._finish(outcome, 7 if asked else 1, self.record.turned or "", self._final(walked))

    # Ends

    def _succeed(self) -> None:
        stopped, judged = self.record.kind == "down", self._judged
        changes: dict[str, Any] = {"degraded": None}
        if stopped or self.record.release:
            changes["stable"] = None if stopped else self.record.new
        if self.record.route is not None:
            changes["route"] = self.record.route
        with self._journal.transaction():
            self._journal.change_service(self.record.service, **changes)
            self.record = replace(self.record, basis=(judged.basis if judged else Basis.HEALTH).value)
            reason = self._said(judged) if judged else self._plainly()
            self._finish("stopped" if stopped else "promoted", 0, reason, self._final())
        if self.record.route is not None:
            self._keeper.set_route(self.record.route)

    def _said(self, judged: Judgement) -> str:
        """What the last judgement says, and what the rollout went by where it rests on no request."""
        if judged.basis is not Basis.HEALTH or self.record.new is None:
            return judged.reason
        smoke = len(self._keeper.version(self.record.new).smoke)
        tests = f" and {smoke} smoke test{'' if smoke == 1 else 's'}" if smoke else ""
        return f"{judged.reason}: promoted on health{tests}"

    def _plainly(self) -> str:
        name, new = self.record.service, self.record.new
        match self.record.kind:
            case "down":
                return f"{name} is stopped"
            case "retire":
                return f"{self.record.old and version_of(self.record.old)} is no longer kept"
            case "scale" if new:
                return f"{name} has {self._keeper.demand.count(new)} instances"
        return f"{new and version_of(new)} serves {name}"

    def _final(self, walked: int = 0) -> Demand:
        """The demand at the decision, after `walked` steps: what is tidied up without waiting is in it already."""
        plan, demand = self.record.steps, self.record.origin
        for step in plan if not self._hooks_left else plan[: max(walked, decision(plan))]:
            demand = demand.after(step)
        demand = replace(demand, slack=NOTHING)
        release = self.record.release
        if self.record.turned is None and release and release.old and release.strategy.keep:
            until = self._clock.now() + release.strategy.keep
            return replace(demand, kept=release.old.revision, kept_until=until)
        return demand

    @property
    def _hooks_left(self) -> bool:
        """Whether a hook is to run after the decision, so that the steps until then must be waited for."""
        plan = self.record.steps
        return any(isinstance(step, Run) for step in plan[decision(plan) :])

    def _finish(self, outcome: str, exit: int, reason: str, demand: Demand) -> None:
        """The rollout is decided; what follows never changes how it ended."""
        now = self._clock.now()
        with self._journal.transaction():
            self._journal.set_demand(self.record.service, demand)
            self.record = replace(self.record, decided=now, outcome=outcome, exit=exit, reason=reason)
            self._journal.put_rollout(self.record)
            self._tell_finished()
        self._keeper.trial = None
        self._keeper.want(demand)
        self.decided.set()

    async def _tidy_up(self) -> None:
        """The steps after the decision that must be waited for; they change nothing of how it ended."""
        self.decided.set()
        if self._hooks_left and self.record.outcome != "failed":
            with suppress(Setback):
                await self._walk(len(self.record.steps))

    def _degrade(self, reason: str) -> None:
        """Say that the service needs somebody's attention."""
        self._journal.change_service(self.record.service, degraded=reason)
        self._tell("note", text=reason)

    def _end(self) -> None:
        self.record = replace(self.record, ended=self._clock.now())
        self._journal.put_rollout(self.record)
        self._journal.copy()
        self._keeper.bell.ring()

    # What clients are told

    def _tell(self, event: str, **body: Any) -> None:
        self._journal.tell(event, service=self.record.service, rollout=self.record.id, **body)

    def _tell_finished(self) -> None:
        record = self.record
        assert record.decided is not None
        self._tell(
            "finished",
            outcome=record.outcome,
            basis=record.basis,
            reason=record.reason,
            exit=record.exit,
            seconds=round((record.decided - record.started).total_seconds(), 3),
            log=list(record.log),
        )

    def _told_end(self) -> bool:
        """Whether clients were told the end: events are another file, which a crash may leave a commit behind."""
        after = 0
        while events := self._journal.events(after, rollout=self.record.id):
            if any(event.event == "finished" for event in events):
                return True
            after = events[-1].seq
        return False

    def _named(self, number: int) -> dict[str, Any]:
        steps = self.record.steps
        return {"step": number, "of": len(steps), "text": str(steps[number - 1]), "way": self.record.way}

    def _tell_end(
        self, number: int, outcome: str, judged: Judgement | None, seconds: float | None, detail: str | None = None
    ) -> None:
        self._tell(
            "ended",
            **self._named(number),
            outcome=outcome,
            verdict=judged and judged.verdict.value,
            detail=detail or (judged and judged.reason),
            seconds=seconds and round(seconds, 3),
        )


def _encoded(judgement: Judgement | None) -> dict[str, Any] | None:
    return None if judgement is None else verdict.encode(judgement)


def _basis(setback: Setback) -> str:
    if setback.person:
        return Basis.PERSON.value
    return (Basis.EVIDENCE if setback.judgement else Basis.HEALTH).value
