"""The world of a soak: a machine of its own as far as that goes without one, a shop on it, and what is left there.

Rule 1: nothing outside is touched. Network and mounts are this process's own (`unshare`), the home lies on a small
file system, and the clock that Segue sees is set for it alone.
Rule 2: what must be true at rest is counted from outside: processes, ports, descriptors, files, memory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import Any

import common
import psutil

from segue.cli.client import Absent, Broken
from segue.errors import SegueError
from segue.testing import trial
from segue.testing.cast import Cast
from segue.testing.moments import until
from segue.testing.site import Segue, Shop, described, kill, leftovers
from segue.testing.trial import Users

ROOM = "96m"
"""The size of the file system on which the home lies."""
RATE, POSTS = 120, 15
"""Requests a second: safe ones by each protocol, and POSTs."""
_INSIDE = "SEGUE_SOAK_INSIDE"


def own_machine(arguments: Sequence[str]) -> None:
    """Go on in a network and with mounts of our own. Does not return, but in there."""
    if os.environ.get(_INSIDE):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    os.environ[_INSIDE] = "1"
    os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, *arguments])


@dataclass(frozen=True)
class Census:
    """What there is at rest. `threads`, `descriptors` and memory (MB) are those of a control plane or of Envoy."""

    plane_memory: float
    plane_descriptors: int
    plane_threads: int
    envoy_memory: float
    envoy_descriptors: int
    guardian_memory: float
    files: int
    claims: int
    put_aside: int
    versions: int
    home: float
    shared_memory: int

    @staticmethod
    def names() -> list[str]:
        """What is counted."""
        return [field.name for field in fields(Census)]


class World(Cast):
    """A shop that is deployed again and again, and those who use it."""

    def __init__(self, root: Path, random: Random) -> None:
        self.root = root
        self.home = root / "small" / "home"
        self.clock = root / "clock"
        self.set_clock(0)
        self.home.parent.mkdir()
        _mount(self.home.parent, ROOM)
        _mount(Path("/dev/shm"), "64m")
        self.home.mkdir(0o700)
        super().__init__(Segue(self.home, _faked(root, self.clock)), random)
        self.shop = Shop(self.segue, root / "shop")
        self._guardian: subprocess.Popen[bytes] | None = None
        self.users: Users | None = None

    def guard(self) -> None:
        """Start a guardian where there is none, as a service manager would. Users' commands do otherwise."""
        if self._guardian is not None and self._guardian.poll() is None:
            return
        if self.answers():  # nobody can become the guardian of a control plane that runs
            self.segue("shutdown")
        with (self.home / "control-plane.log").open("ab") as log:
            command = [sys.executable, "-P", "-m", "segue.guardian"]
            self._guardian = subprocess.Popen(
                command, env=self.segue.environment, cwd=self.home, stdout=log, stderr=log, start_new_session=True
            )
        self.answering()

    def answers(self) -> bool:
        """Whether a control plane answers."""
        with contextlib.suppress(Absent, Broken, SegueError):
            return bool(self.client.ask("GET", "/healthz"))
        return False

    def come(self) -> None:
        """Users come."""
        self.users = Users(self.shop, rate=RATE, posts=POSTS)
        self.users.more(20)

    def close(self) -> None:
        """End it all, come what may."""
        if self.users is not None:
            self.users.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for a rollout that does not end
            self.segue("shutdown", "--all", expect=None)
        if left := leftovers(self.root):
            kill(self.root)
            raise RuntimeError(f"left running: {left}")

    # Who is who

    def _plane(self) -> int | None:
        """The control plane, whether it has a guardian or not."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = "segue.cli.main" in process.cmdline() and process.cmdline()[-1] == "serve"
                if ours and process.cwd() == str(self.home) and process.status() != psutil.STATUS_ZOMBIE:
                    return process.pid
        return None

    def status(self) -> Any:
        """What is known of the service; None: nothing."""
        with contextlib.suppress(Absent, Broken, SegueError):
            return self.client.ask("GET", "/v1/services/shop")
        return None

    def size(self) -> int:
        """How many instances the service has."""
        return sum(version["size"] for version in until(self.status)["versions"].values())

    # What becomes of it

    def at_rest(self) -> bool:
        """Whether nothing is going on, and everything is as it should be."""
        status = self.status()
        if not status or status["rollout"] is not None or len(status["versions"]) != 1:
            return False
        shown = [i for version in status["versions"].values() for i in version["instances"]]
        size = sum(version["size"] for version in status["versions"].values())
        return len(shown) == size and all(i["state"] == "ready" for i in shown)

    def left_behind(self) -> list[str]:
        """Processes and ports that nobody should have, and those that somebody should."""
        status = self.status()
        if not status:
            return ["no control plane answers"]
        shown = [i for version in status["versions"].values() for i in version["instances"]]
        wanted = {self.guardian(), self.plane(), self.envoy(), *(i["pid"] for i in shown if i["pid"])}
        there = {process.pid: process for process in psutil.process_iter() if _of(process, self.root)}
        found = [f"left: {described(there[pid])[:90]}" for pid in there.keys() - wanted]
        found += [f"not there: pid {pid}" for pid in wanted - there.keys()]
        ports = {int(i["address"].rpartition(":")[2]) for i in shown if i["address"]} | {self.shop.port}
        listening = {
            c.laddr.port for c in psutil.net_connections("tcp") if c.laddr and c.status == psutil.CONN_LISTEN
        }
        return found + [f"port {port}: {'left open' if port in listening else 'shut'}" for port in ports ^ listening]

    def counted(self) -> Census:
        """What there is now."""
        plane, envoy = psutil.Process(self.plane()), psutil.Process(self.envoy())
        paths = [path for path in self.home.rglob("*") if path.is_file()]
        claims = [path for path in paths if path.parent.name == "intents"]
        aside = [path for path in paths if ".damaged-" in path.name]
        return Census(
            _memory(plane),
            plane.num_fds(),
            plane.num_threads(),
            _memory(envoy),
            envoy.num_fds(),
            _memory(psutil.Process(self.guardian())),
            len(paths) - len(claims) - len(aside),
            len(claims),
            len(aside),
            len(list((self.home / "versions").glob("*/*"))) if (self.home / "versions").exists() else 0,
            psutil.disk_usage(str(self.home)).used / 2**20,
            len(list(Path("/dev/shm").iterdir())),
        )

    # What is done to it

    def write(self, version: str, env: Mapping[str, str], **settings: Any) -> None:
        """Write the manifest of `version`."""
        self.shop.write(
            env={"APP_POSTS": str(self.shop.folder / f"posts-{version}"), **env},
            process={"source": ".", "build": "true"},
            health={"path": "/healthz", "every": "100ms", "healthy": 1, "unhealthy": 5, "deadline": "10s"},
            warm_up={"requests": 5},
            stop={"drain": "2s", "grace": "1s"},
            retain=2,
            **settings,
        )
        (self.shop.folder / ".segueignore").write_text("posts-*\nanswered\n")

    def set_clock(self, seconds: float) -> None:
        """Let it be so much later than it is."""
        with self.clock.open("r+b" if self.clock.exists() else "wb") as file:
            file.write(struct.pack("=q", round(seconds)))

    def executed_twice(self) -> list[str]:
        """POSTs that were executed more than once."""
        return trial.more_than_once(self.users.executions()[0]) if self.users else []

    def until_rest(self, within: float = 60) -> None:
        """Return when everything is at rest; TimeoutError."""
        until(self.at_rest, within)


def during(seconds: float, begin: Callable[[], object], end: Callable[[], object]) -> None:
    """Let something be so for `seconds`."""
    begin()
    try:
        time.sleep(seconds)
    finally:
        end()


def _mount(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "soak", str(folder)], check=True)


def _faked(root: Path, clock: Path) -> dict[str, str]:
    """The environment in which the time of day is off by what `clock` says; other clocks are left alone."""
    if not shutil.which("cc"):
        raise SystemExit("there is no C compiler (Debian: gcc libc6-dev), without which no clock can be set")
    source, library = root / "clock.c", root / "clock.so"
    source.write_text(_CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
    envoy = common.stand_in(root, '#!/bin/sh\nunset LD_PRELOAD\nexec {envoy} "$@"\n')
    return {"SEGUE_ENVOY": str(envoy), "LD_PRELOAD": str(library), "SOAK_CLOCK": str(clock)}


# libfaketime 0.9.10 does not know how to leave the monotonic clock alone: to wait for a moment by it fails.
_CLOCK = """\
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const long *off;

__attribute__((constructor)) static void open_clock(void) {
    const char *path = getenv("SOAK_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *there = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    if (there != MAP_FAILED) off = there;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME && off) now->tv_sec += *off;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    int failed = syscall(SYS_gettimeofday, now, zone);
    if (!failed && off) now->tv_sec += *off;
    return failed;
}

time_t time(time_t *now) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}
"""


def _memory(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 2**20)


def _of(process: psutil.Process, root: Path) -> bool:
    """Whether a process belongs to the world, users excepted."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
            return False
        command = process.cmdline()
        if "segue.testing.prober" in command:
            return False
        return any(str(root) in trace for trace in (process.cwd(), *command, *process.environ().values()))
    except psutil.Error:
        return False
