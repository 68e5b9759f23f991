"""The control plane: all services of one home, brought up from the journal and the world.

Rule 1: the lock on the home is held for life; who does not have it does nothing.
Rule 2: the router is told nothing before every instance has been found or declared dead.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from segue.core.demand import Demand
from segue.core.release import Revision, version_of
from segue.core.traffic import InstanceId, RoutingTable, ServiceTable
from segue.core.version import Version
from segue.engine.catalog import Catalog
from segue.engine.clock import Clock
from segue.engine.journal import Journal
from segue.engine.keeper import Keeper
from segue.engine.orders import Answer, Asker, Order
from segue.engine.perform import Setback, Work
from segue.engine.records import RolloutRecord, ServiceRecord, VersionRecord
from segue.engine.routing import TableKeeper
from segue.engine.service import Service
from segue.engine.versions import VersionStore
from segue.errors import Refused, RouterLost, Unreachable
from segue.ports import Commands, Evidence, Platform, Router


class RunningRouter(Router, Protocol):
    """A router with a life: the control plane starts and leaves it."""

    async def start(self) -> None:
        """Adopt the proxies that run, or start them. They are told nothing before the first `apply`."""
        ...

    async def close(self) -> None:
        """Leave the proxies running without a control plane."""
        ...

    async def shutdown(self) -> None:
        """End the proxies."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """The adapters that a control plane works with. `boot` names this start of the machine."""

    platform: Platform
    router: RunningRouter
    evidence: Evidence
    commands: Commands
    clock: Clock
    boot: str


class Lock:
    """The lock on a home. It is the process's own: it goes with it, however it ends."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise Unreachable("another control plane holds this home's lock", next="segue status") from error

    def release(self) -> None:
        """Let another control plane have the home."""
        os.close(self._file)


class ControlPlane:
    """All services of `home`. `start` brings up what the journal says; `close` leaves everything running."""

    def __init__(self, home: Path, world: World) -> None:
        self.home, self.world, self.pid = home, world, os.getpid()
        self.services: dict[str, Service] = {}
        self.journal = Journal(home / "journal", world.clock)
        self.tables = TableKeeper(world.router)
        self._store = VersionStore(home / "versions", world.commands)

    async def start(self) -> None:
        """Find out how things are, then go on where they stood."""
        restarted = self.journal.remember("boot", self.world.boot) not in (None, self.world.boot)
        for record in self.journal.services():
            self.services[record.name] = self._service(record)
        await asyncio.gather(*(self._find(service) for service in self.services.values()))
        tables = {name: table for name, found in self.services.items() if (table := found.keeper.table())}
        await self.world.router.start()
        await self._tell_router(tables)
        for service in self.services.values():
            service.keeper.fleet.run_adopted()
            service.begin()
            self._resume(service, restarted)
        if self.journal.restored:
            self.journal.tell("note", text="the journal was damaged and has been restored from its last copy")

    async def _tell_router(self, tables: dict[str, ServiceTable]) -> None:
        if tables:
            while True:
                try:
                    await self.world.router.apply(RoutingTable(tables))
                    break
                except RouterLost:
                    await self.world.clock.sleep(0.1)
        self.tables.confirmed = tables

    async def close(self) -> None:
        """Stop looking after everything; traffic flows on."""
        await asyncio.gather(*(service.close() for service in self.services.values()))
        await self.world.router.close()
        self.journal.close()

    async def shutdown(self) -> None:
        """Take every service down, then the router."""
        asker = Asker("segue shutdown", "the control plane is shut down with everything", if_busy="replace")
        answers = await asyncio.gather(*(service.down(asker) for service in self.services.values()))
        for service, answer in zip(list(self.services.values()), answers, strict=True):
            if answer.rollout and service.runner:
                await service.runner.decided.wait()
        await asyncio.gather(*(service.close() for service in self.services.values()))
        await self.world.router.shutdown()
        self.journal.close()

    # Bringing one service up

    def _service(self, record: ServiceRecord) -> Service:
        world = self.world
        keeper = Keeper(
            record.name,
            record.route,
            platform=world.platform,
            router=world.router,
            tables=self.tables,
            journal=self.journal,
            clock=world.clock,
            run=self._run_check,
        )
        service = Service(
            record,
            keeper=keeper,
            catalog=Catalog(record.name, self.journal, self._store, world.clock),
            evidence=world.evidence,
            journal=self.journal,
            clock=world.clock,
            work=Work(self._prepare, self._hook),
        )
        for revision, known in service.catalog.known.items():
            keeper.versions[revision] = self._whole(known)
        return service

    def _whole(self, known: VersionRecord) -> Version:
        """The version with its environment."""
        environment = self._store.environment(known.version.service, known.recipe.files)
        return replace(known.version, environment=environment)

    async def _find(self, service: Service) -> None:
        """Adopt the service's instances that run; what was intended and does not run never will."""
        keeper = service.keeper
        records = self.journal.intents(service.name)
        found = {there.intent.nonce: there for there in await self.world.platform.find([r.intent for r in records])}
        for record in records:
            if record.intent.nonce not in found:
                self.journal.drop_intent(record.intent.nonce)
        await asyncio.gather(
            *(
                keeper.fleet.adopt(record, keeper.versions[record.intent.revision], found[record.intent.nonce])
                for record in records
                if record.intent.nonce in found
            )
        )
        keeper.resume(service.record.demand, self._before(service))

    def _before(self, service: Service) -> Demand:
        """What was true when the service's demand was begun."""
        running = self.journal.unfinished(service.name)
        if running is None:
            return service.record.demand
        steps = [step for step in self.journal.steps(running.id) if step.way == running.way]
        return steps[-2].demand if len(steps) > 1 else running.origin

    def _resume(self, service: Service, restarted: bool) -> None:
        running = self.journal.unfinished(service.name)
        if running is None:
            return
        self.journal.tell(
            "note", service=service.name, rollout=running.id, text="the control plane was restarted and goes on"
        )
        runner = service.carry_out(running)
        if restarted and running.release and running.release.old:
            runner.turn(Setback("the machine restarted"))

    # Requests

    async def deploy(self, order: Order, asker: Asker) -> Answer:
        """Deploy `order`, whose service may be new."""
        service = self.services.get(order.service)
        if service is None:
            service = self._service(ServiceRecord(order.service, order.route, Demand(), retain=order.retain))
        self._refuse_conflict(order)
        if service.record.stable is None or order.route.listen != service.record.route.listen:
            await self._refuse_taken(order.route.listen)
        if order.service not in self.services:
            self.services[order.service] = service
            service.begin()
        if service.record.stable is None and service.rollout is None:
            service.keeper.set_route(order.route)
        return await service.deploy(order, asker)

    def _refuse_conflict(self, order: Order) -> None:
        for name, other in self.services.items():
            route = other.record.route
            same = route.listen == order.route.listen and route.path == order.route.path
            if name != order.service and other.record.stable and same and set(route.hosts) & set(order.route.hosts):
                raise Refused(
                    f"{order.route.listen}{order.route.path} is {name}'s already",
                    next="choose another route.listen, route.hosts or route.path",
                )

    async def _refuse_taken(self, listen: str) -> None:
        ours = {table.route.listen for table in self.tables.confirmed.values()}
        if listen not in ours:
            await self.world.router.refuse_taken(listen)

    async def look(self, rollout: RolloutRecord) -> None:
        """Count once more for a rollout that goes on."""
        service = self.services.get(rollout.service)
        if service and service.runner and service.runner.record.id == rollout.id and not service.runner.record.ended:
            await service.runner.watch.look()

    async def logs(
        self, name: str, *, version: str | None, instance: str | None, lines: int, follow: bool
    ) -> AsyncIterator[str]:
        """The last lines of a service's instances, each after its instance's name, and what comes."""
        members = self.services[name].keeper.fleet.members
        wanted = [
            member.id
            for member in members
            if version in (None, member.revision, version_of(member.revision)) and instance in (None, member.id)
        ]
        async for line in _merged([self._lines(id, lines, follow) for id in wanted]):
            yield line

    async def _lines(self, instance: InstanceId, lines: int, follow: bool) -> AsyncIterator[str]:
        async for line in self.world.platform.logs(instance, lines=lines, follow=follow):
            yield f"{instance} | {line.rstrip()}\n"

    # What the engine needs done on this machine

    async def _prepare(self, rollout: RolloutRecord) -> None:
        service = self.services[rollout.service]
        if rollout.release is None or rollout.new is None:
            return
        known = service.catalog.known[rollout.new]
        recipe = known.recipe
        environment = self._store.environment(service.name, recipe.files)
        folder = await self._store.prepare(
            service.name,
            recipe.files,
            source=Path(recipe.source) if recipe.source else None,
            folder=Path(recipe.folder),
            shared=recipe.shared,
            build=recipe.build,
            environment=environment,
            user=known.version.user,
            on_progress=lambda text: self.journal.tell(
                "preparing", service=service.name, rollout=rollout.id, text=text
            ),
        )
        known = replace(known, version=replace(known.version, folder=folder))
        self.journal.put_version(known)
        service.catalog.known[rollout.new] = known
        service.keeper.versions[rollout.new] = replace(known.version, environment=environment)

    async def _hook(self, rollout: RolloutRecord, hook: str) -> tuple[int, Sequence[str]]:
        service = self.services[rollout.service]
        assert rollout.new is not None
        known = service.catalog.known[rollout.new]
        version = self._whole(known)
        folder = self.home / "hooks" / rollout.id
        log = folder / f"{hook}.log"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ended = await self.world.commands(
            known.hooks.command(hook),
            folder=version.folder,
            environment={**version.environment, **_hook_variables(rollout, hook)},
            user=version.user,
            timeout=timedelta(seconds=known.hooks.timeout),
            log=log,
            status=folder / f"{hook}.status",
        )
        lines = _tail(log)
        if ended.timed_out:
            return 124, [*lines, f"timed out after {known.hooks.timeout:g} s"]
        return (125 if ended.status is None else ended.status), lines

    async def _run_check(self, version: Version, command: str, seconds: float) -> tuple[int, str]:
        folder = self.home / "checks"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = folder / f"{version.service}-{version.revision}.log"
        before = log.stat().st_size if log.exists() else 0
        ended = await self.world.commands(
            command,
            folder=version.folder,
            environment=version.environment,
            user=version.user,
            timeout=timedelta(seconds=seconds),
            log=log,
        )
        output = log.read_bytes()[before:].decode(errors="replace") if log.exists() else ""
        return (124 if ended.status is None else ended.status), output


async def _merged(streams: Sequence[AsyncIterator[str]]) -> AsyncIterator[str]:
    """What comes from any of `streams`, until all have ended."""
    lines: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1000)

    async def pump(stream: AsyncIterator[str]) -> None:
        async for line in stream:
            await lines.put(line)
        await lines.put(None)

    pumps = [asyncio.create_task(pump(stream)) for stream in streams]
    try:
        left = len(pumps)
        while left:
            line = await lines.get()
            left -= line is None
            if line is not None:
                yield line
    finally:
        for task in pumps:
            task.cancel()


def _hook_variables(rollout: RolloutRecord, hook: str) -> dict[str, str]:
    """What a hook is told of the rollout, in its environment."""
    return {
        "SEGUE_SERVICE": rollout.service,
        "SEGUE_FROM": _name(rollout.old),
        "SEGUE_TO": _name(rollout.new),
        "SEGUE_ROLLOUT": rollout.id,
        "SEGUE_HOOK": hook,
        "SEGUE_ATTEMPT": "1",
    }


def _name(revision: Revision | None) -> str:
    return revision.rpartition(".")[0] if revision else ""


def _tail(log: Path, lines: int = 20) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else []
