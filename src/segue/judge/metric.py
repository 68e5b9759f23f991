"""Is a metric of the new version worse than the old one's at the same time? A sign test to be looked at for ever.

Nothing is known of a metric: not its distribution, not how it varies with the hour. So each comparison of two values
that were asked for at the same moment keeps one bit: whether the new one is worse by more than the margin,

    B = [ s·(new − old) > margin·|old| ]          s = 1 where higher is worse, −1 where lower is

and the null hypothesis is **P(B = 1 | all before) ≤ 1/2**: the new version's value is not, half of the time or more,
beyond the margin. It holds for two versions that are alike, whatever moves both of them, for then either is as likely
to be the larger one; equal values are not worse. For an alternative q > 1/2,

    ℓ = ln 2q where B = 1,   ln 2(1 − q) where B = 0

has E[e^ℓ] = 2q·P(B = 1) + 2(1 − q)·P(B = 0) ≤ 1, which is a bet on a coin: no test can gain more than a factor of two
from one comparison without assuming more (two fixed values, each with a half, are among what is assumed). The mixture
over q and over the time when it begins, and why it may be looked at for ever, is that of `mixture.py`.
The bet on a coin is Ville's (1939); see Shafer, "Testing by betting" (J. R. Stat. Soc. A 184, 2021), and, for signs,
Howard & Ramdas, arXiv 1906.09712. `statistics.md`, from which the other tests are, has none for such metrics.

*What it asks for.* Comparisons must not share what they look at: values that are averages over a minute are compared
once a minute (`every`, which the manifest refuses to be shorter than a query's range), and a value that is scraped
every half minute not more often than that. Nothing here can see whether it was kept.

*Traffic.* A rate of failures grows with the share of the traffic, a latency does not. Unless it is said which
(`per`), only what is worse both ways counts: as it is, and for each part of the traffic. One of the two readings is
the right one, its B keeps the null hypothesis where the version is healthy, and "both" is not more frequent.

A bound (`Bounded`) is no statistics: a value outside of it that often in a row was measured, and has no part in
`false_alarm`.
"""

from __future__ import annotations

from math import inf, log

from segue.core.sources import Scale, Way
from segue.judge.mixture import LATE, Mixture

BETS = (0.6, 0.75, 0.9, 0.99)
"""Alternatives: how often the new version is worse."""

AMBER = log(10)
IN_A_ROW = 3


class Worse:
    """Evidence that the new version's values are worse than the old one's by more than `margin`.

    `enough`: so many comparisons raise the alarm if each of them finds it worse.
    """

    def __init__(self, false_alarm: float, way: Way, margin: float, every: float) -> None:
        if not 0 < false_alarm < 1:
            raise ValueError(f"false_alarm must be a fraction between 0 and 1, not {false_alarm}")
        self._threshold = log(1 / false_alarm)
        self._sign, self._margin = (1 if way == "higher" else -1), margin
        self._mixture = Mixture(len(BETS), late=LATE)
        self._every = every
        self.compared = self.worse = 0
        self.alarm = False
        self.enough = _needed(self._threshold, every)

    @property
    def log_e(self) -> float:
        """The logarithm of the evidence."""
        return self._mixture.log_e

    @property
    def amber(self) -> bool:
        """Whether there is a tenth of the evidence that an alarm takes."""
        return self.log_e > max(self._threshold - AMBER, 0.0)

    def compare(self, *pairs: tuple[float, float]) -> None:
        """New and old value of one moment, in each reading; about `every` seconds have passed since the last."""
        worse = all(self._sign * (new - old) > self._margin * abs(old) for new, old in pairs)
        self.compared += 1
        self.worse += worse
        self._mixture.multiply(_factors(worse), self.compared * self._every)
        self.alarm = self.alarm or self.log_e >= self._threshold


def readings(
    values: tuple[float, float], shares: tuple[float, float], per: Scale | None
) -> list[tuple[float, float]]:
    """The new and the old version's value as they are to be compared, where these have so much of the traffic."""
    whole, parts = values, (values[0] / shares[0], values[1] / shares[1])
    return [whole] if per == "version" else [parts] if per == "share" else [whole, parts]


class Bounded:
    """Whether a value has been outside of its bounds `IN_A_ROW` times in a row."""

    def __init__(self, least: float | None, most: float | None) -> None:
        self._least, self._most = -inf if least is None else least, inf if most is None else most
        self.outside = 0
        self.alarm = False

    def look(self, value: float) -> None:
        """One more value."""
        self.outside = 0 if self._least <= value <= self._most else self.outside + 1
        self.alarm = self.alarm or self.outside >= IN_A_ROW

    def broken(self, value: float) -> str:
        """Which bound `value` breaks, in words."""
        return (
            f"at least {self._least:g} is asked for" if value < self._least else f"at most {self._most:g} is allowed"
        )


def _factors(worse: bool) -> list[float]:
    return [log(2 * q if worse else 2 * (1 - q)) for q in BETS]


def _needed(threshold: float, every: float) -> int:
    """After how many comparisons that are all worse there is an alarm."""
    mixture, count = Mixture(len(BETS), late=LATE), 0
    while mixture.log_e < threshold:
        count += 1
        mixture.multiply(_factors(True), count * every)
    return count
