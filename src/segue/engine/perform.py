"""Making one step true: wait until it is, or until something speaks against going on.

Nothing here starts, stops or routes: the keeper does, once the step's demand is written down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from segue.core.demand import Demand
from segue.core.release import Revision
from segue.core.steps import Check, Hold, Judge, Run, Scale, Shift
from segue.core.verdict import Judgement
from segue.engine.clock import Clock
from segue.engine.keeper import Keeper
from segue.engine.records import RolloutRecord
from segue.engine.watch import Watch
from segue.errors import RouterRefused

SHIFT_SECONDS, CHECK_SECONDS = 30.0, 120.0
"""How long a shift and the smoke tests may take before the step has failed."""

Tell = Callable[..., None]
"""Tells clients of the rollout that something happened: the event, and what belongs to it."""


@dataclass(eq=False)
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


class Performer:
    """Makes steps true. `against` says what speaks against going on, if anything does; on a way back, nothing."""

    def __init__(
        self,
        keeper: Keeper,
        watch: Watch,
        clock: Clock,
        work: Work,
        tell: Tell,
        against: Callable[[], Setback | None],
    ) -> None:
        self._keeper, self._watch, self._clock, self._work = keeper, watch, clock, work
        self._tell, self._against = tell, against

    async def perform(self, rollout: RolloutRecord, number: int, before: Demand, began: datetime) -> Judgement | None:
        """Return when the `number`-th step, begun at `began`, is true; a Judge's judgement. Raises Setback."""
        step, keeper = rollout.steps[number - 1], self._keeper
        match step:
            case Run(hook):
                await self._hook(rollout, hook)
            case Scale(version, count) if count > before.count(version):
                await self.until(keeper.scaled_up(version, count), self._patience(version), version)
            case Scale(version, count):
                await self.until(keeper.scaled_down(version, count))
            case Check(version):
                await self.until(keeper.checked(version), CHECK_SECONDS, version)
            case Shift(shares):
                await self.until(keeper.shifted(dict(shares)), SHIFT_SECONDS)
            case Judge():
                return await self._judge(step, number, began)
            case Hold():
                raise NotImplementedError("no strategy holds yet")
        return None

    async def until(
        self, true: Awaitable[None], limit: float | None = None, starting: Revision | None = None
    ) -> None:
        """Return when it is `true`. Raises Setback when it is late, or when something speaks against going on."""
        waits: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(true),
            asyncio.ensure_future(self._keeper.bell.until(lambda: self._against() is not None)),
        ]
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
        raise await self._explained(self._against() or self._late(limit, starting), starting)

    def _late(self, limit: float | None, starting: Revision | None) -> Setback:
        why = "; ".join(self._keeper.fleet.problems(starting)) if starting else "the router did not confirm it"
        return Setback(f"not done within {limit or 0:g} s: {why or 'no reason known'}")

    async def _explained(self, setback: Setback, starting: Revision | None) -> Setback:
        if starting is not None and not setback.log and not setback.person:
            setback.log = await self._keeper.fleet.last_lines(starting)
        return setback

    def _patience(self, version: Revision) -> float:
        health = self._keeper.version(version).health
        return (health.deadline + health.min_ready).total_seconds()

    async def _judge(self, step: Judge, number: int, began: datetime) -> Judgement:
        await self.until(self._silence(number, began + step.silence))
        await self._watch.look()
        judgement = self._watch.judgement()
        if judgement.alarm:
            raise Setback(judgement.reason, judgement=judgement)
        return judgement

    async def _silence(self, number: int, end: datetime) -> None:
        while (left := (end - self._clock.now()).total_seconds()) > 0:
            self._tell("judging", step=number, text=f"{left:.0f} s left; {self._watch.judgement().reason}")
            await self._clock.sleep(min(1.0, left))

    async def _hook(self, rollout: RolloutRecord, hook: str) -> None:
        """A hook is never interrupted: what it has begun, it ends."""
        self._tell("hook", hook=hook, state="began")
        status, output = await self._work.hook(rollout, hook)
        self._tell("hook", hook=hook, state="ended", status=status)
        if status != 0:
            raise Setback(f"the {hook} hook exited with status {status}", tuple(output))
