"""What it brings, and costs, to look at busy paths by themselves: simulated, with the judge with and without it.

The traffic is `judge_traffic.py`'s, one world for each path; both judges see the same requests. Each run has a seed
of its own. It takes half an hour of two cores, and prints the tables of docs/measured/paths.md.

    python bench/paths.py [--runs 200] [--healthy 1000] [--write]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import inf, isfinite
from random import Random
from statistics import median

import common
from common import table
from judge_traffic import World, samples

from segue.core.paths import OTHERS
from segue.core.samples import plus
from segue.core.traffic import Sample
from segue.judge.comparison import Comparison
from segue.judge.settings import Settings

SHARES = {"/": 0.3, "/search": 0.3, "/cart": 0.2, "/api": 0.1, "/checkout": 0.05, OTHERS: 0.05}
"""The part of the requests that each path has."""


@dataclass(frozen=True)
class Case:
    """A new version that fails so often on the paths named, or on all, where the old one fails with `usual`."""

    name: str
    usual: float = 0.001
    failing: Mapping[str, float] | float | None = None
    slower: Mapping[str, float] | float | None = None
    share: float = 0.1
    rps: float = 400.0

    def worlds(self, seconds: int) -> dict[str, World]:
        """The traffic of each path."""
        return {
            path: World(
                self.rps * part,
                self.share,
                self.usual,
                _of(self.failing, path, self.usual),
                ("all", _of(self.slower, path, 1.0)),
                seconds,
            )
            for path, part in SHARES.items()
        }


def _of(what: Mapping[str, float] | float | None, path: str, usual: float) -> float:
    if isinstance(what, Mapping):
        return what.get(path, usual)
    return usual if what is None else what


CASES = (
    Case("/checkout fails: 0.1 % → 5 %", failing={"/checkout": 0.05}),
    Case("/checkout fails: 1 % → 10 %", usual=0.01, failing={"/checkout": 0.1}),
    Case("/checkout fails: 1 % → 5 %", usual=0.01, failing={"/checkout": 0.05}),
    Case("/api is twice as slow", slower={"/api": 2.0}),
    Case("/checkout is three times as slow", slower={"/checkout": 3.0}),
    Case("all paths fail: 0.1 % → 1 %", failing=0.01),
    Case("all paths fail: 1 % → 3 %", usual=0.01, failing=0.03),
    Case("all paths are 1.5 times as slow", slower=1.5),
)
HEALTHY = (
    Case("healthy, 0.1 %"),
    Case("healthy, 1 %", usual=0.01),
    Case("healthy, 1 %, half of the traffic", usual=0.01, share=0.5),
    Case("healthy, 20 a second", usual=0.01, rps=20.0),
)


def looks(case: Case, rng: Random, seconds: int) -> Iterator[tuple[Sample, Sample]]:
    """What came on the new and the old version in each second, with each path by itself."""
    worlds = case.worlds(seconds)
    flows = [samples(world, rng) for world in worlds.values()]
    for second in zip(*flows, strict=True):
        yield _whole(worlds, [new for new, _ in second]), _whole(worlds, [old for _, old in second])


def _whole(paths: Mapping[str, object], parts: Sequence[Sample]) -> Sample:
    whole = Sample()
    for part in parts:
        whole = plus(whole, part)
    return replace(whole, parts=dict(zip(paths, parts, strict=True)))


def run(case: Case, seed: int, seconds: int) -> tuple[float, float, str]:
    """After how many seconds the alarm came with and without paths (infinite: never), and which paths it named."""
    rng = Random(f"{case.name} {seed}")
    history = Sample(100_000, round(100_000 * case.usual))
    judges = [Comparison(Settings(), history), Comparison(Settings(), history)]
    judges[0].tell_apart(tuple(SHARES))
    found, named = [inf, inf], ""
    for second, (new, old) in enumerate(islice(looks(case, rng, seconds), seconds), 1):
        for number, judge in enumerate(judges):
            if isfinite(found[number]):
                continue
            judge.look(1.0, new, old)
            if judge.alarm:
                found[number] = second
                if number == 0:
                    named = str(judge.silence("new", "old").numbers.get("worse", ""))
        if all(map(isfinite, found)):
            break
    return found[0], found[1], named


def rows(pool: ProcessPoolExecutor, cases: Sequence[Case], runs: int, seconds: int) -> Iterator[Sequence[object]]:
    """A row for each case."""
    for case in cases:
        results = list(pool.map(partial(run, case, seconds=seconds), range(runs), chunksize=4))
        common.progress(case.name)
        beside, alone, names = zip(*results, strict=True)
        most = max(names, key=lambda name: (bool(name), names.count(name)))
        yield case.name, _told(beside), _told(alone), f"{most} ({names.count(most)})" if most else ""


def _told(times: Sequence[float]) -> str:
    found = sorted(time for time in times if isfinite(time))
    if not found:
        return f"0 of {len(times)}"
    slow = found[min(len(found) - 1, round(0.95 * len(found)))]
    return f"{len(found)} of {len(times)}: {median(found):.0f} s, 95 %: {slow:.0f} s"


PAGE = """\
# Paths that are looked at by themselves

Six paths, of which `/checkout` has 5 % of the requests; 400 requests a second, a tenth of them on the new version,
unless a row says otherwise. Alarms, the median of the seconds until one, and within how many 95 % of them came.
Printed by `bench/paths.py`.

{facts}

{broken}

*Only* is said where the other paths are shown to have less than half of it.

Of ten minutes with a version that is as good as the old one, so many ended with an alarm (at most 1 % may):

{healthy}
"""


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--healthy", type=int, default=1000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    head = ("new version", "with paths", "without", "named as the only ones (times)")
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        broken = table(head, rows(pool, CASES, options.runs, 300))
        healthy = table(head, rows(pool, HEALTHY, options.healthy, 600))
    facts = common.facts(runs=options.runs, healthy=options.healthy)
    page = PAGE.format(facts=common.listed(facts), broken=broken, healthy=healthy)
    print(page)
    if options.write:
        common.write_page("paths", page)


if __name__ == "__main__":
    main()
