"""What the fakes were asked to do, in order; what users would have lost by it; a crash before or after any of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from segue.core.traffic import Endpoint, InstanceId, RoutingTable, Traffic
from segue.ports import Instance, Intent


@dataclass(frozen=True, slots=True)
class Place:
    """`Platform.place` was called."""

    instance: InstanceId


@dataclass(frozen=True, slots=True)
class Start:
    """`Platform.start` was called."""

    intent: Intent


@dataclass(frozen=True, slots=True)
class Find:
    """`Platform.find` was called."""

    intents: tuple[Intent, ...]


@dataclass(frozen=True, slots=True)
class Gone:
    """`Platform.gone` was called."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class Listens:
    """`Platform.listens` was called."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class Stop:
    """`Platform.stop` was called."""

    instance: Instance
    signal: str
    grace: timedelta


@dataclass(frozen=True, slots=True)
class Logs:
    """`Platform.logs` was called."""

    instance: InstanceId


@dataclass(frozen=True, slots=True)
class Ran:
    """A command was asked for: a health check, a smoke test, a hook, a build."""

    command: str


@dataclass(frozen=True, slots=True)
class Began:
    """It happened: a command has really begun."""

    command: str


@dataclass(frozen=True, slots=True)
class Apply:
    """`Router.apply` was called."""

    table: RoutingTable


@dataclass(frozen=True, slots=True)
class Settle:
    """`Router.settled` was called."""


@dataclass(frozen=True, slots=True)
class Observe:
    """`Router.observe` was called."""

    service: str


@dataclass(frozen=True, slots=True)
class Probe:
    """`Router.refuse_taken` was called."""

    listen: str


@dataclass(frozen=True, slots=True)
class SampleOf:
    """`Evidence.sample` was called."""

    service: str


@dataclass(frozen=True, slots=True)
class BooksOf:
    """`Evidence.books` was called."""

    service: str


@dataclass(frozen=True, slots=True)
class Exited:
    """It happened: the main process of an instance has ended."""

    instance: Instance
    status: int


@dataclass(frozen=True, slots=True)
class Confirmed:
    """It happened: every proxy has confirmed `table`; a call of `apply` is about to return."""

    table: RoutingTable


@dataclass(frozen=True, slots=True)
class Settled:
    """It happened: every worker is past the last confirmed table; a call of `settled` is about to return."""


@dataclass(frozen=True, slots=True)
class Seen:
    """It happened: `observe` told how many requests `instance` has in flight."""

    instance: InstanceId
    in_flight: int


Act = Place | Start | Stop | Apply | Settle
"""A call that changes the world; the others only look."""

Look = Find | Gone | Listens | Logs | Ran | Observe | Probe | SampleOf | BooksOf
Event = Exited | Began | Confirmed | Settled | Seen
Call = Act | Look | Event


class Record:
    """All calls and what happened, in order, in `calls`. It can crash the control plane at any act."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._crash: tuple[int, bool] | None = None

    @property
    def acts(self) -> list[Act]:
        """The calls that change the world."""
        return [call for call in self.calls if isinstance(call, Act)]

    def happened(self, event: Event) -> None:
        """Note what no call of the control plane has said."""
        self.calls.append(event)

    def crash_at(self, act: int, *, after: bool = False) -> None:
        """Crash the virtual loop when the `act`-th act, counted from 1, is called, or `after` it took effect.

        An act that raises has no after. The crashed call never returns.
        """
        self._crash = act, after

    @asynccontextmanager
    async def during(self, call: Act | Look) -> AsyncIterator[None]:
        """Note `call`; within, it takes effect."""
        self.calls.append(call)
        number = len(self.acts) if self._crash and isinstance(call, Act) else 0
        await self._pass((number, False))
        yield
        await self._pass((number, True))

    async def _pass(self, here: tuple[int, bool]) -> None:
        if here == self._crash:
            self._crash = None
            asyncio.get_running_loop().crash()  # type: ignore[attr-defined]
            await asyncio.get_running_loop().create_future()


def losses(calls: Iterable[Call]) -> Iterator[str]:
    """The requests that could have been lost: instances that were stopped while some could still reach them.

    An instance that was ever given requests may be stopped when no worker can still follow a table that gives
    it some, and when `observe` has said since then that nothing is in flight. What has ended is past harm.
    """
    followed: list[RoutingTable] = []  # what some worker may still follow, the last confirmed at the end
    ever: set[str] = set()
    idle: set[InstanceId] = set()
    ended: set[str] = set()
    for call in calls:
        match call:
            case Confirmed(table):
                followed.append(table)
                ever |= {end.address for end in _given(table)}
                idle -= {end.instance for end in _given(table)}
            case Settled():
                followed = followed[-1:]
            case Seen(instance, in_flight):
                reached = any(end.instance == instance for table in followed for end in _given(table))
                (idle.discard if in_flight or reached else idle.add)(instance)
            case Exited(instance):
                ended.add(instance.intent.nonce)
            case Stop(instance) if instance.intent.nonce not in ended and instance.intent.address in ever:
                if any(end.address == instance.intent.address for table in followed for end in _given(table)):
                    yield f"{instance.id} was stopped while a worker could still give it requests"
                elif instance.id not in idle:
                    yield f"{instance.id} was stopped with requests in flight, or without looking"


def _given(table: RoutingTable) -> Iterator[Endpoint]:
    """The endpoints that `table` gives requests to."""
    for service in table.services.values():
        for backend in service.backends:
            yield from (end for end in backend.endpoints if backend.share and end.state is Traffic.READY)
