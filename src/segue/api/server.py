"""The control plane as a process: take the lock, bring everything up, answer until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from segue.api.app import make
from segue.engine.control import Lock
from segue.errors import SegueError
from segue.home import own_socket_folder
from segue.wiring import control_plane


def serve(home: Path) -> int:
    """Run the control plane of `home` until it is told to stop; the exit status of the process.

    Returns 3 if another control plane holds the home's lock.
    """
    try:
        lock = Lock(home)
    except SegueError as error:
        print(f"segue: {error.message}", file=sys.stderr)  # noqa: T201
        return error.exit
    try:
        return asyncio.run(_serve(home))
    finally:
        lock.release()


async def _serve(home: Path) -> int:
    control = control_plane(home)
    await control.start()
    ending = asyncio.Event()
    everything = False

    def stop(all: bool) -> None:
        nonlocal everything
        everything = everything or all
        ending.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, False)
    listening = _listen(own_socket_folder(home))
    server = _Server(uvicorn.Config(make(control, stop), log_level="warning", access_log=False, lifespan="off"))
    answering = asyncio.create_task(server.serve(sockets=[listening]))
    print(f"segue: the control plane of {home} answers (pid {os.getpid()})", file=sys.stderr, flush=True)  # noqa: T201
    await asyncio.wait((answering, asyncio.ensure_future(ending.wait())), return_when=asyncio.FIRST_COMPLETED)
    if everything:
        await control.shutdown()
    server.should_exit = server.force_exit = True
    await answering
    if not everything:
        await control.close()
    return 0


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
