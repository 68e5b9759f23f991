"""Visits: users of every kind are there while a service, and perhaps one that speaks gRPC, goes from v1 to v2."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from homes import AT_ONCE, Service
from loads import eventually
from users import Stream, Visit

from segue.testing import streams
from segue.testing.site import Shop

STOP = {"drain": "1s", "grace": "60s"}
STREAMS = f"{sys.executable} -m segue.testing.streams {{port}} {{version}}"
GRPC = f"{sys.executable} -m segue.testing.grpc_app {{port}} {{version}}"


def opened(
    strategy: str,
    shop: Service,
    rpc: Service | None = None,
    *,
    replicas: int = 2,
    tls: Mapping[str, str] | None = None,
    **settings: Any,
) -> None:
    """Deploy v1: so many instances of `shop`, one of `rpc`; with `tls` users come with that."""
    common: dict[str, Any] = {"strategy": AT_ONCE[strategy], "stop": STOP, **settings}
    shown = {"tls": tls} if tls else {}
    way = {"listen": f"127.0.0.1:{shop.port}", **shown}
    shop.write(process={"command": STREAMS}, replicas=replicas, route=way, **common)
    shop.deploy("v1")
    if rpc:
        route = {"listen": f"127.0.0.1:{rpc.port}", "protocol": "grpc", **shown}
        by_connecting = {"every": "50ms", "healthy": 1}
        common |= {"service": "rpc", "replicas": 1, "route": route, "health": by_connecting}
        Shop.write(rpc, process={"command": GRPC}, **common)
        rpc.deploy("v1")


async def rolled(
    visit: Visit,
    clients: Mapping[str, Coroutine[Any, Any, Any]],
    *services: Service,
    rest: float = 0,
    within: float = 60,
) -> Mapping[str, Any]:
    """What the clients have seen, by their names, of rollouts from v1 to v2.

    They begin `rest` seconds after all have come. Once they are decided, v1 must be gone `within` so many seconds.
    """
    tasks = {name: visit.begin(name, client) for name, client in clients.items()}
    try:
        await visit.all_at("v1")
        await visit.pause(rest)
        deploying = [asyncio.to_thread(service.deploy, "v2") for service in services]
        await asyncio.gather(*deploying, _leaving(visit, services[0]))
        await asyncio.to_thread(eventually, lambda: all(map(_gone, services)), within)
        await visit.all_at("v2")
        visit.over.set()
        done = await asyncio.wait_for(asyncio.gather(*tasks.values(), return_exceptions=True), 20)
    finally:
        for task in tasks.values():
            task.cancel()
    return dict(zip(tasks, done, strict=True))


async def _leaving(visit: Visit, service: Service) -> None:
    """Say so when the first of v1's instances has begun to leave."""

    def begun() -> bool:
        return any(one["state"] != "ready" for one in service.status()["versions"]["v1"]["instances"])

    await asyncio.to_thread(eventually, begun, 60)
    visit.leaving.set()


def _gone(service: Service) -> bool:
    """Whether there are no instances but those of v2."""
    return {name for name, version in service.status()["versions"].items() if version["instances"]} == {"v2"}


def seen(what: Any) -> Any:
    """What a client has seen; what was raised in it is raised."""
    if isinstance(what, BaseException):
        raise what
    return what


def came_through(found: list[Stream], goodbye: object, left: object) -> None:
    """Every stream but the last was said goodbye to, and nothing was lost before; the last one is v2's."""
    *ended, last = found
    assert found[0].version == "v1", found
    assert (last.version, last.end) == ("v2", left), found
    for stream in ended:
        assert stream.end == goodbye, stream
        assert stream.bye is not None, stream
        assert stream.bye == [len(stream.ticks), len(stream.echoes)][: len(stream.bye)], stream
    for stream in found:
        assert stream.ticks == list(range(1, len(stream.ticks) + 1)), stream
        assert stream.echoes == list(range(1, len(stream.echoes) + 1)), stream


def body_sum(size: int) -> str:
    """The sha256 of the application's body of so many bytes."""
    digest = hashlib.sha256()
    for block in streams.blocks(size):
        digest.update(block)
    return digest.hexdigest()


def written(path: Path, size: int) -> Path:
    """A file of so many bytes."""
    with path.open("wb") as file:
        for block in streams.blocks(size):
            file.write(block)
    return path
