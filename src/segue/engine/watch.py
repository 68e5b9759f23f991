"""The watch of one rollout: compares new with old all the time from the first Shift, and may raise an alarm."""

from __future__ import annotations

import asyncio

from segue.core.release import version_of
from segue.core.traffic import Sample
from segue.core.verdict import Judgement
from segue.engine import ledger as ledgers
from segue.engine.clock import Clock
from segue.engine.journal import Journal
from segue.engine.ledger import Counts, Ledger
from segue.engine.records import RolloutRecord
from segue.errors import RouterLost
from segue.judge.provisional import compare
from segue.ports import Evidence


class Watch:
    """Counts what happens during `rollout`, and judges its new version by it."""

    def __init__(
        self,
        service: str,
        rollout: RolloutRecord,
        *,
        evidence: Evidence,
        journal: Journal,
        clock: Clock,
    ) -> None:
        self.service, self.rollout, self.old, self.new = service, rollout.id, rollout.old, rollout.new
        self._evidence, self._journal, self._clock = evidence, journal, clock
        self._turn = asyncio.Lock()
        kept = journal.ledger(rollout.id)
        self.ledger = ledgers.decode(kept) if kept else Ledger()

    async def look(self) -> None:
        """Count now, and write down what was counted."""
        async with self._turn:  # counts that are added out of turn would look like a router that began anew
            try:
                samples = await self._evidence.sample(self.service)
                books = await self._evidence.books(self.service)
            except RouterLost:
                return
            self.ledger.look(Counts(samples, books))
            self._journal.put_ledger(self.rollout, ledgers.encode(self.ledger))

    async def shifting(self) -> None:
        """The new version is about to get its first share: what the old one did so far is kept to compare with."""
        if self.ledger.before is None:
            await self.look()
            self.ledger.before = self.ledger.of(self.old) or Sample()
            self._journal.put_ledger(self.rollout, ledgers.encode(self.ledger))

    def judgement(self) -> Judgement:
        """What can be said of the new version now."""
        beside = None
        if (old := self.ledger.of(self.old)) and (before := self.ledger.before):
            beside = Sample(old.attempts - before.attempts, old.failures - before.failures)
        return compare(
            self.ledger.of(self.new) or Sample(),
            beside,
            before=self.ledger.before,
            new_name=version_of(self.new) if self.new else "the new version",
            old_name=version_of(self.old) if self.old else "the old version",
        )
