"""Carrying out a rollout: begin a step by writing its demand down, wait until it is true, go on.

Rule 1: from the moment a rollout turns back only the way back exists.
Rule 2: there is nothing to redo after a crash: the runner looks up which step had begun, and waits for it.
Rule 3: nothing speaks against a way back; only the way there can be cut short.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from segue.core import strategies
from segue.core.demand import Demand
from segue.core.release import NOTHING, Return, Revision, version_of
from segue.core.steps import Judge, Plan, Proof, Run, Shift, Step, decision
from segue.core.verdict import Basis, Judgement, decode
from segue.engine.book import Book
from segue.engine.clock import Clock, lasts, pace
from segue.engine.journal import Journal
from segue.engine.keeper import Keeper
from segue.engine.perform import Performer, Work
from segue.engine.records import RolloutRecord
from segue.engine.setback import Setback
from segue.engine.watch import Watch
from segue.errors import Refused, StartFailed
from segue.minding import beside

LOOK_EVERY = 1.0
"""Seconds between two looks at the evidence."""


class Runner:
    """Carries out the rollout `record`, from wherever the journal says it stands."""

    def __init__(
        self, record: RolloutRecord, *, keeper: Keeper, watch: Watch, journal: Journal, clock: Clock, work: Work
    ) -> None:
        self.book, self.watch = Book(record, journal, clock), watch
        self.decided = asyncio.Event()
        self._keeper, self._journal, self._clock, self._work = keeper, journal, clock, work
        self._performer = Performer(keeper, watch, clock, work, self.book, self._against)
        self._asked: Setback | None = None
        self._alarm: Judgement | None = None
        self._judged: Judgement | None = None
        self._unproven = False

    @property
    def record(self) -> RolloutRecord:
        """What is known of the rollout."""
        return self.book.record

    @property
    def under_way(self) -> bool:
        """Whether it is on its way there, so that a person has something to say."""
        return self.record.decided is None and self.record.turned is None

    # What persons say

    def turn(self, setback: Setback) -> None:
        """Turn back as soon as possible. After the decision it is too late, and nothing happens."""
        if self._asked is None and self.under_way:
            self._asked = setback
            self._keeper.bell.ring()

    def promote(self, who: str, reason: str | None, *, full: bool) -> None:
        """Let the question pass that stands, with `full` all judging and asking. Raises Refused where none stands."""
        self._refuse_late("promote")
        if not full and self.record.person.asked is None:
            said = "paused: segue resume lets it go on" if self.record.person.paused else "nobody is asked anything"
            raise Refused(
                f"rollout {self.record.id} does not wait for an approval: {said}", next="segue promote --full"
            )
        self.book.let_pass(who, reason, full=full)
        self._keeper.bell.ring()

    def pause(self, who: str, *, paused: bool) -> None:
        """Begin no further step, or go on. Raises Refused where that makes no difference."""
        self._refuse_late("pause" if paused else "resume")
        if paused and self.record.person.asked is not None:
            raise Refused(
                f"rollout {self.record.id} waits for an approval: no step begins before it is given",
                next="segue promote, or segue rollback",
            )
        if self.record.person.paused == paused:
            raise Refused(
                f"rollout {self.record.id} is {'already' if paused else 'not'} paused",
                next="segue resume" if paused else "segue status",
            )
        self.book.pause(who, paused=paused)
        self._keeper.bell.ring()

    def _refuse_late(self, what: str) -> None:
        if not self.under_way:
            how = "decided" if self.record.turned is None else "on its way back"
            raise Refused(f"it is too late to {what}: rollout {self.record.id} is {how}", next="segue status")

    # Carrying out

    async def run(self) -> None:
        """Carry the rollout out to its end."""
        self._keeper.rollout = self.record.id
        watching = beside(self._look_out(), self.record.id)
        try:
            if self.record.decided is None:
                await self._decide()
            elif not self.book.told("finished"):
                self.book.tell_finished()
            await self._tidy_up()
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        await self.watch.look()
        await self.watch.close()
        self.book.close()
        self._keeper.bell.ring()

    async def _decide(self) -> None:
        if self.record.trial is not None:
            self._keeper.try_out(self.record)
        if self.record.turned is None:
            try:
                await self._go_there()
                return
            except Setback as setback:
                if self.record.turned is None:  # no step was under way
                    self._turn_back(setback)
        await self._go_back()

    def _against(self) -> Setback | None:
        """What speaks against going on, if anything does; on a way back nothing does."""
        if self.record.turned is not None:
            return None
        if self._asked is not None:
            return self._asked
        if self._alarm is not None and not self.record.person.full:
            return Setback(self._alarm.reason, self.watch.log, judgement=self._alarm)
        if self._journal.disk_full and self._brings_something_new:
            return Setback("the disk is full")
        if (new := self.record.new) is None or self.record.kind == "retire":
            return None
        if broken := self._keeper.fleet.broken(new):
            return Setback(broken.trouble, broken.log)
        lost = self._keeper.lost(new) if self.record.release and not self._was_kept(new) else None
        return Setback(lost) if lost else None

    def _was_kept(self, version: Revision) -> bool:
        """Whether `version` stood by, proven and at strength: what it loses is started again, as of what serves."""
        return self.record.start.count(version) > 0

    @property
    def _brings_something_new(self) -> bool:
        """Whether it can be done without: a way to what has served, or to fewer instances, must not want for room."""
        return self.record.release is not None and not isinstance(self.record.release.strategy, Return)

    async def _look_out(self) -> None:
        """Count all the time; while a version is on trial, judge as well."""
        while True:
            await self.watch.look(seldom=self._held is not None and lasts(self._held))
            if self.record.decided is None and self.record.trial is not None:
                judgement = self.watch.silence()
                if judgement.alarm and self._alarm is None:
                    self._alarm = judgement
                    self.watch.said(0)
                    self._keeper.bell.ring()
                    if blamed := await self.watch.to_blame():
                        self.book.tell("note", text=blamed)
            await self._clock.sleep(pace(self._held) if self._held is not None else LOOK_EVERY)

    @property
    def _held(self) -> timedelta | None:
        """How long a person has been asked; None: nobody is."""
        person = self.record.person
        return self._clock.now() - person.since if person.asked and person.since else None

    # There

    async def _go_there(self) -> None:
        if self.book.fresh:
            await self._prepare()
        await self._walk(decision(self.record.plan))
        self._succeed()

    async def _prepare(self) -> None:
        try:
            await self._performer.until(self._work.prepare(self.record))
        except StartFailed as error:
            raise Setback(error.message, error.log) from error
        start = self.record.start
        self.book.start(start)
        self._keeper.want(start)
        await self._performer.until(self._keeper.tidy(lambda member: start.count(member.revision) > 0))

    async def _walk(self, end: int) -> None:
        """Perform the steps up to the `end`-th that are not yet done. Raises Setback."""
        begun = self.book.begun()
        before = self.record.origin
        for number, step in enumerate(self.record.steps[:end], 1):
            demand = before.after(step)
            known = begun.get(number)
            if known is None or known.ended is None:
                # The clock may have been set back since: no wait begins later than now.
                began = min(known.began, self._clock.now()) if known else await self._begin(number, demand)
                await self._perform(number, before, demand, began)
            elif known.verdict:  # it was judged before a restart
                self._rest_on(step, decode(known.verdict))
            before = demand

    async def _begin(self, number: int, demand: Demand) -> datetime:
        if self.record.person.paused:
            await self._performer.until(self._keeper.bell.until(lambda: not self.record.person.paused))
        if isinstance(self.record.steps[number - 1], Shift) and self.under_way and self.record.trial is not None:
            await self.watch.shifting()
            busy = await self._keeper.busy(self.record.old)
            self._keeper.try_out(self.record, self.watch.patience, busy)
        return self.book.begin(number, demand)

    async def _perform(self, number: int, before: Demand, demand: Demand, began: datetime) -> None:
        step = self.record.steps[number - 1]
        self._keeper.want(demand)
        try:
            judged = await self._performer.perform(number, before, began)
        except Setback as setback:
            if self.record.turned is None and step != Run("after"):
                self._turn_back(setback, number)
                raise
            if not isinstance(step, Run):
                raise
            self.book.degrade(setback.reason)
            judged = None
        if isinstance(step, Shift):
            await self.watch.shifted()
        if judged is not None:
            self._rest_on(step, judged)
        self.book.end(number, judged, began)

    def _rest_on(self, step: Step, judged: Judgement) -> None:
        """What the rollout rests on so far: where a proof was not waited for, silence after it is none."""
        if isinstance(step, Judge) and isinstance(step.until, Proof):
            self._unproven = judged.basis is Basis.HEALTH
        if self._unproven and judged.basis is Basis.EVIDENCE:
            judged = replace(judged, basis=Basis.HEALTH, reason=f"{judged.reason}, too few for a proof")
        self._judged = judged

    # Back

    def _turn_back(self, setback: Setback, number: int | None = None) -> None:
        """From now on only the way back exists; `number` is the step that is under way, if one is."""
        at = self._keeper.demand
        self.book.turn_back(setback, () if self.book.fresh else self._way_back(at), at, number)
        if self.record.trial is not None:
            self._keeper.try_out(self.record)

    def _way_back(self, at: Demand) -> Plan:
        if self.record.release is not None:
            return strategies.back(self.record.release, at)
        if self.record.kind == "down":
            return strategies.up(self.record.start)
        return strategies.adjusted(self.record.plan, self.record.start) if self.record.kind == "scale" else ()

    async def _go_back(self) -> None:
        back, asked = self.record.back, self.record.basis == Basis.PERSON or self.record.replaced
        walked = decision(back) if asked else len(back)  # refused: what was started is gone
        try:
            await self._walk(walked)
        except Setback as setback:
            reason = f"{self.record.turned}; and the way back failed: {setback.reason}"
            self.book.degrade(reason)
            self._finish("failed", 5, reason, self._keeper.demand)
            return
        outcome = "superseded" if self.record.replaced else "rolled_back"
        self._finish(outcome, 7 if asked else 1, self.record.turned or "", self._final(walked))

    # Ends

    def _succeed(self) -> None:
        stopped, judged = self.record.kind == "down", self._judged
        changes: dict[str, Any] = {}
        if self.record.kind != "retire":  # its hook may have failed
            changes["degraded"] = None
        if stopped or self.record.release:
            changes["stable"] = None if stopped else self.record.new
        if self.record.route is not None:
            changes["route"] = self.record.route
        with self.book.together():
            self.book.rest_on(judged.basis if judged else self._unjudged())
            reason = self._said(judged) if judged else self._plainly()
            self._finish("stopped" if stopped else "promoted", 0, reason, self._final(), **changes)
        if self.record.route is not None:
            self._keeper.set_route(self.record.route)

    def _unjudged(self) -> Basis:
        """What a rollout rests on in which nothing was judged: who asked for it knows why."""
        return Basis(self.record.basis or (Basis.PERSON if self.record.kind == "rollback" else Basis.HEALTH))

    def _said(self, judged: Judgement) -> str:
        """What the last judgement says, and what the rollout went by where it rests on no request."""
        if judged.basis is not Basis.HEALTH or self.record.new is None:
            return judged.reason
        version = self._keeper.version(self.record.new)
        smoke, warm = len(version.smoke), version.warm_up.requests if version.warm_up else 0
        checks = [
            f"{number} {what}{'' if number == 1 else 's'}"
            for number, what in ((smoke, "smoke test"), (warm, "warm-up request"))
            if number
        ]
        return f"{judged.reason}: promoted on {' and '.join(checks) or 'health alone'}"

    def _plainly(self) -> str:
        name, new = self.record.service, self.record.new
        match self.record.kind:
            case "down":
                return f"{name} is stopped"
            case "retire":
                return f"{self.record.old and version_of(self.record.old)} is no longer kept"
            case "scale" if new:
                return f"{name} has {self._keeper.demand.count(new)} instances"
            case "rollback" if self.record.asked:
                return self.record.asked
        return f"{new and version_of(new)} serves {name}"

    def _final(self, walked: int = 0) -> Demand:
        """The demand at the decision, after `walked` steps: what is tidied up without waiting is in it already."""
        plan, demand = self.record.steps, self.record.origin
        for step in plan if not self._hooks_left else plan[: max(walked, decision(plan))]:
            demand = demand.after(step)
        demand = replace(demand, slack=NOTHING)
        if self.record.turned is not None:  # what was to become larger, or smaller, is as large as it was
            start = self.record.start
            sizes = {version: start.count(version) or size for version, size in demand.sizes.items()}
            return replace(demand, sizes=sizes)
        release = self.record.release
        if release and release.old and release.strategy.keep:
            until = self._clock.now() + release.strategy.keep
            return replace(demand, kept=release.old.revision, kept_until=until)
        return demand

    @property
    def _hooks_left(self) -> bool:
        """Whether a hook is to run after the decision, so that the steps until then must be waited for."""
        plan = self.record.steps
        return any(isinstance(step, Run) for step in plan[decision(plan) :])

    def _finish(self, outcome: str, exit: int, reason: str, demand: Demand, **changes: Any) -> None:
        """The rollout is decided; what follows never changes how it ended."""
        self.book.finish(outcome, exit, reason, demand, **changes)
        self._keeper.settle()
        self._keeper.want(demand)
        self.decided.set()

    async def _tidy_up(self) -> None:
        """The steps after the decision that must be waited for; they change nothing of how it ended."""
        self.decided.set()
        if self._hooks_left and self.record.outcome != "failed":
            with suppress(Setback):
                await self._walk(len(self.record.steps))
