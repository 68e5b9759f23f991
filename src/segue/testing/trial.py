"""Versions that are healthy and no good for users, users who meet them, and what must be true of it in the end.

Rule 1: users are clients of their own (`segue.testing.load`); what they saw is compared with what Segue says.
Rule 2: a fault that sets in later sets in when the version has its share, and not after a time.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segue.testing.load import Probe
from segue.testing.site import Shop
from segue.testing.tally import Tally

SAFE = "GET,HEAD,OPTIONS"
POSTERS = 16
"""Connections of those who POST."""

CANARY: dict[str, Any] = {"canary": {"steps": ["30%", "100%"], "judge": {"least": "30s", "most": "5m"}, "keep": "0s"}}
"""A share of 30 % for longer than any fault needs to be seen."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a version. `sets_in`: what is done to it once it has its share.

    `harmless`: nobody loses anything by it even without the shield, for no request reaches an application.
    """

    name: str
    env: Mapping[str, str] = field(default_factory=dict)
    health: Mapping[str, Any] = field(default_factory=dict)
    sets_in: Callable[[Shop, str], None] | None = None
    harmless: bool = False

    def __str__(self) -> str:
        return self.name


def kill_instances(shop: Shop, version: str) -> None:
    """As the kernel does it when the memory is full."""
    for instance in shop.status()["versions"][version]["instances"]:
        os.kill(instance["pid"], signal.SIGKILL)


def make_sick(shop: Shop, version: str) -> None:
    """Every health check of `version` fails from now on."""
    sick(shop, version).touch()


def sick(shop: Shop, version: str) -> Path:
    """The file that makes `version` fail its health checks."""
    return shop.folder / f"sick-{version}"


BUSY = {"APP_DELAY": "0.2"}
FAULTS = (
    Fault("answers 500", {"APP_BROKEN": "500"}),
    Fault("hangs", {"APP_BROKEN": "hang"}),
    Fault("resets", {"APP_BROKEN": "reset"}),
    Fault("resets in mid-header", {"APP_BROKEN": "head"}),
    Fault("refuses", {"APP_BROKEN": "refuse"}, health={"unhealthy": 100}),
    Fault("killed -9 at 30 %", BUSY, sets_in=kill_instances),
    Fault("without instances", BUSY, sets_in=make_sick, harmless=True),
)
"""All of them are healthy on ``/healthz``, and until they have users nothing can be found wrong."""


def write(shop: Shop, version: str, fault: Fault | None, *, shield: bool = True, **settings: Any) -> None:
    """Write the manifest of `version`, with `fault` or none."""
    files = {"APP_POSTS": shop.folder / f"posts-{version}", "APP_SEEN": shop.folder / f"seen-{version}"}
    knobs = {name: str(path) for name, path in {**files, "APP_SICK": sick(shop, version)}.items()}
    shop.write(
        env={**knobs, **(fault.env if fault else {})},
        route={"listen": f"127.0.0.1:{shop.port}", "shield": shield},
        health={"path": "/healthz", "every": "100ms", "healthy": 1, **(fault.health if fault else {})},
        stop={"drain": "2s", "grace": "1s"},
        **{"strategy": CANARY, **settings},
    )


class Users:
    """Safe methods over HTTP/1.1 and over HTTP/2, at least 64 at a time each, and POSTs with numbers."""

    def __init__(self, shop: Shop, *, rate: float | None = None, posts: float = 100, timeout: float = 10) -> None:
        self._folder = shop.folder
        self._answered = shop.folder / "answered"
        http2 = ("--method", SAFE, "--http2", "8", "--timeout", str(timeout))
        post = ("--method", "POST", "--body", "a pound of tea", "--name", "tea-", "--answered", str(self._answered))
        posters = {"POST": Probe(shop.url, *post, connections=POSTERS, rate=posts)} if posts else {}
        self.probes = {
            "HTTP/1.1": Probe(shop.url, "--method", SAFE, "--timeout", str(timeout), connections=64, rate=rate),
            "HTTP/2": Probe(f"{shop.url}cart/7", *http2, connections=8, rate=rate),
            **posters,
        }

    def now(self) -> dict[str, Tally]:
        """What each client had counted a moment ago."""
        return {name: probe.tally() for name, probe in self.probes.items()}

    def more(self, requests: int) -> dict[str, Tally]:
        """What each client has counted after so many further requests."""
        return {name: probe.more(requests) for name, probe in self.probes.items()}

    def fresh(self) -> dict[str, Tally]:
        """What each client has counted, no older than this call."""
        known = self.now()
        return {
            name: probe.until(lambda tally, name=name: tally.seconds > known[name].seconds)  # type: ignore[misc]
            for name, probe in self.probes.items()
        }

    def finish(self) -> dict[str, Tally]:
        """Stop them all."""
        return {name: probe.finish() for name, probe in self.probes.items()}

    def kill(self) -> None:
        """End them without asking what they saw."""
        for probe in self.probes.values():
            probe.kill()

    def executions(self) -> tuple[Counter[str], set[str]]:
        """How often each POST was executed, by any version, and which were answered with success."""
        answered = set(self._answered.read_text().split()) if self._answered.exists() else set()
        executed = Counter(line for path in self._folder.glob("posts-*") for line in path.read_text().split())
        return executed, answered  # read in this order, since both grow: what was answered was executed before


def seen(shop: Shop, name: str) -> Counter[str]:
    """How often the applications, all together, were asked each request whose number stands after `name`."""
    lines = (line for path in shop.folder.glob("seen-*") for line in path.read_text().split())
    return Counter(line for line in lines if line.startswith(name))


def more_than_once(executed: Counter[str]) -> list[str]:
    """The POSTs that were executed more than once."""
    return [label for label, count in executed.items() if count > 1]


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a version's trial: Segue's report, and what the clients counted meanwhile.

    `least` and `most`: of requests that Segue must have counted, by what the clients say.
    """

    version: str
    exit: int
    report: Any
    seen: Mapping[str, Tally]
    least: int
    most: int

    @property
    def requests(self) -> Any:
        """The books."""
        return self.report["requests"]

    @property
    def answered(self) -> int:
        """Answers that clients had from the version itself, good and bad."""
        return sum(tally.by_version.get(self.version, 0) for tally in self.seen.values())

    @property
    def flaws(self) -> list[str]:
        """What does not fit between Segue's account and the clients'."""
        books, found = self.requests, []
        theirs = books["answered_by"].get(self.version, 0) + books["failed_by"].get(self.version, 0)
        if not books["balanced"]:
            found.append(f"the books do not balance: {books}")
        if theirs != self.answered:
            found.append(f"{self.answered} answers came from {self.version}, {theirs} are in the books")
        if not self.least <= books["total"] <= self.most:
            found.append(f"{books['total']} requests are in the books, clients had {self.least} to {self.most}")
        return found


def run(shop: Shop, version: str, fault: Fault, users: Users, after: int = 50) -> Trial:
    """Deploy `version`, which has `fault`, under the load of `users`, to the end and `after` more requests."""
    first = users.now()
    process = shop.segue.start("deploy", "--version", version, "--json", cwd=shop.folder)
    begin = end = first
    try:
        for event in _events(process.stdout):
            if event.get("event") == "traffic" and begin is first:
                begin = users.fresh()
                if fault.sets_in:
                    users.more(20)
                    fault.sets_in(shop, version)
            elif event.get("event") == "finished":
                end = users.now()
        status = process.wait(60)
    finally:
        process.kill()
    report = account(shop, users)
    last = users.more(after)
    least = sum(tally.ended for tally in end.values()) - sum(tally.total for tally in begin.values())
    most = sum(tally.total for tally in last.values()) - sum(tally.ended for tally in first.values())
    seen = {name: last[name].since(first[name]) for name in last}
    return Trial(version, status, report, seen, max(least, 0), most)


def lossy(shop: Shop, version: str, fault: Fault, users: Users) -> dict[str, Tally]:
    """What clients counted until one of them had lost a safe request by `version`, which is then taken back."""
    first = users.now()
    deploy = shop.segue.start("deploy", "--version", version, cwd=shop.folder)
    try:
        until(lambda: has_share(shop, version))
        if fault.sets_in:
            users.more(100)
            fault.sets_in(shop, version)
        until(lambda: safe_losses({name: tally.since(first[name]) for name, tally in users.now().items()}))
        shop.segue("rollback", cwd=shop.folder, expect=None)  # if it was not taken back by itself
    finally:
        deploy.communicate()
    return {name: tally.since(first[name]) for name, tally in users.more(20).items()}


def has_share(shop: Shop, version: str) -> bool:
    """Whether users are given to `version`."""
    found = shop.status()["versions"].get(version)
    return bool(found and found["share"])


def until(what: Callable[[], object], within: float = 60.0) -> None:
    """Return once `what` is true; TimeoutError after `within` seconds."""
    deadline = time.monotonic() + within
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} s")
        time.sleep(0.05)


def _events(lines: Any) -> Iterator[Any]:
    return (json.loads(line) for line in lines if line.startswith("{"))


def account(shop: Shop, users: Users) -> Any:
    """`segue report` of the latest rollout, once it counts nothing any more."""
    until(lambda: shop.status()["rollout"] is None)
    report = before = None
    while report is None or report != before:  # TimeoutError in the end: `more` waits for so long
        users.more(20)
        before, report = report, shop.report()
    return report


def safe_losses(seen: Mapping[str, Tally]) -> list[str]:
    """What was lost of the requests that are safe to repeat."""
    return [f"{name}: {one}" for name, tally in seen.items() if name != "POST" for one in _lost(tally)]


def _lost(tally: Tally) -> Sequence[str]:
    counted = [f"{count} × {kind}" for kind, count in tally.losses.items()]
    return [*counted, *(f"{one.at:%H:%M:%S.%f} {one.kind}: {one.detail}" for one in tally.lost)]
