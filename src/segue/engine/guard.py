"""Keep: the old version stays warm, and the new one is still watched."""

from __future__ import annotations

from contextlib import suppress

from segue.engine.clock import Clock, lasts, pace, wait_for
from segue.engine.journal import Journal
from segue.engine.life import Life
from segue.engine.records import RolloutRecord
from segue.engine.setback import Setback
from segue.engine.watch import Watch


class Guard:
    """Watches the version that serves for as long as one is kept that can be gone back to."""

    def __init__(self, life: Life, journal: Journal, clock: Clock) -> None:
        self._life, self._journal, self._clock = life, journal, clock
        self._kept: tuple[RolloutRecord, Watch] | None = None

    async def alarm(self) -> Setback:
        """Return when the version that serves is to be left for the one that is kept, and why."""
        while True:
            kept = self._current()
            if kept is None:
                await self._forget()
                await self._life.keeper.bell.rung()
                continue
            record, watch = kept
            waited = self._clock.now() - (record.decided or self._clock.now())
            await watch.look(account=False, seldom=lasts(waited))
            with suppress(TimeoutError):  # an instance may be lost and back between two looks
                spoken = self._life.keeper.bell.until(lambda: self._against() is not None)
                await wait_for(self._clock, spoken, pace(waited))
            if setback := self._against():
                return setback

    def suffered(self) -> str | None:
        """What users had of the version that is left: the account of its rollout ends when it was decided."""
        return self._kept[1].suffered() if self._kept else None

    async def _forget(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept[1].close()

    def _against(self) -> Setback | None:
        """What speaks against the version that serves, if anything does."""
        kept = self._current()
        if kept is None:
            return None
        record, watch = kept
        judgement = watch.silence()
        if judgement.alarm and not record.person.full:
            return Setback(judgement.reason, watch.log, judgement=judgement)
        stable = self._life.record.stable
        lost = self._life.keeper.lost(stable) if stable else None
        return Setback(lost) if lost else None

    def _current(self) -> tuple[RolloutRecord, Watch] | None:
        """The rollout whose old version is kept, as it ended, and its watch, while nothing else goes on."""
        life = self._life
        busy = life.runner is not None and life.runner.record.ended is None
        if life.keeper.demand.kept is None or busy:
            return None
        if self._kept is None or self._kept[0].new != life.record.stable:
            record = self._promoted()
            ours = life.runner if record and life.runner and life.runner.record.id == record.id else None
            self._kept = (record, ours.watch if ours else life.watch(record)) if record else None
        return self._kept

    def _promoted(self) -> RolloutRecord | None:
        """The rollout that brought the version that serves."""
        stable = self._life.record.stable
        found = self._journal.rollouts(self._life.name, 20)
        return next((r for r in found if r.release and r.outcome == "promoted" and r.new == stable), None)
