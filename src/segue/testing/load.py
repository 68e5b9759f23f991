"""Load clients as independent processes: our prober, wrk, and h2load over HTTP/2.

Each is started, runs until it is stopped, and says how many requests it sent and how many were lost.
The three count differently: the prober counts everything; wrk reads an answer that has begun but not
ended as a read error; h2load counts a GOAWAY's refused streams as failed although a browser would send
them again.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from segue.testing.tally import Tally, decode

LONGEST = 900
"""Seconds after which a client ends by itself, should nobody stop it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one client saw. `detail`: its own words on what was lost."""

    client: str
    requests: int
    lost: int
    detail: str = ""


class Client(Protocol):
    """A load client that runs."""

    def stop(self) -> Outcome:
        """End it and return what it saw."""
        ...


class Probe:
    """Our prober in a process of its own. Construct it to start it; its tally can be read while it runs."""

    def __init__(self, url: str, *options: str, connections: int = 64, rate: float | None = None) -> None:
        self._out, self._err = _scratch(), _scratch()
        command = [sys.executable, "-m", "segue.testing.prober", url, "--json", "--every", "0.1", *options]
        command += ["--connections", str(connections), "--seconds", str(LONGEST)]
        command += ["--rate", str(rate)] if rate else []
        self._process = subprocess.Popen(command, stdout=self._out, stderr=self._err, start_new_session=True)

    def tally(self) -> Tally:
        """What it has counted until a moment ago."""
        lines = _tail(self._out).rpartition(b"\n")[0].splitlines()
        return decode(json.loads(lines[-1])) if lines else Tally()

    def until(self, what: Callable[[Tally], bool], within: float = 30.0) -> Tally:
        """The first tally of which `what` is true. Raises TimeoutError after `within` seconds."""
        deadline = time.monotonic() + within
        while not what(tally := self.tally()):
            if self._process.poll() is not None:
                raise RuntimeError(f"the prober has ended: {self._complaint()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {within:g} s; seen so far: {tally}")
            time.sleep(0.05)
        return tally

    def more(self, requests: int, within: float = 30.0) -> Tally:
        """The tally after so many further requests."""
        least = self.tally().total + requests
        return self.until(lambda tally: tally.total >= least, within)

    def finish(self) -> Tally:
        """Stop it: no new request is begun, those under way are waited for."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(60)
        tally = self.tally()
        if status not in (0, 1):
            raise RuntimeError(f"the prober ended with status {status}: {self._complaint()}")
        self._out.close()
        self._err.close()
        return tally

    def stop(self) -> Outcome:
        """As `finish`, in the words that all clients share."""
        tally = self.finish()
        return Outcome("prober", tally.total, tally.lost_count, str(tally))

    def kill(self) -> None:
        """End it without asking what it saw."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _complaint(self) -> str:
        return _tail(self._err).decode(errors="replace")[-500:]


def _scratch() -> IO[bytes]:
    return tempfile.TemporaryFile()


def _tail(file: IO[bytes]) -> bytes:
    """The last bytes of `file`, read without moving the offset, which the writing process shares."""
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), 65536, max(0, size - 65536))


class Wrk:
    """wrk over HTTP/1.1 keep-alive. Construct it to start it."""

    def __init__(self, url: str, connections: int = 64) -> None:
        self._process = subprocess.Popen(
            [tool("wrk"), "-t1", f"-c{connections}", f"-d{LONGEST}s", "--timeout", "10s", url],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def stop(self) -> Outcome:
        """Interrupt it, at which it prints what it saw."""
        self._process.send_signal(signal.SIGINT)
        return read_wrk(self._process.communicate(timeout=60)[0])


def read_wrk(text: str) -> Outcome:
    """What wrk printed."""
    answers = re.search(r"(\d+) requests in", text)
    if answers is None:
        raise RuntimeError(f"wrk did not say how many requests it made: {text[-300:]}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    broken = sum(int(number) for number in errors.groups()) if errors else 0
    detail = "; ".join(match.group(0) for match in (bad, errors) if match)
    return Outcome("wrk", int(answers[1]) + broken, broken + (int(bad[1]) if bad else 0), detail)


class H2load:
    """h2load over cleartext HTTP/2 (prior knowledge), in rounds, since it cannot be stopped in the middle of one.

    Construct it to start it. Each round opens its connections anew.
    """

    def __init__(self, url: str, connections: int = 8, streams: int = 8, seconds: int = 2) -> None:
        once = shlex.join([tool("h2load"), f"-c{connections}", f"-m{streams}", f"-D{seconds}", url])
        rounds = LONGEST // seconds
        loop = f'trap last=1 TERM; n=0; while [ -z "$last" ] && [ $n -lt {rounds} ]; do {once}; n=$((n+1)); done'
        self._out = _scratch()
        self._process = subprocess.Popen(
            ["sh", "-c", loop], stdout=self._out, stderr=subprocess.STDOUT, start_new_session=True
        )

    def stop(self) -> Outcome:
        """Let the present round end."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        rounds = [read_h2load(text) for text in self._printed()]
        self._out.close()
        details = [one.detail for one in rounds if one.detail]
        return Outcome("h2load", sum(o.requests for o in rounds), sum(o.lost for o in rounds), "; ".join(details))

    def rounds(self) -> int:
        """How many rounds have ended."""
        return sum("requests:" in text for text in self._printed())

    def _printed(self) -> list[str]:
        size = os.fstat(self._out.fileno()).st_size
        return os.pread(self._out.fileno(), size, 0).decode().split("starting benchmark")[1:]


def read_h2load(text: str) -> Outcome:
    """What h2load printed after one round. What is under way when the time is over is not counted."""
    line = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    if line is None:
        raise RuntimeError(f"h2load did not say how many requests it made: {text[-300:]}")
    done, _, failed, _, _ = (int(number) for number in line.groups())
    codes = re.search(r"status codes: .*", text)
    return Outcome("h2load", done, failed, f"{line[0]}; {codes[0] if codes else ''}" if failed else "")


def tool(name: str) -> str:
    """The path of a load tool. Raises FileNotFoundError with the way to get it."""
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; scripts/test-tools installs it on Debian")
    return found


def tools_missing() -> list[str]:
    """Those of wrk and h2load that are not installed."""
    return [name for name in ("wrk", "h2load") if shutil.which(name) is None]


def tiny_app() -> str:
    """The command that starts the tiny application, but for ``PORT [VERSION]``."""
    return f"{sys.executable} -I -S {Path(__file__).with_name('app.py')}"
