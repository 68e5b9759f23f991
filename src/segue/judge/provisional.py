"""The provisional judge: is the new version's failure rate higher than the old one's beyond chance?

PROVISIONAL. A plain comparison of error rates with a strict level stands here until the real one, an
e-process that may be looked at for ever, takes its place behind `compare`. What this one lacks: latency is
not compared, failures that come in bursts count as independent, and looking often is paid for with a level
that is strict rather than with a proof. Everything it says carries ``"provisional": true``.

The rule. With fewer than `minimum` attempts on the new version there is no alarm, and the basis is health.
Otherwise it is compared with the first of these references that has enough attempts:

  beside   the old version at the same time, if it had a tenth of all attempts; margins ×1.1 + 0.02 points
  before   the old version before it lost its traffic, if it had a tenth as many attempts as the new one has;
           wide margins ×2 + 1 point, for times differ
  bound    5 % of the attempts, or more if the old version failed more of the few that it had

There is an alarm if both of these are at most `level`: the chance of so many failures at a rate of
ratio × the reference's + errors, and the chance that of all failures so many fall on the new version, given
how many attempts each had and that the new one fails `ratio` times as often (that is how a reference with
few attempts counts for less).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, log, log1p

from segue.core.traffic import Sample
from segue.core.verdict import Basis, Judgement, Number, Verdict

MINIMUM = 10
LEVEL = 1e-5
BOUND = 0.05
FAIR_PART = 10
"""The old version had a fair part of the traffic if it had one of this many attempts."""


@dataclass(frozen=True, slots=True)
class Margins:
    """What is not held against a version: up to `ratio` times the reference's rate plus `errors` (a fraction)."""

    ratio: float
    errors: float


NARROW = Margins(ratio=1.1, errors=0.0002)
WIDE = Margins(ratio=2.0, errors=0.01)


@dataclass(frozen=True, slots=True)
class _Reference:
    """What the new version is compared with. Without a `sample` it is the bound alone."""

    kind: str
    margins: Margins
    sample: Sample | None = None


def compare(
    new: Sample,
    old: Sample | None,
    *,
    before: Sample | None = None,
    new_name: str = "new",
    old_name: str = "old",
    minimum: int = MINIMUM,
    level: float = LEVEL,
    margins: Margins = NARROW,
) -> Judgement:
    """An alarm (fail) or none (pass) on the attempts that both versions had since the start of the rollout.

    `before`: the old version's attempts before the rollout, for when it has no traffic to compare with.
    `level`: the chance of an alarm for nothing, each time one looks.
    """
    if new.attempts < minimum:
        return _too_few(new, new_name)
    reference = _reference(new, old, before, minimum, margins)
    chance = _chance(new, reference)
    numbers = _numbers(new, old, before) | {"reference": reference.kind, "chance": chance, "level": level}
    sentence = _sentence(new, reference, new_name, old_name)
    if chance <= level:
        sentence += f": by chance less than once in {_count(round(1 / level))} times"
        return Judgement(Verdict.FAIL, Basis.EVIDENCE, sentence, numbers)
    return Judgement(Verdict.PASS, Basis.EVIDENCE, sentence, numbers)


def since(now: Sample, start: Sample) -> Sample:
    """What was counted between two looks at cumulative counters.

    Where a counter went back the router has restarted: all that it counts now was counted since. A reset is
    seen only if the counts are still below those of `start`, so take short spans and `plus` them.
    """
    if _went_back(now, start):
        return now
    return Sample(
        attempts=now.attempts - start.attempts,
        failures=now.failures - start.failures,
        latency_us={
            edge: count - start.latency_us.get(edge, 0)
            for edge, count in now.latency_us.items()
            if count > start.latency_us.get(edge, 0)
        },
    )


def plus(one: Sample, other: Sample) -> Sample:
    """Both samples together."""
    edges = sorted({*one.latency_us, *other.latency_us})
    return Sample(
        attempts=one.attempts + other.attempts,
        failures=one.failures + other.failures,
        latency_us={edge: one.latency_us.get(edge, 0) + other.latency_us.get(edge, 0) for edge in edges},
    )


def tail(failures: int, attempts: int, rate: float) -> float:
    """The chance of at least `failures` in `attempts` that fail with `rate` each.

    1 where so many were to be expected anyway: the question is then answered.
    """
    if failures <= attempts * rate:
        return 1.0
    if rate <= 0:
        return 0.0
    term = exp(_log_term(failures, attempts, rate))
    total, odds = 0.0, rate / (1 - rate)
    for k in range(failures, attempts + 1):
        total += term
        term *= odds * (attempts - k) / (k + 1)
        if term < total * 1e-12:
            break
    return min(1.0, total)


def _log_term(k: int, n: int, rate: float) -> float:
    ways = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
    return ways + k * log(rate) + (n - k) * log1p(-rate)


def _went_back(now: Sample, start: Sample) -> bool:
    edges = start.latency_us.items()
    return (
        now.attempts < start.attempts
        or now.failures < start.failures
        or any(now.latency_us.get(edge, 0) < count for edge, count in edges)
    )


def _reference(new: Sample, old: Sample | None, before: Sample | None, minimum: int, margins: Margins) -> _Reference:
    if old and old.attempts >= minimum and old.attempts * FAIR_PART >= old.attempts + new.attempts:
        return _Reference("beside", margins, old)
    if before and before.attempts >= minimum:
        if before.attempts * FAIR_PART >= new.attempts:
            return _Reference("before", WIDE, before)
        # so few tell what is usual, but by themselves they would excuse anything
        return _Reference("bound", Margins(ratio=0, errors=max(BOUND, WIDE.ratio * _rate(before) + WIDE.errors)))
    return _Reference("bound", Margins(ratio=0, errors=BOUND))


def _chance(new: Sample, reference: _Reference) -> float:
    """How likely so many failures are if the new version keeps within the margins of the reference."""
    margins, other = reference.margins, reference.sample
    rate = margins.errors + (margins.ratio * _rate(other) if other else 0)
    chance = tail(new.failures, new.attempts, rate)
    if other:
        weight = margins.ratio * new.attempts
        split = tail(new.failures, new.failures + other.failures, weight / (weight + other.attempts))
        chance = max(chance, split)
    return chance


def _too_few(new: Sample, name: str) -> Judgement:
    sentence = f"No user request reached {name}"
    if new.attempts:
        sentence = f"{_tried(new, name)}: too few to judge"
    return Judgement(Verdict.PASS, Basis.HEALTH, sentence, _numbers(new, None, None))


def _sentence(new: Sample, reference: _Reference, new_name: str, old_name: str) -> str:
    sentence = f"{_tried(new, new_name)} ({_percent(_rate(new))})"
    if reference.sample is None:
        allowed = _percent(reference.margins.errors)
        return f"{sentence}; up to {allowed} are allowed where there is little to compare with"
    numbers = f"{_count(reference.sample.failures)} of {_count(reference.sample.attempts)}"
    when = " before it" if reference.kind == "before" else ""
    return f"{sentence}, {numbers} on {old_name}{when} ({_percent(_rate(reference.sample))})"


def _numbers(new: Sample, old: Sample | None, before: Sample | None) -> dict[str, Number]:
    numbers: dict[str, Number] = {"provisional": True}
    for name, sample in (("new", new), ("old", old), ("before", before)):
        if sample is not None:
            numbers |= {f"{name}_attempts": sample.attempts, f"{name}_failures": sample.failures}
    return numbers


def _tried(sample: Sample, name: str) -> str:
    return f"{_count(sample.failures)} of {_count(sample.attempts)} attempts on {name} failed"


def _rate(sample: Sample) -> float:
    return sample.failures / sample.attempts if sample.attempts else 0.0


def _count(number: int) -> str:
    return f"{number:,}"


def _percent(rate: float) -> str:
    return f"{rate * 100:.2f} %"
