"""What the benchmarks with a simulated platform share: instances that never end, and an application that says 200."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import timedelta
from pathlib import Path

from segue import wiring
from segue.api import server
from segue.core.traffic import InstanceId, VersionId
from segue.ports import Instance, Intent, Platform

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Endless:
    """The part of a platform that is about what runs: it listens, says nothing, and never ends by itself."""

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

    async def tend(self, known: Collection[VersionId]) -> None:
        """There is nothing to tend."""

    async def logs(self, instance: InstanceId, *, lines: int, follow: bool) -> AsyncIterator[str]:
        """It says nothing."""
        return
        yield ""


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


def serve(platform: Platform) -> int:
    """The control plane of ``$SEGUE_HOME`` with this platform, until it is told to end; its exit status."""
    plane = lambda home: wiring.control_plane(home, platform)  # noqa: E731
    setattr(server, "control_plane", plane)  # noqa: B010  (the name is imported there, not exported)
    return server.serve(Path(os.environ["SEGUE_HOME"]))
