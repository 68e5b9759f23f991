"""What an A/B experiment costs and how often it is wrong, simulated, beside a z-test and a logrank test.

Users come slot by slot (fewer by night), are given a version by a coin, and reach the goal at once or later. All
rules look after every slot. Each experiment has a seed of its own, the number of its run. Under three minutes.

    python bench/experiment.py [--runs 400] [--write]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, inf, log, sqrt
from random import Random
from statistics import NormalDist, median

import common
from common import table
from judge_traffic import binomial, poisson

from segue.judge.experiment import SPLIT, Say, Seen, find
from segue.judge.mixture import log_sum
from segue.judge.split import Coins

DOUBT = 0.05
_Z = NormalDist().inv_cdf(1 - DOUBT / 2)
_OTHERS = [log(x) for x in (0.5, 0.67, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25, 1.5, 2.0)]
"""Alternatives of the logrank test."""


@dataclass(frozen=True)
class World:
    """An experiment. `late`: mean of the exponential delay of the goal, in slots; `given`: the true share."""

    name: str
    rate: float = 0.05
    ratio: float = 1.0
    share: float = 0.5
    given: float | None = None
    late: float = 0.0
    night: float = 1.0
    slots: int = 500
    users: float = 40.0


@dataclass(frozen=True)
class Slot:
    """What one slot brought, and all that was seen until its end."""

    came: Seen
    seen: Seen


def run(world: World, rng: Random) -> Iterator[Slot]:
    """One experiment. By night, half of every 48 slots, users and their rate are `night` times as large."""
    given, totals = world.given or world.share, [0, 0, 0, 0]
    later = [[0, 0] for _ in range(world.slots)]
    for slot in range(world.slots):
        part = world.night if slot % 48 < 24 else 1.0
        users = poisson(rng, world.users * part)
        of_new = binomial(rng, users, given)
        for version, (number, ratio) in enumerate(((of_new, world.ratio), (users - of_new, 1.0))):
            for _ in range(binomial(rng, number, world.rate * part * ratio)):
                at = slot + (int(rng.expovariate(1 / world.late)) if world.late else 0)
                if at < world.slots:
                    later[at][version] += 1
        came = (of_new, users - of_new, *later[slot])
        totals = [before + more for before, more in zip(totals, came, strict=True)]
        yield Slot(Seen(*came), Seen(*totals))


# Rules: each says after a slot whether it has found a difference

Rule = Callable[[Slot], bool]


def ours(world: World) -> Rule:
    """KEEP or DROP. `find` is asked only where evidence has reached its bar: else it says NEITHER (see the tests)."""

    def rule(slot: Slot) -> bool:
        seen = slot.seen
        goal = Coins(seen.reached_new, seen.reached_old, world.share)
        return goal.log_e() >= -log(DOUBT) * 0.999 and find(seen, world.share).say in (Say.KEEP, Say.DROP)

    return rule


def z_test(world: World) -> Rule:
    """Two proportions, compared as if this were the only look; not before five on each version reached the goal."""

    def rule(slot: Slot) -> bool:
        seen = slot.seen
        if min(seen.reached_new, seen.reached_old) < 5:
            return False
        pooled = (seen.reached_new + seen.reached_old) / (seen.new + seen.old)
        error = sqrt(pooled * (1 - pooled) * (1 / seen.new + 1 / seen.old))
        return abs(seen.reached_new / seen.new - seen.reached_old / seen.old) > _Z * error

    return rule


def logrank(world: World) -> Rule:
    """The anytime-valid logrank test. At risk in a slot: all who were seen by its end and not through before it."""
    capital = [0.0] * len(_OTHERS)

    def rule(slot: Slot) -> bool:
        came, seen = slot.came, slot.seen
        new = seen.new - seen.reached_new + came.reached_new
        old = seen.old - seen.reached_old + came.reached_old
        if new and old:
            w, events = new / (new + old), came.reached_new + came.reached_old
            for i, x in enumerate(_OTHERS):
                capital[i] += came.reached_new * x - events * log(1 - w + w * exp(x))
        return log_sum(capital) - log(len(capital)) >= -log(DOUBT)

    return rule


RULES = (ours, z_test, logrank)


def first(world: World, seed: int, rules: Sequence[Callable[[World], Rule]]) -> list[float]:
    """How many users were seen when each rule first found a difference; infinite if it never did."""
    asked, found = [rule(world) for rule in rules], [inf] * len(rules)
    for slot in run(world, Random(seed)):
        for i, rule in enumerate(asked):
            if rule(slot) and found[i] == inf:
                found[i] = slot.seen.new + slot.seen.old
        if inf not in found:
            break
    return found


def nothing_differs(runs: int) -> str:
    """How often a difference is found where there is none."""
    worlds = (
        World("5 % at once"),
        World("5 %, 20 slots later", late=20),
        World("5 %, later, a fifth by night", late=20, night=0.2, users=70),
        World("5 %, 10 % are given the new one", share=0.1),
        World("30 % at once", rate=0.3),
        World("60 % at once", rate=0.6),
        World("95 %, 20 slots later", rate=0.95, late=20),
    )
    rows = []
    for world in worlds:
        found = [first(world, seed, RULES) for seed in range(runs)]
        rows.append([world.name, *(_percent([users[i] < inf for users in found]) for i in range(len(RULES)))])
    return table(("nothing differs; 500 looks, 20,000 users", "Segue", "z-test", "logrank"), rows)


def to_find(runs: int) -> str:
    """How many users it takes to find a difference, at a base rate of 5 %."""
    rows = []
    for ratio, horizon in ((1.1, 300_000), (1.2, 80_000), (2.0, 8_000)):
        world = World("", ratio=ratio, slots=800, users=horizon / 800)
        found = [first(world, seed, (ours, z_test)) for seed in range(runs)]
        mine, peeked = (sorted(users[i] for users in found) for i in (0, 1))
        cells = (median(mine), mine[round(0.8 * runs) - 1], _fixed(ratio, 0.5), _fixed(ratio, 0.8), median(peeked))
        rows.append([f"{ratio:g}", *(_users(cell) for cell in cells)])
    head = ("5 %, ratio", "Segue 50 %", "Segue 80 %", "fixed z 50 %", "fixed z 80 %", "z peeking 50 % (not valid)")
    return table(head, rows)


def _fixed(ratio: float, power: float, rate: float = 0.05) -> float:
    """Users of a z-test with one look, planned knowing the ratio, that finds it with the chance `power`."""
    new, mean = rate * ratio, rate * (1 + ratio) / 2
    error = _Z * sqrt(2 * mean * (1 - mean))
    spread = NormalDist().inv_cdf(power) * sqrt(rate * (1 - rate) + new * (1 - new))
    return 2 * ((error + spread) / (new - rate)) ** 2


def wrong_split(runs: int) -> str:
    """How often the split is not trusted, with a look every 100 users."""
    rows = []
    for asked, given in ((0.5, 0.5), (0.1, 0.1), (0.5, 0.51), (0.5, 0.52), (0.5, 0.55), (0.1, 0.12)):
        world = World("", share=asked, given=given, slots=1000, users=100)
        many = runs * 2 if asked == given else runs // 2
        found = [_distrusted(world, seed) for seed in range(many)]
        within = [_percent([users <= most for users in found]) for most in (10_000, 20_000, 50_000, 100_000)]
        rows.append([f"{asked:.0%}", f"{given:.0%}", *within, _users(median(found))])
    return table(("asked", "given", "by 10,000 users", "20,000", "50,000", "100,000", "median users"), rows)


def _distrusted(world: World, seed: int) -> float:
    rng, given, new, old = Random(seed), world.given or world.share, 0, 0
    for _ in range(world.slots):
        more = binomial(rng, round(world.users), given)
        new, old = new + more, old + round(world.users) - more
        if Coins(new, old, world.share).log_e() >= -log(SPLIT):
            return new + old
    return inf


def _percent(cases: Sequence[bool]) -> str:
    return f"{100 * sum(cases) / len(cases):.1f} %"


def _users(number: float) -> str:
    return f"{round(number, -2):,.0f}" if number < inf else "-"


PAGE = """\
# Experiments: how often a conclusion is wrong, and how many users one takes

Simulated. Written by `bench/experiment.py --write`; the method is described at the top of
`src/segue/judge/experiment.py` and `src/segue/judge/split.py`. Everybody looks after every slot of time, and stops at
the first conclusion.

{facts}

## Nothing differs

Both versions are the same, so a conclusion is wrong. Segue promises one in at most 5 % of experiments, however often
one looks. A z-test that is looked at all the time promises nothing; the logrank test counts users as near to the goal
as everybody else who has not reached it, which is wrong where many reach it at once.

{nothing}

## To find a difference

Users of both versions together, half of them on each, until a difference is found in half of the experiments, and in
80 %. *Fixed z*: a z-test with one look, planned by somebody who knows the ratio. *Peeking*: the same test, looked at
after every slot; it is wrong as often as the table above says.

{found}

## A split that is not what was asked

In how many experiments the split is not trusted. Where it is as asked, that is a false alarm: one in a thousand at
most.

{split}
"""


def main() -> None:
    """Print the page; with ``--write`` it is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--write", action="store_true", help="write docs/measured/experiment.md")
    given = parser.parse_args()
    runs, facts = given.runs, common.facts(runs=given.runs)
    page = PAGE.format(
        facts=common.listed(facts),
        nothing=nothing_differs(runs),
        found=to_find(runs // 4),
        split=wrong_split(runs),
    )
    sys.stdout.write(page)
    if given.write:
        common.write_page("experiment", page)


if __name__ == "__main__":
    main()
