"""What the simulation says of the rollouts of `verdicts.py`: the same judge, the same ladder, simulated traffic.

Beyond `judge_runs.rollout`: the ladder to its end, trouble that sets in later, an instance's first seconds, in which
its latency does not count, and no more of the old version's past than the real one has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, count, islice, pairwise
from math import inf
from random import Random

from judge_bars import quantile
from judge_runs import Outcome, _piece
from judge_traffic import Second, World, conditions, history

from segue.core.verdict import Verdict
from segue.judge.comparison import Comparison
from segue.judge.settings import Gate, Settings

LADDER = (0.1, 0.3, 0.95)
"""The shares of a canary by default, and what is left of the last one by the holdback."""
LEAST, SETTLE = 30, 10
"""Seconds: of a judgement by default, and of `judge.settle`."""
WARM = 20
"""Seconds of the old version's past."""
RUNS = 200


@dataclass(frozen=True, slots=True)
class Expected:
    """Of the simulated rollouts: how many alarm, and the rest of those that end as most do.

    `seconds` and `late` are the median and the 95th percentile from the first share, or from the moment at which
    trouble sets in, to the alarm, or to the promotion. `attempts` on the new version since its first share and
    `failures` of them are medians.
    """

    alarms: float
    seconds: float
    late: float
    attempts: float
    failures: float


@cache
def expected(world: World, least: int) -> Expected:
    """Simulate rollouts in `world`, whose judgements last `least` seconds each at least."""
    what_comes = islice(each_second(world), RUNS)
    runs = [rollout(world, each, least, Random(f"verdicts/{world}/{i}")) for i, each in enumerate(what_comes)]
    alarms = sum(run[3] for run in runs) / len(runs)
    usual = [run for run in runs if (run[3] > 0.5) == (alarms > 0.5)]
    return Expected(alarms, _part(usual, 0, 0.5), _part(usual, 0, 0.95), _part(usual, 1, 0.5), _part(usual, 2, 0.5))


def _part(runs: Sequence[Outcome], which: int, part: float) -> float:
    return quantile([run[which] for run in runs], part)


def each_second(world: World) -> Iterator[Iterator[Second]]:
    """What is true in each second of one run after the other: where there are bursts, three at least in a minute."""
    for number in count():
        drawn = conditions(world, Random(f"seconds/{number}"))
        first = list(islice(drawn, 60))
        if world.kind != "bursts" or sum(b.old > a.old for a, b in pairwise(first)) >= 3:
            yield chain(first, drawn)


def rollout(world: World, what_comes: Iterator[Second], least: int, rng: Random) -> Outcome:
    """Seconds, attempts on the new version, failures of them until the alarm or the promotion, and 1 for an alarm."""
    comparison = Comparison(Settings(), history(replace(world, rps=world.rps * WARM / 600), rng))
    step = since = settling = attempts = failures = 0
    for now, second in enumerate(what_comes, start=1):
        new, old = _piece(replace(second, share=LADDER[step]), 1, rng)
        comparison.look(1.0, new, old, timed=now - settling > SETTLE)
        attempts, failures = attempts + new.attempts, failures + new.failures
        if comparison.alarm:
            return float(now - world.onset), attempts, failures, 1.0
        if now - since >= least and _passes(comparison, step):
            step, since = step + 1, now
            if step == len(LADDER):
                return float(now), attempts, failures, 0.0
            settling = now if step == len(LADDER) - 1 else settling  # more instances are started for it
            comparison.close()
            comparison.step(Gate.THEN)
    return inf, attempts, failures, 0.0


def _passes(comparison: Comparison, step: int) -> bool:
    """The holdback's judgement waits for silence, the others for proof."""
    return step == len(LADDER) - 1 or comparison.proof("v2", "v1").verdict is Verdict.PASS
