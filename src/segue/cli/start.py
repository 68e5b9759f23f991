"""Start the control plane in the background: the guardian, in a session of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from segue.cli.client import Absent, Broken, Client
from segue.errors import Unreachable

DEADLINE = 30.0
LOG = "control-plane.log"
ANOTHER_IS_THERE = 3
_POLL = 0.02
_AGAIN = 0.2

_KEPT = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
_KEPT_PREFIXES = ("LC_", "XDG_", "SEGUE_", "PYTHON")


def start(home: str, client: Client) -> int:
    """Start the control plane of `home` and wait until it answers; returns its pid. Raises Unreachable."""
    guardian = _spawn(Path(home))
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            return int(client.ask("GET", "/healthz", timeout=5)["pid"])
        except (Absent, Broken):
            pass
        if guardian.poll() == ANOTHER_IS_THERE:  # it is about to answer, or to end: then this one's turn comes
            time.sleep(_AGAIN)
            guardian = _spawn(Path(home))
        elif guardian.poll() is not None:
            break
        time.sleep(_POLL)
    raise Unreachable(f"The control plane did not start{_why(Path(home) / LOG)}", next=f"less {Path(home) / LOG}")


def _spawn(home: Path) -> subprocess.Popen[bytes]:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = os.open(home / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as exc:
        raise Unreachable(
            f"The control plane cannot be started in {home}: {exc.strerror}.", next="segue doctor"
        ) from exc
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "segue.guardian"],
            env={**_environment(), "SEGUE_HOME": str(home)},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    finally:
        os.close(log)


def _environment() -> dict[str, str]:
    """What a control plane needs of this shell's environment: it outlives the shell, and the secrets in it."""
    return {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}


def _why(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "."
    return f": {lines[-1].strip()}" if lines else " and said nothing."
