"""Requests lost by deployments: the full size of the promise, and the twins that must lose.

Each run keeps three clients busy at the same time, as fast as they get answers: our prober and wrk over
HTTP/1.1 keep-alive (64 connections each), h2load over cleartext HTTP/2 (8 connections × 8 streams).
The window is from the first Shift to the last of the run: strategies that shift once are run more than once.
A twin is a run with the protection taken away. If it loses nothing, the measurement is blind, and this fails.

    python bench/loss.py [--only rolling] [--seed 1]
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence

import common
from loss_runs import EACH, IN_WINDOW, REQUESTS, Run, Twin, crashes, deploys, measure, there_and_back, twins

from segue.testing.apps import NotInstalled
from segue.testing.load import tool


def page(runs: Sequence[Run], lossy: Sequence[Twin], seed: int) -> str:
    """The page in docs/measured."""
    return PAGE.format(
        requests=REQUESTS,
        inside=IN_WINDOW,
        each=EACH,
        gone=sum(run.lost for run in runs),
        total=sum(run.total for run in runs),
        facts=common.listed(common.facts(seed=seed)),
        runs=common.table(("run", *_COLUMNS, "books", ""), map(_row, runs)),
        missed="".join(f"* {run.name}: {'; '.join(run.flaws)}\n" for run in runs if run.flaws)
        or "No target was missed.\n",
        twins=common.table(("run", "must lose", "requests", "lost", ""), map(_twin_row, lossy)),
    )


_COLUMNS = ("requests", "lost", "first to last Shift", "by version (prober)", "prober", "wrk", "h2load")


def _row(run: Run) -> tuple[object, ...]:
    versions = ", ".join(f"{name} {count:,}" for name, count in sorted(run.by_version.items()))
    clients = (f"{client.requests:,} / {client.lost}" for client in run.clients)
    books = "balance" if run.balanced else "DO NOT BALANCE"
    verdict = "MISSED" if run.flaws else "met"
    return run.name, f"{run.total:,}", run.lost, f"{run.windowed:,}", versions, *clients, books, verdict


def _twin_row(one: Twin) -> tuple[object, ...]:
    verdict = "as it must be" if one.ok else "BLIND: it must lose" if one.lossy else "LOST"
    return one.name, "more than 0" if one.lossy else "0", f"{one.seen.total:,}", one.seen.lost_count, verdict


PAGE = """\
# Requests lost by deployments

Target: 0 lost of at least {requests:,} in every run, of which at least {inside:,} between the first Shift and
the last and {each:,} by each version. **Measured: {gone} lost of {total:,}.**
Written by `make bench-loss` (`bench/loss.py`).

{facts}

{runs}

{missed}
Per client: requests / lost. Each run has all three clients at once, 192 requests under way. wrk and h2load
cannot be asked during a run: their part of the window is their mean rate times its length. h2load counts the
streams that a GOAWAY refuses as failed, although a browser would send them again; what it has under way at the
end of a round is not counted. Versions are counted by the prober alone, from a field of the answers. The
application is a tiny server, so that Segue and its Envoy carry as much as the machine gives.

## The twins: the same with the protection taken away

{twins}
"""


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
