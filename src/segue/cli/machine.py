"""The control plane as a process, and what belongs to no service: serve, shutdown, demo, completion, version."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil

from segue import __version__
from segue.cli.client import Absent, Broken
from segue.cli.context import Context
from segue.errors import Unreachable
from segue.home import has_state

_SHUTDOWN = 600.0
"""Seconds that stopping all services may take: they drain."""
_POLL = 0.02


def serve(context: Context) -> int:
    """The control plane in the foreground; 3 if another one holds the home."""
    from segue.api.server import serve as run

    os.environ["SEGUE_HOME"] = context.home
    status: int = run(Path(context.home))
    return status


def shutdown(context: Context, all: bool = False) -> int:
    """Stop the control plane, with `all` the services and Envoy first. Returns when its process is gone."""
    try:
        pid = int(context.client.ask("GET", "/healthz")["pid"])
        context.client.ask("POST", "/v1/shutdown", {"all": all}, timeout=_SHUTDOWN)
    except Absent:
        if not (all and has_state(context.home)):
            return _say(context, None, "No control plane runs.")
        context.start()  # Envoy and the services may run without one; only a control plane knows them
        return shutdown(context, all)
    except Broken:
        pass
    deadline = time.monotonic() + _SHUTDOWN
    while _runs(pid):
        if time.monotonic() > deadline:
            raise Unreachable(
                f"The control plane (pid {pid}) did not end within {_SHUTDOWN:g} s.", next="segue status"
            )
        time.sleep(_POLL)
    rest = "everything is stopped" if all else "the services go on without it"
    return _say(context, pid, f"The control plane (pid {pid}) has ended; {rest}.")


def _runs(pid: int) -> bool:
    """Whether the process still does something: it holds the home's lock until its end."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _say(context: Context, pid: int | None, sentence: str) -> int:
    if context.json:
        context.print({"ended": pid})
    else:
        print(sentence)
    return 0


def demo(context: Context) -> int:
    """The tour."""
    from segue.demo import main

    return int(main())


def completion(context: Context, shell: str) -> int:
    """Print the script that makes `shell` complete segue's command lines."""
    from click.shell_completion import get_completion_class

    from segue.cli.parse import group

    complete = get_completion_class(shell)
    assert complete is not None, "the grammar names only shells that click knows"
    print(complete(group(), {}, "segue", "_SEGUE_COMPLETE").source())
    return 0


def version(context: Context) -> int:
    """Print the version of Segue and of what it runs on."""
    python = ".".join(map(str, sys.version_info[:3]))
    if context.json:
        context.print({"segue": __version__, "python": python})
    else:
        print(f"segue {__version__} (Python {python})")
    return 0
