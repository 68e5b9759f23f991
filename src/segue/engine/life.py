"""What goes on in one service: its keeper, and the rollout that is carried out."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from itertools import islice
from typing import Any

from segue.core.release import Side, version_of
from segue.engine.catalog import Catalog
from segue.engine.clock import Clock
from segue.engine.journal import Journal
from segue.engine.keeper import Keeper
from segue.engine.perform import Work
from segue.engine.recent import Recent
from segue.engine.records import IntentRecord, RolloutRecord, ServiceRecord
from segue.engine.run import Runner
from segue.engine.watch import Sight, Watch
from segue.minding import beside

KEPT_POLLS = 20
"""So many rollouts of a service can be judged again look by look."""


class Life:
    """The life of the service that `record` describes, for as long as a control plane looks after it."""

    def __init__(
        self,
        record: ServiceRecord,
        *,
        keeper: Keeper,
        catalog: Catalog,
        sight: Sight,
        journal: Journal,
        clock: Clock,
        work: Work,
    ) -> None:
        self.name, self.keeper, self.catalog = record.name, keeper, catalog
        self.runner: Runner | None = None
        self._unwritten = record
        self._sight, self._journal, self._clock, self._work = sight, journal, clock, work
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def record(self) -> ServiceRecord:
        """What the journal holds of the service."""
        return self._journal.service(self.name) or self._unwritten

    @property
    def rollout(self) -> RolloutRecord | None:
        """The rollout that is not decided yet."""
        return self.runner.record if self.runner and self.runner.record.decided is None else None

    @property
    def recent(self) -> Recent:
        """What the service did in the last minutes."""
        return self._sight.recent

    def side(self) -> Side | None:
        """The version that serves, and its size."""
        stable, demand = self.record.stable, self.keeper.demand
        return Side(stable, demand.sizes.get(stable) or demand.count(stable)) if stable else None

    def begin(self) -> None:
        """Keep the demand true, and note what is usual."""
        self.spawn(self.keeper.run())
        self.spawn(self._sight.recent.run())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` go on beside; a defect in it ends the control plane."""
        task = beside(work, self.name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop looking after the service; everything runs on."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.keeper.fleet.close()

    def watch(self, record: RolloutRecord) -> Watch:
        """The watch of a rollout, with all that it has seen so far."""
        return Watch(record, sight=self._sight, keeper=self.keeper, journal=self._journal, clock=self._clock)

    def carry_out(self, record: RolloutRecord) -> Runner:
        """Carry `record` out, from wherever it stands."""
        journal, clock = self._journal, self._clock
        watch = self.watch(record)
        self.runner = Runner(record, keeper=self.keeper, watch=watch, journal=journal, clock=clock, work=self._work)
        self.spawn(self._run(self.runner))
        return self.runner

    async def _run(self, runner: Runner) -> None:
        await runner.run()
        await self._forget()

    async def _forget(self) -> None:
        """Forget what can no longer be gone back to; the newest rollout's version is still to be explained."""
        record, demand = self.record, self.keeper.demand
        kept = {version_of(member.revision) for member in self.keeper.fleet.members}
        kept |= {version_of(revision) for revision in (*demand.counts, *demand.sizes, *self.keeper.told())}
        kept |= set(islice(self.catalog.served(record.stable), record.retain))
        newest = self._journal.rollouts(self.name, 1)
        kept |= {version_of(rollout.new) for rollout in newest if rollout.new}
        await self.catalog.forget_all_but(kept)
        recent = self._journal.rollouts(self.name, 2 * KEPT_POLLS)
        self._journal.conclude([rollout.id for rollout in recent if rollout.ended])
        self._journal.drop_polls([rollout.id for rollout in recent[KEPT_POLLS:]])

    def bury(self, dead: Sequence[IntentRecord], runner: Runner | None = None) -> None:
        """Forget instances that are dead: at once, or when `runner` has turned back because of them."""
        if runner is not None and runner.under_way:
            self.spawn(self._bury_later(dead, runner))
            return
        for record in dead:
            self._journal.drop_intent(record.intent.nonce)

    async def _bury_later(self, dead: Sequence[IntentRecord], runner: Runner) -> None:
        await self.keeper.bell.until(lambda: not runner.under_way)
        self.bury(dead)
