"""Envoy without a control plane: start it with the last confirmed table.

For the guardian, when Envoy has died and the control plane does not answer. Standard library only.
The control plane that comes back adopts this Envoy and replaces it without losing a request.
"""

from __future__ import annotations

import os
from pathlib import Path

from segue.routers.envoy import process
from segue.routers.envoy.process import Running

CONFIG = "envoy-static.json"


def start_static(folder: Path) -> int | None:
    """Start Envoy with the last table of the router in `folder`; returns its pid.

    None if one runs already or there is no table: nothing was started then. Raises SegueError without a binary.
    """
    config = folder / CONFIG
    if not config.exists():
        return None
    with process.locked(folder):
        if process.recorded(folder) is not None:
            return None
        concurrency = min(os.cpu_count() or 1, MOST_WORKERS)
        admin = str(process.admin_socket(folder, 0))
        return process.launch(folder, config, Running(process.boot(), 0, "", 0, admin, "", concurrency)).pid


MOST_WORKERS = 16
