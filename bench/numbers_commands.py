"""What Segue itself takes: a command, a step of a deployment, the start of the control plane."""

from __future__ import annotations

import os
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cli_start
import common
from numbers_table import RUNS, Number

from segue.cli.client import Absent, Client
from segue.home import socket_path
from segue.testing.load import tiny_app
from segue.testing.site import Segue, Shop, free_port

REPLICAS = 2
STRATEGY = {
    "use": "rolling",
    "rolling": {"first_judge": "0s", "judge": "0s"},
    "blue_green": {"judge": "0s", "keep": "0s"},
}
STARTS = {"rolling": REPLICAS, "blue_green": 1}
"""How often a strategy waits for the application to start: one after the other, or all at once."""


def commands() -> Iterator[Number]:
    """`segue status`, and deployments without judging."""
    with common.shop() as shop:
        shop.write(replicas=REPLICAS, strategy=STRATEGY, health={"path": "/healthz"})
        shop.deploy("v0")
        common.progress("segue status …")
        yield _status(shop)
        common.progress("deployments …")
        for strategy in STARTS:
            yield _deploys(shop, strategy)
    common.progress("starts of the control plane …")
    yield Number("start of the control plane: `segue serve` → /healthz", "s", [_start() for _ in range(RUNS)])


def _status(shop: Shop) -> Number:
    segue = [sys.executable, str(Path(sys.executable).parent / "segue"), "status", "-C", str(shop.folder)]
    os.environ["SEGUE_HOME"] = str(shop.segue.home)
    try:
        pairs = [cli_start.measure(segue, 5) for _ in range(RUNS)]
    finally:
        del os.environ["SEGUE_HOME"]
    ratios = [whole / bare for bare, whole in pairs]
    return Number("`segue status`, whole command ÷ a bare interpreter's start", "×", ratios, cli_start.TARGET)


def _deploys(shop: Shop, strategy: str) -> Number:
    """Seconds a step beyond what the application takes to start by itself."""
    beyond = []
    for number in range(RUNS):
        own = statistics.median(_own_start() for _ in range(3))
        began = time.perf_counter()
        shop.deploy(f"{strategy}-{number}", "--strategy", strategy)
        took = time.perf_counter() - began
        steps = len(shop.report()["steps"])
        beyond.append((took - STARTS[strategy] * own) / steps)
        common.progress(f"    {strategy}: {took:.2f} s for {steps} steps, the application starts in {own:.2f} s")
    return Number(f"deploy beyond the application's start, {strategy}, {REPLICAS} instances", "s a step", beyond, 0.5)


def _own_start() -> float:
    """Seconds from the start of the application by hand until it answers."""
    port = free_port()
    began = time.perf_counter()
    app = subprocess.Popen([*shlex.split(tiny_app()), str(port), "v1"], stdout=subprocess.DEVNULL)
    try:
        while not _answers(port):
            time.sleep(0.002)
        return time.perf_counter() - began
    finally:
        app.kill()
        app.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return sock.recv(12) == b"HTTP/1.1 200"
    except ConnectionError:
        return False


def _start() -> float:
    """Seconds from `segue serve` in an empty home until it answers."""
    with tempfile.TemporaryDirectory(prefix="sg-") as folder:
        segue = Segue(Path(folder) / "home")
        segue.home.mkdir(mode=0o700)
        client = Client(socket_path(segue.home))
        began = time.perf_counter()
        plane = segue.start("serve")
        try:
            while not _healthy(client):
                time.sleep(0.005)
            return time.perf_counter() - began
        finally:
            segue.end()
            plane.wait(30)


def _healthy(client: Client) -> bool:
    try:
        return bool(client.ask("GET", "/healthz")["ok"])
    except Absent:
        return False
