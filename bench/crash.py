"""Every step of every strategy, struck before, between and after its journal entries, under load.

The gaps are read from the journal of each operation that nobody disturbed; in each of them the control plane, Envoy,
both, an instance, the guardian, and guardian and control plane are killed, each in a run of its own. What must come
of it is the table `EXPECTED` in `crash_runs.py`. A run that fails says how it is played again, and its logs are kept.

    python bench/crash.py [--seed 1] [--sample 20] [--only "rolling: between 4 shift: Envoy"] [--jobs 4]
"""

from __future__ import annotations

import argparse
import random
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from itertools import groupby
from pathlib import Path

import common
from crash_runs import OPERATIONS, RATE, Operation, Result, Run, Undisturbed, play, survey

from segue.testing.cast import Victim

SHARED = 6
"""Runs on one stage at most."""


def runs_of(wholes: Iterable[Undisturbed]) -> list[Run]:
    """All that there are. What brings back guardian and control plane is typed in the middle of each step alone."""
    every = (Run(whole, gap, victim) for whole in wholes for victim in Victim for gap in whole.gaps)
    return [run for run in every if run.victim is not Victim.KEEPERS or run.gap.name.startswith("between")]


def asked(only: str) -> list[Operation]:
    """The operations that runs with `only` in their names are of, as far as that can be told before."""
    head = only.partition(":")[0]
    return [operation for operation in OPERATIONS if head in operation.name] or list(OPERATIONS)


def batches(runs: Sequence[Run], seed: int) -> list[list[Run]]:
    """Those that share a stage, in an order that the seed draws: long and short ones go on side by side."""
    found: list[list[Run]] = []
    for _, shared in groupby(runs, lambda run: (run.whole.operation.name, run.victim)):
        batch = list(shared)
        found += [batch[at : at + SHARED] for at in range(0, len(batch), SHARED)]
    return random.Random(seed).sample(found, len(found))


def page(results: Sequence[Result], of: int, **facts: object) -> str:
    """The page in docs/measured: what came of these runs `of` so many."""
    failed = [result for result in results if result.flaws]
    grouped = groupby(results, lambda result: result.run.whole.operation.name)
    return PAGE.format(
        runs=len(results),
        failed=len(failed),
        of=of,
        facts=common.listed(common.facts(**facts)),
        victims=common.table(("killed", *_SUMMARY), (_summary(victim, results) for victim in Victim)),
        missed="".join(f"* {result.run.name}: {'; '.join(result.flaws)}\n" for result in failed)
        or "No run failed.\n",
        rate=RATE,
        tables="\n".join(f"## {name}\n\n{_table(list(ours))}\n" for name, ours in grouped),
    )


_SUMMARY = ("runs", "same", "refused", "failed", "requests", "lost", "nobody served: median", "worst", "in the gap")


def _summary(victim: Victim, results: Sequence[Result]) -> tuple[object, ...]:
    ours = [result for result in results if result.run.victim is victim]
    without = [result.without for result in ours if result.without is not None]
    failed, good = sum(bool(result.flaws) for result in ours), [result for result in ours if not result.flaws]
    refused = sum(result.refused for result in good)
    seconds = (f"{statistics.median(without):.2f} s", f"{max(without):.2f} s") if without else ("", "")
    counts = (sum(result.requests for result in ours), sum(result.lost for result in ours))
    numbers = (len(ours), len(good) - refused, refused, failed, *counts)
    return victim, *(f"{number:,}" for number in numbers), *seconds, sum(result.aimed for result in ours)


def _table(results: Sequence[Result]) -> str:
    """One operation: a row for each gap, a column for each victim."""
    said = {(result.run.gap.name, result.run.victim): result.said for result in results}
    names = dict.fromkeys(gap.name for gap in results[0].run.whole.gaps)
    return common.table(
        ("", *Victim), ((name, *(said.get((name, victim), "") for victim in Victim)) for name in names)
    )


PAGE = """\
# Killed at every step

Every operation, struck in every gap between two entries of its journal, under load.
**{failed} of {runs} runs failed** ({of} there are).
Written by `make crash` (`bench/crash.py`).

{facts}

{victims}

{missed}
*Same*: exit status, steps and their outcomes, hooks, number of processes started, the end told once, and the state at
rest are as after the same operation that nobody disturbed; the books balance; nothing is left running; no request is
lost, and Envoy is the same process. Where **Envoy** was killed (also with the control plane: *both*) requests may be
lost while nobody listens, none by an answer and none after that; the cell says for how long nobody answered and how
many were lost. Where **an instance** was killed, drawn among those of the *old* version and the *new* one, it is
started again; a new version that loses one on trial may be *refused*, and then all must be as before. Only where it
was *the only one* that served (in_place with two instances) may requests be lost, until one serves. Where the
**guardian** was killed the control plane goes on without; afterwards it is killed too, and the next command brings
back both.
With **guardian and control plane**, killed in the middle of each step, that command is typed at once. Envoy gives one
that it replaces 5 s in place of 35, so that not every run of *both* waits for that.

The gaps are read from the journal of an undisturbed operation: *before 4 shift* lies before the fourth step's first
entry, which is also after the last of the third step; *between* its two entries; *tidying up* is what follows the
decision. The signal is sent when the entry that opens the gap is seen; *in the gap* says how often the next one was
not yet written when it had been sent (some are closed within a millisecond; then it struck a little later).
Load: GETs over 64 connections, {rate} a second; *down* and *first deploy* have no users. The way there of a version
that is refused or held is struck from the judgement or the question on: before, it is that of the others.

{tables}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Play the runs; 0 when none failed."""
    parser = argparse.ArgumentParser(description="Kill each part at each step of each strategy, under load.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", default="", help="the runs whose name has this in it; no page is written")
    parser.add_argument("--sample", type=int, help="so many runs, drawn by the seed; no page is written")
    parser.add_argument("--jobs", type=int, default=4, help="so many runs at a time")
    parser.add_argument("--within", type=float, help="minutes after which no further stage is begun")
    parser.add_argument("--begin", type=float, default=0.0, help="where in the order to begin, from 0 to 1")
    given = parser.parse_args(argv)
    common.progress(f"seed {given.seed}")
    began, failures = time.monotonic(), Path(tempfile.gettempdir()) / f"segue-crash-{given.seed}"
    with ProcessPoolExecutor(given.jobs) as pool:
        runs = [run for run in runs_of(pool.map(survey, asked(given.only))) if given.only in run.name]
        if given.sample:
            drawn = set(random.Random(given.seed).sample(range(len(runs)), min(given.sample, len(runs))))
            runs = [run for at, run in enumerate(runs) if at in drawn]
        common.progress(f"{len(runs)} runs")
        order = batches(runs, given.seed)
        first = round(given.begin * len(order))
        played = [pool.submit(play, batch, given.seed, failures) for batch in order[first:] + order[:first]]
        wait(played, timeout=given.within and 60 * given.within)
        for batch in played:
            batch.cancel()
        found = {result.run.name: result for batch in played if not batch.cancelled() for result in batch.result()}
    results = [found[run.name] for run in runs if run.name in found]
    took = f"{(time.monotonic() - began) / 60:.0f} min, {given.jobs} at a time"
    text = page(results, len(runs), seed=given.seed, took=took)
    sys.stdout.write(text)
    for result in results:
        if result.flaws:
            again = shlex.join(["python", "bench/crash.py", "--only", result.run.name, "--seed", str(given.seed)])
            common.progress(f"FAILED {result.run.name}: {'; '.join(result.flaws)}\n    {again}\n    logs: {failures}")
    if not given.only and not given.sample and len(results) == len(runs):
        common.write_page("crash", text)
    return int(any(result.flaws for result in results))


if __name__ == "__main__":
    sys.exit(main())
