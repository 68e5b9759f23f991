"""A control plane over the fakes, on virtual time: rollouts of minutes in milliseconds, crashes anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from segue.core.release import BlueGreen, Canary, InPlace, Rolling
from segue.core.traffic import Traffic
from segue.core.version import Health, SmokeCommand
from segue.engine import documents
from segue.engine.control import ControlPlane
from segue.engine.control import World as Adapters
from segue.engine.keeper import Keeper
from segue.engine.orders import Answer, Asker, Order
from segue.engine.records import RolloutRecord
from segue.evidence.logs import LogLines
from segue.testing.clock import Crashed, VirtualClock
from segue.testing.fake_traffic import FakeRouter
from segue.testing.fakes import World

T = TypeVar("T")


class LivingRouter(FakeRouter):
    """The fake router with the life that a control plane gives a real one: there is nothing to start."""

    async def start(self) -> None:
        """It is there already."""

    async def close(self) -> None:
        """It stays."""

    async def shutdown(self) -> None:
        """It would end."""

    async def tend(self) -> None:
        """There is nothing to do."""


@dataclass
class Lab:
    """A home in `folder` and a world that outlives the control planes that `run` brings up on it."""

    folder: Path
    boot: str = "boot-1"
    clock: VirtualClock = field(default_factory=VirtualClock)
    writes: int = 0
    crash_at_write: int | None = None

    def __post_init__(self) -> None:
        self.world = World(self.clock, LivingRouter)

    def run(self, scene: Callable[[ControlPlane], Awaitable[T]]) -> T:
        """What `scene` returns, played with a control plane that is brought up before and let go after it."""

        async def play() -> T:
            async with self.plane() as plane:
                return await scene(plane)

        return self.clock.run(play())

    @asynccontextmanager
    async def plane(self) -> AsyncIterator[ControlPlane]:
        """A control plane on this home."""
        world = self.world
        router = world.router
        assert isinstance(router, LivingRouter)
        adapters = Adapters(
            platform=world.platform,
            router=router,
            evidence=world.evidence,
            commands=world.commands,
            lines=lambda patterns: LogLines(world.platform, patterns),
            source=world.sources,
            clock=self.clock,
            boot=self.boot,
        )
        plane = ControlPlane(self.folder, adapters)
        self._count_writes(plane)
        await plane.start()
        try:
            yield plane
        finally:
            await plane.close()

    def _count_writes(self, plane: ControlPlane) -> None:
        """Count the journal's transactions, and crash the control plane right after the one that is ordered."""
        database = plane.journal._db
        written = database._written

        def count() -> None:
            written()
            self.writes += 1
            if self.writes == self.crash_at_write:
                self.crash_at_write = None
                database.close()  # nothing that still runs before the loop stops can write any more
                asyncio.get_running_loop().crash()  # type: ignore[attr-defined]
                raise Crashed

        database._written = count

    def cover(self, service: str = "shop") -> list[str]:
        """Where a confirmed table gave a version more of the traffic than its ready instances can carry."""
        found = []
        for at, table in self.world.router.history:
            known = table.services.get(service)
            for backend in known.backends if known else ():
                ready = sum(end.state is Traffic.READY for end in backend.endpoints)
                if backend.share and not ready:
                    found.append(f"at {at:.3f} s {backend.revision} is given {backend.share} without an instance")
        return found


def an_order(version: str = "v1", service: str = "shop", **changes: Any) -> Order:
    """An order of four instances whose health and smoke tests the fakes answer; `changes` are fields of `Order`."""
    wanted: dict[str, Any] = {
        "replicas": 4,
        "strategy": Rolling(first_judge=timedelta(seconds=10), judge=timedelta(seconds=5)),
        "health": Health(command="health {url}"),
        "smoke": (SmokeCommand("smoke {url}"),),
        "command": "serve {version}",
        **changes,
    }
    return Order(service=service, version=version, folder=Path("/nowhere"), **wanted)


async def deployed(plane: ControlPlane, order: Order, asker: Asker | None = None) -> RolloutRecord:
    """The rollout of `order`, when it has ended."""
    return await ended(plane, await plane.deploy(order, asker or Asker()))


async def ended(plane: ControlPlane, answer: Answer) -> RolloutRecord:
    """The rollout that `answer` names, when it has ended."""
    assert answer.rollout is not None, answer.message
    while True:
        record = plane.journal.rollout(answer.rollout)
        if record is not None and record.ended is not None:
            return record
        await asyncio.sleep(0.25)


async def tidied(plane: ControlPlane) -> None:
    """Return when every service has exactly the instances that are demanded of it."""
    for service in plane.services.values():
        keeper = service.keeper

        def tidy(keeper: Keeper = keeper) -> bool:
            ready = {revision: keeper.fleet.ready(revision) for revision in keeper.demand.counts}
            return ready == dict(keeper.demand.counts) and len(keeper.fleet.members) == sum(ready.values())

        await keeper.bell.until(tidy)


def status(plane: ControlPlane) -> dict[str, Any]:
    """The status document."""
    return documents.status(plane.services.values())


STRATEGIES = (
    Rolling(first_judge=timedelta(seconds=10), judge=timedelta(seconds=5)),
    Rolling(
        first_judge=timedelta(seconds=10), judge=timedelta(seconds=5), batch=2, surge=2, keep=timedelta(minutes=1)
    ),
    InPlace(first_judge=timedelta(seconds=10), judge=timedelta(seconds=5)),
    BlueGreen(judge=timedelta(seconds=20), keep=timedelta(minutes=1)),
    BlueGreen(judge=timedelta(seconds=20), keep=timedelta(0)),
    Canary(least=timedelta(seconds=5), most=timedelta(minutes=5), keep=timedelta(minutes=1)),
)
"""Every strategy that ends by itself."""
