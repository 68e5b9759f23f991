"""Simulated rollouts, each with a seed of its own: when the judge alarms, when it lets on, what the peers do."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import inf, log
from random import Random

import judge_peers as peers
from judge_traffic import Second, World, _sample, binomial, conditions, history, poisson, samples, shape

from segue.core.traffic import Sample
from segue.core.verdict import Verdict
from segue.judge.comparison import Comparison
from segue.judge.dispersion import Dispersion
from segue.judge.errors import Counts, Ratio
from segue.judge.settings import Gate, Settings

Outcome = tuple[float, ...]
"""What one run gives: mostly a second, infinite if what is waited for did not come."""
Simulated = Callable[[Random], Outcome]


def alarm(world: World, rng: Random) -> Outcome:
    """When the judge alarms, and how many attempts on the new version that took."""
    comparison, attempts = Comparison(Settings(), history(world, rng)), 0
    for now, (new, old) in enumerate(samples(world, rng), start=1):
        comparison.look(1.0, new, old)
        attempts += new.attempts
        if comparison.alarm:
            return float(now), float(attempts)
    return inf, inf


def leans(level: float, world: World, rng: Random) -> Outcome:
    """When the evidence of harm reaches e to the power of `level`, which is no alarm yet."""
    comparison = Comparison(Settings(), history(world, rng))
    for now, pair in enumerate(samples(world, rng), start=1):
        comparison.look(1.0, *pair)
        against = comparison.silence("v2", "v1").numbers["ln_e"]
        if isinstance(against, float) and against >= level:
            return (float(now),)
    return (inf,)


def switched(world: World, rng: Random) -> Outcome:
    """When the judge alarms after a blue/green switch, and how many attempts that took."""
    comparison, attempts = Comparison(Settings(), history(world, rng)), 0
    for now in range(1, world.seconds + 1):
        n = poisson(rng, world.rps)
        attempts += n
        comparison.look(1.0, Sample(n, binomial(rng, n, world.new)), None)
        if comparison.alarm:
            return float(now), float(attempts)
    return inf, inf


def against_peers(world: World, rng: Random) -> Outcome:
    """When the judge alarms, then when each of the peers does, in seconds."""
    comparison = Comparison(Settings(), history(world, rng))
    pairs: list[tuple[Sample, Sample]] = []
    for pair in samples(world, rng):
        pairs.append(pair)
        comparison.look(1.0, *pair)
        if comparison.alarm:
            break
    rules = peers.TIMES if world.times else peers.ERRORS
    taken = list(_minutes(world, pairs, rng))
    ours = float(len(pairs)) if comparison.alarm else inf
    return ours, *(60 * rule(taken) for rule in rules.values())


def peers_only(world: World, rng: Random) -> Outcome:
    """When each of the peers alarms."""
    rules = peers.TIMES if world.times else peers.ERRORS
    taken = list(_minutes(world, [], rng))
    return tuple(60 * rule(taken) for rule in rules.values())


def _minutes(world: World, pairs: list[tuple[Sample, Sample]], rng: Random) -> Iterator[peers.Minute]:
    """The minutes that begin with these seconds; what is missing of each is drawn as one piece."""
    second = next(conditions(replace(world, onset=0), rng))
    for start in range(0, world.seconds, 60):
        part = pairs[start : start + 60]
        new, old = _piece(second, 60 - len(part), rng)
        yield peers.Minute(peers.together([new, *(n for n, _ in part)]), peers.together([old, *(o for _, o in part)]))


def _piece(second: Second, seconds: int, rng: Random) -> tuple[Sample, Sample]:
    of_new = poisson(rng, second.rps * second.share * seconds) if seconds else 0
    of_old = poisson(rng, second.rps * (1 - second.share) * seconds) if seconds else 0
    return (
        _sample(rng, of_new, second.new, second.new_times, 1.0),
        _sample(rng, of_old, second.old, second.old_times, 1.0),
    )


def errors_alone(prior: float, levels: tuple[float, ...], world: World, rng: Random) -> Outcome:
    """When the evidence of errors alone reaches each of `levels`; φ is `prior` before anything was seen."""
    test, guard = Ratio.alarm(Settings().alarm), Dispersion(prior)
    found = [inf] * len(levels)
    pool = Counts()
    for now, (new, old) in enumerate(samples(world, rng), start=1):
        pool += Counts(new.failures, new.attempts, old.failures, old.attempts)
        if pool.of_new + pool.of_old < 20:
            continue
        test.see(pool, now, guard.trust)
        guard.add(pool)
        pool = Counts()
        found = [
            min(when, now) if test.log_e >= log(level) else when for when, level in zip(found, levels, strict=True)
        ]
        if max(found) < inf:
            break
    return tuple(found)


def proof_of_errors(world: World, rng: Random) -> Outcome:
    """When the evidence that errors keep the later steps' margin reaches 20."""
    test = Ratio.proof(Settings().then)
    for now, (new, old) in enumerate(samples(world, rng), start=1):
        test.see(Counts(new.failures, new.attempts, old.failures, old.attempts), now)
        if test.log_e >= log(20):
            return (float(now),)
    return (inf,)


def rollout(world: World, rng: Random) -> Outcome:
    """A canary at 10 %, then at 30 %, at least 30 s each: when it is let on to all (inf: it is not), when it alarms,
    and whether it says that evidence is missing, and how long that takes."""
    comparison, gate, since = Comparison(Settings(), history(world, rng)), Gate.FIRST, 0
    times = shape(*world.times) if world.times else None
    second = Second(world.rps, world.share, world.old, world.new, shape("all"), times)
    for now in range(1, world.seconds + 1):
        comparison.look(1.0, *_piece(second, 1, rng))
        if comparison.alarm:
            return inf, float(now), 0.0
        if now - since >= 30 and comparison.proof("v2", "v1").verdict is Verdict.PASS:
            if gate is Gate.THEN:
                return float(now), inf, 0.0
            gate, since, second = Gate.THEN, now, replace(second, share=0.3)
            comparison.close()
            comparison.step(gate)
    judgement = comparison.proof("v2", "v1")
    says = "not enough evidence yet" in judgement.reason and judgement.numbers["seconds"] is not None
    return inf, inf, float(says)


def cost(rng: Random) -> Outcome:
    """Microseconds of CPU: an update of the errors' alarm, of one latency threshold, and a whole look with 100 + 900
    answers in Envoy's buckets; then the bytes of what is kept."""
    alarm_, looks = Ratio.alarm(Settings().alarm), _looks(rng, 200)
    comparison = Comparison(Settings(), Sample(540_000, 540, shape("all").draw(rng, 54_000)))
    ratio = _micros(lambda i: alarm_.see(Counts(1, 100, 2, 900), i + 1), 5000)
    latency = comparison._gathered.latency
    threshold = _micros(lambda i: latency.see(*_times(looks[i % 200]), i + 1), 2000) / 7
    whole = _micros(lambda i: comparison.look(1.0, *looks[i % 200]), 2000)
    return ratio, threshold, whole, float(_size(comparison, set()))


def _times(look: tuple[Sample, Sample]) -> tuple[Mapping[float, int], Mapping[float, int]]:
    new, old = look
    return new.latency_us, old.latency_us


def _size(thing: object, seen: set[int]) -> int:
    """Bytes of `thing` and of all that belongs to it alone."""
    if id(thing) in seen or thing is None or isinstance(thing, type | int | str):
        return 0
    seen.add(id(thing))
    size = sys.getsizeof(thing)
    if isinstance(thing, dict):
        return size + sum(_size(x, seen) for pair in thing.items() for x in pair)
    if isinstance(thing, list | tuple | set | deque):
        return size + sum(_size(x, seen) for x in thing)
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    size += sum(_size(getattr(thing, name, None), seen) for name in slots)
    return size + _size(getattr(thing, "__dict__", None), seen)


def _looks(rng: Random, count: int) -> list[tuple[Sample, Sample]]:
    usual = shape("all")
    return [
        (
            Sample(100, binomial(rng, 100, 0.001), dict(usual.draw(rng, 100))),
            Sample(900, binomial(rng, 900, 0.001), dict(usual.draw(rng, 900))),
        )
        for _ in range(count)
    ]


def _micros(call: Callable[[int], None], times: int) -> float:
    began = time.process_time()
    for i in range(times):
        call(i)
    return (time.process_time() - began) / times * 1e6


@dataclass(frozen=True, slots=True)
class Cell:
    """One simulated situation: `full` is how often the acceptance table asks for it."""

    name: str
    run: Simulated
    full: int
    long: bool = True
    """Whether it takes so long that only a part of it is run unless all is asked for."""


def cell(
    name: str, simulated: Callable[[World, Random], Outcome], world: World, full: int, long: bool = True
) -> Cell:
    """A cell of `world`."""
    return Cell(name, partial(simulated, world), full, long)
