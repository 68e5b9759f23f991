"""A world in which anything may go wrong at any await of a port.

Rule 1: what goes wrong is drawn from the scene's one source of chance, so that a seed is a whole story.
Rule 2: a port fails only as its protocol says that it may; what never comes back is a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from segue.core.traffic import Backend, Endpoint, InstanceId, RoutingTable, Traffic
from segue.errors import RouterLost, StartFailed
from segue.ports import Instance
from segue.testing.calls import (
    Act,
    Apply,
    BooksOf,
    Call,
    Confirmed,
    Event,
    Exited,
    Look,
    Observe,
    Record,
    SampleOf,
    Seen,
    Settle,
    Start,
    Stop,
)
from segue.testing.clock import VirtualClock
from segue.testing.fake_commands import FakeCommands
from segue.testing.fake_platform import FakePlatform
from segue.testing.fake_sources import FakeSources
from segue.testing.fake_traffic import FakeEvidence
from segue.testing.fakes import World
from segue.testing.plane import LivingRouter

KINDS = ("crash", "write", "late", "lost", "unanswered", "cut off", "refused", "death", "sick", "disk", "reboot")
HARMLESS = frozenset({"crash", "write", "late"})
"""What must change nothing of how a rollout ends."""

OF_ROUTER = (Apply, Settle, Observe, SampleOf, BooksOf)
LATE = (0.001, 0.02, 0.02, 0.4, 1.5)
MOST = 8
"""Faults in a scene."""


@dataclass
class Storm:
    """What goes wrong: at an await with `odds`, five times as often where the world is changed, one of `kinds`."""

    rng: Random
    clock: VirtualClock
    odds: float
    kinds: Sequence[str]
    struck: list[str] = field(default_factory=list)
    full_until: float = -1.0
    rebooted: bool = False
    _cut_until: float = -1.0
    _healing: list[tuple[float, InstanceId]] = field(default_factory=list)

    def calm(self) -> None:
        """From now on nothing goes wrong any more."""
        self.odds, self.full_until, self._cut_until = 0.0, -1.0, -1.0
        self._healing = [(0.0, instance) for _, instance in self._healing]

    @property
    def harmless(self) -> bool:
        """Whether all that went wrong so far must change nothing of how a rollout ends."""
        return HARMLESS.issuperset(self.struck)

    def drawn(self, call: Act | Look, *, before: bool) -> str | None:
        """What goes wrong at this await, if anything does."""
        odds = self.odds * (5 if isinstance(call, Act) else 1)
        if len(self.struck) >= MOST or not odds or self.rng.random() >= odds:
            return None
        kind = self.rng.choice(self.kinds)
        fits = {
            "lost": before and isinstance(call, OF_ROUTER),
            "unanswered": not before and isinstance(call, OF_ROUTER),
            "refused": before and isinstance(call, Start),
        }
        if not fits.get(kind, True):
            return None
        self.struck.append(kind)
        return kind

    def cut_off(self) -> bool:
        """Whether the router cannot be reached now."""
        return self.clock.monotonic() < self._cut_until

    def cut(self) -> None:
        """The router cannot be reached for a while."""
        self._cut_until = self.clock.monotonic() + self.rng.uniform(0.1, 4)

    def sicken(self, platform: FakePlatform) -> None:
        """An instance is not healthy for a while."""
        if platform.running:
            instance = self.rng.choice(platform.running).id
            platform.sick.add(instance)
            self._healing.append((self.clock.monotonic() + self.rng.uniform(0.1, 12), instance))

    def heal(self, platform: FakePlatform) -> None:
        """Those are healthy again whose time has come."""
        now = self.clock.monotonic()
        platform.sick -= {instance for until, instance in self._healing if until <= now}
        self._healing = [one for one in self._healing if one[0] > now]


class StormyRecord(Record):
    """A record at whose every await something may go wrong, and that has a witness."""

    def __init__(self, storm: Storm, clock: VirtualClock) -> None:
        super().__init__()
        self._storm, self._clock = storm, clock
        self.trace: list[str] = []
        self.see: Callable[[Call], None] = lambda call: None
        self.world: StormyWorld
        self.write_crash: Callable[[int], None] = lambda after: None
        self.died: Callable[[Instance], None] = lambda instance: None

    def say(self, text: str) -> None:
        """Note what happened, for those who read the story of a seed."""
        self.trace.append(f"{self._clock.monotonic():10.4f}  {text}")

    def happened(self, event: Event) -> None:
        """Note what no call of the control plane has said."""
        super().happened(event)
        self.say(told(event))
        self.see(event)

    @asynccontextmanager
    async def during(self, call: Act | Look) -> AsyncIterator[None]:
        """Note `call`; within, it takes effect; before and after, something may go wrong."""
        self.calls.append(call)
        self.say(told(call))
        self._storm.heal(self.world.platform)
        if isinstance(call, Observe):
            self.world.serve()
        self.see(call)
        await self._strike(call, before=True)
        yield
        await self._strike(call, before=False)

    async def _strike(self, call: Act | Look, *, before: bool) -> None:
        storm = self._storm
        if before and storm.cut_off() and isinstance(call, OF_ROUTER):
            raise RouterLost("the router is cut off")
        kind = storm.drawn(call, before=before)
        if kind is None:
            return
        self.say(f"      !! {kind} {'before' if before else 'after'} {told(call)}")
        match kind:
            case "late":
                await self._clock.sleep(storm.rng.choice(LATE))
            case "lost" | "unanswered":
                raise RouterLost(f"the router: {kind}")
            case "refused":
                raise StartFailed("there is no room for it")
            case "crash" | "reboot":
                storm.rebooted = kind == "reboot"
                asyncio.get_running_loop().crash()  # type: ignore[attr-defined]
                await asyncio.get_running_loop().create_future()
            case _:
                self._harm(kind)

    def _harm(self, kind: str) -> None:
        """What goes wrong beside the call."""
        storm, world = self._storm, self.world
        match kind:
            case "write":
                self.write_crash(storm.rng.randint(1, 10))
            case "cut off":
                storm.cut()
                if storm.rng.random() < 0.5:
                    world.evidence.restart()
            case "death" if world.platform.running:
                instance = storm.rng.choice(world.platform.running)
                self.died(instance)
                world.platform.exit(instance.id)
            case "sick":
                storm.sicken(world.platform)
            case "disk":
                storm.full_until = self._clock.monotonic() + storm.rng.uniform(0.5, 10)


class StormyWorld(World):
    """The fakes over a record at whose every await something may go wrong."""

    def __init__(self, storm: Storm, clock: VirtualClock) -> None:
        self.clock, self.storm = clock, storm
        record = StormyRecord(storm, clock)
        self.record: StormyRecord = record
        self.platform = FakePlatform(clock, record)
        self.commands = FakeCommands(clock, record, self.platform)
        self.router = LivingRouter(clock, record)
        self.evidence = FakeEvidence(clock, self.router, record)
        self.sources = FakeSources(clock)
        self._busy: dict[str, float] = {}
        record.world = self

    def serve(self) -> None:
        """What is in flight now: what is given requests has some as a rule, and what leaves for a while."""
        now = self.clock.monotonic()
        routed = {end.address for end in given(self.router.table)}
        for instance in self.platform.running:
            address = instance.intent.address
            if address in routed:
                self._busy[address] = now + self.storm.rng.choice((0, 0, 0.2, 1))
            some = self._busy.get(address, 0.0) > now
            self.router.in_flight[instance.id] = int(some)


def told(call: Call) -> str:
    """One line about a call or an event, the same whenever the same happens."""
    match call:
        case Confirmed(table) | Apply(table):
            parts = [_shown(backend) for service in table.services.values() for backend in service.backends]
            return f"{type(call).__name__.lower():9} {' | '.join(parts) or 'nothing'}"
        case Start(intent):
            return f"start     {intent.instance} at {intent.address}"
        case Stop(instance, _, grace):
            return f"stop      {instance.id} at {instance.intent.address}{'' if grace else ' at once'}"
        case Exited(instance, status):
            return f"exited    {instance.id} at {instance.intent.address} with {status}"
        case Seen(instance, in_flight):
            return f"seen      {instance} with {in_flight} in flight"
    named = getattr(call, "command", None) or getattr(call, "instance", None)
    return f"{type(call).__name__.lower():9} {getattr(named, 'id', named) or ''}".rstrip()


def _shown(backend: Backend) -> str:
    ends = " ".join(f"{end.instance.rpartition('-')[2]}:{end.state.value}" for end in backend.endpoints)
    return f"{backend.revision} {backend.share} ({ends})"


def backends(table: RoutingTable) -> list[Backend]:
    """The versions of all services that `table` routes to."""
    return [backend for service in table.services.values() for backend in service.backends]


def ready(backend: Backend) -> list[Endpoint]:
    """The instances of `backend` that the router is told are ready."""
    return [end for end in backend.endpoints if end.state is Traffic.READY]


def given(table: RoutingTable) -> list[Endpoint]:
    """The endpoints that `table` gives requests to."""
    return [end for backend in backends(table) if backend.share for end in ready(backend)]
