"""The guardian: starts the control plane, starts it again when it dies, and does nothing else.

It runs in a session of its own. The control plane's end is the guardian's end when it was wanted (status 0),
when another control plane holds the home (status 3), and when starting again cannot help (status 2, or three
deaths in a row right after the first start). It adopts no orphans: Envoy ends with its parent, which must
therefore be the machine's first process.

Rule 1: standard library only, and little of it: this process lives as long as the services. What starts Envoy is
imported at the first death.
Rule 2: users come first: an Envoy that has died too is started before the control plane, which takes a second.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from segue.saying import never_fail

PID_FILE = "guardian.pid"
ANOTHER_IS_THERE = 3
FINAL = (0, 2, ANOTHER_IS_THERE)
ALIVE = 2.0
"""Seconds: a control plane that lived so long had started."""
_LONGEST_PAUSE = 5.0
_FIRST_PAUSE = 0.2


def main() -> int:
    """Guard the control plane of ``$SEGUE_HOME``; returns its last exit status."""
    never_fail()
    os.umask(0o077)  # who may read a file may lock it
    home = Path(os.environ["SEGUE_HOME"])
    held = hold(home / PID_FILE)
    if held is None:
        return ANOTHER_IS_THERE
    with held:
        return Guardian([sys.executable, "-P", "-m", "segue.cli.main", "serve"], home).run()


def hold(path: Path) -> TextIO | None:
    """Write this process's id to `path` and lock it for life; None if another guardian holds it."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


class Guardian:
    """Runs `command` until it ends for good."""

    def __init__(self, command: Sequence[str], home: Path) -> None:
        self._command = command
        self._home = home
        self._child = 0
        self._status: int | None = None
        self._ending = False
        self._signals = -1

    def run(self) -> int:
        """Start the command, again after each death; returns its last status (negative: a signal)."""
        self._signals = _signals()
        deaths, lived = 0, False
        while True:
            began = time.monotonic()
            self._start()
            while self._status is None:
                self._listen(None)
            long = time.monotonic() - began >= ALIVE
            lived, deaths = lived or long, 1 if long else deaths + 1
            if self._ending or self._status in FINAL or (deaths >= 3 and not lived):
                return self._status
            self._pause(0 if deaths == 1 else min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (deaths - 2)))
            if self._ending:
                return 0

    def _start(self) -> None:
        self._status = None
        self._child = os.posix_spawn(self._command[0], list(self._command), os.environ)

    def _pause(self, seconds: float) -> None:
        _say(f"the control plane ended with status {self._status}; starting it again in {seconds:g} s")
        keep_traffic(self._home)
        until = time.monotonic() + seconds
        while not self._ending and (left := until - time.monotonic()) > 0:
            self._listen(left)

    def _listen(self, timeout: float | None) -> None:
        """Wait for a signal: reap what has died, pass on the wish to end."""
        if not select.select([self._signals], [], [], timeout)[0]:
            return
        for number in os.read(self._signals, 64):
            if number != signal.SIGCHLD:
                self._ending = True
                if self._status is None:
                    os.kill(self._child, number)  # not yet reaped, so the id is still its own
        self._reap()

    def _reap(self) -> None:
        try:
            while (died := os.waitpid(-1, os.WNOHANG))[0]:
                if died[0] == self._child:
                    self._status = os.waitstatus_to_exitcode(died[1])
        except ChildProcessError:
            pass


def keep_traffic(home: Path) -> None:
    """If Envoy has died too, start it with the last table: users are served while no control plane comes up."""
    from segue.errors import SegueError
    from segue.routers.envoy.static import start_static

    try:
        pid = start_static(home / "envoy")
    except (SegueError, OSError) as error:
        _say(f"Envoy cannot be started: {error}")
    else:
        if pid is not None:
            _say(f"Envoy was dead; it serves the last table again (pid {pid})")


def _signals() -> int:
    """A descriptor from which each SIGTERM, SIGINT and SIGCHLD can be read as one byte."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return reading


def _say(text: str) -> None:
    print(f"guardian: {text}", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
