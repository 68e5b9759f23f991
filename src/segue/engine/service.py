"""One service: what may be asked of it, one rollout at a time, and what is done by the clock."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from segue.core import simulate, strategies
from segue.core.demand import Demand
from segue.core.release import ALL, BlueGreen, InPlace, Release, Return, Revision, Rolling, Side, Strategy, version_of
from segue.engine.catalog import Catalog
from segue.engine.clock import Clock
from segue.engine.journal import Journal
from segue.engine.keeper import Keeper
from segue.engine.orders import Answer, Asker, Order
from segue.engine.perform import Setback, Work
from segue.engine.records import Hooks, IntentRecord, RolloutRecord, ServiceRecord, StepRecord, VersionRecord
from segue.engine.run import Runner
from segue.engine.watch import Watch
from segue.errors import Refused, Usage
from segue.ports import Evidence

HOW: TypeAdapter[Rolling | InPlace | BlueGreen] = TypeAdapter(Rolling | InPlace | BlueGreen)


class Service:
    """One service under a control plane. Every request is journalled before it is answered."""

    def __init__(
        self,
        record: ServiceRecord,
        *,
        keeper: Keeper,
        catalog: Catalog,
        evidence: Evidence,
        journal: Journal,
        clock: Clock,
        work: Work,
    ) -> None:
        self.name, self.keeper, self.catalog = record.name, keeper, catalog
        self.runner: Runner | None = None
        self._unwritten = record
        self._evidence, self._journal, self._clock, self._work = evidence, journal, clock, work
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def record(self) -> ServiceRecord:
        """What the journal holds of the service."""
        return self._journal.service(self.name) or self._unwritten

    @property
    def rollout(self) -> RolloutRecord | None:
        """The rollout that is not decided yet."""
        return self.runner.record if self.runner and self.runner.record.decided is None else None

    def steps(self, rollout: str) -> list[StepRecord]:
        """The steps of a rollout that have begun."""
        return self._journal.steps(rollout)

    def side(self) -> Side | None:
        """The version that serves, and its size."""
        stable, demand = self.record.stable, self.keeper.demand
        return Side(stable, demand.sizes.get(stable) or demand.count(stable)) if stable else None

    def previous(self) -> str | None:
        """The version that a rollback goes to now: the kept one, or the last other one that served."""
        if kept := self.keeper.demand.kept:
            return version_of(kept)
        return next(iter(self.catalog.served(self.record.stable)), None)

    # Running

    def begin(self) -> None:
        """Keep the demand true, and do what is due by the clock."""
        self._spawn(self.keeper.run())
        self._spawn(self._retire_when_due())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            failure = {"message": f"{self.name}: the control plane failed", "exception": error, "task": task}
            asyncio.get_running_loop().call_exception_handler(failure)

    async def close(self) -> None:
        """Stop looking after the service; everything runs on."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.keeper.fleet.close()

    def carry_out(self, record: RolloutRecord) -> Runner:
        """Carry `record` out, from wherever it stands."""
        journal, clock = self._journal, self._clock
        watch = Watch(self.name, record, evidence=self._evidence, journal=journal, clock=clock)
        self.runner = Runner(record, keeper=self.keeper, watch=watch, journal=journal, clock=clock, work=self._work)
        self._spawn(self._run(self.runner))
        return self.runner

    def bury(self, dead: Sequence[IntentRecord], runner: Runner | None = None) -> None:
        """Forget instances that are dead: at once, or when `runner` has turned back because of them."""
        if runner is not None and runner.record.turned is None and runner.record.decided is None:
            self._spawn(self._bury_later(dead, runner))
            return
        for record in dead:
            self._journal.drop_intent(record.intent.nonce)

    async def _bury_later(self, dead: Sequence[IntentRecord], runner: Runner) -> None:
        await self.keeper.bell.until(lambda: runner.record.turned is not None or runner.record.decided is not None)
        self.bury(dead)

    async def _run(self, runner: Runner) -> None:
        await runner.run()
        await self._forget_old_versions()

    async def _retire_when_due(self) -> None:
        while True:
            until = self.keeper.demand.kept_until
            if until is None or self.rollout is not None:
                await self.keeper.bell.rung()
                continue
            left = (until - self._clock.now()).total_seconds()
            if left > 0:
                await self._clock.sleep(min(left, 1.0))
            else:
                await self.retire(Asker("segue", "keep is over", if_busy="wait"))

    # Requests

    async def deploy(self, order: Order, asker: Asker) -> Answer:
        """Replace the version that serves by the one that `order` describes."""
        return await self._one_at_a_time(asker, lambda: self._deploy(order, asker))

    async def _deploy(self, order: Order, asker: Asker) -> Answer:
        digest = await self.catalog.digest(order)
        version = self.catalog.new(order, digest)
        if (answer := self._already(order, asker)) is not None:
            return answer
        release = self._release(version, order.replicas, order.strategy)
        return self._roll_out("deploy", order.strategy.name, release, asker, version, order)

    def _already(self, order: Order, asker: Asker) -> Answer | None:
        """The answer where the version serves as it is ordered; how the next one comes is noted all the same."""
        record, serving = self.record, self.record.stable
        if serving is None or version_of(serving) != order.version or order.route != record.route:
            return None
        how = HOW.dump_python(order.strategy, mode="json")
        self._journal.put_service(replace(record, strategy=how, retain=order.retain))
        if order.replicas != self.keeper.demand.count(serving):
            return self._scale(order.replicas, asker)
        return Answer(None, f"{order.version} already serves {self.name}")

    async def rollback(self, to: str | None, asker: Asker) -> Answer:
        """Bring the old version back: the running rollout's, the kept one, or one that is retained."""
        running = self.rollout
        if running and self.runner and running.release and to in (None, running.old and version_of(running.old)):
            self.runner.turn(Setback(asker.reason or f"rolled back by {asker.who}", person=True))
            self._remember(asker, running.id)
            return Answer(running.id)
        return await self._one_at_a_time(asker, lambda: self._rollback(to, asker))

    async def _rollback(self, to: str | None, asker: Asker) -> Answer:
        target, how = self._target(to)
        kept = target.revision == self.keeper.demand.kept
        version = target if kept else self.catalog.again(target)
        release = self._release(version, self._size(), Return(how))
        return self._roll_out("rollback", "rollback", release, asker, version)

    async def scale(self, count: int, asker: Asker) -> Answer:
        """Have `count` instances of the version that serves."""
        if count < 1:
            raise Usage("a service has at least one instance", next="segue down")

        async def scale() -> Answer:
            return self._scale(count, asker)

        return await self._one_at_a_time(asker, scale)

    def _scale(self, count: int, asker: Asker) -> Answer:
        stable, demand = self._serving(), self.keeper.demand
        if demand.count(stable) == count:
            return Answer(None, f"{self.name} already has {count} instance{'' if count == 1 else 's'}")
        record = self._new("scale", "scale", asker, old=stable, new=stable)
        start = replace(demand, sizes={**demand.sizes, stable: count})
        return self._begin(replace(record, plan=strategies.adjust(stable, count), start=start), asker)

    async def restart(self, asker: Asker) -> Answer:
        """Replace all instances by fresh ones of the same version, by the service's strategy."""
        return await self._one_at_a_time(asker, lambda: self._restart(asker))

    async def _restart(self, asker: Asker) -> Answer:
        version = self.catalog.again(self.catalog.known[self._serving()])
        how = HOW.validate_python(self.record.strategy)
        release = self._release(replace(version, hooks=Hooks()), self._size(), how)
        return self._roll_out("restart", how.name, release, asker, version)

    async def retire(self, asker: Asker) -> Answer:
        """End keep: stop the old version's instances."""
        return await self._one_at_a_time(asker, lambda: self._retire(asker))

    async def _retire(self, asker: Asker) -> Answer:
        demand = self.keeper.demand
        if demand.kept is None:
            raise Refused(f"no old version of {self.name} is kept", next="segue status")
        record = self._new("retire", "retire", asker, old=demand.kept, new=None)
        start = replace(demand, kept=None, kept_until=None)
        return self._begin(replace(record, plan=strategies.retire(demand.kept), start=start), asker)

    async def down(self, asker: Asker) -> Answer:
        """Drain and stop everything."""
        return await self._one_at_a_time(asker, lambda: self._down(asker))

    async def _down(self, asker: Asker) -> Answer:
        demand, stable = self.keeper.demand, self.record.stable
        if not demand.counts and stable is None:
            return Answer(None, f"{self.name} is not running")
        record = self._new("down", "down", asker, old=stable, new=None)
        start = replace(demand, kept=None, kept_until=None)
        return self._begin(replace(record, plan=strategies.down(demand), start=start), asker)

    # What every request needs

    async def _one_at_a_time(self, asker: Asker, request: Callable[[], Awaitable[Answer]]) -> Answer:
        """Answer a request when no rollout runs; the same one again is given the same answer."""
        async with self._turn:
            if asker.key and (found := self._journal.answered(asker.key)):
                return Answer(found)
            await self._not_busy(asker)
            return await request()

    async def _not_busy(self, asker: Asker) -> None:
        """Return when no rollout runs. Raises Refused where the asker does not want to wait or replace."""
        if (running := self.rollout) and self.runner:
            if asker.if_busy == "refuse":
                raise Refused(
                    f"{self.name} is busy: rollout {running.id} ({running.strategy}) has not ended",
                    next="segue wait, or segue deploy --if-busy wait",
                )
            if asker.if_busy == "replace":
                self.runner.turn(Setback(f"replaced by a newer request of {asker.who}", replaced=True))
        runner = self.runner
        if runner:
            await self.keeper.bell.until(lambda: runner.record.ended is not None)

    def _remember(self, asker: Asker, rollout: str) -> None:
        if asker.key:
            self._journal.put_request(asker.key, rollout)

    def _serving(self) -> Revision:
        stable = self.record.stable
        if stable is None:
            raise Refused(f"nothing serves {self.name}", next="segue deploy")
        return stable

    def _release(self, version: VersionRecord, size: int, how: Strategy) -> Release:
        hooks, judged = version.hooks, not isinstance(how, Return)
        try:
            return Release(
                Side(version.revision, size),
                self.side(),
                how,
                before=judged and hooks.before is not None,
                on_rollback=judged and hooks.on_rollback is not None,
            )
        except ValueError as error:
            raise Usage(str(error), next="segue plan") from error

    def _size(self) -> int:
        """How many instances serve, or served when something last did."""
        if side := self.side():
            return side.size
        last = (rollout.release for rollout in self._journal.rollouts(self.name) if rollout.release)
        return next((release.new.size for release in last), 1)

    def _target(self, to: str | None) -> tuple[VersionRecord, Rolling | InPlace | BlueGreen]:
        """The version to go back to, and how: a kept one is there already, at strength."""
        kept, stable = self.keeper.demand.kept, self.record.stable
        if kept and to in (None, version_of(kept)):
            return self.catalog.known[kept], BlueGreen()
        name = to or self.previous()
        known = self.catalog.named(name) if name else None
        if known is None:
            what = f"version {to} is not retained" if to else "there is nothing to go back to"
            raise Refused(f"{self.name}: {what}", next="segue history")
        if stable and known.name == version_of(stable):
            raise Refused(f"{known.name} already serves {self.name}", next="segue status")
        return known, HOW.validate_python(self.record.strategy)

    # Beginning a rollout

    def _roll_out(
        self,
        kind: str,
        strategy: str,
        release: Release,
        asker: Asker,
        version: VersionRecord,
        order: Order | None = None,
    ) -> Answer:
        start = self._start(release)
        plan = strategies.forward(release, start)
        if found := simulate.flaws(release, start, plan):
            raise Refused(f"the plan is not safe: {found[0]}", next="segue plan")
        service = self.record
        if order is not None:
            how = HOW.dump_python(order.strategy, mode="json")
            route = service.route if service.stable else order.route
            service = replace(service, strategy=how, retain=order.retain, route=route)
        old = release.old.revision if release.old else None
        record = replace(
            self._new(kind, strategy, asker, old=old, new=release.new.revision),
            release=release,
            plan=plan,
            start=start,
            manifest=order.manifest if order else None,
            route=order.route if order else None,
        )
        return self._begin(record, asker, service, version)

    def _start(self, release: Release) -> Demand:
        """The demand that `release` starts from: what is kept stays only if it is what one goes back to."""
        demand, old, new = self.keeper.demand, release.old, release.new
        counts = {side.revision: demand.count(side.revision) for side in (old, new) if side}
        shares = {old.revision: ALL} if old else {}
        return Demand(counts, shares, {side.revision: side.size for side in (old, new) if side}, release.slack)

    def _new(
        self, kind: str, strategy: str, asker: Asker, *, old: Revision | None, new: Revision | None
    ) -> RolloutRecord:
        """A rollout that has no plan yet."""
        now = self._clock.now()
        return RolloutRecord(
            id=f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
            service=self.name,
            kind=kind,
            strategy=strategy,
            old=old,
            new=new,
            who=asker.who,
            asked=asker.reason,
            started=now,
        )

    def _begin(
        self,
        record: RolloutRecord,
        asker: Asker,
        service: ServiceRecord | None = None,
        version: VersionRecord | None = None,
    ) -> Answer:
        """Write the rollout down, all of it in one transaction, and begin to carry it out."""
        with self._journal.transaction():
            self._journal.put_service(service or self.record)
            if version is not None:
                self.catalog.put(version)
            self._journal.put_rollout(record)
            self._remember(asker, record.id)
            self._announce(record)
        self.carry_out(record)
        return Answer(record.id)

    def _announce(self, record: RolloutRecord) -> None:
        def tell(event: str, **body: Any) -> None:
            self._journal.tell(event, service=self.name, rollout=record.id, **body)

        ways = {"from": record.old and version_of(record.old), "to": record.new and version_of(record.new)}
        said = {"kind": record.kind, "strategy": record.strategy, "who": record.who, "reason": record.asked}
        tell("accepted", **said, **ways)
        if (kept := self.keeper.demand.kept) and not record.start.count(kept):
            tell("note", text=f"{version_of(kept)} is no longer kept")
        peak = simulate.peak(record.start, record.plan)
        tell("planned", steps=[str(step) for step in record.plan], peak=peak, notes=[])

    async def _forget_old_versions(self) -> None:
        """Forget what can no longer be gone back to; the newest rollout's version is still to be explained."""
        record, demand = self.record, self.keeper.demand
        kept = {version_of(member.revision) for member in self.keeper.fleet.members}
        kept |= {version_of(revision) for revision in demand.counts}
        kept |= set(self.catalog.served(record.stable)[: record.retain])
        newest = self._journal.rollouts(self.name, 1)
        kept |= {version_of(rollout.new) for rollout in newest if rollout.new}
        await self.catalog.forget_all_but(kept)
