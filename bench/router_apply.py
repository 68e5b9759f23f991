"""How soon a change of shares is confirmed: `EnvoyRouter.apply`, its median over 200 changes, idle and under load.

``python bench/router_apply.py [INSTANCES [SERVICES]]``. One service with two versions is shifted to and fro, beside
SERVICES - 1 others; wrk with 64 connections is the load. The last line is what of it is spent before Envoy is told
anything: the new table's documents.
"""

from __future__ import annotations

import asyncio
import shlex
import statistics
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import common

from segue.core.release import Revision
from segue.core.traffic import Backend, Endpoint, InstanceId, Route, RoutingTable, ServiceTable, Traffic
from segue.routers.envoy.router import EnvoyRouter
from segue.routers.envoy.snapshot import Builder
from segue.testing.load import Wrk, tiny_app
from segue.testing.site import free_port

CHANGES = 200
OLD, NEW = Revision("v1.1"), Revision("v2.1")
TARGET = 5
"""Milliseconds."""


def tables(listen: str, ports: list[int], instances: int, services: int) -> list[RoutingTable]:
    """One table for each change, none of which is the one before it."""
    others = {
        name: ServiceTable(name, Route(listen, (f"{name}.example",)), (_backend(OLD, Fraction(1), ports, instances),))
        for name in (f"service{number}" for number in range(1, services))
    }
    made = []
    for number in range(CHANGES):
        share = Fraction(1 + number % 99, 100)
        sides = _backend(OLD, 1 - share, ports[:1], instances), _backend(NEW, share, ports[1:], instances)
        made.append(RoutingTable({**others, "shop": ServiceTable("shop", Route(listen), sides, NEW)}))
    return made


def _backend(revision: Revision, share: Fraction, ports: list[int], instances: int) -> Backend:
    """A version, of whose instances the first is there; the others are draining."""
    alive = Endpoint(InstanceId(f"shop-{revision}-1"), f"127.0.0.1:{ports[0]}", Traffic.READY)
    away = (
        Endpoint(InstanceId(f"shop-{revision}-{number}"), f"127.0.0.1:{number}", Traffic.DRAINING)
        for number in range(2, instances + 1)
    )
    return Backend(revision, share, (alive, *away))


async def changes(router: EnvoyRouter, these: list[RoutingTable]) -> list[float]:
    """How long each took, in milliseconds."""
    took = []
    for table in these:
        began = time.perf_counter()
        await router.apply(table)
        took.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.02)
    return took


def building(these: list[RoutingTable]) -> list[float]:
    """How long the documents of each took, in milliseconds."""
    builder, took = Builder(), []
    for table in these:
        began = time.perf_counter()
        builder.build(table)
        took.append((time.perf_counter() - began) * 1000)
    return took


def shown(what: str, took: list[float]) -> str:
    """Median and tail."""
    ordered = sorted(took)
    tail = ordered[int(0.99 * len(ordered))]
    return f"{what:28} median {statistics.median(ordered):6.2f} ms   p99 {tail:6.2f} ms"


async def main(instances: int, services: int) -> None:
    """Measure and print."""
    ports, listen = [free_port(), free_port()], f"127.0.0.1:{free_port()}"
    apps = [await asyncio.create_subprocess_exec(*shlex.split(tiny_app()), str(port)) for port in ports]
    these = tables(listen, ports, instances, services)
    with tempfile.TemporaryDirectory(prefix="sg-") as folder:
        router = EnvoyRouter(Path(folder) / "router")
        await router.start()
        try:
            await router.apply(these[-1])
            print(shown("idle", await changes(router, these)), flush=True)
            wrk = Wrk(f"http://{listen}/")
            print(shown("under load", await changes(router, these)), f"(target {TARGET} ms)", flush=True)
            seen = await asyncio.to_thread(wrk.stop)
            print(f"{seen.lost} of {seen.requests} requests lost", flush=True)
        finally:
            await router.shutdown()
            for app in apps:
                app.kill()
                await app.wait()
    print(shown("  of it building", building(these)))


if __name__ == "__main__":
    for name, value in common.facts():
        print(f"{name}: {value}")
    given = dict(enumerate(map(int, sys.argv[1:])))
    asyncio.run(main(given.get(0, 4), given.get(1, 1)))
