"""Who carries a home: guardian, control plane, Envoy, instances. Which processes they are, and how to kill them.

Rule: seen from outside, by what the system says of processes; the control plane is believed nothing.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from random import Random

import psutil

from segue.cli.client import Absent, Broken, Client
from segue.errors import SegueError
from segue.guardian import PID_FILE
from segue.home import socket_path
from segue.testing.moments import until
from segue.testing.site import Segue, leftovers


class Victim(StrEnum):
    """Who is killed."""

    PLANE = "control plane"
    ENVOY = "Envoy"
    BOTH = "both"
    INSTANCE = "an instance"
    GUARDIAN = "guardian"
    KEEPERS = "guardian and control plane"


class Cast:
    """The processes of the home of `segue`. `random` draws how long is waited where chance is asked for."""

    def __init__(self, segue: Segue, random: Random) -> None:
        self.segue, self.random = segue, random
        self.client = Client(socket_path(segue.home))

    def guardian(self) -> int:
        """The guardian's pid."""
        return int((self.segue.home / PID_FILE).read_text())

    def plane(self) -> int:
        """The pid of the control plane that the guardian has started, once there is one."""
        return until(self._plane)

    def _plane(self) -> int | None:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.guardian()).children():
                if "serve" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    return child.pid
        return None

    def answering(self) -> int:
        """The pid of the control plane, when it answers."""

        def asked() -> int | None:
            with suppress(Absent, Broken, SegueError):
                return int(self.client.ask("GET", "/healthz")["pid"])
            return None

        return until(asked, every=0.02)

    def envoy(self) -> int:
        """Envoy's pid."""
        return int(json.loads((self.segue.home / "envoy" / "envoy.json").read_text())["pid"])

    def instances(self, version: str | None = None) -> list[int]:
        """The processes of the application, or of one version of it, the newest last."""
        found = [process for process in psutil.process_iter() if _runs_app(process, self.segue.home, version)]
        return [process.pid for process in sorted(found, key=psutil.Process.create_time)]

    def census(self) -> dict[str, int]:
        """How many processes there are of each kind, and on how many sockets they listen together."""
        left = leftovers(self.segue.home.parent, within=0)
        sockets = {socket for described in left for socket in _sockets(int(described.split()[0]))}
        return {**Counter(map(_kind, left)), "sockets": len(sockets & _listening())}

    # Killing

    def kill(self, victim: Victim) -> None:
        """Kill it, now. Of the instances the newest."""
        for pid in self.pids(victim):
            os.kill(pid, signal.SIGKILL)

    def pids(self, victim: Victim) -> list[int]:
        """Whose end `kill` would be."""
        match victim:
            case Victim.PLANE:
                return [self.plane()]
            case Victim.ENVOY:
                return [self.envoy()]
            case Victim.BOTH:
                return [self.plane(), self.envoy()]
            case Victim.INSTANCE:
                return [self.instances()[-1]]
            case Victim.GUARDIAN:
                return [self.guardian()]
            case Victim.KEEPERS:
                return [self.guardian(), self.plane()]

    def kill_again(self, times: int) -> None:
        """Kill the control plane, and each of those that come after it, somewhere in their first second."""
        for _ in range(times):
            plane = self.plane()
            os.kill(plane, signal.SIGKILL)
            until(lambda killed=plane: self.plane() != killed)  # type: ignore[misc]
            time.sleep(self.random.uniform(0, 1))

    def freeze(self, seconds: float) -> None:
        """Stop the control plane for so long, as a machine that swaps would."""
        plane = self.plane()
        os.kill(plane, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(plane, signal.SIGCONT)

    def bring_back(self) -> None:
        """Type a command that changes nothing but needs a control plane: it starts what is not there."""
        self.segue("restart", "-s", "nobody", expect=4)


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


_KINDS = {"segue.guardian": "guardian", "cli.main serve": "control plane", "/app.py ": "instance", "envoy": "Envoy"}


def _kind(described: str) -> str:
    """What a process is, by its command line; of one that is nothing of ours the whole line."""
    return next((kind for trace, kind in _KINDS.items() if trace in described), described)


def _sockets(pid: int) -> Iterator[str]:
    """The inodes of a process's sockets."""
    with suppress(OSError):  # it has ended
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found = file.readlink().name
                if found.startswith("socket:["):
                    yield found[8:-1]


def _listening() -> set[str]:
    """The inodes of all sockets on which somebody listens for TCP. (psutil may take a second to find out.)"""
    lines = (line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines())
    return {fields[9] for fields in lines if fields[3] == "0A"}


def _runs_app(process: psutil.Process, home: Path, version: str | None) -> bool:
    try:
        line = process.cmdline()
        if process.status() == psutil.STATUS_ZOMBIE or not any(word.endswith("app.py") for word in line):
            return False
        return process.cwd().startswith(str(home)) and version in (None, line[-1])
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
