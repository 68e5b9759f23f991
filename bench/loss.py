"""Requests lost by deployments: the full size of the promise, and the twins that must lose.

Each run keeps three clients busy at the same time, as fast as they get answers: our prober and wrk over
HTTP/1.1 keep-alive (64 connections each), h2load over cleartext HTTP/2 (8 connections × 8 streams).
The window is from the first Shift to the last of the run: strategies that shift once are run more than once.
A twin is a run with the protection taken away. If it loses nothing, the measurement is blind, and this fails.

    python bench/loss.py [--only rolling] [--seed 1]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import common
import psutil

from segue.cli.client import Client
from segue.home import socket_path
from segue.testing.apps import NotInstalled, json_server
from segue.testing.load import H2load, Outcome, Probe, Wrk, tool
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
    """Rolling, and the control plane is killed at a random moment after the first Shift, three times."""

    def act(shop: Shop, shifted: Callable[[], None]) -> None:
        for version in ("v2", "v3", "v4"):
            command = shop.segue.start(
                "deploy", "--version", version, "--strategy", "rolling", "--json", cwd=shop.folder
            )
            assert command.stdout is not None
            moment = None
            for event in (json.loads(line) for line in command.stdout if line.startswith("{")):
                if event.get("event") == "traffic":
                    shifted()
                    moment = moment or time.monotonic() + chance.uniform(0, 6)
                if moment and moment != -1 and time.monotonic() >= moment:
                    kill_control_plane(shop)
                    moment = -1
            command.wait()
            shop.segue("wait", cwd=shop.folder)
            shifted()
            if shop.status()["stable"] != version:
                raise RuntimeError(f"after the crash {version} does not serve: {shop.status()}")

    return act


def kill_control_plane(shop: Shop) -> None:
    """kill -9, as the kernel does it when the memory is full."""
    pid = int(Client(socket_path(shop.segue.home)).ask("GET", "/healthz")["pid"])
    psutil.Process(pid).kill()
    common.progress(f"    killed the control plane, pid {pid}")


def follow(shop: Shop, shifted: Callable[[], None], *command: str) -> None:
    """Run a `segue` command to its end and take note of each Shift. RuntimeError unless it exits with 0."""
    process = shop.segue.start(*command, "--json", cwd=shop.folder)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("{") and json.loads(line).get("event") == "traffic":
            shifted()
    if process.wait():
        raise RuntimeError(f"segue {' '.join(command)} exited with {process.returncode}: {''.join(said[-5:])}")


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
    """Rolling under the prober's load alone. Every answer takes a second, so that many are always under way."""
    common.progress(f"{name} …")
    with common.shop() as shop:
        (shop.folder / "db.json").write_text('{"posts": [{"id": "1", "title": "No request is lost"}]}')
        shop.write(**{"strategy": {"rolling": {"first_judge": "1s", "judge": "1s"}}, **manifest})
        shop.deploy("v1")
        path = "posts" if manifest.get("health", {}).get("path") == "/posts" else ""
        probe = Probe(shop.url + path)
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
    posts["process"] = {"command": json_server("0.17.4", delay_ms=1000) + " --port {port} db.json"}

    def app(on_term: str) -> dict[str, Any]:
        return {"env": {"APP_DELAY": "1", "APP_ON_TERM": on_term}}

    return [
        twin("json-server 0.17.4, `stop.drain: 0s`", True, stop={"drain": "0s"}, **posts),
        twin("json-server 0.17.4, as it should be", False, **posts),
        twin("drops what it does, `stop.drain: 0s`", True, stop={"drain": "0s"}, **app("drop")),
        twin("drops what it does, as it should be", False, **app("drop")),
        twin("killed, `stop: {drain: 0s, grace: 0s}`", True, stop={"drain": "0s", "grace": "0s"}, **app("ignore")),
        twin("killed, `stop: {grace: 0s}`", False, stop={"grace": "0s"}, **app("ignore")),
    ]


def page(runs: Sequence[Run], twins: Sequence[Twin], seed: int) -> str:
    """The page in docs/measured."""
    head = (
        "run",
        "requests",
        "lost",
        "first to last Shift",
        "by version (prober)",
        "prober",
        "wrk",
        "h2load",
        "books",
        "",
    )
    rows = [
        (
            *(run.name, f"{run.total:,}", run.lost, f"{run.windowed:,}"),
            ", ".join(f"{name} {count:,}" for name, count in sorted(run.by_version.items())),
            *(f"{client.requests:,} / {client.lost}" for client in run.clients),
            *("balance" if run.balanced else "DO NOT BALANCE", "MISSED" if run.flaws else "met"),
        )
        for run in runs
    ]
    lost = [
        (t.name, "more than 0" if t.lossy else "0", f"{t.seen.total:,}", t.seen.lost_count, _verdict(t))
        for t in twins
    ]
    total, gone = sum(run.total for run in runs), sum(run.lost for run in runs)
    facts = "\n".join(f"* {name}: {value}" for name, value in common.facts(seed=seed))
    lossless = common.table(head, rows)
    lossy = common.table(("run", "must lose", "requests", "lost", ""), lost)
    return PAGE.format(
        requests=REQUESTS,
        inside=IN_WINDOW,
        each=EACH,
        gone=gone,
        total=total,
        facts=facts,
        runs=lossless,
        twins=lossy,
    )


PAGE = """\
# Requests lost by deployments

Target: 0 lost of at least {requests:,} in every run, of which at least {inside:,} between the first Shift and
the last and {each:,} by each version. **Measured: {gone} lost of {total:,}.**
Written by `make bench-loss` (`bench/loss.py`).

{facts}

{runs}

Per client: requests / lost. Each run has all three clients at once, 192 requests under way. wrk and h2load
cannot be asked during a run: their part of the window is their mean rate times its length. h2load counts the
streams that a GOAWAY refuses as failed, although a browser would send them again; what it has under way at the
end of a round is not counted. Versions are counted by the prober alone, from a field of the answers. The
application is a tiny server, so that Segue and its Envoy carry as much as the machine gives.

## The twins: the same with the protection taken away

{twins}
"""


def _verdict(one: Twin) -> str:
    if one.ok:
        return "as it must be"
    return "BLIND: it must lose" if one.lossy else "LOST"


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything; 0 when every run met its target and every twin lost."""
    parser = argparse.ArgumentParser(description="Requests lost by deployments, at full size.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", help="the runs whose name has this in it; no page is written")
    given = parser.parse_args(argv)
    for name in ("wrk", "h2load"):
        tool(name)
    chance = random.Random(given.seed)
    acts = {
        "rolling": deploys("rolling", "v2", "v3"),
        "in_place": deploys("in_place", "v2", "v3"),
        "blue_green": deploys("blue_green", "v2", "v3", "v4"),
        "rollback in keep": there_and_back,
        "rolling, control plane killed": crashes(chance),
    }
    runs = [measure(name, act, REQUESTS) for name, act in acts.items() if not given.only or given.only in name]
    try:
        lossy = twins() if not given.only or given.only in "twins" else []
    except NotInstalled as missing:
        common.progress(f"the twins need json-server: {missing}")
        return 1
    text = page(runs, lossy, given.seed)
    sys.stdout.write(text)
    if not given.only:
        common.write_page("loss", text)
    return int(any(run.flaws for run in runs) or not all(one.ok for one in lossy))


if __name__ == "__main__":
    sys.exit(main())
