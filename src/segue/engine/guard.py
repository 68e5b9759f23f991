"""Keep: the old version stays warm, and the new one is still watched."""

from __future__ import annotations

from contextlib import suppress

from segue.core.verdict import Basis
from segue.engine.clock import Clock, pace, wait_for
from segue.engine.journal import Journal
from segue.engine.life import Life
from segue.engine.records import RolloutRecord
from segue.engine.setback import Setback
from segue.engine.watch import Watch


class Guard:
    """Watches the version that serves for as long as one is kept that can be gone back to."""

    def __init__(self, life: Life, journal: Journal, clock: Clock) -> None:
        self._life, self._journal, self._clock = life, journal, clock
        self._watch: Watch | None = None

    async def alarm(self) -> Setback:
        """Return when the version that serves is to be left for the one that is kept, and why."""
        while True:
            watch = self._current()
            if watch is None:
                await self._forget()
                await self._life.keeper.bell.rung()
                continue
            await watch.look(account=False)
            with suppress(TimeoutError):  # an instance may be lost and back between two looks
                spoken = self._life.keeper.bell.until(lambda w=watch: self._against(w) is not None)  # type: ignore[misc]
                kept = self._clock.now() - (watch.rollout.decided or self._clock.now())
                await wait_for(self._clock, spoken, pace(kept))
            if setback := self._against(watch):
                return setback

    async def _forget(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            await watch.close()

    def _against(self, watch: Watch) -> Setback | None:
        """What speaks against the version that serves, if anything does."""
        if self._current() is not watch:
            return None
        judgement = watch.silence()
        if judgement.alarm and not watch.rollout.person.full:
            return Setback(judgement.reason, watch.log, judgement=judgement)
        stable = self._life.record.stable
        lost = self._life.keeper.lost(stable) if stable else None
        return Setback(lost) if lost else None

    def _current(self) -> Watch | None:
        """The watch of the rollout whose old version is kept, while nothing else goes on."""
        life = self._life
        busy = life.runner is not None and life.runner.record.ended is None
        if life.keeper.demand.kept is None or busy:
            return None
        record = self._promoted()
        if record is None:
            return None
        if self._watch is None or self._watch.rollout.id != record.id:
            ours = life.runner is not None and life.runner.record.id == record.id
            self._watch = life.runner.watch if life.runner and ours else life.watch(record)
        return self._watch

    def _promoted(self) -> RolloutRecord | None:
        """The rollout that brought the version that serves."""
        stable = self._life.record.stable
        found = self._journal.rollouts(self._life.name, 20)
        return next((r for r in found if r.release and r.outcome == "promoted" and r.new == stable), None)


def basis(setback: Setback) -> str:
    """What going back during keep rests on."""
    return (Basis.EVIDENCE if setback.judgement else Basis.HEALTH).value
