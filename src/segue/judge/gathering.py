"""The evidence of one rollout, from what each look brings. `comparison.py` says what it means.

One gathering lasts for the whole rollout, with all its steps and its keep, so that `false_alarm` is the chance that
a healthy version is ever taken back for its numbers. Two processes stand behind an alarm: errors (`errors.py`, and
`bound.py` while there is no old version beside the new one) and latency (`latency.py`). Each is an e-process for its
null hypothesis, so their mean is one for both, whatever they have to do with each other:

    Ē = ½·E_errors + ½·E_latency,  alarm once Ē ≥ 1 / (false_alarm·(1 − 1/1000))

The thousandth pays for the confidence limits that bounds are made from. An alarm stays. *Amber* is a tenth of the
evidence: nothing is proven then. Where paths are told apart, a part of Ē is theirs (`apart.py`).

A proof is for one step: its processes begin anew with `step`, for what was shown before a late break is stale. It
takes E' ≥ 1/doubt, now, from errors and from each of p50, p90 and p99. All must agree, so nothing is split: if the
version is worse than the margin in one of them, that one is wrong with a chance of at most `doubt`.

Rules for the next author: the same calls give the same state, with no clock and no chance, for after a crash it is
rebuilt by replaying them. Reading changes nothing. What decides how a stratum is judged comes from the past or from
how attempts were split, never from how they ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, log, log1p

from segue.core.traffic import Sample
from segue.judge import bound
from segue.judge.apart import PART, Apart, Path, Processes, Suspicion
from segue.judge.errors import Counts, Ratio
from segue.judge.mixture import log_sum
from segue.judge.presence import Presence
from segue.judge.ratio import RatioSet
from segue.judge.settings import Gate, Margin, Settings
from segue.judge.strata import Pool

FOR_BOUNDS = 1e-3
"""The part of the false alarms that may come from a bound that is too low."""
AMBER = log(10)
_NOTHING = Sample()


class Step:
    """What was seen in one step, and the proof of errors in it."""

    def __init__(self, margin: Margin) -> None:
        self.margin = margin
        self.errors, self.ratio = Ratio.proof(margin), RatioSet()
        self.seen, self.seconds = Counts(), 0.0


class Alone:
    """What was seen since there is no old version beside the new one, and the highest rate that is allowed then."""

    def __init__(self, highest: float) -> None:
        self.highest = highest
        self.seen = Counts()


@dataclass(frozen=True, slots=True)
class Harm:
    """The strongest evidence of harm so far, once it was enough for an alarm.

    `seen`: since the evidence of more failures began, `seconds` ago. `alone`: what is allowed without an old version
    beside it. `slow`: latency has more of the evidence, at this percentile: part, new, old. `path`: all of that is of
    this path, which has more of the evidence than all requests have; None: it is of them. `worse`: the only paths
    that got worse; none: that is not known.
    """

    log_e: float
    seen: Counts
    seconds: float
    whole: bool
    alone: float | None
    slow: tuple[float, float, float] | None
    path: str | None = None
    worse: tuple[str, ...] = ()


class Gathering(Processes):
    """What `Comparison` judges by. `history`: the old version's last ten minutes before the rollout."""

    def __init__(self, settings: Settings, history: Sample) -> None:
        super().__init__(settings, history.latency_us)
        self.settings = settings
        self.threshold = -log(settings.false_alarm) - log1p(-FOR_BOUNDS)
        self.recent = bound.Recent(history.attempts, history.failures)
        self.step = Step(settings.first)
        self.total, self.beside = Counts(), Counts()
        self.alone: Alone | None = None
        self.harm: Harm | None = None
        self.apart: Apart | None = None
        self._presence, self._pool = Presence(), Pool()
        self._now, self._bounds = 0.0, 0

    @property
    def now(self) -> float:
        """Seconds since the first look began."""
        return self._now

    @property
    def log_e(self) -> float:
        """The logarithm of the combined evidence of harm."""
        if self.apart is None:
            return self.of_both
        return log_sum((log1p(-PART) + self.of_both, self.apart.share))

    @property
    def amber(self) -> bool:
        """Whether it is a tenth of that now."""
        return self.log_e >= self.threshold - AMBER

    @property
    def proven(self) -> bool:
        """Whether the new version is shown to keep the margin of this step."""
        return min(self.step.errors.log_e, *self.latency.proofs) >= -log(self.settings.doubt)

    def look(self, seconds: float, new: Sample, old: Sample | None, timed: bool) -> None:
        """See `Comparison.look`."""
        _refuse_negative(seconds, new, old or _NOTHING)
        if self._is_alone(seconds, new, old):
            self._look_alone(seconds, new)
        else:
            self._look_beside(seconds, new, old or _NOTHING, timed)

    def close(self) -> None:
        """End the present strata, whatever is in them."""
        self._end()
        if self.apart:
            self.apart.close(self._now)
        self._weigh()

    def _end(self) -> None:
        """End the present stratum of all requests."""
        pool, self._pool = self._pool, Pool()
        if self.alone:
            self._judge_alone(self.alone, pool.counts)
        else:
            self._judge_beside(pool)
        self.suspicion.add(pool.counts, self.errors.log_e, self._now)

    def _weigh(self) -> None:
        """Strata have ended: see whether that makes an alarm."""
        if self.log_e >= (self.harm.log_e if self.harm else self.threshold):
            self.harm = self._harm()

    def tell_apart(self, paths: Sequence[str]) -> None:
        """From now on these paths are looked at by themselves as well; once: what is bet on them stays theirs."""
        self.close()
        if paths and self.apart is None:
            self.apart = Apart(paths, self.settings, self.of_both, self._now)

    def begin(self, gate: Gate) -> None:
        """A new step: what proves something is gathered anew."""
        self.close()
        self.step = Step(self.settings.margin(gate))
        self.latency.step(self.step.margin)

    def _is_alone(self, seconds: float, new: Sample, old: Sample | None) -> bool:
        if old is None:
            return self.alone is not None or new.attempts > 0
        away = self._presence.alone(self._now + seconds, new.attempts, old.attempts)
        return away or (self.alone is not None and not old.attempts)

    def _pass(self, seconds: float) -> None:
        self._now += seconds
        self.step.seconds += seconds

    def _look_beside(self, seconds: float, new: Sample, old: Sample, timed: bool) -> None:
        if self.alone:
            self.close()
            self.alone = None
            self.suspicion = Suspicion(self._now)
        self._pass(seconds)
        came = Counts(new.failures, new.attempts, old.failures, old.attempts)
        self._count(came)
        self.beside += came
        self.recent.add(old.attempts, old.failures, self._now)
        self._pool.add(seconds, new, old, timed)
        ended = self.apart is not None and self.apart.add(seconds, new.parts, old.parts, timed, self._now)
        if self._pool.full:
            self._end()
            ended = True
        if ended:
            self._weigh()

    def _look_alone(self, seconds: float, new: Sample) -> None:
        if not self.alone:
            self.close()
            self.alone = Alone(self._highest_rate())
            self.suspicion = Suspicion(self._now)
        self._pass(seconds)
        came = Counts(new.failures, new.attempts)
        self._count(came)
        self.alone.seen += came
        self._pool.add(seconds, new, _NOTHING, timed=False)
        if self._pool.lasted and self._pool.counts.of_new:
            self.close()

    def _harm(self) -> Harm:
        of: Processes = self
        if self.apart and self.apart.share > log1p(-PART) + self.of_both:
            of = self.apart.worst
        slow = None
        if of.slow:
            part, times = of.latency.worst, of.latency
            slow = part, times.new.percentile(part), times.old.percentile(part)
        seen, since = of.suspicion.seen, of.suspicion.since
        alone = self.alone.highest if self.alone and of is self else None
        harm = Harm(self.log_e, seen, self._now - since, not since, alone, slow)
        if not self.apart:
            return harm
        path = of.path if isinstance(of, Path) else None
        return replace(harm, path=path, worse=self.apart.worse)

    def _count(self, came: Counts) -> None:
        self.total += came
        self.step.seen += came

    def _highest_rate(self) -> float:
        """A bound: the n-th of a rollout may be wrong with 1/(n(n + 1)) of what all of them may."""
        self._bounds += 1
        doubt = self.settings.false_alarm * FOR_BOUNDS / (self._bounds * (self._bounds + 1))
        return bound.bound(self.recent.failures, self.recent.attempts, doubt)

    def _judge_alone(self, alone: Alone, counts: Counts) -> None:
        if counts.of_new:
            factors = bound.factors(counts.new, counts.of_new, alone.highest)
            self.errors.mixture.multiply(factors, self._now, self.guard.trust)

    def _judge_beside(self, pool: Pool) -> None:
        counts, trust = pool.counts, self.guard.trust
        self.errors.see(counts, self._now, trust)
        self.step.errors.see(counts, self._now, trust)
        self.step.ratio.see(counts, trust)
        self.guard.add(counts)
        self.latency.see(pool.new_times, pool.old_times, self._now)
        self.latency.old.add(pool.old_untimed, self._now)


def _refuse_negative(seconds: float, new: Sample, old: Sample) -> None:
    """Raises ValueError: a look takes what came since the last one, and that is never negative."""
    if not (isfinite(seconds) and seconds >= 0):
        raise ValueError(f"a look cannot take {seconds} seconds")
    for name, sample in (("new", new), ("old", old)):
        if min(sample.attempts, sample.failures, *sample.latency_us.values(), 0) < 0:
            raise ValueError(f"a count of the {name} version went back: looks take what came since the last one")
