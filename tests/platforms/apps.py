"""What the tests of the process platform share: conditions with a deadline, and nothing left behind."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from segue.platforms import claims
from segue.platforms.identity import Identity, alive, members, send
from segue.platforms.sessions import holds

PATIENCE = 20.0


async def until(condition: Callable[[], object]) -> None:
    """Return when `condition` is true; AssertionError if that takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        await asyncio.sleep(0.01)


@contextmanager
def ends_what_is_left(folder: Path) -> Iterator[None]:
    """Kill what a test that fails leaves running of the platform in `folder`."""
    try:
        yield
    finally:
        for file in (folder / "intents").glob("*"):
            claim = claims.read(file)
            if claim is not None and claim.identity is not None:
                for process in (claim.identity, *_left(claim.identity, folder / "logs")):
                    send(process, signal.SIGKILL)


def _left(leader: Identity, logs: Path) -> list[Identity]:
    found = members(leader.pid)
    ours = alive(leader) or any(holds(process, log) for process in found for log in logs.glob("*.log"))
    return found if ours else []
