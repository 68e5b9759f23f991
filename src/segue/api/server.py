"""The control plane as a process: take the lock, bring everything up, answer until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from segue.api.app import make
from segue.engine.lock import Lock
from segue.errors import SegueError
from segue.home import own_socket_folder
from segue.minding import FAILED
from segue.saying import never_fail
from segue.wiring import control_plane

STATUS = 70
"""The exit status after a defect in the control plane itself; the guardian starts it again."""


def serve(home: Path) -> int:
    """Run the control plane of `home` until it is told to stop; the exit status of the process.

    Returns 3 if another control plane holds the home's lock.
    """
    never_fail()
    os.umask(0o077)  # the home has to let the users of versions pass: what is ours in it is for nobody else
    try:
        lock = Lock(home)
    except SegueError as error:
        print(f"segue: {error.message}", file=sys.stderr)  # noqa: T201
        return error.exit
    try:
        return asyncio.run(_serve(home))
    finally:
        lock.release()


@dataclass(slots=True)
class _Ending:
    """That the process is to end: with everything, or without, or because of a defect."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    everything: bool = False
    failed: bool = False

    def ask(self, everything: bool) -> None:
        """End, and with `everything` stop the services and the router first."""
        self.everything = self.everything or everything
        self.asked.set()

    def fail(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What is half-done is not gone on with: the process ends, and a new one finds out how things are."""
        loop.default_exception_handler(context)
        if context["message"].endswith(FAILED):
            self.failed = True
            self.asked.set()


async def _serve(home: Path) -> int:
    ending, loop = _Ending(), asyncio.get_running_loop()
    loop.set_exception_handler(ending.fail)
    control = control_plane(home)
    await control.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.ask, False)
    listening = _listen(own_socket_folder(home))
    server = _Server(
        uvicorn.Config(make(control, ending.ask), log_level="warning", access_log=False, lifespan="off", ws="none")
    )
    answering = asyncio.create_task(server.serve(sockets=[listening]))
    print(f"segue: the control plane of {home} answers (pid {os.getpid()})", file=sys.stderr, flush=True)  # noqa: T201
    await ending.asked.wait()
    if ending.everything:
        await control.shutdown()
    server.should_exit = server.force_exit = True
    await answering
    if not ending.everything:
        await control.close()
    return STATUS if ending.failed else 0


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: ours end the control plane as a whole."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def _listen(path: str) -> socket.socket:
    """The Unix socket at `path`, for its owner alone. The lock is ours: whatever lies there is stale."""
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listening.bind(path)
    finally:
        os.umask(mask)
    listening.listen(128)
    return listening
