"""A home, a canned control plane in it, and the command line, as a function or as a process of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from segue.cli.main import main

from .canned import Plane, Stream, control_plane

MANIFEST = """\
service: shop
replicas: 2
route: {listen: 127.0.0.1:18099}
run:
  process:
    command: python3 -m http.server {port}
    user: root
    env: {TOKEN: !env TOKEN}
"""


@dataclass(frozen=True)
class Said:
    """What a command printed, and the status that it ended with."""

    status: int
    out: str
    err: str


Segue = Callable[..., Said]
Process = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home with a short path; the environment says that it is the one."""
    folder = Path(tempfile.mkdtemp(prefix="sg-"))
    monkeypatch.setenv("SEGUE_HOME", str(folder))
    monkeypatch.setenv("TOKEN", "a-secret-value")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the command line is used; there is no manifest in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shop(folder: Path) -> Path:
    """The folder with the manifest of `shop`."""
    (folder / "segue.yaml").write_text(MANIFEST)
    return folder


@pytest.fixture
def plane(home: Path) -> Iterator[Plane]:
    """A control plane that plays what it is told to."""
    with control_plane(home) as running:
        yield running


@pytest.fixture
def segue(home: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> Segue:
    """The command line, called in this process."""

    def call(*arguments: str) -> Said:
        capsys.readouterr()
        status = main(arguments)
        out, err = capsys.readouterr()
        return Said(status, out, err)

    return call


@pytest.fixture
def process(home: Path, folder: Path) -> Iterator[Process]:
    """The command line as a process of its own; it is killed if the test leaves it."""
    started = []

    def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
        command = [sys.executable, "-m", "segue.cli.main", *arguments]
        started.append(subprocess.Popen(command, text=True, cwd=folder, **options))
        return started[-1]

    yield start
    for one in started:
        if one.poll() is None:
            one.kill()
        one.communicate()


def until(condition: Callable[[], Any], within: float = 20.0) -> Any:
    """Wait until `condition` is true; returns its value."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
    return value


def deploys(plane: Plane, events: list[dict[str, Any]], **how: Any) -> None:
    """Let deploys of shop go as `events` tell."""
    plane.on("POST", "/v1/services/shop/rollouts", (202, {"rollout": "r1"}))
    plane.on("GET", "/v1/rollouts/r1/events", Stream(events, **how))


def holds(plane: Plane, hold: str | None) -> None:
    """Let the status of shop say what a person is asked about r1."""
    plane.on("GET", "/v1/services/shop", {"service": "shop", "rollout": {"id": "r1", "hold": hold}})


def screen(process: Process, *arguments: str, **environment: str) -> tuple[str, int]:
    """What the command writes to a terminal of 100 columns, and the status it ends with."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    environ = {**os.environ, "TERM": "xterm-256color", **environment}
    running = process(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
    os.close(theirs)
    written = bytearray()
    try:
        while more := os.read(ours, 65536):
            written += more
    except OSError:  # Linux says EIO at the end
        pass
    os.close(ours)
    return written.decode(), running.wait(20)


def is_root() -> bool:
    """Whether permissions can keep this process from anything."""
    return os.geteuid() == 0
