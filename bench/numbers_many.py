"""A control plane with many services: its memory, and the CPU it takes when nothing happens."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
import psutil
from numbers_table import RUNS, Number

from segue.cli.client import Absent, Client
from segue.core.release import Revision
from segue.core.version import Health, Version
from segue.engine.health import probe
from segue.home import socket_path
from segue.testing.load import tiny_app
from segue.testing.site import as_user, free_port

SERVICES, INSTANCES = 100, 10
"""What the targets are about."""
FEW = 30
"""So many of the services are started: all of them take minutes, for an instance that starts is asked often."""
TOGETHER = 5
FIRST = 31000
CHECKS = 300
WINDOW = 2.0
"""Seconds over which the CPU is counted, `RUNS` times."""
WITHIN = 40.0
"""Seconds that services have to be steady."""


def many() -> Iterator[Number]:
    """A control plane with many services. With fewer than the targets are about, memory is not held against one,
    and CPU is: what is too much for some is too much for all."""
    what = f"control plane, {FEW} services × {INSTANCES} instances (of {SERVICES} × {INSTANCES})"
    common.progress(f"{what} …")
    with _plane() as client:
        _launch(client)
        memory, cpu = _watched(client)
    yield Number(f"{what}: memory", "MB", memory, 150 if FEW == SERVICES else None)
    yield Number("  CPU idle, a health check of each instance every 500 ms", "% of a core", cpu, 1)
    whole = [value * SERVICES / FEW for value in cpu]
    yield Number(f"  in proportion, {SERVICES} × {INSTANCES} instances", "% of a core", whole)
    yield Number("  CPU of one health check by itself", "µs", _checks())


def _checks() -> list[float]:
    """Microseconds of CPU that one check takes, run by run."""
    port = free_port()
    app = subprocess.Popen([*shlex.split(tiny_app()), str(port), "v1"], stdout=subprocess.PIPE)
    assert app.stdout is not None
    app.stdout.readline()
    try:
        return [asyncio.run(_check_often(f"127.0.0.1:{port}")) for _ in range(RUNS)]
    finally:
        app.kill()
        app.wait()


async def _check_often(address: str) -> float:
    version = Version("shop", Revision("v1.1"), "", Path(), "", health=Health(path="/healthz"))
    began = time.process_time()
    for _ in range(CHECKS):
        if problem := await probe(version, address, _no_command):
            raise RuntimeError(problem)
    return (time.process_time() - began) * 1e6 / CHECKS


async def _no_command(version: Version, command: str, seconds: float) -> tuple[int, str]:
    raise NotImplementedError


@contextmanager
def _plane() -> Iterator[Client]:
    """A control plane and the one process that all its instances are."""
    home = Path(tempfile.mkdtemp(prefix="sg-"))
    ports = {"FIRST": str(FIRST), "PORTS": str(FEW * INSTANCES)}
    environment = {**os.environ, "SEGUE_HOME": str(home), **ports}
    command = [sys.executable, str(Path(__file__).with_name("numbers_plane.py"))]
    app = subprocess.Popen([*command, "app"], env=environment, stdout=subprocess.PIPE)
    assert app.stdout is not None
    app.stdout.readline()
    plane = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    client = Client(socket_path(home))
    try:
        _answers(client)
        yield client
    finally:
        _end(client, plane)
        app.kill()
        app.wait()
        shutil.rmtree(home)


def _end(client: Client, plane: subprocess.Popen[bytes]) -> None:
    try:
        client.ask("POST", "/v1/shutdown", {"all": True})
        plane.wait(WITHIN)
    finally:
        plane.kill()
        plane.wait()


def _answers(client: Client) -> None:
    deadline = time.monotonic() + WITHIN
    while True:
        try:
            client.ask("GET", "/healthz")
            return
        except Absent:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _launch(client: Client) -> None:
    """Deploy the services, a few at a time; return when all their instances are ready."""
    listen = free_port()
    for number in range(FEW):
        manifest = _manifest(f"s{number}", listen)
        body = {"manifest": manifest, "folder": tempfile.gettempdir(), "environment": {}, "version": "v1"}
        client.ask("POST", f"/v1/services/s{number}/rollouts", body, timeout=WITHIN)
        if number % TOGETHER == 0 or number == FEW - 1:  # the first one opens the listener alone
            _steady(client)
    common.progress(f"    {FEW} services are steady")


def _steady(client: Client) -> None:
    deadline = time.monotonic() + WITHIN
    while not all(service["state"] == "steady" for service in _services(client)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not all services are steady after {WITHIN:g} s")
        time.sleep(0.2)


def _services(client: Client) -> Any:
    return client.ask("GET", "/v1/services", timeout=WITHIN)["services"]


def _manifest(name: str, listen: int) -> dict[str, Any]:
    return {
        "service": name,
        "replicas": INSTANCES,
        "route": {"listen": f"127.0.0.1:{listen}", "path": f"/{name}"},
        "run": {"process": {"command": "serve {port}", **as_user()}},
        "health": {"path": "/healthz", "every": "500ms", "deadline": "60s"},
    }


def _watched(client: Client) -> tuple[list[float], list[float]]:
    """The control plane's memory in MB and its CPU in percent of a core, run by run."""
    plane = psutil.Process(int(client.ask("GET", "/healthz")["pid"]))
    time.sleep(WINDOW)  # rollouts look at the evidence once more
    memory, cpu = [], []
    for _ in range(RUNS):
        began, since = sum(plane.cpu_times()[:2]), time.monotonic()
        time.sleep(WINDOW)
        cpu.append((sum(plane.cpu_times()[:2]) - began) / (time.monotonic() - since) * 100)
        memory.append(plane.memory_info().rss / 1e6)
    return memory, cpu
