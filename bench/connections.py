"""Many connections: what one costs Envoy while it rests, and thousands of them through rollouts of the whole product.

Users over HTTP/1.1 send a request every ten seconds, on connections that they keep. Users of WebSockets stay until
the application says goodbye, and come back: one who is ended in any other way is lost.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import common
import psutil
from common import Section
from envoys import WORKERS, bare, listening, running, with_tls
from features_tables import steady

from segue.core.traffic import Certificate, RoutingTable, Tls
from segue.routers.envoy.router import EnvoyRouter
from segue.testing import certificates
from segue.testing.crowd import Crowd, Seen
from segue.testing.load import Probe
from segue.testing.site import Shop, free_port
from segue.testing.tally import Tally

WANTED, WEBSOCKETS = 10_000, 5_000
OTHERS = 2_000
"""Descriptors that Envoy has for what is no user's."""
USERS = min(WANTED, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - OTHERS)
"""Connections over HTTP/1.1: as many as a process of this machine can have."""
RATE = USERS / 10
"""Requests a second of all users over HTTP/1.1."""
CALM = 10.0
"""Seconds that the time before a rollout is measured for."""
SETTLED = 3.0
"""Seconds after which Envoy has let go of what it needs no more: connections to instances that rest."""
STRATEGIES: Mapping[str, Mapping[str, str]] = {
    "rolling": {"first_judge": "5s", "judge": "2s"},
    "blue_green": {"judge": "5s", "keep": "0s"},
}
LIFTED = """\
#!/bin/sh
if [ "$1" = -c ]; then
  config=$2.lifted
  sed 's/\\("max_active_downstream_connections": *\\)"[0-9]*"/\\1"{most}"/' "$2" > "$config"
  shift 2
  set -- -c "$config" "$@"
fi
exec {envoy} "$@"
"""
STREAMS = f"{sys.executable} -m segue.testing.streams"


@dataclass(frozen=True)
class Kind:
    """A kind of connection. `few` and `many`: how many are opened."""

    name: str
    crowd: str
    url: str
    few: int = 2_000
    many: int = USERS


KINDS = (
    Kind("HTTP/1.1, keep-alive, at rest", "http1", "http://127.0.0.1:{port}/healthz"),
    Kind("HTTP/1.1 over TLS, at rest", "tls", "https://127.0.0.1:{port}/healthz"),
    Kind("HTTP/2, at rest", "http2", "http://127.0.0.1:{port}/healthz"),
    Kind("WebSocket, open", "websocket", "ws://127.0.0.1:{port}/ws", many=WEBSOCKETS),
)


@dataclass(frozen=True)
class Memory:
    """What Envoy held in memory, in bytes: with no, few and many connections of a kind, and after they had gone."""

    kind: Kind
    none: int
    few: int
    many: int
    after: int

    @property
    def each(self) -> str:
        """What one of the connections that came last added."""
        return f"{(self.many - self.few) / (self.kind.many - self.kind.few) / 1024:.1f} KiB"

    def cells(self, plain: Memory | None) -> tuple[object, ...]:
        """The row of the table, beside what a bare Envoy held."""
        held = (f"{size / 2**20:.0f} MB" for size in (self.none, self.few, self.many, self.after))
        name = f"{self.kind.name} ({self.kind.few:,}, {self.kind.many:,})"
        return name, *held, self.each, plain.each if plain else "–"


def _memory(kind: Kind) -> tuple[Memory, Memory | None]:
    """In an Envoy of its own, for it keeps the memory that it once had; and in a bare one."""
    common.progress(f"memory: {kind.name} …")
    with tempfile.TemporaryDirectory(prefix="sg-") as name, _streams() as place:
        folder = Path(name)
        cert, key = certificates.write(folder, "shop", ["127.0.0.1"])
        certificate = Certificate(cert.read_text(), key.read_text()) if kind.crowd == "tls" else None
        ours = asyncio.run(_routed(kind, folder / "router", place, certificate))
        if kind.crowd == "websocket":
            return ours, None
        document = bare(port := free_port(), [place])
        with running(folder, "bare", with_tls(document, certificate) if certificate else document, [port]) as pid:
            return ours, _filled(kind, port, psutil.Process(pid))


async def _routed(kind: Kind, folder: Path, place: str, certificate: Certificate | None) -> Memory:
    router = EnvoyRouter(folder, concurrency=WORKERS, drain=1)
    await router.start()
    try:
        port = free_port()
        table = steady(f"127.0.0.1:{port}", [place])
        if certificate:
            tls = replace(table.route, tls=Tls("cert.pem", "key.pem"))
            table = replace(table, route=tls, certificate=certificate)
        await router.apply(RoutingTable({table.service: table}))
        return await asyncio.to_thread(_filled, kind, port, psutil.Process(router.pid))
    finally:
        await router.shutdown()


@contextmanager
def _streams() -> Iterator[str]:
    """An application for any number of users: its address."""
    port = free_port()
    process = subprocess.Popen([*STREAMS.split(), str(port), "v1"])
    try:
        listening(process.pid, {port})
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _filled(kind: Kind, port: int, envoy: psutil.Process) -> Memory:
    url, crowds, held = kind.url.format(port=port), [], [_resident(envoy)]
    try:
        for count in (kind.few, kind.many - kind.few):
            crowds.append(Crowd(kind.crowd, url, count))
            crowds[-1].until(lambda seen, count=count: seen.open == count)  # type: ignore[misc]
            held.append(_resident(envoy))
        ended = sum((crowd.stop().ended for crowd in crowds), Counter[str]())
    finally:
        for crowd in crowds:
            crowd.kill()
    if ended:
        raise RuntimeError(f"connections were not left alone: {ended}")
    none, few, many = held
    return Memory(kind, none, few, many, _resident(envoy))


def _resident(envoy: psutil.Process) -> int:
    time.sleep(SETTLED)
    return int(envoy.memory_info().rss)


@dataclass(frozen=True)
class Rollout:
    """What users over HTTP/1.1 saw: in `before`, and from the beginning of the rollout until all had asked again."""

    strategy: str
    before: Tally
    during: Tally
    balanced: bool

    @property
    def flaws(self) -> list[str]:
        """Why it does not show what it must; empty: it does."""
        found = [f"lost: {self.during}"] if self.during.lost_count else []
        found += [f"{self.during.closed_idle} connections were closed"] if self.during.closed_idle else []
        found += ["Segue's books do not balance"] if not self.balanced else []
        return found + ([f"only {self.during.total:,} requests"] if self.during.total < USERS else [])

    def cells(self) -> tuple[object, ...]:
        """The row of the table."""
        tails = (f"{tally.percentile(0.99):.1f} ms" for tally in (self.before, self.during))
        lost, closed = self.during.lost_count, self.during.closed_idle
        return self.strategy, f"{self.during.total:,}", lost, closed, *tails, "MISSED" if self.flaws else "met"


def _rollouts() -> Iterator[Rollout]:
    """One after the other, by the same connections."""
    with common.shop() as shop:
        shop.write(strategy={"use": "rolling", **STRATEGIES})
        shop.deploy("v1")
        probe = Probe(shop.url, connections=USERS, rate=RATE)
        try:
            probe.until(lambda tally: tally.ended >= 2 * USERS, within=120)
            for number, strategy in enumerate(STRATEGIES, 2):
                common.progress(f"{USERS:,} connections through {strategy} …")
                begin = probe.tally()
                time.sleep(CALM)
                before = probe.tally()
                shop.deploy(f"v{number}", "--strategy", strategy)
                after = probe.more(USERS + 1_000)
                balanced = bool(shop.report()["requests"]["balanced"])
                yield Rollout(strategy, before.since(begin), after.since(before), balanced)
        finally:
            probe.finish()


@dataclass(frozen=True)
class Farewells:
    """How the users' WebSockets ended in a rollout, and who welcomed them again."""

    strategy: str
    ended: Counter[str]
    welcomed: Counter[str]
    seconds: float

    @property
    def flaws(self) -> list[str]:
        """Why it does not show what it must; empty: it does."""
        found = [f"{count} ended: {how}" for how, count in self.ended.items() if how != "goodbye"]
        return found + ([f"only {self.ended['goodbye']:,} goodbyes"] if self.ended["goodbye"] < WEBSOCKETS else [])

    def cells(self) -> tuple[object, ...]:
        """The row of the table."""
        others = self.ended.total() - self.ended["goodbye"]
        again = ", ".join(f"{version} {count:,}" for version, count in sorted(self.welcomed.items()))
        verdict = "MISSED" if self.flaws else "met"
        return self.strategy, f"{self.ended['goodbye']:,}", others, again, f"{self.seconds:.0f} s", verdict


def _farewells() -> Iterator[Farewells]:
    """One rollout after the other, with the same users."""
    with common.shop() as shop:
        settings: dict[str, Any] = {"stop": {"drain": "2s", "spread": "4s", "grace": "20s"}}
        settings["process"] = {"command": f"{STREAMS} {{port}} {{version}}"}
        shop.write(strategy={"use": "rolling", **STRATEGIES}, **settings)
        shop.deploy("v1")
        crowd = Crowd("websocket", f"ws://127.0.0.1:{shop.port}/ws", WEBSOCKETS)
        try:
            crowd.until(lambda seen: seen.open == WEBSOCKETS)
            for number, strategy in enumerate(STRATEGIES, 2):
                common.progress(f"{WEBSOCKETS:,} WebSockets through {strategy} …")
                yield _ended(shop, crowd, f"v{number}", strategy)
        finally:
            crowd.kill()


def _ended(shop: Shop, crowd: Crowd, version: str, strategy: str) -> Farewells:
    before, began = crowd.seen(), time.monotonic()

    def over(seen: Seen) -> bool:
        return (seen.ended - before.ended).total() >= WEBSOCKETS and seen.open == WEBSOCKETS

    shop.deploy(version, "--strategy", strategy)
    seen = crowd.until(over)
    return Farewells(strategy, seen.ended - before.ended, seen.versions - before.versions, time.monotonic() - began)


@contextmanager
def _lifted() -> Iterator[None]:
    """Have every Envoy take this many users: Segue's takes half as many as it has descriptors.

    Of those who are here few ask at a time, so they need no second descriptor each.
    """
    with tempfile.TemporaryDirectory(prefix="sg-") as folder:
        envoy = common.stand_in(Path(folder), LIFTED, most=WANTED + OTHERS // 2)
        with patch.dict(os.environ, SEGUE_ENVOY=str(envoy)):
            yield


def connections() -> Section:
    """Everything about many connections."""
    with _lifted():
        return _connections()


def _connections() -> Section:
    held = [_memory(kind) for kind in KINDS]
    rollouts, farewells = list(_rollouts()), list(_farewells())
    rows: Sequence[Rollout | Farewells] = [*rollouts, *farewells]
    text = TEXT.format(
        users=USERS,
        few=KINDS[0].few,
        websockets=WEBSOCKETS,
        held=common.table(
            ("kind (few, many)", "none", "few", "many", "after", "each", "each, a bare Envoy"),
            (ours.cells(plain) for ours, plain in held),
        ),
        rollouts=common.table(
            ("strategy", "requests", "lost", "connections closed", "p99 before", "p99 during", ""),
            (rollout.cells() for rollout in rollouts),
        ),
        farewells=common.table(
            ("strategy", "goodbyes", "ended otherwise", "welcomed again by", "took", ""),
            (farewell.cells() for farewell in farewells),
        ),
    )
    flaws = [f"{row.strategy}: {flaw}" for row in rows for flaw in row.flaws]
    flaws += [f"only {USERS:,} of {WANTED:,} connections: descriptors are short"] if USERS < WANTED else []
    return Section("Many connections", text, flaws)


TEXT = """\
What Envoy holds in memory (resident), with connections on which one request was answered and which then rest. Each
kind has an Envoy of its own. "each" is what those beyond the first {few:,} added; a WebSocket counts with its
connection to the instance. Memory that was held once is kept for the next users.

{held}

{users:,} connections over HTTP/1.1, a request every ten seconds on each, through rollouts of the whole product.
Target: no request lost, no connection closed. Requests are counted from the beginning of the rollout until every user
had asked again. They come a hundred at a time, from one client process: that is most of p99, before and during.
Of itself Segue's Envoy takes half as many connections as it has descriptors, for a user who asks may need a second
one; here few ask at a time, and the bound is lifted.

{rollouts}

{websockets:,} WebSockets, through rollouts of the whole product; `stop: {{drain: 2s, spread: 4s}}`. Target: all are
told goodbye by the application (a message that says how much it had sent and heard, and a close with 1001), none is
ended otherwise. Users come back at once, to an old instance too, which says goodbye to them a second time.

{farewells}
"""
