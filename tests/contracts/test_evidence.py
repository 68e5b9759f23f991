"""Envoy's statistics, and the fake, keep the contract of the evidence port."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from segue.core.release import Experiment, Revision
from segue.core.traffic import Backend, Endpoint, InstanceId, Route, RoutingTable, ServiceTable, Sticky, Traffic
from segue.evidence.envoy import EnvoyEvidence
from segue.ports import Evidence
from segue.routers.envoy.router import EnvoyRouter
from segue.testing.clock import VirtualClock
from segue.testing.contracts.evidence import NEW, OLD, EvidenceContract, Stand, instance
from segue.testing.fakes import World
from segue.testing.site import free_port

T = TypeVar("T")


def table(
    shares: Mapping[Revision, Fraction],
    trial: Revision | None,
    listen: str,
    instances: int = 1,
    ports: Mapping[InstanceId, int] | None = None,
    experiment: Experiment | None = None,
) -> RoutingTable:
    backends = []
    for revision, share in shares.items():
        names = [instance(revision, number) for number in range(1, instances + 1)]
        ends = (Endpoint(name, f"127.0.0.1:{(ports or {}).get(name, 1)}", Traffic.READY) for name in names)
        backends.append(Backend(revision, Fraction(share), tuple(ends)))
    of = ServiceTable("shop", Route(listen=listen), tuple(backends), trial, experiment=experiment)
    return RoutingTable({"shop": replace(of, sticky=Sticky()) if experiment else of})


def apart(told: RoutingTable, paths: tuple[str, ...], *, learning: bool) -> RoutingTable:
    return RoutingTable({"shop": replace(told.services["shop"], paths=paths, learning=learning)})


class Fakes(Stand):
    """The fakes, in virtual time."""

    def __init__(self) -> None:
        self._clock = VirtualClock()
        self._world = World(self._clock)
        self._failing: dict[str, float] = {}

    @property
    def evidence(self) -> Evidence:
        return self._world.evidence

    async def route(
        self,
        shares: Mapping[Revision, Fraction],
        *,
        trial: Revision | None = None,
        instances: int = 1,
        experiment: Experiment | None = None,
        paths: tuple[str, ...] = (),
        learning: bool = False,
    ) -> None:
        told = table(shares, trial, "127.0.0.1:8080", instances, experiment=experiment)
        await self._world.router.apply(apart(told, paths, learning=learning))

    async def fail(self, *names: Revision | InstanceId) -> None:
        self._failing = dict.fromkeys(names, 1.0)

    async def request(self, count: int, path: str = "/") -> None:
        paths = {path.partition("?")[0]: Fraction(1)}
        self._world.evidence.flow("shop", rate=count, failing=self._failing, paths=paths)
        await self._clock.sleep(1)
        self._world.evidence.flow("shop", rate=0)

    def run(self, story: Coroutine[Any, Any, T]) -> T:
        return self._clock.run(story)


class Envoy(Stand):
    """A real Envoy before small servers in this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._failing: set[str] = set()
        self._ports: dict[InstanceId, int] = {}

    @property
    def evidence(self) -> Evidence:
        return EnvoyEvidence(self._router)

    async def route(
        self,
        shares: Mapping[Revision, Fraction],
        *,
        trial: Revision | None = None,
        instances: int = 1,
        experiment: Experiment | None = None,
        paths: tuple[str, ...] = (),
        learning: bool = False,
    ) -> None:
        told = table(shares, trial, self._listen, instances, self._ports, experiment)
        await self._router.apply(apart(told, paths, learning=learning))
        await self._router.settled()

    async def fail(self, *names: Revision | InstanceId) -> None:
        self._failing = set(names)

    async def request(self, count: int, path: str = "/") -> None:
        async with httpx.AsyncClient(base_url=f"http://{self._listen}", timeout=20) as client:
            for _ in range(count):
                await client.get(path)

    def run(self, story: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(self._around(story))

    async def _around(self, story: Coroutine[Any, Any, T]) -> T:
        servers = [await self._serve(revision, number) for revision in (OLD, NEW) for number in (1, 2)]
        self._listen = f"127.0.0.1:{free_port()}"
        self._router = EnvoyRouter(self._folder, concurrency=2, drain=2)
        await self._router.start()
        try:
            return await story
        finally:
            await self._router.shutdown()
            for server in servers:
                server.close()

    async def _serve(self, revision: Revision, number: int) -> asyncio.Server:
        names: set[str] = {revision, instance(revision, number)}

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await _head(reader):
                status = b"500 Broken" if names & self._failing else b"200 OK"
                writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\nok")
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self._ports[instance(revision, number)] = server.sockets[0].getsockname()[1]
        return server


async def _head(reader: asyncio.StreamReader) -> bool:
    try:
        return bool(await reader.readuntil(b"\r\n\r\n"))
    except (asyncio.IncompleteReadError, ConnectionError):
        return False


class TestFakes(EvidenceContract):
    @pytest.fixture
    def stand(self) -> Stand:
        return Fakes()


class TestEnvoy(EvidenceContract):
    @pytest.fixture
    def stand(self, tmp_path: Path) -> Stand:
        return Envoy(tmp_path / "router")
