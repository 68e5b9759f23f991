"""The runs of `shield.py` with a good version: whether shares are what they say, and how soon one is back in keep."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt

import common
from numbers_table import RUNS, Number
from shield_faults import launch

from segue.testing import trial
from segue.testing.load import Probe, tool
from segue.testing.site import Shop

LADDER = (Fraction(10, 100), Fraction(30, 100), Fraction(95, 100))
REQUESTS, USERS = 100_000, 10_000
DEVIATIONS = 4
"""So many standard deviations a share may be off by chance: once in 16,000 times."""
VISITS = 2
WORKERS = 64

STRATEGY = {"steps": ["10%", "30%", "95%", "100%"], "judge": {"least": "1s", "most": "2s"}, "approve": "manual"}
LENIENT = {"alarm": {"ratio": 1000, "errors": "99%", "latency": "1000%"}}
"""The version is good; whether the judge sees that on a busy machine is not the question here."""

COUNT = """\
threads = {}
function setup(thread) table.insert(threads, thread) end
function init() new, old, other = 0, 0, 0 end
function response(status, headers)
  local version = headers["x-version"]
  if version == "v2" then new = new + 1 elseif version == "v1" then old = old + 1 else other = other + 1 end
end
function done()
  local sums = {0, 0, 0}
  for _, thread in ipairs(threads) do
    for i, name in ipairs({"new", "old", "other"}) do sums[i] = sums[i] + thread:get(name) end
  end
  print(string.format("counted %d %d %d", sums[1], sums[2], sums[3]))
end
"""
"""wrk's script: which version answered."""


@dataclass(frozen=True)
class Split:
    """How many of `total`, requests or users, had the new version at its share. `moved`: users who went back."""

    what: str
    share: Fraction
    new: int
    total: int
    lost: int
    moved: int = 0

    @property
    def measured(self) -> float:
        """The share that the new version had."""
        return self.new / self.total

    @property
    def allowed(self) -> float:
        """How far off that may be."""
        return DEVIATIONS * sqrt(float(self.share * (1 - self.share)) / self.total)

    @property
    def ok(self) -> bool:
        """Whether it is near enough, nobody moved and nothing was lost."""
        return abs(self.measured - self.share) <= self.allowed and not self.moved and not self.lost


def requests() -> Iterator[Split]:
    """Each request by itself, at each rung."""
    with common.shop() as shop, tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(COUNT)
        script.flush()
        for share in _climb(shop):
            yield _requests(shop, share, script.name)
        _end(shop)


def _requests(shop: Shop, share: Fraction, script: str) -> Split:
    new = total = other = 0
    command = [tool("wrk"), "-t2", "-c64", "-d4s", "--timeout", "10s", "-s", script, shop.url]
    while total < REQUESTS:
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        counts = re.search(r"counted (\d+) (\d+) (\d+)", text)
        assert counts, text
        new, other = new + int(counts[1]), other + int(counts[3])
        total += sum(map(int, counts.groups()))
    split = Split("requests", share, new, total, other)
    common.progress(f"    {float(share):.0%}: {split.measured:.3%} of {total:,}")
    return split


def users() -> Iterator[Split]:
    """Users with a cookie, the same at each rung."""
    with common.shop() as shop:
        crowd = [User() for _ in range(USERS)]
        for share in _climb(shop, sticky="cookie"):
            yield asyncio.run(_users(shop, share, crowd))
        _end(shop)


def _climb(shop: Shop, **options: str) -> Iterator[Fraction]:
    """Each rung, once it is in force."""
    launch(shop)
    trial.write(shop, "v2", None, strategy={"canary": {**STRATEGY, **options}}, judge=LENIENT)
    shop.deploy("v2", "--detach")
    for share in LADDER:
        trial.until(lambda share=share: _reached(shop, share))  # type: ignore[misc]
        yield share


def _reached(shop: Shop, share: Fraction) -> bool:
    """Whether the new version has the share; a question that stands is answered with yes."""
    status = shop.status()
    if status["versions"].get("v2", {}).get("share") == float(share):
        return bool(status["rollout"]["hold"])  # every worker is past the change by now
    if status["rollout"]["hold"]:
        shop.segue("promote", cwd=shop.folder, expect=None)
    return False


def _end(shop: Shop) -> None:
    shop.segue("rollback", cwd=shop.folder)
    if not shop.report()["requests"]["balanced"]:
        raise RuntimeError(f"the books do not balance: {shop.report()['requests']}")


@dataclass
class User:
    """Somebody with a browser: he keeps his cookie. `version`: who answered him last."""

    cookie: str = ""
    version: str = ""


@dataclass
class Counts:
    """What happened to users at one rung."""

    lost: int = 0
    moved: int = 0


async def _users(shop: Shop, share: Fraction, crowd: list[User]) -> Split:
    """Everybody visits twice; who has met the new version stays with it, and at one share nobody moves at all."""
    counts = Counts()
    for visit in range(VISITS):
        left = iter(crowd)
        await asyncio.gather(*(_visits(shop, left, counts, settled=visit > 0) for _ in range(WORKERS)))
    new = sum(user.version == "v2" for user in crowd)
    split = Split("users", share, new, len(crowd), counts.lost, counts.moved)
    common.progress(f"    {float(share):.0%}: {split.measured:.2%} of {len(crowd):,}, {counts.moved} moved")
    return split


async def _visits(shop: Shop, left: Iterator[User], counts: Counts, *, settled: bool) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.port)
    for user in left:
        before = user.version
        writer.write(f"GET / HTTP/1.1\r\nHost: shop.test\r\n{user.cookie}\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(_field(head, "content-length")))
        user.version = _field(head, "x-version")
        if given := _field(head, "set-cookie"):
            user.cookie = f"Cookie: {given.partition(';')[0]}\r\n"
        counts.lost += not head.startswith("http/1.1 200")
        counts.moved += before == "v2" != user.version or (settled and before != user.version)
    writer.close()


def _field(head: str, name: str) -> str:
    found = re.search(rf"^{name}: (.*?)\r$", head, re.MULTILINE)
    return found[1] if found else ""


def keep() -> Iterator[Number]:
    """Back in keep, under load."""
    common.progress("back in keep …")
    commands, switches, bare = [], [], []
    strategy = {"steps": ["50%", "100%"], "judge": "1s", "holdback": "0%", "keep": "10m"}
    with common.shop() as shop:
        launch(shop)
        probe = Probe(shop.url, connections=64, rate=500)
        try:
            for number in range(RUNS):
                trial.write(shop, f"v{number + 2}", None, strategy={"canary": strategy}, judge=LENIENT)
                shop.deploy(f"v{number + 2}", "--json")
                probe.more(200)
                bare.append(_milliseconds(lambda: subprocess.run([sys.executable, "-c", ""], check=True)))
                commands.append(_milliseconds(lambda: shop.segue("rollback", "-s", "shop")))
                switches.append(float(shop.report()["switch_ms"]))
                common.progress(f"    {commands[-1]:.0f} ms, the switch {switches[-1]:.1f} ms")
                probe.more(200)
        finally:
            tally = probe.finish()
        if tally.lost_count or not shop.report()["requests"]["balanced"]:
            raise RuntimeError(f"{tally}; {shop.report()['requests']}")
    yield Number("`segue rollback` in keep under load, whole command", "ms", commands, 300)
    yield Number("  a bare interpreter's start at the same time", "ms", bare)
    yield Number("  the switch itself (`switch_ms`)", "ms", switches, 10)


def _milliseconds(what: Callable[[], object]) -> float:
    began = time.perf_counter()
    what()
    return (time.perf_counter() - began) * 1000
