"""The guardian: it starts the control plane again, ends when that is wanted, and leaves nobody behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import psutil
import pytest

from segue.cli import start
from segue.guardian import ALIVE, PID_FILE, hold
from segue.testing.cast import Cast
from segue.testing.site import Segue, free_port, kill, leftovers

from .conftest import until

LIVES = "import os, signal, sys; print(os.getpid(), flush=True); signal.pause()"
ENDS = "import sys; print('started', flush=True); sys.exit({status})"
LIVES_ONCE = """
import pathlib, sys, time
mark = pathlib.Path('lived')
if mark.exists(): sys.exit(1)
mark.touch(); time.sleep(0.3); sys.exit(1)
"""
SAYS_GOODBYE = """
import os, signal, sys
def end(*_): print('goodbye', flush=True); sys.exit(0)
signal.signal(signal.SIGTERM, end); print(os.getpid(), flush=True)
while True: signal.pause()
"""
HAS_A_CHILD = """
import os, signal, subprocess
child = subprocess.Popen(['sleep', '300'], start_new_session=True)
print(os.getpid(), child.pid, flush=True); signal.pause()
"""

FILTERS = "type.googleapis.com/envoy.extensions.filters"

Guarded = Callable[..., "Guard"]


class Guard:
    """A guardian of a small program, and what the program printed."""

    def __init__(self, home: Path, program: str, alive: float = ALIVE) -> None:
        self.output = home / "output"
        script = (
            "import sys; from pathlib import Path; from segue import guardian\n"
            f"guardian.ALIVE = {alive}\n"
            f"sys.exit(guardian.Guardian([sys.executable, '-c', {program!r}], Path({str(home)!r})).run() % 256)"
        )
        with self.output.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", script], stdout=out, stderr=subprocess.PIPE, cwd=home
            )

    def lines(self) -> list[str]:
        """What the program has printed so far, over all its lives."""
        return self.output.read_text().splitlines()

    def said(self, number: int) -> str:
        """The program's `number`-th line, counted from 1, when it has been printed."""
        until(lambda: len(self.lines()) >= number)
        return self.lines()[number - 1]

    def end(self) -> int:
        """The status that the guardian ends with."""
        return self.process.wait(20)


@pytest.fixture
def guarded(home: Path) -> Iterator[Guarded]:
    guards: list[Guard] = []

    def start(program: str, **how: float) -> Guard:
        guards.append(Guard(home, program, **how))
        return guards[-1]

    yield start
    for guard in guards:
        if guard.process.poll() is None:
            guard.process.terminate()
            guard.process.wait(20)
        assert guard.process.stderr is not None
        guard.process.stderr.close()


def test_a_control_plane_that_was_killed_is_started_again(guarded: Guarded) -> None:
    guard = guarded(LIVES)
    first = int(guard.said(1))
    os.kill(first, signal.SIGKILL)
    second = int(guard.said(2))
    assert second != first
    assert psutil.Process(second).ppid() == guard.process.pid


@pytest.mark.parametrize("status", [0, 2, 3])
def test_some_ends_are_final(status: int, guarded: Guarded) -> None:
    guard = guarded(ENDS.format(status=status))
    assert guard.end() == status
    assert guard.lines() == ["started"]


def test_one_that_never_comes_up_is_given_up_after_three_times(guarded: Guarded) -> None:
    guard = guarded(ENDS.format(status=1))
    assert guard.end() == 1
    assert guard.lines() == ["started"] * 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_wish_to_end_is_passed_on_and_waited_for(number: signal.Signals, guarded: Guarded) -> None:
    guard = guarded(SAYS_GOODBYE.replace("SIGTERM", number.name))
    guard.said(1)
    guard.process.send_signal(number)
    assert guard.end() == 0
    assert guard.lines()[1:] == ["goodbye"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")
def test_orphans_are_not_adopted_for_what_ends_with_its_parent_is_not_to_end_with_the_guardian(
    guarded: Guarded,
) -> None:
    guard = guarded(HAS_A_CHILD)
    parent, orphan = map(int, guard.said(1).split())
    os.kill(parent, signal.SIGKILL)
    until(lambda: psutil.Process(orphan).ppid() != parent)
    assert psutil.Process(orphan).ppid() != guard.process.pid
    os.kill(orphan, signal.SIGKILL)
    os.kill(int(guard.said(2).split()[1]), signal.SIGKILL)


def test_a_home_has_one_guardian(home: Path) -> None:
    first = hold(home / PID_FILE)
    assert first is not None
    assert (home / PID_FILE).read_text() == f"{os.getpid()}\n"
    assert hold(home / PID_FILE) is None
    first.close()
    again = hold(home / PID_FILE)
    assert again is not None
    again.close()


def static_table(port: int, admin: Path) -> dict[str, object]:
    """An Envoy configuration that answers every request by itself."""
    everything = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "alone"}}}
    manager = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x",
        "route_config": {"virtual_hosts": [{"name": "x", "domains": ["*"], "routes": [everything]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{FILTERS}.http.router.v3.Router"}}],
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    return {
        "admin": {"address": {"pipe": {"path": str(admin)}}},
        "static_resources": {"listeners": [{"name": "x", "address": address, "filter_chains": [chain]}]},
    }


def test_users_are_served_by_the_last_table_while_no_control_plane_comes_up(guarded: Guarded, home: Path) -> None:
    port, folder = free_port(), home / "envoy"
    folder.mkdir()
    (folder / "envoy-static.json").write_text(json.dumps(static_table(port, folder / "admin-0.sock")))
    try:
        guarded(LIVES_ONCE, alive=0.2)
        until(lambda: b"alone" in answer(port))
    finally:
        kill(folder)
        assert not leftovers(folder)


def answer(port: int) -> bytes:
    """What is answered to a request on `port`; nothing if nobody listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return b"".join(iter(lambda: connection.recv(4096), b""))
    except OSError:
        return b""


@pytest.fixture
def segue(home: Path) -> Iterator[Segue]:
    """The command line with a real control plane."""
    line = Segue(home)
    try:
        yield line
        line.end()
        assert not leftovers(home)
    finally:
        kill(home)


def test_commands_at_the_same_time_start_one_control_plane(segue: Segue, home: Path) -> None:
    running = [segue.start("restart", "-s", "shop") for _ in range(3)]
    said = [one.communicate(timeout=60)[0] for one in running]
    assert [one.returncode for one in running] == [4, 4, 4], said
    assert all("there is no service shop" in one for one in said)
    log = (home / "control-plane.log").read_text()
    assert log.count("answers (pid") == 1


def test_what_the_control_plane_says_does_not_grow_for_ever(segue: Segue, home: Path) -> None:
    home.mkdir(exist_ok=True)
    with (home / start.LOG).open("wb") as log:
        log.truncate(start.LONGEST + 1)
    segue("restart", "-s", "shop", expect=4)
    assert (home / start.LOG).read_text().count("answers (pid") == 1
    assert (home / f"{start.LOG}.1").stat().st_size == start.LONGEST + 1


def test_a_control_plane_that_was_killed_comes_back_with_another_pid(segue: Segue, home: Path) -> None:
    segue("restart", "-s", "shop", expect=4)
    pid = int((home / "control-plane.log").read_text().split("(pid ")[1].split(")")[0])
    os.kill(pid, signal.SIGKILL)
    until(lambda: (home / "control-plane.log").read_text().count("answers (pid") == 2)
    assert segue.json("status") == {"schema": 1, "services": []}


def test_a_log_that_cannot_be_written_ends_nobody(segue: Segue) -> None:
    command = [sys.executable, "-P", "-m", "segue.guardian"]
    with Path("/dev/full").open("w") as full:
        guardian = subprocess.Popen(command, env=segue.environment, stdout=full, stderr=full, start_new_session=True)
    cast = Cast(segue, Random(1))
    first = cast.answering()
    os.kill(first, signal.SIGKILL)
    until(lambda: cast.answering() != first)
    assert guardian.poll() is None
    segue("shutdown")
    assert guardian.wait(20) == 0


def test_after_a_shutdown_the_next_command_starts_a_new_one(segue: Segue) -> None:
    assert "Started the control plane" in segue("restart", "-s", "shop", expect=4).stderr
    assert "has ended" in segue("shutdown").stdout
    assert segue("shutdown").stdout == "No control plane runs.\n"
    assert "Started the control plane" in segue("status").stderr


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = Segue(tmp_path / "file" / "home")("restart", "-s", "shop", expect=3)
    assert "cannot be started" in said.stderr
    assert "Next:  segue doctor" in said.stderr
