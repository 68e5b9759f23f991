"""The judge against its acceptance table: false alarms, how soon it finds what is broken, and the peers' rules.

Every bar of the statistics' section 5, with simulated traffic. Three seeds, one of them the commit. The table's
own numbers of runs take a core for many hours; `--part` says which part of the long ones is run, and `--sure` that
it is at least as many as it takes to show that what must be rare is rare. With `--keep FILE` it can be stopped, and
goes on where it was, with the same seeds.

    python bench/judge.py [--part 0.01] [--sure] [--keep FILE] [--jobs 1] [--only D1 L1] [--write]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random

import common
from judge_bars import Finding, Row
from judge_rows import rows
from judge_runs import Outcome

SEEDS = (1, 2026)
_BATCH = 5


_rows = cache(rows)


@cache
def seeds() -> list[str]:
    """Two that are always the same, and the commit."""
    commit = common._commit().removesuffix("-dirty")
    return [*map(str, SEEDS), commit]


def one(name: str, cell: str, given: Sequence[str], numbers: Sequence[int]) -> list[Outcome]:
    """Some runs of one cell. Each has its own seed, so it does not matter which process does them."""
    row = next(row for row in _rows() if row.name == name)
    run = next(it.run for it in row.cells if it.name == cell)
    return [run(Random(f"{given[i % len(given)]}/{name}/{cell}/{i}")) for i in numbers]


class Kept:
    """What has been simulated so far, written down in the file at `path` as it comes. Without one, nowhere."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[tuple[str, str, int], list[Outcome]] = {}
        lines = path.read_text().splitlines() if path and path.exists() else []
        self.seeds: list[str] = json.loads(lines[0]) if lines else seeds()
        for line in lines[1:]:
            with suppress(json.JSONDecodeError):  # it was stopped in the middle of it
                row, cell, at, outcomes = json.loads(line)
                self._known[row, cell, at] = [tuple(outcome) for outcome in outcomes]
        if not lines:
            self._write(self.seeds)

    def get(self, row: str, cell: str, at: int, runs: int) -> list[Outcome] | None:
        """The outcomes of so many runs from the one numbered `at` on, if they are all known."""
        known = self._known.get((row, cell, at), [])
        return known[:runs] if len(known) >= runs else None

    def put(self, row: str, cell: str, at: int, outcomes: list[Outcome]) -> None:
        """They are known from now on."""
        self._write([row, cell, at, outcomes])

    def _write(self, line: object) -> None:
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def measured(
    row: Row, part: float, least: int, pool: ProcessPoolExecutor, kept: Kept
) -> tuple[int, Sequence[Finding]]:
    """How many runs each of its cells had at least, and what was found. `least`: so many of each long one."""
    counts = {c.name: max(least, round(c.full * part)) if c.long else c.full for c in row.cells}
    counts = {c.name: min(counts[c.name], c.full) for c in row.cells}
    batches = [
        (name, range(count)[at : at + _BATCH]) for name, count in counts.items() for at in range(0, count, _BATCH)
    ]
    waiting: list[tuple[str, range, list[Outcome] | Future[list[Outcome]]]] = [
        (
            name,
            runs,
            kept.get(row.name, name, runs[0], len(runs)) or pool.submit(one, row.name, name, kept.seeds, runs),
        )
        for name, runs in batches
    ]
    results: dict[str, list[Outcome]] = {name: [] for name in counts}
    for name, runs, outcomes in waiting:
        if isinstance(outcomes, Future):
            outcomes = outcomes.result()
            kept.put(row.name, name, runs[0], outcomes)
        results[name] += outcomes
    return min(counts.values(), default=0), row.find(results)


def lines(found: Sequence[tuple[Row, int, float, Sequence[Finding]]]) -> Iterator[tuple[object, ...]]:
    """The table's lines."""
    for row, runs, seconds, findings in found:
        yield f"**{row.name}**", f"{row.what} ({runs or 'no'} runs each, {seconds:.0f} s)", "", ""
        for finding in findings:
            yield "", finding.bar, finding.seen, finding.verdict


def page(
    found: Sequence[tuple[Row, int, float, Sequence[Finding]]], given: Sequence[str], part: str, seconds: float
) -> str:
    """The page in docs/measured."""
    findings = [finding for *_, some in found for finding in some if finding.verdict]
    missed = [f"* {row.name}, {f.bar}: {f.seen}" for row, *_, some in found for f in some if f.verdict == "MISSED"]
    facts = common.facts(seeds=", ".join(given), part=part, took=f"{seconds:.0f} s")
    return PAGE.format(
        met=sum(finding.verdict == "met" for finding in findings),
        all=len(findings),
        facts=common.listed(facts),
        table=common.table(("", "what, and what is asked", "seen", ""), lines(found)),
        missed="\n".join(missed) or "No bar was missed.",
    )


PAGE = """\
# How well the judge judges

**{met} of {all} bars are met.** Written by `bench/judge.py`; the method is described at the top of the files in
`src/segue/judge`. Traffic is simulated: Poisson arrivals, a look a second, answers' times in the router's own
buckets (90 a decade, 1–10 % wide), log-normal with a p50 of 50 ms and a p99 of 256 ms.

{facts}

Times are the median and the 95th percentile of the seconds until the alarm. *Too few runs*: not more than the bar
was seen, or no more than chance explains, but in fewer runs than it takes to be sure of the bar. `--sure` runs as
many as that takes, `--part 1` all that the table asks for, for many hours.

{table}

## Missed

{missed}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate everything; 0 when no bar was missed."""
    parser = argparse.ArgumentParser(description="The judge against its acceptance table.")
    parser.add_argument("--part", type=float, default=0.01, help="the part of the long rows' runs (default: 0.01)")
    parser.add_argument("--sure", action="store_true", help="as many as it takes to be sure of every bar (hours)")
    parser.add_argument(
        "--keep", type=Path, metavar="FILE", help="write down what is simulated, and go on from there"
    )
    parser.add_argument("--jobs", type=int, default=1, help="so many processes (default: 1)")
    parser.add_argument("--only", nargs="+", default=[], choices=[row.name for row in _rows()], metavar="ROW")
    parser.add_argument("--write", action="store_true", help="write docs/measured/judge.md")
    given = parser.parse_args(argv)
    found, began, kept = [], time.monotonic(), Kept(given.keep)
    with ProcessPoolExecutor(given.jobs) as pool:
        for row in _rows():
            if not given.only or row.name in given.only:
                start = time.monotonic()
                least = max(row.least, row.sure if given.sure else 0)
                runs, findings = measured(row, given.part, least, pool, kept)
                found.append((row, runs, time.monotonic() - start, findings))
                common.progress("\n".join(f"{row.name}: {f.bar}: {f.seen} {f.verdict}" for f in findings))
    part = f"{given.part:.1%} of the long rows' runs" + (", as many at least as make sure" if given.sure else "")
    text = page(found, kept.seeds, part, time.monotonic() - began)
    sys.stdout.write(text)
    if given.write:
        common.write_page("judge", text)
    return int(any(finding.verdict == "MISSED" for *_, some in found for finding in some))


if __name__ == "__main__":
    sys.exit(main())
