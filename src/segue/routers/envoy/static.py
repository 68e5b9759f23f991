"""Envoy without a control plane: start it with the last confirmed table.

For the guardian, when Envoy has died and the control plane does not answer. Standard library only.
The control plane that comes back adopts this Envoy and replaces it without losing a request.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

from segue.routers.envoy import process
from segue.routers.envoy.process import Running

CONFIG = "envoy-static.json"
MOST_WORKERS = 16
_ANSWERS_WITHIN = 1.0


def start_static(folder: Path) -> int | None:
    """Start Envoy with the last table of the router in `folder`; returns its pid.

    None if one serves already or there is no table: nothing was started then. One that was started to ask the
    control plane, and was told nothing yet, serves nobody and is ended. Raises SegueError without a binary.
    """
    config = folder / CONFIG
    if not config.exists():
        return None
    with process.locked(folder):
        running = process.recorded(folder)
        if running is not None and not _waits(running):
            return None
        if running is not None:
            _end(running)
        concurrency = min(os.cpu_count() or 1, MOST_WORKERS)
        admin = str(process.admin_socket(folder, 0))
        return process.launch(folder, config, Running(process.boot(), 0, "", 0, admin, "", concurrency)).pid


def _waits(running: Running) -> bool:
    """Whether it says itself that it was told nothing yet, and serves nobody. One that says nothing is left alone."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_ANSWERS_WITHIN)
        try:
            client.connect(running.admin)
            client.sendall(b"GET /ready HTTP/1.1\r\nhost: segue\r\nconnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(1024), b""))
        except OSError:
            return False
    return bool(running.node) and b"INITIALIZING" in answer


def _end(running: Running) -> None:
    """End it, and return when it has ended."""
    process.send(running, signal.SIGKILL)
    while process.alive(running):
        time.sleep(0.001)
