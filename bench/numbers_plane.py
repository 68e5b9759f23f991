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
from collections.abc import Sequence
from datetime import UTC, datetime

from simulated import Answering, Endless, serve

from segue.core.traffic import InstanceId
from segue.core.version import Version
from segue.ports import Instance, Intent

FIRST, PORTS = int(os.environ["FIRST"]), int(os.environ["PORTS"])


class OnePort(Endless):
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


async def app() -> None:
    """Listen on all the ports."""
    loop = asyncio.get_running_loop()
    for port in range(FIRST, FIRST + PORTS):
        await loop.create_server(Answering, "127.0.0.1", port)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["app"]:
        asyncio.run(app())
    sys.exit(serve(OnePort()))
