"""What so many services cost one control plane and its Envoy: measured at one size."""

from __future__ import annotations

import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import common
from scale_home import Home, Plane, answering, home

from segue.testing.site import Segue

IDLE = 60.0
"""Seconds over which CPU is counted while nothing happens: whatever is done once a minute is in it."""
REQUESTS = 10
SHIFTS = 10
ASKED = 5
AT_ONCE = 100
STARTS = 2
SWITCH = {"blue_green": {"judge": "0s", "keep": "1h"}}
ROLLING = {"rolling": {"batch": 5, "surge": 5, "first_judge": "0s", "judge": "0s"}}
PING = 0.05

Measured = tuple[str, str, Sequence[float]]
"""What, its unit, and the values of its runs."""


def measure(services: int, port: int) -> Iterator[Measured]:
    """Everything about a control plane with so many services."""
    with home(services, port) as made:
        takeover = []
        with made.plane() as plane:
            yield from started(plane)
            use(made)
            yield from _idle(plane)
            yield from asked(plane)
            yield from shifts(plane)
            yield from _at_once(plane)
            yield from recalled(plane)
        for _ in range(STARTS):
            with made.plane() as plane:
                takeover.append(plane.started)
    yield "start beside an Envoy that runs: `segue serve` → it answers", "s", takeover


def started(plane: Plane) -> Iterator[Measured]:
    """What a start with everything, Envoy too, has taken."""
    own, envoys = plane.cpu()
    yield "start with Envoy: `segue serve` → it answers", "s", [plane.started]
    yield "  CPU of the control plane until then", "s", [own]
    yield "  CPU of Envoy until then", "s", [envoys]


def use(home: Home) -> None:
    """Ask each service some times, so that Envoy has something to count by."""
    address, port = home.listen.split(":")
    with socket.create_connection((address, int(port))) as users:
        for number in range(home.services):
            request = f"GET / HTTP/1.1\r\nHost: s{number}.example\r\n\r\n".encode()
            for _ in range(REQUESTS):
                users.sendall(request)
                if not users.recv(65536).startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"s{number} was not reached")


def _idle(plane: Plane) -> Iterator[Measured]:
    own, envoys = plane.memory()
    yield "memory of the control plane after its start", "MB", [own]
    yield "memory of Envoy", "MB", [envoys]
    before, began = plane.cpu(), time.monotonic()
    time.sleep(IDLE)
    took = time.monotonic() - began
    own, envoys = (100 * (now - then) / took for now, then in zip(plane.cpu(), before, strict=True))
    plane.at_rest = own / 100, envoys / 100
    yield "CPU of the control plane while nothing happens", "% of a core", [own]
    yield "CPU of Envoy while nothing happens", "% of a core", [envoys]


def asked(plane: Plane) -> Iterator[Measured]:
    """How soon it is said how things are."""
    last = f"s{plane.home.services - 1}"
    yield "the API's answer: all services", "ms", _answers(plane, "/v1/services")
    yield "the API's answer: one service", "ms", _answers(plane, f"/v1/services/{last}")
    yield "`segue status`, whole command", "ms", _commands(plane, "status")
    yield "`segue status -s SERVICE`, whole command", "ms", _commands(plane, "status", "-s", last)


def recalled(plane: Plane) -> Iterator[Measured]:
    """How soon it is said how things were."""
    yield "`segue history -s SERVICE`, whole command", "ms", _commands(plane, "history", "-s", "s0")
    yield "`segue report -s SERVICE`, whole command", "ms", _commands(plane, "report", "-s", "s0")
    yield "the API's answer: the newest 20 rollouts of all services", "ms", _answers(plane, "/v1/rollouts?limit=20")


def _answers(plane: Plane, path: str) -> list[float]:
    return [_took(lambda: plane.ask("GET", path)) for _ in range(ASKED)]


def _commands(plane: Plane, *arguments: str) -> list[float]:
    return [_took(lambda: Segue(plane.home.folder)(*arguments)) for _ in range(ASKED)]


def _took(work: Any) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


# Changes of one service


def shifts(plane: Plane) -> Iterator[Measured]:
    """One service goes to and fro between two versions that are both there."""
    decided, answers = [], []
    path, body = "/v1/services/s0/rollouts", plane.home.order(0, "switch", SWITCH)
    with plane.spending() as spent:
        for number in range(SHIFTS + 1):
            began = time.perf_counter()
            rollout = plane.ask("POST", path, body)["rollout"]
            answered = (time.perf_counter() - began) * 1000
            events = list(plane.events(f"/v1/rollouts/{rollout}/events"))
            if number:
                decided.append(_confirmation(events))
                answers.append(answered)
            path, body = "/v1/services/s0/rollback", {}
    own, envoys = (1000 * seconds / (SHIFTS + 1) for seconds in spent)
    yield "one service's change of shares: decided → confirmed by Envoy", "ms", decided
    yield "  the answer to `segue rollback` that causes it", "ms", answers
    yield "  CPU of the control plane for that rollout", "ms", [own]
    yield "  CPU of Envoy for that rollout", "ms", [envoys]


def _confirmation(events: Sequence[Any]) -> float:
    """Milliseconds from a step's beginning, written down, to the router's confirmation of it."""
    number = next(n for n, event in enumerate(events) if event["event"] == "traffic")
    began = next(event for event in reversed(events[:number]) if event["event"] == "began")
    return (_at(events[number]) - _at(began)) * 1000


def _at(event: Any) -> float:
    return datetime.fromisoformat(event["at"]).timestamp()


# Many rollouts at once


@dataclass(frozen=True)
class _Rollout:
    """What a client saw of one rollout: how long the answer took, how long all of it, and each change of shares."""

    answered: float
    seconds: float
    confirmed: Sequence[float]


def _at_once(plane: Plane) -> Iterator[Measured]:
    """As many clients as there are rollouts: each asks for one, and follows it to its end."""
    home, many = plane.home, min(AT_ONCE, plane.home.services)
    wrote, began = home.written(), time.monotonic()
    with plane.spending() as spent, _asking(plane) as answers, ThreadPoolExecutor(many) as clients:
        seen = list(clients.map(lambda number: _deployed(plane, number), range(many)))
        took = time.monotonic() - began
    own, envoys = (1000 * seconds / many for seconds in spent)
    journal, events = ((now - then) / many / 1e3 for now, then in zip(home.written(), wrote, strict=True))
    memory = plane.memory()
    yield f"{AT_ONCE} rollouts at once (10 of 10 services): all", "s", [took]
    yield "  each", "s", [rollout.seconds for rollout in seen]
    yield "  a change of shares: told → confirmed by Envoy", "ms", [ms for one in seen for ms in one.confirmed]
    yield "  the API's answer to a deployment", "ms", [rollout.answered for rollout in seen]
    yield "  the API's answer meanwhile: one service", "ms", answers
    yield "  CPU of the control plane for each", "ms", [own]
    yield "  CPU of Envoy for each", "ms", [envoys]
    yield "  memory of the control plane afterwards", "MB", [memory[0]]
    yield "  memory of Envoy afterwards", "MB", [memory[1]]
    yield "  the journal's growth with each", "KB", [journal]
    yield "  the events' growth with each", "KB", [events]


def _deployed(plane: Plane, number: int) -> _Rollout:
    began = time.perf_counter()
    body = plane.home.order(number, "next", ROLLING)
    rollout = plane.ask("POST", f"/v1/services/s{number}/rollouts", body)["rollout"]
    answered = (time.perf_counter() - began) * 1000
    *events, last = plane.events(f"/v1/rollouts/{rollout}/events")
    if last["outcome"] != "promoted":
        raise RuntimeError(f"{rollout}: {last['reason']}")
    confirmed = [event["confirmed_ms"] for event in events if event["event"] == "traffic"]
    return _Rollout(answered, last["seconds"], confirmed)


@contextmanager
def _asking(plane: Plane) -> Iterator[list[float]]:
    """Somebody else asks for one service, again and again; the list grows by the milliseconds of each answer."""
    took: list[float] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(PING):
            took.append(_took(lambda: plane.ask("GET", "/v1/services/s0")))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield took
    finally:
        over.set()
        asking.join()


if __name__ == "__main__":
    with answering() as port:
        for size in map(int, sys.argv[1:]):
            for what, unit, values in measure(size, port):
                worst = max(values)
                common.progress(f"{size:5} {what:75} {statistics.median(values):10.3f} {worst:10.3f} {unit}")
