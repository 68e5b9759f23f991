"""What the end-to-end tests share: conditions with a deadline, and the tiny application without Segue before it."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from segue.testing.load import tiny_app
from segue.testing.site import free_port

T = TypeVar("T")


def eventually(what: Callable[[], T], within: float = 20.0) -> T:
    """The first true value of `what`; TimeoutError with its last value after `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := what()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} s; the last value was {value!r}")
        time.sleep(0.02)
    return value


def connects(port: int) -> bool:
    """Whether somebody listens on `port`."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def tiny(**knobs: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The tiny application without Segue before it: its URL and its process."""
    port = free_port()
    command = [*shlex.split(tiny_app()), str(port), "v1"]
    process = subprocess.Popen(command, env={**os.environ, **knobs}, stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: connects(port))
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()
