"""A place to deploy in: the command line of this checkout with a home of its own, a shop, and what is left of them.

The end-to-end tests, the benchmarks and the tour drive Segue by this, from outside, as a user does.
"""

from __future__ import annotations

import json
import os
import pwd
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from random import randrange
from typing import Any

import psutil

from segue.testing.load import tiny_app


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now, and that the kernel gives nobody who asks for any."""
    while True:
        port = randrange(10_000, 20_000)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


class Segue:
    """`segue` of this checkout, with the home `home`."""

    def __init__(self, home: Path, environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.environment = {**os.environ, "SEGUE_HOME": str(home), "NO_COLOR": "1", **(environment or {})}

    def __call__(
        self, *arguments: str, cwd: Path | None = None, expect: int | None = 0, within: float = 100
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. AssertionError with what it said unless it exits with `expect` (None: any)."""
        command = self._command(*arguments)
        done = subprocess.run(
            command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=within, check=False
        )
        said = f"segue {shlex.join(arguments)} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        assert expect is None or done.returncode == expect, said
        return done

    def json(self, *arguments: str, cwd: Path | None = None) -> Any:
        """The document that a command prints with ``--json``."""
        return json.loads(self(*arguments, "--json", cwd=cwd).stdout)

    def start(self, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        """Run a command in the background; its output and its errors come as one stream."""
        return subprocess.Popen(
            self._command(*arguments),
            env=self.environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
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

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "segue.cli.main", *arguments]


def as_user() -> dict[str, str]:
    """What ``run.process`` must say besides: as root, whose process it is."""
    return {"user": pwd.getpwuid(0).pw_name} if os.geteuid() == 0 else {}


class Shop:
    """A service as a user has it: a folder with a manifest. By default it runs the tiny application."""

    def __init__(self, segue: Segue, folder: Path) -> None:
        self.segue = segue
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        folder.mkdir(exist_ok=True)

    def write(self, *, env: Mapping[str, str] | None = None, process: Any = None, **settings: Any) -> None:
        """Write the manifest. `env`: the application's knobs; `process` and `settings` add to it, or replace."""
        run = {
            "command": f"{tiny_app()} {{port}} {{version}}",
            "env": dict(env or {}),
            **as_user(),
            **(process or {}),
        }
        manifest = {
            "service": "shop",
            "replicas": 2,
            "route": {"listen": f"127.0.0.1:{self.port}"},
            "run": {"process": run},
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
    return [described(process) for process in left]


def kill(folder: Path) -> None:
    """Kill what still belongs to `folder`."""
    for process in _of(folder):
        process.kill()


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


def described(process: psutil.Process) -> str:
    """Its pid and what runs in it, as far as that can be told yet."""
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    except psutil.Error:  # it ends just now
        return str(process.pid)
