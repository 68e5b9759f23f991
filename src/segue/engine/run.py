"""Carrying out a rollout: begin a step by writing its demand down, wait until it is true, go on.

Rule 1: this is the only writer of a rollout's record.
Rule 2: a step that failed and the turning back it causes are one transaction; from then on only the way
back exists.
Rule 3: nothing here starts, stops or routes: it writes demands, which the keeper makes true. So there is
nothing to redo after a crash: the runner looks up which step had begun and waits for it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from segue.core import demand as demands
from segue.core import strategies, verdict
from segue.core.demand import Demand
from segue.core.release import NOTHING, Return, Revision, version_of
from segue.core.steps import Check, Hold, Judge, Plan, Run, Scale, Shift, Step, decision
from segue.core.verdict import Basis, Judgement
from segue.engine.clock import Clock
from segue.engine.journal import Journal
from segue.engine.keeper import Keeper
from segue.engine.records import RolloutRecord, ServiceRecord
from segue.engine.watch import Watch
from segue.errors import RouterRefused, StartFailed

SHIFT_SECONDS, CHECK_SECONDS = 30.0, 120.0
"""How long a shift and the smoke tests may take before the step has failed."""


@dataclass(frozen=True, slots=True)
class Setback(Exception):
    """Why a rollout turns back. `replaced`: a newer deploy takes its place; `person`: somebody asked for it."""

    reason: str
    log: tuple[str, ...] = ()
    person: bool = False
    replaced: bool = False
    judgement: Judgement | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What a rollout needs done that is neither an instance nor traffic.

    `prepare` makes the new version's folder; `hook` runs a hook and returns its exit status and last output.
    """

    prepare: Callable[[RolloutRecord], Awaitable[None]]
    hook: Callable[[RolloutRecord, str], Awaitable[tuple[int, Sequence[str]]]]


class Runner:
    """Carries out the rollout `record`, from wherever the journal says it stands."""

    def __init__(
        self,
        record: RolloutRecord,
        *,
        keeper: Keeper,
        watch: Watch,
        journal: Journal,
        clock: Clock,
        work: Work,
        service: Callable[[], ServiceRecord],
    ) -> None:
        self.record = record
        self.decided = asyncio.Event()
        self._keeper, self.watch, self._journal, self._clock = keeper, watch, journal, clock
        self._work, self._service = work, service
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
        await self.watch.look()
        watching = asyncio.create_task(self._look_out())
        try:
            if self.record.decided is None:
                await self._decide()
            await self._tidy_up()
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        await self.watch.look()
        self._end()

    async def _decide(self) -> None:
        if self.record.turned is None:
            try:
                await self._go_there()
                return
            except Setback as setback:
                self._turn_back(setback)
        await self._go_back()

    # There

    async def _go_there(self) -> None:
        self._keeper.trial = self._on_trial()
        if not self._journal.steps(self.record.id):
            await self._prepare()
        await self._walk(decision(self.record.plan))
        self._succeed()

    def _on_trial(self) -> Revision | None:
        """The version that is being tried out; one that has served before, and a first one, are not."""
        release = self.record.release
        tried = release is not None and release.old is not None and not isinstance(release.strategy, Return)
        return self.record.new if tried else None

    async def _prepare(self) -> None:
        try:
            await self._until(self._work.prepare(self.record), None)
        except StartFailed as error:
            raise Setback(error.message, error.log) from error
        start = self.record.start
        self._journal.set_demand(self.record.service, start)
        self._keeper.want(start)
        await self._until(self._keeper.tidy(lambda member: start.count(member.revision) > 0), None)

    async def _walk(self, end: int) -> None:
        """Perform the steps up to the `end`-th that are not yet done."""
        begun = {step.number: step for step in self._journal.steps(self.record.id) if step.way == self.record.way}
        before = self.record.origin
        for number, step in enumerate(self.record.steps[:end], 1):
            demand = before.after(step)
            known = begun.get(number)
            if known is None or known.ended is None:
                began = known.began if known else await self._begin(number, demand)
                await self._perform(number, step, before, demand, began)
            before = demand

    async def _begin(self, number: int, demand: Demand) -> datetime:
        step = self.record.steps[number - 1]
        if isinstance(step, Shift) and self.record.way == "there":
            await self.watch.shifting()
        self._journal.begin(self.record, number, demand)
        self._tell("began", step=number, of=len(self.record.steps), text=str(step), demand=demands.encode(demand))
        return self._clock.now()

    async def _perform(self, number: int, step: Step, before: Demand, demand: Demand, began: datetime) -> None:
        self._keeper.want(demand)
        try:
            await self._make_true(number, step, before, began)
        except Setback as setback:
            if self.record.turned is None:
                self._turn_back(setback, number)
                raise
            if not isinstance(step, Run):
                raise
            self._degrade(setback.reason)
        judged = self._judged if isinstance(step, Judge) else None
        self._journal.end(self.record, number, "done", _encoded(judged))
        self._tell_end(number, step, "done", began, judged)

    async def _make_true(self, number: int, step: Step, before: Demand, began: datetime) -> None:
        keeper = self._keeper
        match step:
            case Run(hook):
                await self._hook(hook)
            case Scale(version, count) if count > before.count(version):
                await self._until(keeper.scaled_up(version, count), self._patience(version), version)
            case Scale(version, count):
                await self._until(keeper.scaled_down(version, count), None)
            case Check(version):
                await self._until(keeper.checked(version), CHECK_SECONDS, version)
            case Shift(shares):
                await self._until(keeper.shifted(dict(shares)), SHIFT_SECONDS)
            case Judge(silence):
                await self._until(self._judge(number, began + silence), None)
            case Hold():
                raise NotImplementedError("no strategy holds yet")

    def _patience(self, version: Revision) -> float:
        health = self._keeper.versions[version].health
        return (health.deadline + health.min_ready).total_seconds()

    async def _judge(self, number: int, end: datetime) -> None:
        while (left := (end - self._clock.now()).total_seconds()) > 0:
            said = self.watch.judgement().reason
            self._tell("judging", step=number, text=f"{left:.0f} s left; {said}")
            await self._clock.sleep(min(1.0, left))
        await self.watch.look()
        self._judged = self.watch.judgement()
        if self._judged.alarm:
            raise Setback(self._judged.reason, judgement=self._judged)

    async def _hook(self, hook: str) -> None:
        self._tell("hook", hook=hook, state="began")
        status, output = await self._work.hook(self.record, hook)
        self._tell("hook", hook=hook, state="ended", status=status)
        if status != 0:
            raise Setback(f"the {hook} hook exited with status {status}", tuple(output))

    # What can go wrong meanwhile

    async def _until(
        self,
        truth: Coroutine[Any, Any, None] | Awaitable[None],
        limit: float | None,
        starting: Revision | None = None,
    ) -> None:
        """Wait for `truth`, at most `limit` seconds; on the way there whatever speaks against going on ends it."""
        waits = [asyncio.ensure_future(truth)]
        if self.record.turned is None:
            waits.append(asyncio.ensure_future(self._keeper.bell.until(lambda: self._setback() is not None)))
        if limit is not None:
            waits.append(asyncio.ensure_future(self._clock.sleep(limit)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if waits[0].done():
                waits[0].result()
                return
        except RouterRefused as refusal:
            raise Setback(refusal.message) from refusal
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        raise await self._explain(self._setback() or self._late(limit, starting), starting)

    def _setback(self) -> Setback | None:
        """What speaks against going on, if anything does."""
        if self._asked is not None:
            return self._asked
        if self._alarm is not None:
            return Setback(self._alarm.reason, judgement=self._alarm)
        if self._journal.disk_full:
            return Setback("the disk is full")
        new = self.record.new
        if new is None:
            return None
        if broken := self._keeper.fleet.broken(new):
            return Setback(f"{broken.id}: {broken.problem}", broken.log)
        lost = self._keeper.lost(new) if self.record.release else None
        return Setback(lost) if lost else None

    def _late(self, limit: float | None, starting: Revision | None) -> Setback:
        why = "; ".join(self._keeper.fleet.problems(starting)) if starting else "the router did not confirm it"
        return Setback(f"not done within {limit:g} s: {why or 'no reason known'}")

    async def _explain(self, setback: Setback, starting: Revision | None) -> Setback:
        if setback.log or setback.person or starting is None:
            return setback
        return replace(setback, log=await self._keeper.fleet.last_lines(starting))

    async def _look_out(self) -> None:
        """Count all the time; while the new version is on trial with a share, judge as well."""
        while True:
            await self._clock.sleep(1.0)
            await self.watch.look()
            judgement = self.watch.judgement()
            if judgement.alarm and self.record.decided is None and self._on_trial() is not None:
                self._alarm = judgement
                self._keeper.bell.ring()

    # Back

    def _turn_back(self, setback: Setback, number: int | None = None) -> None:
        if self.record.turned is not None:
            return
        at = self._keeper.demand
        back = self._way_back(at) if number else ()
        judged = _encoded(setback.judgement)
        outcome = "cut short" if setback.person or setback.replaced else "failed"
        self.record = replace(
            self.record,
            replaced=setback.replaced,
            basis=_basis(setback),
        )
        with self._journal.transaction():
            if number:
                self._journal.end(self.record, number, outcome, judged)
            self.record = self._journal.turn_back(self.record, back, at, setback.reason, setback.log)
        if number:
            self._tell(
                "ended",
                step=number,
                of=len(self.record.plan),
                text=str(self.record.plan[number - 1]),
                outcome=outcome,
                verdict=judged and judged["verdict"],
                detail=setback.reason,
                seconds=None,
            )
        self._tell("turned_back", reason=setback.reason, steps=[str(step) for step in back])

    def _way_back(self, at: Demand) -> Plan:
        if self.record.release is not None:
            return strategies.back(self.record.release, at)
        version = self.record.new
        return strategies.adjust(version, self.record.start.count(version)) if version else ()

    async def _go_back(self) -> None:
        self._keeper.trial = self._on_trial()
        back, asked = self.record.back, self.record.basis == Basis.PERSON or self.record.replaced
        try:
            await self._walk(decision(back) if asked else len(back))  # refused: what was started is gone
        except Setback as setback:
            self._strand(setback)
            return
        outcome = "superseded" if self.record.replaced else "rolled_back"
        self._finish(outcome, 7 if asked else 1, self.record.turned or "", self._final())

    def _strand(self, setback: Setback) -> None:
        """The way back cannot be completed: traffic is left on what works, a person is asked."""
        reason = f"{self.record.turned}; and the way back failed: {setback.reason}"
        self._degrade(reason)
        self._finish("failed", 5, reason, self._keeper.demand)

    # Ends

    def _succeed(self) -> None:
        judged = self._judged
        serving = self._service()
        new = self.record.new
        stopped = self.record.kind == "down"
        stable = None if stopped else (new if self.record.release else serving.stable)
        with self._journal.transaction():
            self._journal.put_service(
                replace(serving, stable=stable, degraded=None, route=self.record.route or serving.route)
            )
            self.record = replace(self.record, basis=(judged.basis if judged else Basis.HEALTH).value)
            reason = judged.reason if judged else self._plainly()
            self._finish("stopped" if stopped else "promoted", 0, reason, self._final())
        if self.record.route is not None:
            self._keeper.set_route(self.record.route)

    def _plainly(self) -> str:
        name, new = self.record.service, self.record.new
        match self.record.kind:
            case "down":
                return f"{name} is stopped"
            case "retire":
                return f"{self.record.old} is no longer kept"
            case "scale" if new:
                return f"{name} has {self._keeper.demand.count(new)} instances"
        return f"{version_of(new) if new else 'nothing'} serves {name}"

    def _final(self) -> Demand:
        """The demand at the decision: what is tidied up at once is in it already."""
        plan, demand = self.record.steps, self.record.origin
        hooked = any(isinstance(step, Run) for step in plan[decision(plan) :])
        for number, step in enumerate(plan, 1):
            if number <= decision(plan) or not hooked:
                demand = demand.after(step)
        demand = replace(demand, slack=NOTHING)
        release = self.record.release
        if self.record.turned is None and release and release.old and release.strategy.keep:
            until = self._clock.now() + release.strategy.keep
            return replace(demand, kept=release.old.revision, kept_until=until)
        return demand

    def _finish(self, outcome: str, exit: int, reason: str, demand: Demand) -> None:
        """The rollout is decided; what follows never changes how it ended."""
        now = self._clock.now()
        with self._journal.transaction():
            self._journal.set_demand(self.record.service, demand)
            self.record = replace(self.record, decided=now, outcome=outcome, exit=exit, reason=reason)
            self._journal.put_rollout(self.record)
            self._tell(
                "finished",
                outcome=outcome,
                basis=self.record.basis,
                reason=reason,
                exit=exit,
                seconds=round((now - self.record.started).total_seconds(), 3),
                log=list(self.record.log),
            )
        self._keeper.trial = None
        self._keeper.want(demand)
        self.decided.set()

    async def _tidy_up(self) -> None:
        """The steps after the decision; they end in the background and change nothing of it."""
        if self.record.outcome == "failed":
            return
        plan = self.record.steps
        if any(isinstance(step, Run) for step in plan[decision(plan) :]):
            await self._walk(len(plan))

    def _degrade(self, reason: str) -> None:
        self._journal.put_service(replace(self._service(), degraded=reason))
        self._tell("note", text=reason)

    def _end(self) -> None:
        self.record = replace(self.record, ended=self._clock.now())
        self._journal.put_rollout(self.record)
        self._journal.copy()

    def _tell(self, event: str, **body: Any) -> None:
        self._journal.tell(event, service=self.record.service, rollout=self.record.id, **body)

    def _tell_end(self, number: int, step: Step, outcome: str, began: datetime, judged: Judgement | None) -> None:
        self._tell(
            "ended",
            step=number,
            of=len(self.record.steps),
            text=str(step),
            outcome=outcome,
            verdict=judged and judged.verdict.value,
            detail=judged and judged.reason,
            seconds=round((self._clock.now() - began) / timedelta(seconds=1), 3),
        )


def _encoded(judgement: Judgement | None) -> dict[str, Any] | None:
    return None if judgement is None else verdict.encode(judgement)


def _basis(setback: Setback) -> str:
    if setback.person:
        return Basis.PERSON.value
    return (Basis.EVIDENCE if setback.judgement else Basis.HEALTH).value
