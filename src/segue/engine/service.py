"""One service: what may be asked of it, one rollout at a time, and what is done by the clock."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Literal

from pydantic import TypeAdapter

from segue.core import simulate, strategies
from segue.core.demand import Demand
from segue.core.release import (
    ALL,
    BlueGreen,
    InPlace,
    Release,
    Return,
    Revision,
    Rolling,
    Side,
    Strategy,
    revision,
    version_of,
)
from segue.core.steps import Plan
from segue.core.version import Version
from segue.engine.clock import Clock
from segue.engine.journal import Journal
from segue.engine.keeper import Keeper
from segue.engine.orders import Answer, Asker, Order
from segue.engine.records import Recipe, RolloutRecord, ServiceRecord, StepRecord, VersionRecord
from segue.engine.run import Runner, Setback, Work
from segue.engine.versions import VersionStore
from segue.engine.watch import Watch
from segue.errors import Refused, Usage
from segue.ports import Evidence, Router

HOW: TypeAdapter[Rolling | InPlace | BlueGreen] = TypeAdapter(Rolling | InPlace | BlueGreen)

Kind = Literal["deploy", "rollback", "scale", "restart", "retire", "down"]


class Service:
    """One service under a control plane. Every request is journalled before it is answered."""

    def __init__(
        self,
        record: ServiceRecord,
        *,
        keeper: Keeper,
        router: Router,
        evidence: Evidence,
        journal: Journal,
        store: VersionStore,
        clock: Clock,
        work: Work,
    ) -> None:
        self.record = record
        self.keeper = keeper
        self.runner: Runner | None = None
        self.versions = {version.revision: version for version in journal.versions(record.name)}
        self._router, self._evidence, self._journal, self._store = router, evidence, journal, store
        self._clock, self._work = clock, work
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """The service's name."""
        return self.record.name

    @property
    def rollout(self) -> RolloutRecord | None:
        """The rollout that is not decided yet."""
        return self.runner.record if self.runner and self.runner.record.decided is None else None

    def steps(self, rollout: str) -> list[StepRecord]:
        """The steps of a rollout that have begun."""
        return self._journal.steps(rollout)

    # Running

    def begin(self) -> None:
        """Keep the demand true, and do what is due by the clock."""
        self._spawn(self.keeper.run())
        self._spawn(self._retire_when_due())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"{self.name}: a task ended", "exception": error, "task": task}
            )

    async def close(self) -> None:
        """Stop looking after the service; everything runs on."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.keeper.fleet.close()

    def carry_out(self, record: RolloutRecord) -> Runner:
        """Carry `record` out, from wherever it stands."""
        watch = Watch(
            self.name,
            record.id,
            record.old,
            record.new,
            evidence=self._evidence,
            journal=self._journal,
            clock=self._clock,
        )
        self.runner = Runner(
            record,
            keeper=self.keeper,
            watch=watch,
            journal=self._journal,
            clock=self._clock,
            work=self._work,
            service=lambda: self.record,
        )
        self._spawn(self._run(self.runner))
        return self.runner

    async def _run(self, runner: Runner) -> None:
        await runner.run()
        self._reread()
        await self._forget_old_versions()

    def _reread(self) -> None:
        found = {record.name: record for record in self._journal.services()}
        self.record = found.get(self.name, self.record)

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
                await self.retire(Asker("segue", "keep is over"))

    # Requests

    async def deploy(self, order: Order, asker: Asker) -> Answer:
        """Replace the version that serves by the one that `order` describes."""
        async with self._turn:
            if answered := self._answered(asker):
                return answered
            await self._not_busy(asker)
            digest = await self._digest(order)
            known = self._named(order.version)
            if known and known.version.digest != digest:
                raise Refused(
                    f"the name {order.version} is taken by other content: a version never changes",
                    next="segue deploy --version ANOTHER",
                )
            serving = self.record.stable
            if known and serving and self.versions[serving].version.digest == digest:
                return self._already(order, asker, serving)
            version = self._new_version(order, digest, known)
            release = self._release(version.revision, order)
            return self._begin("deploy", order.strategy.name, release, asker, version=version, order=order)

    def _already(self, order: Order, asker: Asker, serving: Revision) -> Answer:
        if order.replicas != self.keeper.demand.count(serving):
            return self._scale(order.replicas, asker)
        return Answer(None, f"{order.version} already serves {self.name}")

    async def rollback(self, to: str | None, asker: Asker) -> Answer:
        """Bring the old version back: the running rollout's, the kept one, or one that is retained."""
        if answered := self._answered(asker):
            return answered
        running = self.rollout
        if running and self.runner and running.release and to in (None, running.old and version_of(running.old)):
            self.runner.turn(Setback(asker.reason or f"rolled back by {asker.who}", person=True))
            self._remember(asker, running.id)
            return Answer(running.id)
        async with self._turn:
            await self._not_busy(asker)
            target, how = self._target(to)
            version = target if target.revision == self.keeper.demand.kept else self._again(target)
            return self._begin("rollback", "rollback", self._release_to(version, Return(how)), asker, version=version)

    async def scale(self, count: int, asker: Asker) -> Answer:
        """Have `count` instances of the version that serves."""
        if count < 1:
            raise Usage("a service has at least one instance", next="segue down")
        async with self._turn:
            if answered := self._answered(asker):
                return answered
            await self._not_busy(asker)
            return self._scale(count, asker)

    def _scale(self, count: int, asker: Asker) -> Answer:
        stable, demand = self._serving(), self.keeper.demand
        if demand.count(stable) == count:
            return Answer(None, f"{self.name} already has {count} instance{'' if count == 1 else 's'}")
        start = replace(demand, sizes={**demand.sizes, stable: count})
        return self._record("scale", "scale", asker, strategies.adjust(stable, count), start, old=stable, new=stable)

    async def restart(self, asker: Asker) -> Answer:
        """Replace all instances by fresh ones of the same version, by the service's strategy."""
        async with self._turn:
            if answered := self._answered(asker):
                return answered
            await self._not_busy(asker)
            known = self.versions[self._serving()]
            how = HOW.validate_python(self.record.strategy)
            version = self._again(known)
            return self._begin("restart", how.name, self._release_to(version, how), asker, version=version)

    async def retire(self, asker: Asker) -> Answer:
        """End keep: stop the old version's instances."""
        async with self._turn:
            if answered := self._answered(asker):
                return answered
            await self._not_busy(asker)
            demand = self.keeper.demand
            if demand.kept is None:
                raise Refused(f"no old version of {self.name} is kept", next="segue status")
            start = replace(demand, kept=None, kept_until=None)
            plan = strategies.retire(demand.kept)
            return self._record("retire", "retire", asker, plan, start, old=demand.kept, new=None)

    async def down(self, asker: Asker) -> Answer:
        """Drain and stop everything."""
        async with self._turn:
            if answered := self._answered(asker):
                return answered
            await self._not_busy(asker)
            demand = replace(self.keeper.demand, kept=None, kept_until=None)
            if not demand.counts and self.record.stable is None:
                return Answer(None, f"{self.name} is not running")
            return self._record(
                "down", "down", asker, strategies.down(demand), demand, old=self.record.stable, new=None
            )

    # What a request needs

    def _answered(self, asker: Asker) -> Answer | None:
        found = self._journal.answered(asker.key) if asker.key else None
        return Answer(found) if found else None

    def _remember(self, asker: Asker, rollout: str) -> None:
        if asker.key:
            self._journal.put_request(asker.key, rollout)

    async def _not_busy(self, asker: Asker) -> None:
        """Return when no rollout runs. Raises Refused where the asker does not want to wait or replace."""
        running = self.rollout
        if running and self.runner:
            if asker.if_busy == "refuse":
                raise Refused(
                    f"{self.name} is busy: rollout {running.id} ({running.strategy}) has not ended",
                    next="segue wait, or segue deploy --if-busy wait",
                )
            if asker.if_busy == "replace":
                self.runner.turn(Setback(f"replaced by a newer request of {asker.who}", replaced=True))
            await self.runner.decided.wait()
        while self.runner and self.runner.record.ended is None:
            await self.keeper.bell.rung()
        self._reread()

    def _serving(self) -> Revision:
        if self.record.stable is None:
            raise Refused(f"nothing serves {self.name}", next="segue deploy")
        return self.record.stable

    async def _digest(self, order: Order) -> str:
        settings = {
            "command": order.command,
            "environment": dict(order.environment),
            "build": order.build,
            "shared": list(order.shared),
            "user": order.user,
            "folder": None if order.source else str(order.folder),
            "settings": repr((order.health, order.smoke, order.stop)),
        }
        return await self._store.digest(order.source, settings)

    def _named(self, name: str) -> VersionRecord | None:
        found = [version for version in self.versions.values() if version.name == name]
        return found[-1] if found else None

    def _new_version(self, order: Order, digest: str, known: VersionRecord | None) -> VersionRecord:
        if known is not None:
            return self._again(known)
        first = revision(order.version, 1)
        version = Version(
            service=self.name,
            revision=first,
            digest=digest,
            folder=order.folder,
            command=order.command.replace("{version}", order.version),
            environment=order.environment,
            user=order.user,
            health=order.health,
            smoke=order.smoke,
            stop=order.stop,
        )
        source = str(order.source) if order.source else None
        recipe = Recipe(first, str(order.folder), source, order.shared, order.build)
        self._store.save_environment(self.name, first, order.environment)
        return VersionRecord(order.version, 1, version, recipe, order.hooks, self._clock.now())

    def next_number(self, name: str) -> int:
        """The number of the next revision of the version `name`."""
        return 1 + max((version.number for version in self.versions.values() if version.name == name), default=0)

    def _again(self, known: VersionRecord) -> VersionRecord:
        """The next revision of a version that was started before."""
        number = self.next_number(known.name)
        again = replace(known.version, revision=revision(known.name, number))
        return replace(known, number=number, version=again, created=self._clock.now())

    def serving_side(self) -> Side | None:
        """The version that serves and its size."""
        stable, demand = self.record.stable, self.keeper.demand
        return (stable and Side(stable, demand.sizes.get(stable) or demand.count(stable))) or None

    def _release(self, new: Revision, order: Order) -> Release:
        hooks = order.hooks
        try:
            return Release(
                Side(new, order.replicas),
                self.serving_side(),
                order.strategy,
                before=hooks.before is not None,
                on_rollback=hooks.on_rollback is not None,
            )
        except ValueError as error:
            raise Usage(str(error), next="segue plan") from error

    def _release_to(self, version: VersionRecord, how: Strategy) -> Release:
        """The release of a version that has served before, as strong as what serves now."""
        old = self.serving_side()
        return Release(Side(version.revision, old.size if old else 1), old, how)

    def _target(self, to: str | None) -> tuple[VersionRecord, Rolling | InPlace | BlueGreen]:
        """The version to go back to, and how."""
        kept = self.keeper.demand.kept
        if kept and to in (None, version_of(kept)):
            return self.versions[kept], BlueGreen()
        name = to or self.previous()
        known = self._named(name) if name else None
        if known is None:
            what = f"version {to} is not retained" if to else "there is nothing to go back to"
            raise Refused(f"{self.name}: {what}", next="segue history")
        if self.record.stable and known.name == version_of(self.record.stable):
            raise Refused(f"{known.name} already serves {self.name}", next="segue status")
        return known, HOW.validate_python(self.record.strategy)

    def previous(self) -> str | None:
        """The version that a rollback goes to now: the kept one, or the last other one that served."""
        if kept := self.keeper.demand.kept:
            return version_of(kept)
        return next(iter(self._served()), None)

    def _served(self) -> list[str]:
        """The names of other versions that have served and are still known, the latest first."""
        now = self.record.stable and version_of(self.record.stable)
        names: dict[str, None] = {}
        for rollout in self._journal.rollouts(self.name):
            if rollout.outcome == "promoted" and rollout.release:
                for found in (rollout.new, rollout.old):
                    if found and version_of(found) != now and self._named(version_of(found)):
                        names[version_of(found)] = None
        return list(names)

    # Beginning a rollout

    def _begin(
        self,
        kind: Kind,
        strategy: str,
        release: Release,
        asker: Asker,
        *,
        version: VersionRecord,
        order: Order | None = None,
    ) -> Answer:
        start = self._start(release)
        plan = strategies.forward(release, start)
        if found := simulate.flaws(release, start, plan):
            raise Refused(f"the plan is not safe: {found[0]}", next="segue plan")
        self.versions[version.revision] = version
        service = self.record
        if order is not None:
            service = replace(service, strategy=HOW.dump_python(order.strategy, mode="json"), retain=order.retain)
            if service.stable is None:
                service = replace(service, route=order.route)
        return self._record(
            kind,
            strategy,
            asker,
            plan,
            start,
            old=release.old.revision if release.old else None,
            new=release.new.revision,
            release=release,
            version=version,
            service=service,
            order=order,
        )

    def _start(self, release: Release) -> Demand:
        """The demand that `release` starts from: what is kept stays only if it is what one goes back to."""
        demand, old, new = self.keeper.demand, release.old, release.new
        counts = {side.revision: demand.count(side.revision) for side in (old, new) if side}
        shares = {old.revision: ALL} if old else {}
        return Demand(counts, shares, {side.revision: side.size for side in (old, new) if side}, release.slack)

    def _record(
        self,
        kind: Kind,
        strategy: str,
        asker: Asker,
        plan: Plan,
        start: Demand,
        *,
        old: Revision | None,
        new: Revision | None,
        release: Release | None = None,
        version: VersionRecord | None = None,
        service: ServiceRecord | None = None,
        order: Order | None = None,
    ) -> Answer:
        """Write the rollout down, all of it in one transaction, and begin to carry it out."""
        record = RolloutRecord(
            id=f"{self._clock.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
            service=self.name,
            kind=kind,
            strategy=strategy,
            old=old,
            new=new,
            release=release,
            plan=plan,
            start=start,
            who=asker.who,
            asked=asker.reason,
            manifest=order.manifest if order else None,
            route=order.route if order else None,
            started=self._clock.now(),
        )
        with self._journal.transaction():
            self._journal.put_service(service or self.record)
            if version is not None:
                self._journal.put_version(version)
            self._journal.put_rollout(record)
            self._remember(asker, record.id)
            self._announce(record, start)
        self._reread()
        self.carry_out(record)
        return Answer(record.id)

    def _announce(self, record: RolloutRecord, start: Demand) -> None:
        tell = {"service": self.name, "rollout": record.id}
        self._journal.tell(
            "accepted",
            service=self.name,
            rollout=record.id,
            kind=record.kind,
            strategy=record.strategy,
            who=record.who,
            reason=record.asked,
            **{"from": record.old and version_of(record.old), "to": record.new and version_of(record.new)},
        )
        if (kept := self.keeper.demand.kept) and not start.count(kept):
            self._journal.tell("note", text=f"{version_of(kept)} is no longer kept", **tell)
        self._journal.tell(
            "planned",
            steps=[str(step) for step in record.plan],
            peak=simulate.peak(start, record.plan),
            notes=[],
            **tell,
        )

    # What is forgotten

    async def _forget_old_versions(self) -> None:
        """Delete the versions that can no longer be gone back to."""
        kept = {version_of(found) for found in self.keeper.demand.counts}
        kept |= {version_of(member.revision) for member in self.keeper.fleet.members}
        kept |= set(self._served()[: self.record.retain])
        last = self._journal.rollouts(self.name, 1)
        kept |= {version_of(rollout.new) for rollout in last if rollout.new}
        for found in [version for version in self.versions.values() if version.name not in kept]:
            self._journal.drop_version(self.name, found.revision)
            del self.versions[found.revision]
            if found.recipe.files == found.revision:
                await self._store.delete(self.name, found.revision)
