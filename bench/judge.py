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
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from itertools import chain
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


Line = tuple[str, ...]
Page = dict[str, list[Line]]
"""What the page's table says, by row: the line that names it, and one for each bar."""


def lines(row: Row, runs: int, seconds: float, findings: Sequence[Finding], commit: str) -> list[Line]:
    """The lines of one row."""
    when = f"{datetime.now(UTC):%Y-%m-%d}, {commit}"
    head = (f"**{row.name}**", f"{row.what} ({runs or 'no'} runs each, {seconds:.0f} s)", when, "")
    return [head, *(("", finding.bar, finding.seen, finding.verdict) for finding in findings)]


def written(text: str) -> Page:
    """What a page says."""
    cells = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in text.splitlines() if line[:1] == "|"]
    rows_of: Page = {}
    name = ""
    for line in cells[2:]:  # the table's head, and the rule below it
        name = line[0].strip("*") or name
        rows_of.setdefault(name, []).append(line)
    return rows_of


def page(rows_of: Page, facts: Sequence[tuple[str, str]]) -> str:
    """The page in docs/measured. `facts`: of the last run, which wrote some or all of its rows."""
    verdicts = [(name, line) for name, some in rows_of.items() for line in some if line[3]]
    missed = [f"* {name}, {bar}: {seen}" for name, (_, bar, seen, verdict) in verdicts if verdict == "MISSED"]
    return PAGE.format(
        met=sum(line[3] == "met" for _, line in verdicts),
        all=len(verdicts),
        seeds=", ".join(map(str, SEEDS)),
        facts=common.listed(facts),
        table=common.table(("", "what, and what is asked", "seen", ""), chain.from_iterable(rows_of.values())),
        missed="\n".join(missed) or "No bar was missed.",
    )


PAGE = """\
# How well the judge judges

**{met} of {all} bars are met.** Written by `bench/judge.py`; the method is described at the top of the files in
`src/segue/judge`. Traffic is simulated: Poisson arrivals, a look a second, answers' times in the router's own
buckets (90 a decade, 1–10 % wide), log-normal with a p50 of 50 ms and a p99 of 256 ms. A row was run on the day and
with the commit that it names; its seeds are {seeds} and that commit. The last run:

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
    began, kept = time.monotonic(), Kept(given.keep)
    path = common.MEASURED / "judge.md"
    before = written(path.read_text()) if given.write and given.only and path.exists() else {}
    found: Page = {}
    with ProcessPoolExecutor(given.jobs) as pool:
        for row in _rows():
            if not given.only or row.name in given.only:
                start = time.monotonic()
                least = max(row.least, row.sure if given.sure else 0)
                runs, findings = measured(row, given.part, least, pool, kept)
                found[row.name] = lines(row, runs, time.monotonic() - start, findings, kept.seeds[-1])
                common.progress("\n".join(f"{row.name}: {f.bar}: {f.seen} {f.verdict}" for f in findings))
            elif row.name in before:
                found[row.name] = before[row.name]
    part = f"{given.part:.1%} of the long rows' runs" + (", as many at least as make sure" if given.sure else "")
    did = {"rows": " ".join(given.only) or "all", "part": part, "took": f"{time.monotonic() - began:.0f} s"}
    text = page(found, common.facts(**did))
    sys.stdout.write(text)
    if given.write:
        common.write_page("judge", text)
    ran = [found[name] for name in given.only or found]
    return int("MISSED" in {line[3] for some in ran for line in some})


if __name__ == "__main__":
    sys.exit(main())
