"""The runs of `loss.py`: what happens under load, what is counted, what a run must show."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import common
import psutil

from segue.cli.client import Client
from segue.home import socket_path
from segue.testing.apps import json_server
from segue.testing.load import H2load, Outcome, Probe, Wrk
from segue.testing.site import Shop
from segue.testing.tally import Tally

REQUESTS, IN_WINDOW, EACH = 100_000, 20_000, 2_000
"""What a run must have: requests; those within the window; those that the prober had from each version."""

STRATEGY = {
    "rolling": {"first_judge": "4s", "judge": "2s"},
    "in_place": {"first_judge": "4s", "judge": "2s"},
    "blue_green": {"judge": "4s", "keep": "10m"},
}


@dataclass
class Window:
    """The time between the first Shift and the last, and the prober's tally at both ends."""

    first: float = 0.0
    last: float = 0.0
    begin: Tally = field(default_factory=Tally)
    end: Tally = field(default_factory=Tally)

    def shifted(self, probe: Probe) -> None:
        """A Shift has happened now."""
        self.last, self.end = time.monotonic(), probe.tally()
        if not self.first:
            self.first, self.begin = self.last, self.end


@dataclass(frozen=True)
class Run:
    """What came of one run. `windowed`: requests between the first Shift and the last; those of wrk and h2load
    are taken from their mean rate, for they cannot be asked on the way."""

    name: str
    clients: tuple[Outcome, ...]
    by_version: dict[str, int]
    seconds: float
    windowed: int
    balanced: bool

    @property
    def total(self) -> int:
        """Requests of all clients."""
        return sum(client.requests for client in self.clients)

    @property
    def lost(self) -> int:
        """Lost requests of all clients."""
        return sum(client.lost for client in self.clients)

    @property
    def flaws(self) -> list[str]:
        """Why the run does not show what it must; empty: it does."""
        found = [f"{c.client} lost {c.lost}: {c.detail}" for c in self.clients if c.lost]
        if self.total < REQUESTS:
            found.append(f"only {self.total:,} requests")
        if self.windowed < IN_WINDOW:
            found.append(f"only {self.windowed:,} requests between the first Shift and the last")
        found += [f"only {count:,} by {version}" for version, count in self.by_version.items() if count < EACH]
        if len(self.by_version) < 2:
            found.append("only one version answered")
        if not self.balanced:
            found.append("Segue's books do not balance")
        return found


Act = Callable[[Shop, Callable[[], None]], None]
"""What happens under load. It calls its second argument whenever the traffic has been shifted."""


def deploys(strategy: str, *versions: str) -> Act:
    """Deploy one version after the other."""

    def act(shop: Shop, shifted: Callable[[], None]) -> None:
        for version in versions:
            follow(shop, shifted, "deploy", "--version", version, "--strategy", strategy)

    return act


def there_and_back(shop: Shop, shifted: Callable[[], None]) -> None:
    """Blue/green to the new version, back during keep, and the same again."""
    for _ in range(2):
        follow(shop, shifted, "deploy", "--version", "v2", "--strategy", "blue_green")
        time.sleep(2)  # users meet the kept state
        follow(shop, shifted, "rollback")
        time.sleep(2)


def crashes(chance: random.Random) -> Act:
    """Rolling three times; each time the control plane is killed at a random moment after the first Shift."""

    def act(shop: Shop, shifted: Callable[[], None]) -> None:
        for version in ("v2", "v3", "v4"):
            _crash_once(shop, shifted, version, after=chance.uniform(0, 6))

    return act


def _crash_once(shop: Shop, shifted: Callable[[], None], version: str, after: float) -> None:
    command = shop.segue.start("deploy", "--version", version, "--strategy", "rolling", "--json", cwd=shop.folder)
    moment = float("inf")
    for event in events(command):
        if event.get("event") == "traffic":
            shifted()
            moment = min(moment, time.monotonic() + after)
        if time.monotonic() >= moment:  # the judge says something every second, so this is looked at often enough
            kill_control_plane(shop)
            break
    for event in events(command):
        if event.get("event") == "traffic":
            shifted()
    command.wait()
    shop.segue("wait", cwd=shop.folder)
    if shop.status()["stable"] != version:
        raise RuntimeError(f"after the crash {version} does not serve: {shop.status()}")


def kill_control_plane(shop: Shop) -> None:
    """kill -9, as the kernel does it when the memory is full."""
    pid = int(Client(socket_path(shop.segue.home)).ask("GET", "/healthz")["pid"])
    psutil.Process(pid).kill()
    common.progress(f"    killed the control plane, pid {pid}")


def follow(shop: Shop, shifted: Callable[[], None], *command: str) -> None:
    """Run a `segue` command to its end and take note of each Shift. RuntimeError unless it exits with 0."""
    process = shop.segue.start(*command, "--json", cwd=shop.folder)
    last: Any = None
    for last in events(process):
        if last.get("event") == "traffic":
            shifted()
    if process.wait():
        raise RuntimeError(f"segue {' '.join(command)} exited with {process.returncode}: {last}")


def events(process: subprocess.Popen[str]) -> Iterator[Any]:
    """The events that a `segue` command with ``--json`` prints, as they come."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            yield json.loads(line)
        else:
            common.progress(f"    {line.rstrip()}")


def measure(name: str, act: Act, least: int) -> Run:
    """One run: load on, the first Shift to the last, load off after at least `least` requests."""
    common.progress(f"{name} …")
    with common.shop() as shop:
        options = {"use": "rolling", **STRATEGY}
        shop.write(env={"APP_DELAY": "0.002"}, replicas=3, strategy=options)
        shop.deploy("v1")
        probe, wrk, h2 = Probe(shop.url), Wrk(shop.url), H2load(shop.url)
        began, window = time.monotonic(), Window()
        try:
            probe.more(EACH)
            act(shop, lambda: window.shifted(probe))
            probe.until(lambda tally: 3 * tally.total >= least and tally.by_version.get("v1", 0) >= EACH, 60)
        finally:
            tally, others = probe.finish(), (wrk.stop(), h2.stop())
        seconds = time.monotonic() - began
        balanced = bool(shop.report()["requests"]["balanced"])
    inside = window.end.since(window.begin).total
    inside += round(sum(other.requests for other in others) / seconds * (window.last - window.first))
    clients = (Outcome("prober", tally.total, tally.lost_count, str(tally)), *others)
    run = Run(name, clients, dict(tally.by_version), seconds, inside, balanced)
    common.progress(
        f"    {run.total:,} requests, {run.lost} lost, {run.windowed:,} in the window; {'; '.join(run.flaws) or 'ok'}"
    )
    return run


@dataclass(frozen=True)
class Twin:
    """What came of a run without protection, or of the control with it. `lossy`: it must lose."""

    name: str
    lossy: bool
    seen: Tally

    @property
    def ok(self) -> bool:
        """Whether it lost when it must, and only then."""
        return (self.seen.lost_count > 0) == self.lossy


def twin(name: str, lossy: bool, **manifest: Any) -> Twin:
    """Rolling under the prober's load alone. Every answer takes a while, so that many are always under way."""
    common.progress(f"{name} …")
    with common.shop() as shop:
        (shop.folder / "db.json").write_text('{"posts": [{"id": "1", "title": "No request is lost"}]}')
        shop.write(**{"strategy": {"rolling": {"first_judge": "1s", "judge": "1s"}}, **manifest})
        shop.deploy("v1")
        probe = Probe(shop.url, "--method", "POST", "--body", "x")  # a GET that was dropped would be repeated
        try:
            probe.more(200)
            shop.deploy("v2")
            probe.more(200)
        finally:
            seen = probe.finish()
    common.progress(f"    {seen}")
    return Twin(name, lossy, seen)


def twins() -> list[Twin]:
    """The runs that must lose, each beside the same application with the protection on."""
    posts: dict[str, Any] = {"health": {"path": "/posts", "every": "200ms"}}
    posts["process"] = {"command": json_server("0.17.4", delay_ms=600) + " --port {port} db.json"}

    def app(on_term: str) -> dict[str, Any]:
        return {"env": {"APP_DELAY": "0.6", "APP_ON_TERM": on_term}}

    return [
        twin("json-server 0.17.4, `stop.drain: 0s`", True, stop={"drain": "0s"}, **posts),
        twin("json-server 0.17.4, as it should be", False, **posts),
        twin("drops what it does, `stop.drain: 0s`", True, stop={"drain": "0s"}, **app("drop")),
        twin("drops what it does, as it should be", False, **app("drop")),
        twin("killed, `stop: {drain: 0s, grace: 0s}`", True, stop={"drain": "0s", "grace": "0s"}, **app("ignore")),
        twin("killed, `stop: {grace: 0s}`", False, stop={"grace": "0s"}, **app("ignore")),
    ]
