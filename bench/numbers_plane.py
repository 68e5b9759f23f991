"""A control plane whose instances are the ports of one process: what a thousand of them cost it, and no more.

Everything else is as ever: engine, journal, API, Envoy. A thousand processes would take longer to start on a
small machine than all the rest of the benchmark. ``SEGUE_HOME=… python numbers_plane.py``, with FIRST and PORTS
in the environment; ``python numbers_plane.py app`` is the one process.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from segue.api import server
from segue.core.traffic import InstanceId
from segue.core.version import Version
from segue.engine.clock import SystemClock
from segue.engine.control import ControlPlane, World
from segue.evidence.envoy import EnvoyEvidence
from segue.evidence.logs import LogLines
from segue.platforms.hooks import run_command
from segue.platforms.identity import boot_id
from segue.ports import Instance, Intent
from segue.routers.envoy.router import EnvoyRouter

FIRST, PORTS = int(os.environ["FIRST"]), int(os.environ["PORTS"])
HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class OnePort:
    """A platform that gives every instance the next port; what listens there is there already."""

    def __init__(self) -> None:
        self._ports = itertools.count(FIRST)

    async def place(self, version: Version, instance: InstanceId) -> Intent:
        """The next port."""
        port = next(self._ports)
        return Intent(version.service, instance, version.revision, f"{instance}-{port}", f"127.0.0.1:{port}")

    async def start(self, version: Version, intent: Intent) -> Instance:
        """It runs already."""
        return Instance(intent, os.getpid(), datetime.now(UTC))

    async def find(self, intents: Sequence[Intent]) -> Sequence[Instance]:
        """None of an earlier control plane."""
        return ()

    async def gone(self, instance: Instance) -> int | None:
        """Never."""
        await asyncio.Event().wait()
        return None

    async def listens(self, instance: Instance) -> bool:
        """Always."""
        return True

    async def stop(self, instance: Instance, signal: str, grace: timedelta) -> bool:
        """There is nothing to stop."""
        return True

    async def end_others(self, known: Sequence[Intent], grace: timedelta) -> int:
        """There are none."""
        return 0

    async def tend(self) -> None:
        """There is nothing to tend."""

    async def logs(self, instance: InstanceId, *, lines: int, follow: bool) -> AsyncIterator[str]:
        """It says nothing."""
        return
        yield ""


def plane(home: Path) -> ControlPlane:
    """As `segue.wiring` has it, but for the platform."""
    platform, router = OnePort(), EnvoyRouter(home / "envoy")
    world = World(
        platform=platform,
        router=router,
        evidence=EnvoyEvidence(router),
        commands=run_command,
        lines=lambda patterns: LogLines(platform, patterns),
        clock=SystemClock(),
        boot=boot_id(),
    )
    return ControlPlane(home, world)


class Healthy(asyncio.Protocol):
    """Answers once and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody asks."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Say 200."""
        assert isinstance(self._transport, asyncio.Transport)
        self._transport.write(HEALTHY)
        self._transport.close()


async def app() -> None:
    """Listen on all the ports."""
    loop = asyncio.get_running_loop()
    for port in range(FIRST, FIRST + PORTS):
        await loop.create_server(Healthy, "127.0.0.1", port)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["app"]:
        asyncio.run(app())
    setattr(server, "control_plane", plane)  # noqa: B010  (the name is imported there, not exported)
    sys.exit(server.serve(Path(os.environ["SEGUE_HOME"])))
