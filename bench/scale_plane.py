"""A control plane whose platform is simulated: instances are addresses of 127.0.0.0/8, where one process answers.

Engine, journal, API and Envoy are as ever. What is not: no process is started, none ever ends, and the one that
answers for all of them says 200 to everything. ``SEGUE_HOME=… PORT=… python scale_plane.py``; with ``answer`` it is
that one process.
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

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
SEEDED = 1_000_000
"""Addresses below this number are those of instances that a journal was seeded with."""
EACH = 1_500
"""So many addresses are a control plane's own; two that follow each other have different ones."""


def address(number: int, port: int) -> str:
    """The `number`-th address."""
    return f"127.{number >> 16}.{number >> 8 & 255}.{number & 255}:{port}"


class Addresses:
    """A platform whose instances are addresses: whatever was intended runs, for ever."""

    def __init__(self, port: int) -> None:
        self._port, self._began = port, datetime.now(UTC)
        self._numbers = itertools.count(SEEDED + os.getpid() % 10_000 * EACH)

    async def place(self, version: Version, instance: InstanceId) -> Intent:
        """The next address."""
        number = next(self._numbers)
        return Intent(version.service, instance, version.revision, str(number), address(number, self._port))

    async def start(self, version: Version, intent: Intent) -> Instance:
        """It runs already."""
        return self._running(intent)

    async def find(self, intents: Sequence[Intent]) -> Sequence[Instance]:
        """All of them."""
        return [self._running(intent) for intent in intents]

    async def end_others(self, known: Sequence[Intent], grace: timedelta) -> int:
        """There are none."""
        return 0

    def _running(self, intent: Intent) -> Instance:
        return Instance(intent, os.getpid(), self._began)

    async def gone(self, instance: Instance) -> int | None:
        """Never."""
        await asyncio.Event().wait()
        return None

    async def listens(self, instance: Instance) -> bool:
        """Always."""
        return True

    async def stop(self, instance: Instance, signal: str, grace: timedelta) -> bool:
        """It ends at once."""
        return True

    async def tend(self) -> None:
        """There is nothing to tend."""

    async def logs(self, instance: InstanceId, *, lines: int, follow: bool) -> AsyncIterator[str]:
        """It says nothing."""
        return
        yield ""


def plane(home: Path) -> ControlPlane:
    """As `segue.wiring` has it, but for the platform."""
    platform, router = Addresses(int(os.environ["PORT"])), EnvoyRouter(home / "envoy")
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


class Answering(asyncio.Protocol):
    """Answers once and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody asks."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Say 200."""
        assert isinstance(self._transport, asyncio.Transport)
        self._transport.write(ANSWER)
        self._transport.close()


async def answer() -> None:
    """Answer at every address; the port is printed."""
    listening = await asyncio.get_running_loop().create_server(Answering, "0.0.0.0", 0, backlog=4096)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["answer"]:
        asyncio.run(answer())
    setattr(server, "control_plane", plane)  # noqa: B010  (the name is imported there, not exported)
    sys.exit(server.serve(Path(os.environ["SEGUE_HOME"])))
