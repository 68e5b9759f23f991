"""A small part of the acceptance table that `bench/judge.py` simulates in full. Seeded: it passes always or never."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, inf
from random import Random
from statistics import NormalDist, median

import pytest

from segue.core.traffic import Sample
from segue.core.verdict import Verdict
from segue.judge.comparison import Comparison
from segue.judge.settings import Gate, Settings


@dataclass(frozen=True)
class World:
    """Attempts a second and how many of them fail; `slower`: how many times as long the new version takes."""

    new_rps: int
    old_rps: int
    new: float
    old: float
    slower: float | None = None
    trouble: bool = False
    """About once in 40 seconds both versions fail a fifth of the requests, three times as slowly."""


def _edge(ms: float) -> float:
    """The upper edge of the bucket that an answer falls into: of two digits, as Envoy's."""
    width = 100.0
    while ms * 1000 >= 100 * width:
        width *= 10
    return (ms * 1000 // width + 1) * width


def _answers(slower: float) -> list[float]:
    """Two thousand answers of a log-normal service with a p50 of 50 ms, by their buckets."""
    normal = NormalDist()
    return [_edge(50 * slower * exp(0.7 * normal.inv_cdf((i + 0.5) / 2000))) for i in range(2000)]


def _seconds(world: World, seed: int, most: int) -> Iterator[tuple[Sample, Sample]]:
    rng = Random(seed)
    answers = {slower: _answers(slower) for slower in (1.0, 3.0, world.slower or 1.0)}
    for _ in range(most):
        bad = world.trouble and rng.random() < 1 / 40
        sides = ((world.new_rps, world.new, world.slower), (world.old_rps, world.old, world.slower and 1.0))
        new, old = (
            Sample(
                rps,
                sum(rng.random() < (0.2 if bad else rate) for _ in range(rps)),
                Counter(rng.choices(answers[3.0 if bad else slower], k=rps)) if slower else {},
            )
            for rps, rate, slower in sides
        )
        yield new, old


def _alarm(world: World, seed: int, most: int) -> float:
    """The second of the alarm."""
    history = Counter(_answers(1.0)) if world.slower else {}
    comparison = Comparison(Settings(), Sample(2000, round(2000 * world.old), history))
    for now, (new, old) in enumerate(_seconds(world, seed, most), start=1):
        comparison.look(1.0, new, old)
        if comparison.alarm:
            return now
    return inf


HEALTHY = {
    "50 rps, 10 %": World(5, 45, 0.01, 0.01, 1.0),
    "60 rps, 50 %": World(30, 30, 0.02, 0.02, 1.0),
    "200 rps, 10 %, errors": World(20, 180, 0.001, 0.001),
    "100 rps, 50 %, trouble that both have": World(50, 50, 0.02, 0.02, 1.0, trouble=True),
}


@pytest.mark.parametrize("world", HEALTHY.values(), ids=HEALTHY)
def test_a_healthy_version_is_not_alarmed_in_minutes_of_looking_every_second(world: World) -> None:
    assert [_alarm(world, seed, 200) for seed in range(25)] == [inf] * 25


BROKEN = {
    "0.1 to 1 %, 1,000 rps": (World(100, 900, 0.01, 0.001), 13, 28),
    "1 to 5 %, 1,000 rps": (World(100, 900, 0.05, 0.01), 6, 10),
    "0.1 to 50 %, 1,000 rps": (World(100, 900, 0.5, 0.001), 4, 4),
    "0.1 to 50 %, 50 rps": (World(5, 45, 0.5, 0.001), 5, 7),
    "slower by half, 1,000 rps": (World(100, 900, 0.001, 0.001, 1.5), 5, 7),
    "half as fast, 50 rps": (World(5, 45, 0.001, 0.001, 2.0), 20, 40),
}


@pytest.mark.parametrize(("world", "middle", "most"), BROKEN.values(), ids=BROKEN)
def test_a_broken_version_is_found_in_seconds(world: World, middle: float, most: float) -> None:
    found = sorted(_alarm(world, seed, 100) for seed in range(30))
    print(f"{world}: median {median(found)} s, 29th of 30 {found[-2]} s")
    assert median(found) <= middle and found[-2] <= most


def test_a_healthy_canary_is_let_on_through_both_gates_within_seventy_seconds() -> None:
    world = World(100, 900, 0.001, 0.001, 1.0)
    comparison, gates, passed = Comparison(Settings()), [Gate.FIRST, Gate.THEN], []
    comparison.step(gates.pop(0))
    for now, (new, old) in enumerate(_seconds(world, 1, 70), start=1):
        comparison.look(1.0, new, old)
        if comparison.proof("v2", "v1").verdict is Verdict.PASS and now >= 30 * (len(passed) + 1):
            passed.append(now)
            if not gates:
                break
            comparison.step(gates.pop(0))
    assert len(passed) == 2 and not comparison.alarm


def test_little_traffic_says_how_much_is_missing() -> None:
    comparison = Comparison(Settings(), Sample(3000, 3, Counter(_answers(1.0))))
    for i, (new, old) in enumerate(_seconds(World(1, 4, 0.001, 0.001, 1.0), 1, 120)):
        comparison.look(1.0, new if i % 2 else Sample(), old)
    judgement = comparison.proof("v2", "v1")
    assert judgement.verdict is Verdict.UNDECIDED
    assert "not enough evidence yet, a verdict needs about" in judgement.reason
    assert isinstance(judgement.numbers["seconds"], float)


def _switched(rate: float, seed: int) -> float:
    """The second of the alarm after a switch from a version that failed one request of a hundred, at 50 rps."""
    comparison, rng = Comparison(Settings(), Sample(30_000, 300)), Random(seed)
    for now in range(1, 121):
        comparison.look(1.0, Sample(50, sum(rng.random() < rate for _ in range(50))), None)
        if comparison.alarm:
            return now
    return inf


def test_after_a_switch_a_healthy_version_is_not_alarmed_and_a_broken_one_is() -> None:
    assert [_switched(0.01, seed) for seed in range(20)] == [inf] * 20
    assert median(_switched(0.1, seed) for seed in range(20)) <= 10
    assert max(_switched(0.5, seed) for seed in range(20)) <= 4
