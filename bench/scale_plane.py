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
from collections.abc import Sequence
from datetime import UTC, datetime

from simulated import Answering, Endless, serve

from segue.core.traffic import InstanceId
from segue.core.version import Version
from segue.ports import Instance, Intent

SEEDED = 1_000_000
"""Addresses below this number are those of instances that a journal was seeded with."""
EACH = 1_500
"""So many addresses are a control plane's own; two that follow each other have different ones."""


def address(number: int, port: int) -> str:
    """The `number`-th address."""
    return f"127.{number >> 16}.{number >> 8 & 255}.{number & 255}:{port}"


class Addresses(Endless):
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

    def _running(self, intent: Intent) -> Instance:
        return Instance(intent, os.getpid(), self._began)


async def answer() -> None:
    """Answer at every address; the port is printed."""
    listening = await asyncio.get_running_loop().create_server(Answering, "0.0.0.0", 0, backlog=4096)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["answer"]:
        asyncio.run(answer())
    sys.exit(serve(Addresses(int(os.environ["PORT"]))))
