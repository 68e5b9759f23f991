"""Homes with as many services as wanted, and the control planes that run in them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from scale_plane import address

from segue.cli.client import Absent, Broken, Client
from segue.core.demand import Demand
from segue.core.release import ALL, Revision
from segue.core.traffic import InstanceId, Route
from segue.core.version import Health, Version
from segue.engine.clock import SystemClock
from segue.engine.journal import Journal
from segue.engine.records import Hooks, Recipe, ServiceRecord, VersionRecord
from segue.engine.versions import VersionStore
from segue.home import socket_path
from segue.platforms.hooks import run_command
from segue.ports import Intent
from segue.routers.envoy import process
from segue.testing.site import as_user, free_port

INSTANCES = 10
"""Of each service."""
WITHIN = 300.0
"""Seconds that anything may take."""
EVERY = 60
"""Seconds between two health checks of an instance that serves: what a check costs is another benchmark's."""
FIRST = Revision("v1.1")
PLANE = str(Path(__file__).with_name("scale_plane.py"))


class Home:
    """A home with `services` services, in `folder`; `listen` is where their users are, `port` their instances'."""

    def __init__(self, folder: Path, services: int, port: int) -> None:
        self.folder, self.services, self.port = folder, services, port
        self.listen = f"127.0.0.1:{free_port()}"
        self.client = Client(socket_path(folder))

    def seed(self) -> None:
        """Write down `services` services that serve, through the journal: no control plane has to deploy them."""
        journal = Journal(self.folder / "journal", SystemClock())
        with journal.transaction():
            for number in range(self.services):
                self._serving(journal, number)
        journal.close()

    def _serving(self, journal: Journal, number: int) -> None:
        name, store = f"s{number}", VersionStore(self.folder / "versions", run_command)
        route = Route(self.listen, hosts=(f"{name}.example",))
        demand = Demand({FIRST: INSTANCES}, {FIRST: ALL}, {FIRST: INSTANCES})
        journal.put_service(ServiceRecord(name, route, demand, stable=FIRST, strategy={"name": "rolling"}))
        health = Health(path="/", every=timedelta(seconds=EVERY))
        version = Version(name, FIRST, "sha256:first", Path("/"), "serve", health=health)
        recipe = Recipe(FIRST, "/")
        journal.put_version(VersionRecord("v1", 1, version, recipe, Hooks(), SystemClock().now()))
        store.save_environment(name, FIRST, {})
        for ordinal in range(1, INSTANCES + 1):
            place = number * INSTANCES + ordinal
            instance = InstanceId(f"{name}-{FIRST}-{ordinal}")
            intent = Intent(name, instance, FIRST, str(place), address(place, self.port))
            journal.put_intent(intent, 0, checked=True)

    def order(self, number: int, version: str, strategy: Mapping[str, Any]) -> dict[str, Any]:
        """The body that asks for a deployment of the `number`-th service."""
        manifest = {
            "service": f"s{number}",
            "replicas": INSTANCES,
            "route": {"listen": self.listen, "hosts": [f"s{number}.example"]},
            "run": {"process": {"command": "serve {port}", **as_user()}},
            "health": {"path": "/", "every": f"{EVERY}s", "deadline": f"{3 * EVERY}s"},
            "strategy": strategy,
        }
        return {"manifest": manifest, "folder": tempfile.gettempdir(), "environment": {}, "version": version}

    def written(self) -> tuple[int, int]:
        """Bytes that the journal and the events take, free pages apart."""
        return _bytes(self.folder / "journal" / "journal.db"), _bytes(self.folder / "journal" / "events.db")

    # The processes

    @contextmanager
    def plane(self) -> Iterator[Plane]:
        """A control plane that answers; at the end it is let go, and Envoy runs on."""
        environment = {**os.environ, "SEGUE_HOME": str(self.folder), "PORT": str(self.port)}
        began = time.monotonic()
        with (self.folder / "log").open("ab") as log:
            running = subprocess.Popen([sys.executable, PLANE], env=environment, stdout=log, stderr=log)
        try:
            self._answers(running)
            yield Plane(self, running.pid, time.monotonic() - began)
            running.send_signal(signal.SIGTERM)
            running.wait(WITHIN)
        finally:
            running.kill()
            running.wait()

    def _answers(self, running: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + WITHIN
        while running.poll() is None and time.monotonic() < deadline:
            with suppress(Absent, Broken):
                self.client.ask("GET", "/healthz")
                return
            time.sleep(0.01)
        raise RuntimeError(f"the control plane does not answer: {(self.folder / 'log').read_text()[-2000:]}")

    def end_envoy(self) -> None:
        """End the Envoy that was left running."""
        running = process.recorded(self.folder / "envoy")
        if running is not None:
            process.send(running, signal.SIGKILL)


class Plane:
    """A control plane of `home` that answers, `started` seconds after it was asked to.

    `at_rest`: seconds of CPU that it and its Envoy take in a second in which nothing happens, once that is known.
    """

    def __init__(self, home: Home, pid: int, started: float) -> None:
        self.home, self.client, self.started = home, home.client, started
        self.process = psutil.Process(pid)
        envoy = process.recorded(home.folder / "envoy")
        assert envoy is not None
        self.envoy = psutil.Process(envoy.pid)
        self.at_rest = 0.0, 0.0

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The document that it answers with."""
        return self.client.ask(method, path, body, timeout=WITHIN)

    def events(self, path: str) -> Iterator[Any]:
        """The events below `path`, as they come."""
        with self.client.open("GET", path, timeout=WITHIN) as body:
            for line in body.lines():
                yield json.loads(line or b"")

    def cpu(self) -> tuple[float, float]:
        """Seconds of CPU that it and its Envoy have taken so far."""
        return _cpu(self.process), _cpu(self.envoy)

    @contextmanager
    def spending(self) -> Iterator[list[float]]:
        """The seconds of CPU that both take until the end, beyond what they take at rest; known at the end."""
        spent: list[float] = []
        before, began = self.cpu(), time.monotonic()
        yield spent
        took = time.monotonic() - began
        spent += [now - then - took * rest for now, then, rest in zip(self.cpu(), before, self.at_rest, strict=True)]

    def memory(self) -> tuple[float, float]:
        """Megabytes that it and its Envoy hold."""
        return self.process.memory_info().rss / 1e6, self.envoy.memory_info().rss / 1e6


@contextmanager
def home(services: int, port: int) -> Iterator[Home]:
    """A seeded home, which is gone afterwards, with its Envoy."""
    made = Home(Path(tempfile.mkdtemp(prefix="sg-")), services, port)
    try:
        made.seed()
        yield made
    finally:
        made.end_envoy()
        shutil.rmtree(made.folder)


@contextmanager
def answering() -> Iterator[int]:
    """The process that answers for all instances; its port."""
    one = subprocess.Popen([sys.executable, PLANE, "answer"], env={**os.environ, "PORT": "0"}, stdout=subprocess.PIPE)
    assert one.stdout is not None
    try:
        yield int(one.stdout.readline())
    finally:
        one.kill()
        one.wait()


def _cpu(of: psutil.Process) -> float:
    return sum(of.cpu_times()[:2])


def _bytes(file: Path) -> int:
    names = "page_count", "freelist_count", "page_size"
    with closing(sqlite3.connect(file)) as db:
        pages, free, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return int((pages - free) * size)
