"""What the end-to-end tests share: the command line, a shop to deploy, conditions with a deadline, leftovers."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

from segue.testing.load import tiny_app

T = TypeVar("T")


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


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


class Segue:
    """`segue` of this checkout, with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "SEGUE_HOME": str(home), "NO_COLOR": "1"}

    def __call__(
        self, *arguments: str, cwd: Path | None = None, expect: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; AssertionError with what it printed unless it exits with `expect` (None: any)."""
        done = subprocess.run(
            self._command(*arguments), env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=100
        )
        if expect is not None:
            said = f"{done.stdout}\n{done.stderr}"
            assert done.returncode == expect, f"segue {' '.join(arguments)} exited with {done.returncode}:\n{said}"
        return done

    def json(self, *arguments: str, cwd: Path | None = None) -> Any:
        """The document that a command prints with ``--json``."""
        return json.loads(self(*arguments, "--json", cwd=cwd).stdout)

    def start(self, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        """Run a command in the background."""
        return subprocess.Popen(
            self._command(*arguments),
            env=self.environment,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self) -> None:
        """Stop the services, Envoy and the control plane."""
        if self.home.exists():
            self("shutdown", "--all")

    def log(self) -> str:
        """The last lines of the control plane's log."""
        log = self.home / "control-plane.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-40:]) if log.exists() else ""

    def kill_leftovers(self, folder: Path) -> None:
        """Kill what still runs of this home."""
        for process in _of(folder):
            process.kill()

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "segue.cli.main", *arguments]


class Shop:
    """A service of the tiny application, as a user has it: a folder with a manifest."""

    def __init__(self, segue: Segue, folder: Path, port: int) -> None:
        self.segue = segue
        self.folder = folder
        self.port = port
        self.url = f"http://127.0.0.1:{port}/"

    def write(self, *, env: dict[str, str] | None = None, command: str | None = None, **settings: Any) -> None:
        """Write the manifest. `env`: the application's knobs; `settings` are added to the manifest, or replace."""
        process: dict[str, Any] = {"command": command or f"{tiny_app()} {{port}} {{version}}", "env": env or {}}
        if os.geteuid() == 0:
            process["user"] = pwd.getpwuid(0).pw_name
        manifest = {
            "service": "shop",
            "replicas": 2,
            "route": {"listen": f"127.0.0.1:{self.port}"},
            "run": {"process": process},
            "health": {"path": "/healthz", "every": "100ms", "deadline": "20s"},
            **settings,
        }
        (self.folder / "segue.yaml").write_text(json.dumps(manifest, indent=2))

    def deploy(self, version: str, *options: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """`segue deploy` of what the folder holds, as `version`."""
        return self.segue("deploy", "--version", version, *options, cwd=self.folder, expect=expect)

    def status(self) -> Any:
        """The service's entry in `segue status`."""
        services = self.segue.json("status", cwd=self.folder)["services"]
        return next(entry for entry in services if entry["service"] == "shop")

    def report(self) -> Any:
        """`segue report` of the latest rollout."""
        return self.segue.json("report", cwd=self.folder)


def leftovers(folder: Path, within: float = 10.0) -> list[str]:
    """The processes that still belong to `folder` after `within` seconds."""
    deadline = time.monotonic() + within
    while (left := _of(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [_described(process) for process in left]


def _of(folder: Path) -> list[psutil.Process]:
    """The processes with a trace of `folder` in their environment, working directory or command line."""
    return [
        process for process in psutil.process_iter() if process.pid != os.getpid() and _belongs(process, str(folder))
    ]


def _belongs(process: psutil.Process, folder: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        traces = (process.cwd(), *process.cmdline(), *process.environ().values())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return any(folder in trace for trace in traces)


def _described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    except psutil.NoSuchProcess:
        return str(process.pid)
