"""What users notice of a rollout: their tail latency, how soon a change of shares is in force, a rollback."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import common
from numbers_table import RUNS, Number

from segue.cli.client import Client
from segue.home import socket_path
from segue.testing.load import Probe, Wrk, tiny_app
from segue.testing.site import Shop, free_port

BEFORE = 2.0
"""Seconds that the time before a rollout is measured for; a rollout takes about as long."""

STRATEGY = {
    "use": "rolling",
    "rolling": {"first_judge": "1s", "judge": "500ms"},
    "blue_green": {"judge": "0s", "keep": "10m"},
}

Answers = Sequence[tuple[float, float, str]]
"""When each request was sent and answered, seconds since the epoch, and by which version."""


def traffic() -> Iterator[Number]:
    """All numbers of one shop under load."""
    with common.shop() as shop:
        shop.write(replicas=2, strategy=STRATEGY)
        shop.deploy("v0")
        saturation = _saturation(shop)
        yield Number("saturation: wrk, 64 connections, 2 instances of the tiny application", "/s", [saturation])
        versions = iter(f"v{number}" for number in range(1, 1000))
        common.progress("p99 during a rollout …")
        for part, target in ((0.3, 1.2), (0.7, None)):
            rollouts, starts = [], []
            for _ in range(RUNS):
                rollouts.append(_tail(shop, part * saturation, lambda: _rolling(shop, next(versions))))
                starts.append(_tail(shop, part * saturation, _starts))
            yield Number(f"p99 during a rollout ÷ before, at {part:.0%} of saturation", "×", rollouts, target)
            yield Number("  without one: as many instances and a bare interpreter start", "×", starts)
        common.progress("changes of shares and rollbacks …")
        yield from _switches(shop, 0.3 * saturation)


def _saturation(shop: Shop) -> float:
    began = time.monotonic()
    wrk = Wrk(shop.url)
    time.sleep(3)
    return wrk.stop().requests / (time.monotonic() - began)


def _rolling(shop: Shop, version: str) -> None:
    shop.deploy(version, "--strategy", "rolling")


def _starts() -> None:
    """What no deployment can do without, however it is done: a command runs, and two instances start in turn."""
    subprocess.run([sys.executable, "-c", ""], check=True)
    for pause in (1.0, 0.5):  # as long as the rollout judges
        command = [*shlex.split(tiny_app()), str(free_port()), "v1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as instance:
            assert instance.stdout is not None
            instance.stdout.readline()
            time.sleep(pause)
            instance.terminate()


def _tail(shop: Shop, rate: float, disturb: Callable[[], None]) -> float:
    """p99 while something goes on, over p99 before."""
    probe = Probe(shop.url, rate=rate)
    try:
        probe.more(200)
        begin = probe.tally()
        time.sleep(BEFORE)
        before = probe.tally()
        disturb()
        during = probe.tally()
    finally:
        probe.finish()
    calm, rollout = before.since(begin).percentile(0.99), during.since(before).percentile(0.99)
    common.progress(f"    {rate:.0f}/s: p99 {calm:.2f} ms before, {rollout:.2f} ms during")
    return rollout / calm


def _switches(shop: Shop, rate: float) -> Iterator[Number]:
    """To the new version by blue_green and back again in keep, under load."""
    values: dict[str, list[float]] = defaultdict(list)
    for _ in range(RUNS):
        for name, value in _there_and_back(shop, rate):
            values[name].append(value)
    yield Number("a change of shares under load: decided → confirmed by Envoy, events", "ms", values["confirmed"], 5)
    yield Number("  of it told → confirmed (`confirmed_ms`)", "ms", values["told"])
    yield Number("  from outside: decided → first answer by the new version", "ms", values["first"])
    yield Number("  confirmed → last request sent that the old version answered", "ms", values["last"], 50)
    yield Number("`segue rollback` in keep under load, whole command", "ms", values["rollback"], 300)
    yield Number("  the switch itself (`switch_ms`)", "ms", values["switch"], 10)


def _there_and_back(shop: Shop, rate: float) -> Iterator[tuple[str, float]]:
    with tempfile.TemporaryFile("w+") as out:
        command = [sys.executable, str(Path(__file__).with_name("numbers_watcher.py")), shop.url, str(rate)]
        watcher = subprocess.Popen(command, stdout=out)
        try:
            time.sleep(1)
            shop.deploy("other", "--strategy", "blue_green")
            there = _events(shop)
            time.sleep(0.5)
            began = time.perf_counter()
            shop.segue("rollback", "-s", "shop", cwd=shop.folder)
            yield "rollback", (time.perf_counter() - began) * 1000
            back = _events(shop)
            yield "switch", shop.report()["switch_ms"]
            time.sleep(0.5)
        finally:
            watcher.terminate()
            watcher.wait()
        out.seek(0)
        answers: Answers = json.load(out)
    for events in (there, back):
        yield from _shift(events, answers)


def _shift(events: Sequence[Any], answers: Answers) -> Iterator[tuple[str, float]]:
    """The times of the rollout's one change of shares: from the journal, and as users saw it."""
    number = next(n for n, event in enumerate(events) if event["event"] == "traffic")
    decided = next(_at(event) for event in reversed(events[:number]) if event["event"] == "began")
    confirmed = _at(events[number])
    yield "confirmed", (confirmed - decided) * 1000
    yield "told", events[number]["confirmed_ms"]
    near = [answer for answer in answers if decided - 0.5 < answer[0] < confirmed + 0.5]
    old = near[0][2]
    yield "first", (min(came for _, came, version in near if version != old) - decided) * 1000
    yield "last", max(0.0, (max(sent for sent, _, version in near if version == old) - confirmed) * 1000)


def _at(event: Any) -> float:
    return datetime.fromisoformat(event["at"]).timestamp()


def _events(shop: Shop) -> list[Any]:
    """The events of the latest rollout."""
    client = Client(socket_path(shop.segue.home))
    with client.open("GET", "/v1/rollouts/latest/events?service=shop", timeout=10) as body:
        return [json.loads(line) for line in body.whole().splitlines()]
