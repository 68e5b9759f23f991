"""What a listener must carry, at full length: a gigabyte in constant memory, and streams that are silent for long."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import callers
import curls
import grpc
import psutil
import pytest
import users
from homes import Service
from users import Visit
from visits import body_sum, came_through, opened, rolled, seen

from segue.routers.envoy.routes import BODY_BUFFER
from segue.testing.site import Segue

MB = 2**20
GB = 2**30
SILENCE = 180.0
"""Seconds of silence before the rollout, and at least as many after it."""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_gigabyte_passes_in_constant_memory_through_a_rollout(
    segue: Segue, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    shop = Service(segue, "shop")
    file = tmp_path / "body"
    with file.open("wb") as written:
        written.truncate(GB)

    async def scene() -> tuple[Mapping[str, Any], int]:
        visit = Visit(shop.url)
        clients = {
            "upload": curls.upload(visit, file, rate="80M"),
            "download": curls.download(visit, GB, rate="80M"),
        }
        watching = asyncio.create_task(_highest(envoy))
        found = await rolled(visit, clients, shop)
        watching.cancel()
        return found, await watching

    opened("rolling", shop)
    envoy = _envoy(segue)
    before = envoy.memory_info().rss
    found, peak = asyncio.run(scene())
    with subtests.test("upload"):
        status, code, said = seen(found["upload"])
        assert (status, code) == (0, "200"), said
        with file.open("rb") as body:
            assert (said["size"], said["sha256"]) == (GB, hashlib.file_digest(body, "sha256").hexdigest())
    with subtests.test("download"):
        assert seen(found["download"]) == (0, body_sum(GB))
    with subtests.test("memory"):
        assert peak - before < BODY_BUFFER + 48 * MB


def _envoy(segue: Segue) -> psutil.Process:
    """The Envoy of this home."""
    (found,) = (
        process
        for process in psutil.process_iter()
        if process.name() == "envoy" and any(str(segue.home) in word for word in process.cmdline())
    )
    return found


async def _highest(process: psutil.Process) -> int:
    """The most memory that `process` has had, in bytes, until this is cancelled."""
    most = 0
    try:
        while True:
            most = max(most, process.memory_info().rss)
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        return most


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("strategy", ["rolling", "blue_green"])
def test_streams_that_are_silent_for_six_minutes_live_until_their_instance_ends(
    strategy: str, segue: Segue, subtests: pytest.Subtests
) -> None:
    shop, rpc = Service(segue, "shop"), Service(segue, "rpc")

    async def scene() -> Mapping[str, Any]:
        visit = Visit(shop.url)
        async with callers.line(f"127.0.0.1:{rpc.port}") as channel:
            clients = {
                "WebSocket": users.talks(visit, every=None),
                "server-sent events": curls.follows(visit, every=None),
                "server-sent events over HTTP/2": curls.follows(visit, "--http2-prior-knowledge", every=None),
                "gRPC": callers.subscribes(visit, channel, every=None),
            }
            return await rolled(visit, clients, shop, rpc, rest=SILENCE, within=SILENCE + 60)

    opened(strategy, shop, rpc, replicas=1, stop={"drain": f"{SILENCE:g}s", "grace": "60s"})
    found = asyncio.run(scene())
    ends = {
        "WebSocket": (1001, 1000),
        "server-sent events": (0, -15),
        "server-sent events over HTTP/2": (0, -15),
        "gRPC": (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED),
    }
    for name, (goodbye, left) in ends.items():
        with subtests.test(name):
            came_through(seen(found[name]), goodbye, left)
            assert len(found[name]) == 2, "it was opened again before its instance ended"
