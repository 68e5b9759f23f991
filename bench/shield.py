"""Versions on trial at full size: broken ones that cost nobody a safe request, shares that are what they say.

Every fault has a home of its own, three clients all the time, and as many trials as that takes: GET, HEAD and
OPTIONS over HTTP/1.1 (64 connections) and HTTP/2 (8 connections × 8 streams), and POSTs with numbers (16). A twin
is a run without the shield. If it loses nothing, the measurement is blind, and this fails.

    python bench/shield.py [--only hangs]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import common
import shield_shares
from numbers_table import Number
from shield_faults import PROTOCOLS, REQUESTS, Run, Slow, Twin, faults, slow, twins
from shield_shares import Split

from segue.testing.load import tool


def page(
    runs: Sequence[Run],
    lossy: Sequence[Twin],
    late: Slow,
    splits: Sequence[Split],
    back: Sequence[Number],
    took: float,
) -> str:
    """The page in docs/measured."""
    safe = [run.seen[protocol] for run in runs for protocol in PROTOCOLS]
    return PAGE.format(
        requests=REQUESTS,
        lost=sum(tally.lost_count for tally in safe),
        total=sum(tally.total for tally in safe),
        facts=common.listed(common.facts(took=f"{took:.0f} s")),
        runs=common.table(("a version that", *_RUN, ""), map(_run_row, runs)),
        missed="".join(f"* {run.fault}: {'; '.join(run.flaws)}\n" for run in runs if run.flaws)
        or "No target was missed.\n",
        twins=common.table(("a version that", "must lose", "requests", "lost", ""), map(_twin_row, lossy)),
        slow=_slow(late),
        splits=common.table(
            ("of", "share", "measured", "off by", "at most", "went back", "lost", ""), _splits(splits)
        ),
        back=common.table(("what", "target", "median", "worst", ""), (number.row() for number in back)),
    )


_RUN = ("trials", *PROTOCOLS, "during trials", "shielded", "POST", "books")


def _run_row(run: Run) -> tuple[object, ...]:
    clients = (f"{run.seen[p].total:,} / {run.seen[p].lost_count}" for p in PROTOCOLS)
    books = "fit" if not any(one.flaws for one in run.trials) else "DO NOT FIT"
    counts = (*clients, f"{run.on_trial:,}", f"{run.shielded:,}", run.posts)
    return run.fault, len(run.trials), *counts, books, "MISSED" if run.flaws else "met"


def _twin_row(twin: Twin) -> tuple[object, ...]:
    return twin.fault, "more than 0", f"{twin.total:,}", f"{twin.lost:,}", "as it must be" if twin.lost else "BLIND"


def _slow(late: Slow) -> str:
    twice = sum(count == 2 for count in late.asked.values())
    verdict = f"MISSED: {'; '.join(late.flaws)}" if late.flaws else "met"
    return (
        f"{late.seen.total} requests whose right answer takes 3 s: {late.seen.lost_count} lost, {twice} sent to both "
        f"versions, {sum(count > 2 for count in late.asked.values())} sent three times; {verdict}."
    )


def _splits(splits: Sequence[Split]) -> list[tuple[object, ...]]:
    return [
        (
            f"{split.total:,} {split.what}",
            f"{float(split.share):.0%}",
            f"{split.measured:.3%}",
            f"{abs(split.measured - float(split.share)):.3%}",
            f"{split.allowed:.3%}",
            split.moved if split.what == "users" else "",
            split.lost,
            "met" if split.ok else "MISSED",
        )
        for split in splits
    ]


PAGE = """\
# Versions on trial

Target: 0 lost of GET, HEAD and OPTIONS, at least {requests:,} over each protocol in every run, whatever is wrong with
the new version; a POST that reached an application is executed once. **Measured: {lost} lost of {total:,}.**
Written by `make bench-shield` (`bench/shield.py`).

{facts}

## Broken versions at a share of 30 %

{runs}

{missed}
Over each protocol: requests / lost. Every run is several trials one after the other under the same load: the version
is deployed as a canary, gets its share, is found out and taken back. *During trials* are requests that began and
ended between its first share and its end, draining included; *shielded* those that it failed, or that it could not be
given, and the old version answered. All versions are healthy on `/healthz`. *POST*: each has a number, and all
applications write down which they execute; what a broken version has taken in is not repeated, so those fail and none
is executed twice. Where the version refuses, at most one POST of each of the 16 clients may fail in a trial: what was
under way at the door when it was shut. *Books*: they balance, and what they say fits what the clients counted. The
HTTP/2 client sends again what a GOAWAY says was not looked at, as browsers do.

## The twins: the same without the shield

{twins}

A version without instances has no twin: it is passed over whether there is a shield or not.

## Slow is not broken

{slow}

## Shares

{splits}

Allowed are four standard deviations of so many draws. Requests: wrk over 64 connections, which counts the versions
that answer. Users: they keep the cookie, the same {users:,} at all steps, and visit twice at each; *went back* are
those who had met the new version and met the old one again, or moved while the share stood still.

## Back in keep

{back}
""".replace("{users:,}", f"{shield_shares.USERS:,}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything; 0 when every target was met and every twin lost."""
    parser = argparse.ArgumentParser(description="Versions on trial, at full size.")
    parser.add_argument("--only", default="", help="the faults whose name has this in it; no page is written")
    given = parser.parse_args(argv)
    tool("wrk")
    began = time.monotonic()
    runs, lossy = list(faults(given.only)), list(twins(given.only))
    if given.only:
        return int(any(run.flaws for run in runs) or not all(twin.lost for twin in lossy))
    late = slow()
    common.progress("shares …")
    splits = [*shield_shares.requests(), *shield_shares.users()]
    back = list(shield_shares.keep())
    text = page(runs, lossy, late, splits, back, time.monotonic() - began)
    sys.stdout.write(text)
    common.write_page("shield", text)
    bad = [*(run.flaws for run in runs), late.flaws, *(number.missed for number in back)]
    return int(any(bad) or not all(twin.lost for twin in lossy) or not all(split.ok for split in splits))


if __name__ == "__main__":
    sys.exit(main())
