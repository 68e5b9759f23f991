"""What each thing that Segue's Envoy does costs, beside an Envoy with a static configuration in the same run.

Every row is a table that Segue's router was given, in an Envoy of its own, and all of them have the same instances:
Envoys that answer at once, so that the one before them is what is measured. Rows are loaded in turn, each beside
its base, and compared with that. `bare` has the least that proxies. `careful` has what Envoy's own page of best
practices for an edge asks for, a retry policy, and an access log: what one writes who needs no Segue. Then the
instructions of the same configurations are counted, and what of them each part takes.
"""

from __future__ import annotations

import asyncio
import copy
import json
import statistics
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import common
import instructions
from common import Section
from envoys import (
    TURNS,
    WORKERS,
    Document,
    Target,
    Turns,
    bare,
    careful,
    counts_few,
    in_turn,
    instance,
    listening,
    means,
    running,
    with_tls,
)
from features_tables import Feature, Places, every_feature
from instructions import Counted

from segue.core.traffic import Certificate, RoutingTable
from segue.routers.envoy import sampling, static
from segue.routers.envoy.router import EnvoyRouter
from segue.testing import certificates
from segue.testing.site import free_port

TIMES, SHORT = 6, 12
"""How often everything is started anew, and loaded in turn with its base each time."""
WITH_TARGET = 16
"""How often those with a target are, and loaded `TURNS` times each."""

SOON = 0.5
"""Seconds between two looks of a router at how many requests come, here: each waits for one before it is measured."""


@dataclass(frozen=True)
class Row:
    """What was measured of one configuration: in each start, it and its base in turn."""

    name: str
    target: float | None
    starts: Sequence[Turns]

    @property
    def ratios(self) -> list[float]:
        """Requests a second ÷ those of the base, in each start."""
        return means(self.starts, lambda ours, base: ours.rate / base.rate)

    @property
    def ratio(self) -> float:
        """The geometric mean of them."""
        return statistics.geometric_mean(self.ratios)

    @property
    def flaws(self) -> list[str]:
        """The target that was missed, if it was."""
        missed = self.target is not None and self.ratio < self.target
        return [f"{self.name}: {self.ratio:.3f} of the base's requests a second"] if missed else []

    def cells(self) -> tuple[object, ...]:
        """The row of the table."""
        cpu = statistics.mean(means(self.starts, lambda ours, _: ours.cpu))
        dearer = statistics.mean(means(self.starts, lambda ours, base: ours.cpu / base.cpu))
        whole = statistics.mean(means(self.starts, lambda ours, base: ours.whole / base.whole))
        error = statistics.stdev(self.ratios) / sqrt(len(self.ratios))
        rates = f"{self.ratio:.3f} × ± {error:.3f}", f"{min(self.ratios):.2f}–{max(self.ratios):.2f}"
        verdict = "" if self.target is None else "MISSED" if self.flaws else f"met (≥ {self.target})"
        return self.name, *rates, f"{cpu:.0f} µs", f"{dearer:.2f} ×", f"{whole:.2f} ×", verdict


def features() -> Section:
    """All rows."""
    common.progress("what each feature costs …")
    sampling.EVERY = SOON
    with tempfile.TemporaryDirectory(prefix="sg-") as name:
        folder = Path(name)
        cert, key = certificates.write(folder, "shop", ["127.0.0.1"])
        certificate = Certificate(cert.read_text(), key.read_text())
        rows = asyncio.run(_measured(folder, certificate))
        lacking = instructions.missing()
        counted = [] if lacking else list(_counted(folder, certificate))
    text = _text(rows) + (COUNTED.format(table=_shares(counted)) if counted else f"\nNot counted: {lacking}.\n")
    return Section("What each feature costs", text, [flaw for row in rows for flaw in row.flaws])


@contextmanager
def _instances() -> Iterator[tuple[Places, list[int]]]:
    """Two instances: their addresses and pids."""
    ports = free_port(), free_port()
    started = []
    try:
        for port in ports:
            started.append(subprocess.Popen(["sh", "-c", f"exec {instance().replace('{port}', str(port))}"]))
        for process, port in zip(started, ports, strict=True):
            listening(process.pid, {port})
        yield [f"127.0.0.1:{port}" for port in ports], [process.pid for process in started]
    finally:
        for process in started:
            process.terminate()
            process.wait(20)


async def _measured(folder: Path, certificate: Certificate) -> list[Row]:
    features = every_feature(certificate)
    few = {feature.name for feature in features if feature.target is None}
    starts: dict[str, list[Turns]] = defaultdict(list)
    for time in range(WITH_TARGET):
        asked = [feature for feature in features if time < TIMES or feature.name not in few]
        async with AsyncExitStack() as stack:
            places, pids = stack.enter_context(_instances())
            rows = await _rows(stack, folder / str(time), places, asked, certificate)
            for name, (target, base) in rows.items():
                turns = SHORT if name in few else TURNS
                starts[name].append(await asyncio.to_thread(in_turn, target, base, pids, turns))
    bounds = {feature.name: feature.target for feature in features}
    return [Row(name, bounds.get(name), each) for name, each in starts.items()]


async def _rows(
    stack: AsyncExitStack, folder: Path, places: Places, asked: Sequence[Feature], certificate: Certificate
) -> dict[str, tuple[Target, Target]]:
    """Everything that is loaded, each with its base: what is `asked` for, and what has no Segue."""
    folder.mkdir()

    def fixed(name: str, make: Callable[[int], Document], scheme: str = "http") -> Target:
        port = free_port()
        pid = stack.enter_context(running(folder, name, make(port), [port]))
        return Target(f"{scheme}://127.0.0.1:{port}/", pid)

    base = fixed("bare", lambda port: bare(port, places))
    secure = base
    if any(feature.tls for feature in asked):
        secure = fixed("secure", lambda port: with_tls(bare(port, places), certificate), "https")
    rows = {"bare, once more": (fixed("again", lambda port: bare(port, places)), base)}
    rows["careful, static"] = fixed("careful", lambda port: careful(port, places)), base
    for number, feature in enumerate(asked):
        target = await _routed(stack, folder / str(number), feature, places)
        rows[feature.name] = target, secure if feature.tls else base
    return rows


async def _routed(stack: AsyncExitStack, folder: Path, feature: Feature, places: Places) -> Target:
    """An Envoy that Segue's router has given the feature's table."""
    router = EnvoyRouter(folder, concurrency=WORKERS, drain=1)
    await router.start()
    stack.push_async_callback(router.shutdown)
    port = free_port()
    table = feature.make(f"127.0.0.1:{port}", places)
    await router.apply(RoutingTable({table.service: table}))
    scheme = "https" if feature.tls else "http"
    options = [part for field in feature.fields for part in ("-H", field)]
    url = f"{scheme}://127.0.0.1:{port}/"
    return Target(url, router.pid, tuple(options), (lambda: counts_few(folder)) if table.at_rest else lambda: True)


def _counted(folder: Path, certificate: Certificate) -> Iterator[Counted]:
    """The instructions of the bases, of each feature, and of the steady configuration without its parts."""
    port = free_port()
    with _instances() as (places, _):
        yield instructions.count(folder, "bare, static", bare(port, places), port)
        yield instructions.count(folder, "careful, static", careful(port, places), port)
        secure = with_tls(bare(port, places), certificate)
        yield instructions.count(folder, "bare with TLS, static", secure, port, tls=True)
        whole: Document = {}
        for number, feature in enumerate(every_feature(certificate)):
            document = asyncio.run(_document(folder / f"counted-{number}", feature, places, port))
            yield instructions.count(folder, feature.name, document, port, feature.fields, feature.tls)
            whole = whole or document
        for name, cut in instructions.PARTS.items():
            cut(document := copy.deepcopy(whole))
            yield instructions.count(folder, f"  steady without {name}", document, port)


async def _document(folder: Path, feature: Feature, places: Places, port: int) -> Document:
    """The feature's table as a configuration that needs nobody; at rest as it is while very many requests come."""
    router = EnvoyRouter(folder, concurrency=1, drain=1)
    await router.start()
    try:
        table = feature.make(f"127.0.0.1:{port}", places)
        await router.apply(RoutingTable({table.service: table}))
        await router.settled()
    finally:
        await router.shutdown()
    document: Document = json.loads((folder / static.CONFIG).read_text())
    (instructions.rest if table.at_rest else instructions.move)(document)
    return document


def _shares(counted: Sequence[Counted]) -> str:
    base = counted[0].instructions
    rows = [(c.name, f"{c.instructions:,.0f}", f"{c.instructions / base:.3f} ×") for c in counted]
    return common.table(("what", "instructions for one request", "÷ bare"), rows)


def _text(rows: Sequence[Row]) -> str:
    rates = "requests a second ÷ base", "least–most of a start"
    head = ("what", *rates, "Envoy's CPU for one", "÷ base", "all CPU for one ÷ base", "")
    table = common.table(head, (row.cells() for row in rows))
    return TEXT.format(turns=SHORT, times=TIMES, long=TURNS, more=WITH_TARGET, table=table)


TEXT = """\
h2load with 64 connections over HTTP/1.1; each row and its base, a bare Envoy, in turn for a seventh of a second when
warm, {turns} times, and everything started anew {times} times; what has a target, and what no Segue is in, {long}
times in each of {more} starts. The geometric mean of all, and its error by what the starts differ. Target: at least
0.95 of the base's requests a second while one version serves.

{table}

Client, instances and Envoy share the cores. "bare, once more" is an Envoy like the base: what it is off 1 by is
noise. "all CPU": of client, Envoy and instances.
"""

COUNTED = """
Instructions of Envoy itself for one request, counted under valgrind (`bench/instructions.py`): what the kernel does,
about a quarter of the time, is not in them.

{table}
"""
