"""Does the new version fail more often than the old one used to? For when there is no old version beside it.

After a blue/green switch, and while the old version is only kept warm, nothing can be compared at the same time.
Then the null hypothesis is **p_c ≤ β**, with a fixed bound β, taken once when the old version's traffic ends.
For an alternative rate x·β, n attempts with k failures multiply the evidence by e^ℓ (the Poisson form of
`errors.py`, where E[e^ℓ] ≤ 1 is shown; the old version's rate is now a number):

    ℓ = k·ln x − n·β·(x − 1)

These factors multiply the same capital as those of `errors.py`: in each stratum either the one or the other
test speaks, and which one depends on how the attempts were split, never on how they ended. So the product is one
evidence process, for "within the margin beside the old version, and within the bound without it", at one level
for the whole rollout, and neither test pays for the other.

*The bound.* From the old version's last ten minutes, k' of n' attempts, with wide margins, for times differ:

    β = min(2·u + 1 %, max(5 %, 2·k'/n' + 1 %))

u is an upper confidence limit of its rate: d − k'·ln(1 + d/k') = ln(1/doubt), d = n'·u − k' (Chernoff, valid
for every k' and n'). The limits of a rollout may all in all be wrong with a thousandth of its false alarms; the
alarm's threshold is higher by that (`gathering.py`). With little history u is large and would excuse anything, so
the second term stands: 5 %, or what the few attempts themselves show. That is a convention and no confidence
limit: a service that usually fails more than 5 %, with hardly any history to show it, may be alarmed for nothing.
"""

from __future__ import annotations

from collections import deque
from math import inf, log, log1p, sqrt

from segue.judge.errors import WORSE

RATIO, MORE = 2.0, 0.01
ALWAYS = 0.05
"""So many may fail where there is little to compare with."""
TEN_MINUTES = 600.0
_SLICE = 60.0


def limit(failures: int, attempts: int, doubt: float) -> float:
    """The rate that a version which had so many failures exceeds with a chance of at most `doubt`."""
    if not attempts:
        return inf
    nats = log(1 / doubt)
    low, high = 0.0, 2 * nats + 2 * sqrt(2 * nats * failures)
    for _ in range(60):
        more = (low + high) / 2
        if more - failures * log1p(more / failures if failures else 0.0) < nats:
            low = more
        else:
            high = more
    return (failures + high) / attempts


def bound(failures: int, attempts: int, doubt: float) -> float:
    """The highest rate that is allowed after an old version that had these."""
    shown = RATIO * failures / attempts + MORE if attempts else 0.0
    return min(RATIO * limit(failures, attempts, doubt) + MORE, max(ALWAYS, shown))


def factors(failures: float, attempts: float, highest: float) -> list[float]:
    """ℓ of each alternative to "at most `highest` fails"."""
    return [failures * log(x) - attempts * highest * (x - 1) for x in WORSE]


class Recent:
    """The old version's attempts and failures of the last ten minutes, to the minute."""

    __slots__ = ("_slices",)

    def __init__(self, attempts: int, failures: int) -> None:
        self._slices = deque([(0.0, attempts, failures)])

    @property
    def attempts(self) -> int:
        """Its attempts in that time."""
        return sum(attempts for _, attempts, _ in self._slices)

    @property
    def failures(self) -> int:
        """Those of them that failed."""
        return sum(failures for _, _, failures in self._slices)

    def add(self, attempts: int, failures: int, now: float) -> None:
        """So many more, `now` seconds after the start. What came before the start goes when ten minutes are over."""
        slices = self._slices
        if not attempts and not failures:
            return
        end, n, k = slices[-1]
        if now < end + _SLICE and len(slices) > 1:
            slices[-1] = end, n + attempts, k + failures
        else:
            slices.append((now, attempts, failures))
        while slices[0][0] <= now - TEN_MINUTES - _SLICE:
            slices.popleft()
