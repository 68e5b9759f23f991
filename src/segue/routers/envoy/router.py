"""The router: one Envoy beside the control plane.

Rule 1: nothing is told to Envoy before the first table is known; an Envoy that runs goes on with what it has.
Rule 2: one table at a time. It is confirmed, or what was there before is restored: a refusal changes nothing.
Rule 3: what is new is told first; what nothing refers to any more is taken away last.
"""

from __future__ import annotations

import asyncio
import errno
import json
import re
import socket
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from segue.core.traffic import Ends, InstanceId, Observed, RoutingTable
from segue.errors import Refused, RouterLost, RouterRefused, SegueError
from segue.minding import beside
from segue.routers.envoy import http, process, sampling, visits
from segue.routers.envoy.admin import Statistics
from segue.routers.envoy.documents import Document
from segue.routers.envoy.ends import draining, ends, pattern
from segue.routers.envoy.lasting import LastTable, next_epoch
from segue.routers.envoy.names import address, any_of, cluster_name, statistic
from segue.routers.envoy.proxy import Proxy
from segue.routers.envoy.sampling import Sampling
from segue.routers.envoy.snapshot import Builder, Kind, Snapshot
from segue.routers.envoy.xds import ConfigServer
from segue.together import Together

CONFIRMED_WITHIN = 20.0
"""Seconds that Envoy may take to confirm a table and to be warm."""
CONNECTED_WITHIN = 10.0
"""Seconds that Envoy may take to come for a table, be it that it is being restarted."""
CLOSED_WITHIN = 2.0
"""Seconds that a listener may take to close after Envoy has confirmed that it goes."""
_POLL = 0.002

_WARMING = "cluster_manager.warming_clusters", "listener_manager.total_listeners_warming"
_WORKING = "listener_manager.workers_started"
_CREATED = "listener_manager.listener_create_success"
_STATE = f"^({'|'.join(map(re.escape, (*_WARMING, _WORKING, _CREATED)))})$"

log = structlog.get_logger()


class EnvoyRouter:
    """Splits the traffic with an Envoy whose files are in `folder`. `concurrency`: its workers, default one a core.

    `drain`: seconds that connections have when Envoy itself or one of its listeners is replaced.
    """

    def __init__(self, folder: Path, *, concurrency: int | None = None, drain: int = process.DRAIN) -> None:
        self.folder = folder
        self._proxy = Proxy(folder, concurrency, drain)
        self._server = ConfigServer()
        self._builder = Builder()
        self._last = LastTable(folder)
        self._table: RoutingTable | None = None
        self._snapshot = Snapshot()
        self._busy = asyncio.Lock()
        self._barrier, self._seen = Together(self._pass_barrier), Together(self._look)
        self._left: set[str] = set()
        self._barriers = 0
        self._sampling: tuple[str, Sampling] | None = None
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Adopt the Envoy that runs, or start one. It is told nothing before the first `apply`."""
        await self._proxy.start()
        self._looking = beside(self._look_after_counting(), "Envoy")

    async def close(self) -> None:
        """Let go of Envoy, which goes on serving."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._proxy.close()
        await self._server.close()
        await self._last.written()

    async def shutdown(self, drain: float = 0) -> None:
        """End Envoy, after at most `drain` seconds for requests in flight."""
        await self._proxy.stop(drain)
        await self.close()

    @property
    def table(self) -> RoutingTable:
        """The last confirmed table."""
        return self._table or RoutingTable()

    @property
    def pid(self) -> int:
        """The process that serves. Raises RouterLost before `start`."""
        return self._proxy.running.pid

    async def apply(self, table: RoutingTable) -> None:
        """Return when Envoy has confirmed `table` and is warm. Raises RouterRefused, RouterLost."""
        async with self._busy:
            target = self._builder.build(table)
            await self._refuse_strangers(target)
            await self._open()
            await (self._sampled().rests() if table.at_rest else self._sampled().moves())
            try:
                await self._tell(target)
            except RouterRefused:
                await self._restore()
                raise
            self._snapshot, self._table = target, table
            self._forget()
            self._last.write(self._builder.services)

    async def _look_after_counting(self) -> None:
        """See to it that what is counted fits the traffic, and whether there is rest."""
        while True:
            await asyncio.sleep(sampling.EVERY)
            async with self._busy:
                if self._table is not None:
                    with suppress(RouterLost):
                        sampled, now = self._sampled(), asyncio.get_running_loop().time()
                        await (sampled.resting(now) if self._table.at_rest else sampled.moving(now))

    def _sampled(self) -> Sampling:
        """What the Envoy that serves counts; one that has started since then is another one."""
        node = self._proxy.running.node
        if self._sampling is None or self._sampling[0] != node:
            self._sampling = node, Sampling(self._proxy.admin)
        return self._sampling[1]

    async def tend(self) -> None:
        """Empty what Envoy has written for nobody, again: its last lines came after the table that needs none."""
        self._forget()

    def _forget(self) -> None:
        if not any(of.experiment or of.learning for of in self.table.services.values()):
            visits.forget(self.folder)

    async def settled(self) -> None:
        """The barrier: return when every worker is past the last confirmed table. Raises RouterLost."""
        await self._barrier()

    async def _pass_barrier(self, _: Collection[str]) -> None:
        async with self._busy:
            self._barriers += 1
            name = f"~barrier-{self._server.epoch}.{self._barriers}"
            barrier = Kind.LISTENER.pack(http.barrier(name, self._barrier_address(name)))
            passed = await self._created(1)
            self._server.put(Kind.LISTENER, {name: barrier})
            try:
                await self._confirmed(Kind.LISTENER)
                await self._soon(passed)
            finally:
                self._server.keep_only(Kind.LISTENER, self._snapshot.listeners)
        await self._proxy.parent_gone()
        await self._last.written()

    async def observe(self, service: str) -> Mapping[InstanceId, Observed]:
        """What Envoy sees of a service's instances; requests that wait for a connection are in flight, too."""
        if service not in self.table.services:
            return {}
        backends = self.table.services[service].backends
        values, ended = await self._seen(service)
        observed = {}
        for backend in backends:
            cluster = statistic(cluster_name(service, backend.revision))
            for endpoint in backend.endpoints:
                name = f"cluster.{cluster}.endpoint.{statistic(endpoint.address)}"
                active = values.get(f"{name}.rq_active", 0) + values.get(f"{name}.rq_pending_active", 0)
                so_far = ended.get(endpoint.instance, Ends())
                observed[endpoint.instance] = Observed(bool(values.get(f"{name}.healthy")), active, so_far)
        return observed

    async def _look(self, services: Collection[str]) -> tuple[Mapping[str, int], Mapping[InstanceId, Ends]]:
        """What Envoy's statistics say of the instances of `services`, and how requests to those that drain ended."""
        tables = [self.table.services[name] for name in services if name in self.table.services]
        leaving = [tag for table in tables for tag in draining(table.service, table.backends)]
        ended = ends((await self.stats(pattern(leaving), only="Counters", used=True)).values) if leaving else {}
        seen = await self.stats(rf"^cluster\.({any_of(services)})@.*\.endpoint\.", only="Gauges")
        return seen.values, ended

    async def refuse_taken(self, listen: str) -> None:
        """Raise Refused if a stranger listens on `listen`: Envoy would silently share the port with it."""
        if listen not in await self._listening():
            await self._refuse_stranger(listen)

    async def stats(self, pattern: str, *, only: str = "All", used: bool = False) -> Statistics:
        """Envoy's statistics whose names `pattern` is found in; see `Admin.stats`. Raises RouterLost."""
        return await self._proxy.admin.stats(pattern, only=only, used=used)

    async def _refuse_strangers(self, target: Snapshot) -> None:
        added = target.listeners - self._snapshot.listeners
        if added:
            for listen in added - await self._listening():
                try:
                    await self._refuse_stranger(listen)
                except Refused as refused:
                    raise RouterRefused(refused.message, next=refused.next) from refused

    async def _refuse_stranger(self, listen: str) -> None:
        """Raise Refused if `listen` is taken. A listener of ours that was taken away may need a moment to close."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (CLOSED_WITHIN if listen in self._left else 0)
        while True:
            try:
                return _refuse_taken(listen)
            except Refused:
                if loop.time() >= deadline:
                    raise
            await asyncio.sleep(_POLL)

    async def _open(self) -> None:
        """Answer Envoy from now on, and replace one that asks nobody by one that asks us."""
        if not self._server.serving:
            await self._server.open(self._proxy.ads, next_epoch(self.folder))
        if self._proxy.is_static:
            await self._proxy.replace()
        await self._server.connected(lambda: self._proxy.running.node, CONNECTED_WITHIN)

    async def _tell(self, target: Snapshot) -> None:
        server, wanted = self._server, target.resources
        server.forget_refusals()
        grown = server.put(Kind.CLUSTER, wanted[Kind.CLUSTER])
        server.put(Kind.ENDPOINTS, wanted[Kind.ENDPOINTS])
        await self._confirmed(Kind.CLUSTER, Kind.ENDPOINTS)
        if grown:
            await self._soon(_warm)
        await self._tell_outside(target)
        await self._take_away(target)

    async def _tell_outside(self, target: Snapshot) -> None:
        """What users meet: listeners and routes."""
        server, wanted = self._server, target.resources
        added = target.listeners - self._snapshot.listeners
        created = await self._created(len(added - await self._listening())) if added else None
        server.put(Kind.SECRET, wanted[Kind.SECRET])
        changed = server.put(Kind.LISTENER, wanted[Kind.LISTENER])
        server.put(Kind.ROUTES, wanted[Kind.ROUTES])
        await self._confirmed(*Kind)
        if changed:
            await self._soon(lambda state: (created is None or created(state)) and _warm(state))

    async def _take_away(self, target: Snapshot) -> None:
        server, wanted = self._server, target.resources
        self._left |= self._snapshot.listeners - target.listeners
        for kind in (Kind.LISTENER, Kind.CLUSTER):
            server.keep_only(kind, wanted[kind])
            server.prune(kind)
            await self._confirmed(kind)
        for kind in (Kind.ENDPOINTS, Kind.SECRET, Kind.ROUTES):
            server.keep_only(kind, wanted[kind])

    async def _restore(self) -> None:
        """Go back to the last confirmed table; without one Envoy keeps what it has."""
        if self._table is None:
            return
        server, wanted = self._server, self._snapshot.resources
        server.forget_refusals()
        for kind in Kind:
            server.put(kind, wanted[kind])
        for kind in (Kind.ENDPOINTS, Kind.SECRET, Kind.LISTENER, Kind.ROUTES):  # what was refused is not waited for
            server.keep_only(kind, wanted[kind])
        try:
            await self._confirmed(*Kind)
            server.keep_only(Kind.CLUSTER, wanted[Kind.CLUSTER])
            await self._confirmed(Kind.CLUSTER)
        except SegueError as error:
            log.error("table_not_restored", error=error.message)

    async def _confirmed(self, *kinds: Kind) -> None:
        await self._server.confirmed(self._proxy.running.node, kinds, CONFIRMED_WITHIN)

    async def _created(self, listeners: int) -> Callable[[Mapping[str, int]], bool]:
        """Whether, after now, so many listeners have come into being on every worker."""
        before = (await self._state()).get(_CREATED, 0)
        return lambda state: state.get(_CREATED, 0) >= before + listeners * self._proxy.running.concurrency

    async def _state(self) -> Mapping[str, int]:
        return (await self.stats(_STATE)).values

    async def _soon(self, reached: Callable[[Mapping[str, int]], bool]) -> None:
        node = self._proxy.running.node
        try:
            async with asyncio.timeout(CONFIRMED_WITHIN):
                while not reached(await self._state()):
                    await asyncio.sleep(_POLL)
                    if self._proxy.running.node != node:
                        raise RouterLost("The router was restarted.")
        except TimeoutError:
            raise RouterLost(f"The router was not ready within {CONFIRMED_WITHIN:g} s.") from None

    async def _listening(self) -> frozenset[str]:
        statuses = json.loads(await self._proxy.admin.get("/listeners?format=json")).get("listener_statuses", [])
        return frozenset(status["name"] for status in statuses)

    def _barrier_address(self, name: str) -> Document:
        if sys.platform == "linux":
            return {"pipe": {"path": f"@segue-{process.base_id(self.folder)}-{name}"}}
        return {"pipe": {"path": str(process.sockets(self.folder) / f"{name}.sock")}}


def _warm(state: Mapping[str, int]) -> bool:
    return not any(state.get(name) for name in _WARMING)


def _refuse_taken(listen: str) -> None:
    place = address(listen)["socket_address"]
    host, port = place["address"], place["port_value"]
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                what = f"Another program listens on port {port} ({listen})."
                raise Refused(what, next=f"ss -ltnp 'sport = {port}'") from error
            raise Refused(f"Segue cannot listen on {listen}: {error.strerror}.") from error
