"""What services, rollouts at once and a year of history cost one control plane and its Envoy.

    python bench/scale.py [--sizes 10 100]

A page is written when everything is measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence

import common
import scale_year
from scale_home import EVERY, INSTANCES, answering, home
from scale_runs import AT_ONCE, asked, measure, recalled, shifts, started, use
from scale_table import LINEAR, SIZES, Aged, Growth, number

TARGETS = {
    "memory of the control plane after its start": 150.0,
    "CPU of the control plane while nothing happens": 1.0,
    "one service's change of shares: decided → confirmed by Envoy": 5.0,
}
"""Design 2.8, at 100 services."""
NO_BOUND = ("  each",)
"""How long a rollout lasts among others depends on them more than on anything."""


def grown(sizes: Sequence[int], port: int) -> dict[str, Growth]:
    """Everything at each of the sizes."""
    rows: dict[str, Growth] = {}
    for size in sizes:
        common.progress(f"{size} services × {INSTANCES} instances …")
        for what, unit, runs in measure(size, port):
            row = rows.setdefault(what, Growth(what, unit, not what.startswith(NO_BOUND), TARGETS.get(what)))
            row.at[size] = runs
            common.progress(f"    {what}: {number(statistics.median(runs))} {unit}, worst {number(max(runs))}")
    return rows


def aged(young: dict[str, Growth], port: int) -> tuple[list[str], list[Aged]]:
    """Sentences about the year, and what takes how long with it and without."""
    common.progress("a year …")
    with home(100, port) as made:
        before, began = made.written(), time.monotonic()
        rollouts = scale_year.live(made)
        took, after = time.monotonic() - began, made.written()
        journal, events = (now - then for now, then in zip(after, before, strict=True))
        said = [
            f"{rollouts:,} rollouts, written in {took:.0f} s",
            f"journal: {journal / 1e6:,.0f} MB, {journal / rollouts / 1e3:.1f} KB a rollout",
            f"events: {events / 1e6:,.0f} MB, {events / rollouts / 1e3:.1f} KB a rollout",
        ]
        with made.plane() as plane:
            found = list(started(plane))
            use(made)
            for part in (asked, recalled, shifts):
                found += part(plane)
            found.append(("memory of the control plane after its start", "MB", [plane.memory()[0]]))
    return said, [Aged(what, unit, young[what].at[100], runs) for what, unit, runs in found]


def page(rows: Sequence[Growth], said: Sequence[str], old: Sequence[Aged], seconds: float) -> str:
    """The page in docs/measured."""
    bound = [row.missed for row in rows if row.judged] + [row.missed for row in old]
    head = ("what", "unit", *(f"{size:,}" for size in SIZES), "target at 100", "growth", "")
    return PAGE.format(
        facts=common.listed(common.facts(took=f"{seconds:.0f} s")),
        met=bound.count(False),
        all=len(bound),
        linear=LINEAR,
        instances=INSTANCES,
        every=EVERY,
        at_once=AT_ONCE,
        rows=common.table(head, (row.row() for row in rows)),
        said="\n".join(f"* {sentence}" for sentence in said),
        old=common.table(("what", "unit", "no past", "a year", "ratio", ""), (row.row() for row in old)),
    )


PAGE = """\
# Many services, many rollouts, a long past

**{met} of {all} bounds are met.** Written by `make bench-scale` (`bench/scale.py`).

{facts}

**Simulated** is the platform alone: an instance is an address of 127.0.0.0/8, and one process answers 200 at all of
them; none is started, none ends. Envoy, its configuration, the health checks over HTTP (one every {every} s of each
instance; what one costs is in [numbers.md](numbers.md)), journal, API and command line are real, on the same cores.
Each service has {instances} instances and a host of its own on one listener; it was asked ten times, then nobody asks
for anything.

## Growth

Medians, the worst of several runs in brackets. *Growth*: what a service costs between 100 and 1,000, divided by what
one costs between 10 and 100. At most {linear} is called linear; what two runs differ by counts as nothing. CPU for a
rollout is what is taken beyond that of a control plane at rest. Among 10 services there are only 10 rollouts at once,
else {at_once}.

{rows}

Envoy has one table of routes for a listener and makes it anew at each change of shares, so a rollout costs it more
the more services there are. Among {at_once} and fewer that is hidden by all else that a rollout takes; how it goes on
from there is measured by `--sizes 250 500 1000`.

## A year

100 services; one is deployed ten times a day, each of the others once, for 365 days. The records are those of one
real rollout (rolling, 10 instances, 5 at a time), written again and again through the journal.

{said}

What it is measured against is a control plane of 100 services without a past. Met: at most {linear} times as much, or
within what runs differ by.

{old}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure everything; 0 when every bound was met."""
    parser = argparse.ArgumentParser(description="Many services, many rollouts, a long past.")
    parser.add_argument("--sizes", type=int, nargs="+", help="so many services; no page is written")
    given = parser.parse_args(argv)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sg-") as cache, answering() as port:
        os.environ["PYTHONPYCACHEPREFIX"] = cache
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        with home(1, port) as first, first.plane():  # everything is compiled now
            pass
        rows = grown(given.sizes or SIZES, port)
        if given.sizes:
            return int(any(row.missed for row in rows.values()))
        said, old = aged(rows, port)
    text = page(list(rows.values()), said, old, time.monotonic() - began)
    sys.stdout.write(text)
    common.write_page("scale", text)
    return int(any(row.missed for row in rows.values()) or any(row.missed for row in old))


if __name__ == "__main__":
    sys.exit(main())
