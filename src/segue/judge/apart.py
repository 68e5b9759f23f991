"""Paths that are looked at by themselves: a version that got worse on one of them shows there first.

Each path has the two processes that all requests have (`gathering.py`), on its own attempts, and so have the others
together. Which paths those are is decided from what came before, so each is an e-process from then on, and so is

    Ē = ¾·E + ¼·E_then·mean of E_path        E: of all requests, E_then: what it was when the paths were told apart

for that is the capital E_then, of which a quarter is bet on the paths, in equal parts. Without paths Ē is E. A path
says nothing while no old version stands beside the new one: what was usual of it before is not known.

*Only these got worse* is said when the others together seem to have less than half of it. Of n attempts k failed (or
were above the old one's edge). By Chernoff, a rate q makes k that far from n·q with a chance of at most
e^(−n·KL(k/n ‖ q)), so q is too low, or too high, where that is at most 5 %, for the worst of several paths by as many
times less. The worst path has at least d more: the lowest rate of the new version that is not too low, less the old
one's, taken as (k + 1)/(n + 2). The others have less than half of it if d/2 more than the rate of their old version
is too high for their new one. The paths are chosen and the moment comes by what was seen, so 5 % is only nominal:
that is for a sentence, and nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import log

from segue.core.traffic import Sample
from segue.judge.dispersion import Dispersion
from segue.judge.errors import Counts, Ratio
from segue.judge.histogram import Histogram
from segue.judge.latency import PROVEN, Latency
from segue.judge.mixture import log_sum
from segue.judge.settings import Settings
from segue.judge.strata import Pool

PART = 0.25
"""What is bet on the paths."""
WORSE = log(20)
"""The evidence from which a path is called worse, and that with which the others are shown to be better."""
_NOTHING = Sample()


class Suspicion:
    """What was seen since evidence of more failures began, `since` so many seconds after the first look."""

    def __init__(self, since: float = 0.0) -> None:
        self.seen, self.since = Counts(), since

    def add(self, counts: Counts, log_e: float, now: float) -> None:
        """A stratum ended, after which there is so much evidence."""
        self.seen += counts
        if log_e <= 0:
            self.seen, self.since = Counts(), now


class Processes:
    """The evidence of harm that some requests give, by failures and by times. `history`: of the old version."""

    def __init__(
        self, settings: Settings, history: Histogram, *, since: float = 0.0, proven: Sequence[float] = PROVEN
    ) -> None:
        self.errors, self.guard = Ratio.alarm(settings.alarm), Dispersion()
        self.latency = Latency(settings.alarm, settings.first, history, proven=proven)
        self.suspicion = Suspicion(since)

    @property
    def of_both(self) -> float:
        """The logarithm of the evidence of both together."""
        return log_sum((self.errors.log_e, self.latency.log_e)) - log(2)

    @property
    def slow(self) -> bool:
        """Whether latency has more of the evidence."""
        return self.latency.log_e > self.errors.log_e


class Path(Processes):
    """The evidence of harm on one path."""

    def __init__(self, path: str, settings: Settings, now: float) -> None:
        super().__init__(settings, {}, since=now, proven=())
        self.path, self.pool, self.total = path, Pool(), Counts()
        self._began = now

    def close(self, now: float) -> None:
        """End the present stratum."""
        pool, self.pool, since = self.pool, Pool(), now - self._began
        self.errors.see(pool.counts, since, self.guard.trust)
        self.guard.add(pool.counts)
        self.latency.see(pool.new_times, pool.old_times, since)
        self.latency.old.add(pool.old_untimed, since)
        self.suspicion.add(pool.counts, self.errors.log_e, now)
        self.total += pool.counts

    def above(self, part: float) -> Counts:
        """The attempts of the last minute that were above the old version's percentile, as they weigh now."""
        new, old = self.latency.new, self.latency.old
        if not old.total:
            return Counts()
        edge = old.percentile(part)
        return Counts(new.above(edge), new.total, old.above(edge), old.total)


class Apart:
    """All paths that are told apart from `now` on, when the evidence of all requests was `staked`."""

    def __init__(self, paths: Sequence[str], settings: Settings, staked: float, now: float) -> None:
        self._paths = {path: Path(path, settings, now) for path in paths}
        self._staked = staked

    def add(
        self, seconds: float, new: Mapping[str, Sample], old: Mapping[str, Sample], timed: bool, now: float
    ) -> bool:
        """What came in one look; whether a stratum ended by it. Each path has its own."""
        ended = False
        for name, path in self._paths.items():
            path.pool.add(seconds, new.get(name, _NOTHING), old.get(name, _NOTHING), timed)
            if path.pool.full:
                path.close(now)
                ended = True
        return ended

    def close(self, now: float) -> None:
        """End the present strata, whatever is in them."""
        for path in self._paths.values():
            path.close(now)

    @property
    def log_e(self) -> float:
        """The logarithm of the evidence of all paths together."""
        logs = [path.of_both for path in self._paths.values()]
        return log_sum(logs) - log(len(logs))

    @property
    def share(self) -> float:
        """The logarithm of what the paths add to the evidence of the rollout."""
        return log(PART) + self._staked + self.log_e

    @property
    def worst(self) -> Path:
        """The path that most speaks against."""
        return max(self._paths.values(), key=lambda path: path.of_both)

    @property
    def worse(self) -> tuple[str, ...]:
        """The paths that got worse, if it is shown that the others did not; else none."""
        worst = self.worst
        worse = [path for path in self._paths.values() if path.of_both >= WORSE]
        others = [path for path in self._paths.values() if path.of_both < WORSE]
        if not worse or not others:
            return ()
        events = partial(Path.above, part=worst.latency.worst) if worst.slow else _failures
        bar = WORSE + log(len(self._paths))
        shown = _less_than_half(sum(map(events, others), Counts()), events(worst), bar)
        return tuple(path.path for path in worse) if shown else ()


def _failures(path: Path) -> Counts:
    return path.total


def _less_than_half(others: Counts, worst: Counts, bar: float) -> bool:
    """Whether the others have less than half of what the worst path has more at least; see the top of the file."""
    if not (others.both and worst.both):
        return False
    more = _least(worst.new, worst.of_new, bar) - (worst.old + 1) / (worst.of_old + 2)
    there, most = others.new / others.of_new, others.old / others.of_old + more / 2
    return more > 0 and there < most < 1 and others.of_new * _divergence(there, most) >= WORSE


def _least(events: float, attempts: float, bar: float) -> float:
    """The lowest rate that so many events do not speak against with evidence of `bar`."""
    allowed, refused = events / attempts, 0.0
    for _ in range(50):
        rate = (allowed + refused) / 2
        if attempts * _divergence(events / attempts, rate) >= bar:
            refused = rate
        else:
            allowed = rate
    return allowed


def _divergence(p: float, q: float) -> float:
    """KL(p ‖ q) of two chances."""
    return (p * log(p / q) if p else 0.0) + ((1 - p) * log((1 - p) / (1 - q)) if p < 1 else 0.0)
