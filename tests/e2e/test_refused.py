"""A version that is no good, under load: refused with exit 1 and a reason, nobody loses a request, nothing is left.

Rule: all faults of one strategy happen one after the other to the same service under the same control plane, each
to a new version, and then a good version is deployed. So what a refusal leaves behind would be found as well.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from homes import Service, a_home
from loads import connects, eventually

from segue.testing.load import Probe
from segue.testing.site import leftovers

JUDGED: dict[str, Any] = {
    "rolling": {"rolling": {"first_judge": "3s", "judge": "0s"}},
    "blue_green": {"blue_green": {"judge": "3s", "keep": "0s"}},
}
STRANGER = """
import os, socket, subprocess, sys, time
port, pids, ours = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", port))
listener.listen(64)
if os.fork() == 0:
    os.setsid()
    with open(pids, "a") as file:
        file.write(f"{os.getpid()}\\n")
    while True:
        client, _ = listener.accept()
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
        client.close()
listener.close()
os.execvp(ours[0], ours)
"""
"""`stranger.py PORT PIDS COMMAND…`: a process that is no instance listens at the port, healthy; then COMMAND runs."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a version. `reason` and `shown` (of a log or an output) stand in what `deploy` prints."""

    name: str
    reason: str
    shown: str
    env: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    build: str | None = None
    health: Mapping[str, Any] = field(default_factory=dict)
    smoke: tuple[Any, ...] = ()
    hooks: Mapping[str, str] = field(default_factory=dict)
    judged: bool = False

    def __str__(self) -> str:
        return self.name


NEVER_STARTS = Fault(
    "never-starts", "command not found: no-such-program", "No such file", command="no-such-program {port}"
)
NEVER_HEALTHY = Fault(
    "never-healthy",
    "GET /healthz answered 503, not 200-399",
    "listens on port",
    env={"APP_UNHEALTHY": "yes"},
    health={"deadline": "3s"},
)
EXITS = Fault("exits-at-once", "it exited with status 3", "gives up: APP_EXIT is 3", env={"APP_EXIT": "3"})
BUILD_FAILS = Fault(
    "build-fails",
    "the build of shop build-fails.1 ended with status 2",
    "shop.h: no such header",
    build="echo shop.h: no such header; exit 2",
)
HOOK_FAILS = Fault(
    "hook-fails",
    "the before hook exited with status 4",
    "column stock exists already",
    hooks={"before": "echo column stock exists already >&2; exit 4"},
)
FAULTS = (
    NEVER_STARTS,
    NEVER_HEALTHY,
    EXITS,
    Fault(
        "stranger-answers",
        "is answered by a process that is not this instance's",
        "shop sleeps",
        command="{stranger} sh -c 'echo shop sleeps; exec sleep 600'",
        health={"deadline": "3s"},
    ),
    Fault("port-taken", "it exited with status 1", "Address already in use", command="{stranger} {app}"),
    BUILD_FAILS,
    HOOK_FAILS,
    Fault(
        "smoke-test-fails",
        "the answer does not contain 'goodbye'",
        "listens on port",
        smoke=({"http": {"path": "/", "contains": "goodbye"}},),
    ),
    Fault(
        "smoke-command-fails",
        "exited with 5: no tea in stock",
        "listens on port",
        smoke=({"command": "echo no tea in stock; exit 5"},),
    ),
    Fault("answers-500", "failed each of its last", "", env={"APP_BROKEN": "500"}, judged=True),
)


class Ground(Service):
    """The shop that the faults happen to."""

    def __init__(self, *args: Any, strategy: str) -> None:
        super().__init__(*args)
        self.strategy = strategy
        self.strangers = self.folder / "strangers"
        self.stranger = self.folder / "stranger.py"
        self.stranger.write_text(STRANGER)

    def deploy_good(self, name: str) -> None:
        """A version with nothing wrong, which is not waited for longer than needed."""
        how = {key: {**options, self._first: "0s"} for key, options in JUDGED[self.strategy].items()}
        self.write(strategy=how)
        self.deploy(name)

    @property
    def _first(self) -> str:
        return "judge" if self.strategy == "blue_green" else "first_judge"

    def deploy_bad(self, fault: Fault) -> str:
        """What `segue deploy` prints of a version with `fault`, which it must refuse."""
        process = {"source": ".", "build": fault.build} if fault.build else {}
        if fault.command:
            process["command"] = self._command(fault.command)
        self.write(
            env={**fault.env, "MARK": str(self.mark(fault))},
            process=process,
            health=fault.health,
            smoke=list(fault.smoke),
            hooks=dict(fault.hooks),
            strategy=JUDGED[self.strategy],
        )
        return self.deploy(fault.name, expect=1).stdout

    def _command(self, command: str) -> str:
        app = self.manifest()["run"]["process"]["command"]
        python = app.split()[0]
        stranger = f"{python} -I -S {self.stranger} {{port}} {self.strangers}"
        return command.replace("{stranger}", stranger).replace("{app}", app)

    def manifest(self) -> Any:
        """The usual manifest."""
        self.write()
        return json.loads((self.folder / "segue.yaml").read_text())

    def mark(self, fault: Fault) -> Path:
        """What stands in the environment of all processes of a version with `fault`."""
        return self.folder / f"mark-of-{fault.name}"

    def end_strangers(self) -> None:
        """End the processes that took a port: they are no instances, so nobody else does."""
        for pid in self.strangers.read_text().split() if self.strangers.exists() else ():
            os.kill(int(pid), signal.SIGKILL)
        self.strangers.unlink(missing_ok=True)


@pytest.fixture(scope="module", params=["rolling", pytest.param("blue_green", marks=pytest.mark.slow)])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    with a_home() as segue:
        shop = Ground(segue, "shop", strategy=request.param)
        shop.deploy_good("v1")
        try:
            yield shop
        finally:
            shop.end_strangers()


@pytest.fixture(scope="module")
def users(ground: Ground) -> Iterator[Probe]:
    """They ask for it all the time."""
    probe = Probe(ground.url, connections=64, rate=200)
    yield probe
    probe.kill()


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_version_is_refused_that(fault: Fault, ground: Ground, users: Probe) -> None:
    before, seen = ground.status()["stable"], users.more(50)
    said = ground.deploy_bad(fault)
    ground.end_strangers()
    assert leftovers(ground.mark(fault), within=0) == []
    assert fault.reason in said
    assert fault.shown in said.partition("✗ shop:")[2]
    assert f"{fault.name} was refused; {before} serves as before" in said
    only_serves(ground, before)
    tally = users.more(50).since(seen)
    assert (tally.lost_count, tally.lost) == (0, ())
    assert set(tally.by_version) == {before}
    account = ground.report()
    assert (account["to"], account["outcome"], account["exit"]) == (fault.name, "rolled_back", 1)
    assert account["requests"]["balanced"]
    assert (account["requests"]["shielded"] > 0) == fault.judged
    if ground.strategy == "rolling":  # by blue/green once, below: it takes the time of ten deploys
        a_good_version_follows(ground, users, f"after-{fault}")


def test_after_all_of_them_a_good_version_is_deployed(ground: Ground, users: Probe) -> None:
    a_good_version_follows(ground, users, "good")


def a_good_version_follows(shop: Ground, users: Probe, version: str) -> None:
    """What was refused before is no hindrance."""
    seen = users.more(50)
    shop.deploy_good(version)
    eventually(lambda: set(shop.status()["versions"]) == {version})
    only_serves(shop, version)
    tally = users.more(50).since(seen)
    assert (tally.lost_count, tally.lost) == (0, ())
    assert version in tally.by_version


def only_serves(shop: Service, version: str) -> None:
    """Nothing but `version` runs, and nothing is under way."""
    found = shop.status()
    assert (found["state"], found["stable"], found["candidate"]) == ("steady", version, None)
    assert (found["rollout"], found["degraded"]) == (None, None)
    assert set(found["versions"]) == {version}
    assert [i["state"] for i in found["versions"][version]["instances"]] == ["ready"]


@pytest.fixture(scope="module")
def empty() -> Iterator[Ground]:
    """A service that has never served."""
    with a_home() as segue:
        yield Ground(segue, "shop", strategy="rolling")


@pytest.mark.parametrize("fault", [NEVER_STARTS, NEVER_HEALTHY, EXITS, BUILD_FAILS, HOOK_FAILS], ids=str)
def test_a_first_launch_is_refused_that(fault: Fault, empty: Ground) -> None:
    said = empty.deploy_bad(fault)
    assert fault.reason in said
    assert fault.shown in said.partition("✗ shop:")[2]
    assert f"{fault.name} was refused; nothing serves" in said
    assert leftovers(empty.mark(fault), within=0) == []
    found = empty.status()
    assert (found["state"], found["stable"], found["versions"]) == ("stopped", None, {})
    eventually(lambda: not connects(empty.port))


def test_a_good_first_launch_works_after_those_that_failed(empty: Ground) -> None:
    empty.deploy_bad(EXITS)
    empty.deploy_good("v1")
    only_serves(empty, "v1")
    assert connects(empty.port)
