"""Start the control plane in the background: systemd does, if it keeps it, else a guardian in a session of its own.

Rule: nobody starts a control plane in a home where somebody else has kept services.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

from segue.cli.client import Absent, Broken, Client
from segue.cli.unit import NAME, Unit, keeper
from segue.errors import Unreachable
from segue.following import rotate, size_of
from segue.home import has_state

DEADLINE = 30.0
LOG = "control-plane.log"
LONGEST = 10 * 1024 * 1024
"""Bytes that it may have when a control plane starts, before it is rotated."""
ANOTHER_IS_THERE = 3
_POLL = 0.02
_AGAIN = 0.2

_KEPT = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
_KEPT_PREFIXES = ("LC_", "XDG_", "SEGUE_", "PYTHON")


def start(home: str, client: Client) -> int:
    """Start the control plane of `home` and wait until it answers; returns its pid. Raises Unreachable."""
    unit = keeper(home)
    if unit is not None:
        return _by_systemd(unit, client)
    _refuse_strange(home)
    return _by_guardian(home, client)


def _by_systemd(unit: Unit, client: Client) -> int:
    """Wait for the unit's control plane; where nothing brings it up it is started, once."""
    asked, deadline = False, time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if pid := _answering(client):
            return pid
        if unit.rests():
            if asked:
                break
            asked = True
            _begin(unit)
        time.sleep(_AGAIN)
    raise Unreachable(f"The control plane of {unit.path} did not start.", next=unit.journal)


def _begin(unit: Unit) -> None:
    try:
        unit.ask("start", NAME)
    except Unreachable as error:
        if unit.of_user or os.geteuid() == 0:
            raise
        what = f"The control plane is kept by {unit.path}, which does not run, and only root can start it."
        raise Unreachable(what, next=f"sudo {unit.systemctl} start segue") from error


def _refuse_strange(home: str) -> None:
    try:
        owner = Path(home).stat().st_uid if has_state(home) else os.geteuid()
    except OSError:  # it is told when something is to be written there
        return
    if owner == os.geteuid():
        return
    try:
        whose = pwd.getpwuid(owner).pw_name
    except KeyError:
        whose = f"#{owner}"
    raise Unreachable(f"{home} is {whose}'s, whose control plane does not run.", next=f"sudo -u {whose} segue status")


def _answering(client: Client) -> int | None:
    """The control plane that answers now."""
    try:
        return int(client.ask("GET", "/healthz", timeout=5)["pid"])
    except (Absent, Broken):
        return None


def _by_guardian(home: str, client: Client) -> int:
    guardian = _spawn(Path(home))
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if pid := _answering(client):
            return pid
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
        if size_of(home / LOG) > LONGEST:
            rotate(home / LOG, keep=1)
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
