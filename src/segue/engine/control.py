"""The control plane: all services of one home, brought up from the journal and the world.

Rule 1: the lock on the home is held for life; who does not have it does nothing.
Rule 2: the router is told nothing before every instance has been found or declared dead.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import structlog

from segue.core.demand import Demand
from segue.core.release import version_of
from segue.core.sources import Asked
from segue.core.traffic import InstanceId, RoutingTable, ServiceTable, version_id
from segue.engine.addresses import Addresses, claimed
from segue.engine.catalog import Catalog
from segue.engine.certificates import Certificates
from segue.engine.chores import Chores, forget_checks
from segue.engine.clock import Clock
from segue.engine.hearing import named
from segue.engine.journal import Journal
from segue.engine.keeper import Keeper
from segue.engine.life import Life
from segue.engine.orders import Answer, Asker, Order
from segue.engine.perform import Work
from segue.engine.recent import Recent
from segue.engine.records import IntentRecord, RolloutRecord, ServiceRecord
from segue.engine.routing import TableKeeper
from segue.engine.run import Runner
from segue.engine.service import Service
from segue.engine.setback import Setback
from segue.engine.tokens import own_token
from segue.engine.versions import VersionStore
from segue.engine.watch import Sight
from segue.errors import DiskFull, RouterLost, RouterRefused, SegueError, StartFailed
from segue.minding import beside
from segue.ports import Commands, Evidence, Instance, Lines, Platform, Router, Source

log = structlog.get_logger()

TEND_EVERY = 60.0
"""Seconds between two looks at what the platform has to do from time to time."""


ADOPTED_AT_ONCE = 100
"""So many instances that were found running are asked at a time how they are: each takes a descriptor."""


STRAYS_GRACE = timedelta(seconds=10)
"""How long an instance may take to end that a restored journal does not know."""


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

    async def tend(self) -> None:
        """Do what is to be done from time to time."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """The adapters that a control plane works with. `boot` names this start of the machine."""

    platform: Platform
    router: RunningRouter
    evidence: Evidence
    commands: Commands
    lines: Callable[[Sequence[str]], Lines]
    source: Callable[[Asked], Source]
    clock: Clock
    boot: str


class ControlPlane:
    """All services of `home`. `start` brings up what the journal says; `close` leaves everything running."""

    def __init__(self, home: Path, world: World) -> None:
        self.home, self.world, self.pid = home, world, os.getpid()
        self.services: dict[str, Service] = {}
        self.journal = Journal(home / "journal", world.clock)
        self.tables = TableKeeper(world.router)
        self._adopting = asyncio.Semaphore(ADOPTED_AT_ONCE)
        self._cut_short: list[tuple[Service, Runner]] = []
        self._addresses = Addresses(self.services, self.tables, world.router)
        self._certificates = Certificates(home / "certificates")
        self._store = VersionStore(home / "versions", world.commands)

    async def start(self) -> None:
        """Find out how things are, then go on where they stood."""
        restarted = self.journal.recall("boot") not in (None, self.world.boot)
        for record in self.journal.services():
            self.services[record.name] = self._service(record)
        dead = await asyncio.gather(*(self._find(service) for service in self.services.values()))
        tables = {name: table for name, found in self.services.items() if (table := found.keeper.table())}
        await self.world.router.start()
        await self._tell_router(tables)
        for service, records in zip(self.services.values(), dead, strict=True):
            service.keeper.fleet.run_adopted()
            service.begin()
            self._resume(service, records, restarted)
        routes = (route for service in self.services.values() for route in claimed(service))
        self._certificates.keep_only(route.tls for route in routes if route.tls)
        self._tasks = [beside(self._tend(), "tend"), beside(self._note_boot(), "boot")]
        if self.journal.restored:
            self.journal.tell("note", text="the journal was damaged and has been restored from its last copy")
            self._tasks.append(beside(self._end_strays(), "strays"))

    async def _tend(self) -> None:
        while True:
            await self.world.clock.sleep(TEND_EVERY)
            if not any(service.waits for service in self.services.values()):
                self.world.clock.follow()
            try:
                await self.tidy()
            except SegueError as error:
                self.journal.tell("note", text=error.message)
            except OSError as error:  # for a want of our own, which passes
                log.warning("not_tidied", error=str(error))

    async def tidy(self) -> None:
        """Rotate what has grown long, and remove what versions have left that are forgotten. Raises SegueError."""
        known = {version_id(name, revision) for name, it in self.services.items() for revision in it.catalog.known}
        forget_checks(self.home, known)
        await self.world.platform.tend(known)
        await self.world.router.tend()

    async def _end_strays(self) -> None:
        """End and delete what has come since the copy from which the journal was restored: nobody knows of it."""
        await self._insist(self.world.router.settled)
        known = [record.intent for name in self.services for record in self.journal.intents(name)]
        ended = await self.world.platform.end_others(known, STRAYS_GRACE)
        if ended:
            text = f"{ended} instances that the restored journal does not know were ended"
            self.journal.tell("note", text=text)
        made = {name: [v.recipe.files for v in it.catalog.known.values()] for name, it in self.services.items()}
        with suppress(StartFailed):  # it is tried again the next time
            await self._store.delete_others(made)

    async def _note_boot(self) -> None:
        """Write down which start of the machine this is, once all have turned back that the restart has cut short."""
        for service, runner in self._cut_short:
            await service.keeper.bell.until(lambda turning=runner: not turning.under_way)  # type: ignore[misc]
        while True:
            try:
                return self.journal.remember("boot", self.world.boot)
            except DiskFull:
                await self.world.clock.sleep(TEND_EVERY)

    async def _tell_router(self, tables: dict[str, ServiceTable]) -> None:
        """Tell the router of all services at once; if it refuses that, of one after the other."""
        try:
            await self._confirmed(tables)
        except RouterRefused:
            for name, table in tables.items():
                with suppress(RouterRefused):  # that service's keeper tries again, and says so
                    await self._confirmed({**self.tables.confirmed, name: table})

    async def _confirmed(self, tables: dict[str, ServiceTable]) -> None:
        if self.services:  # where they all were stopped as well: a proxy may have been left before it heard of it
            await self._insist(lambda: self.world.router.apply(RoutingTable(tables)))
        self.tables.confirmed = tables

    async def _insist(self, ask: Callable[[], Awaitable[None]]) -> None:
        """Ask the router again for as long as it is lost."""
        while True:
            try:
                return await ask()
            except RouterLost:
                await self.world.clock.sleep(0.1)

    async def close(self) -> None:
        """Stop looking after everything; traffic flows on."""
        await self._let_go()
        await self.world.router.close()
        self.journal.close()

    async def shutdown(self) -> None:
        """Take every service down, then the router."""
        asker = Asker("segue shutdown", "the control plane is shut down with everything", if_busy="replace")
        answers = await asyncio.gather(*(service.down(asker) for service in self.services.values()))
        for service, answer in zip(list(self.services.values()), answers, strict=True):
            if answer.rollout and service.runner:
                await service.runner.decided.wait()
        await self._let_go()
        await self.world.router.shutdown()
        self.journal.close()

    async def _let_go(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(service.close() for service in self.services.values()))

    # Bringing one service up

    def _service(self, record: ServiceRecord) -> Service:
        world, journal = self.world, self.journal
        catalog = Catalog(record.name, journal, self._store, world.clock)
        chores = Chores(self.home, catalog, commands=world.commands, store=self._store, journal=journal)
        keeper = Keeper(
            record.name,
            record.route,
            platform=world.platform,
            router=world.router,
            tables=self.tables,
            journal=journal,
            clock=world.clock,
            run=chores.check,
            version=catalog.version,
            token=self._token,
            certificate=self._certificates.current,
        )
        life = Life(
            record,
            keeper=keeper,
            catalog=catalog,
            sight=Sight(
                world.evidence,
                Recent(record.name, world.evidence, world.clock),
                world.lines,
                world.source,
                chores.about,
            ),
            journal=journal,
            clock=world.clock,
            work=Work(chores.prepare, chores.hook),
        )
        return Service(life, self._certificates, journal, world.clock)

    def _token(self) -> str:
        """What the header of a preview off loopback must say: made once, in a file for the home's owner only."""
        return own_token(self.home / "preview.token")

    async def _find(self, service: Service) -> list[IntentRecord]:
        """Adopt the service's instances that run; the others were intended and never will, or are dead."""
        keeper = service.keeper
        records = self.journal.intents(service.name)
        found = {there.intent.nonce: there for there in await self.world.platform.find([r.intent for r in records])}
        await asyncio.gather(
            *(
                self._adopt(keeper, record, found[record.intent.nonce])
                for record in records
                if record.intent.nonce in found
            )
        )
        running = self.journal.unfinished(service.name)
        if running is not None and running.decided is None:  # its shield stands already in the first table
            keeper.try_out(running)
            if entry := self.journal.poll(running.id, "paths"):
                keeper.tell_apart(named(entry["paths"]))
        keeper.resume(service.record.demand, self._before(service))
        return [record for record in records if record.intent.nonce not in found]

    async def _adopt(self, keeper: Keeper, record: IntentRecord, instance: Instance) -> None:
        async with self._adopting:
            await keeper.fleet.adopt(record, keeper.version(record.intent.revision), instance)

    def _before(self, service: Service) -> Demand:
        """What was true when the service's demand was begun."""
        running = self.journal.unfinished(service.name)
        if running is None:
            return service.record.demand
        done = [step.demand for step in self.journal.steps(running.id)[:-1] if step.outcome == "done"]
        return done[-1] if done else running.start  # not where it turned: what failed there was never true

    def _resume(self, service: Service, dead: Sequence[IntentRecord], restarted: bool) -> None:
        """Go on with the rollout that had not ended, or turn it back for what happened meanwhile."""
        running = self.journal.unfinished(service.name)
        if running is None:
            service.bury(dead)
            return
        self.journal.tell(
            "note", service=service.name, rollout=running.id, text="the control plane was restarted and goes on"
        )
        runner = service.carry_out(running)
        lost = [r for r in dead if r.checked and not r.stopping and r.intent.revision == runner.record.trial]
        if restarted and running.release and running.release.old:
            runner.turn(Setback("the machine restarted"))
            self._cut_short.append((service, runner))
        elif lost:
            runner.turn(Setback(f"{lost[0].intent.instance} ended while no control plane ran"))
        service.bury(dead, runner if lost else None)

    # Requests

    async def deploy(self, order: Order, asker: Asker) -> Answer:
        """Deploy `order`, whose service may be new."""
        service = self.services.get(order.service)
        if service is None:
            service = self._service(ServiceRecord(order.service, order.route, Demand(), retain=order.retain))
        self._certificates.require(order.route.tls)
        await self._addresses.refuse(order)
        if order.service not in self.services:
            self.services[order.service] = service
            service.begin()
        if service.record.stable is None and service.rollout is None:
            service.keeper.set_route(order.route)
        return await service.deploy(order, asker)

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
