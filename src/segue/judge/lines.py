"""Does the new version log more matching lines than the old one? The test of `errors.py`, on lines.

An event is a line that matches, and it may happen more than once an attempt: the Poisson form allows that if
the lines come one by one. A traceback that is logged by every retry does not, and is what the cap and the
dispersion are for: an alarm needs at least three separate seconds that agree.

`false_alarm` is this test's own: whoever uses it beside a `Comparison` gives it a part of the rollout's, such as
a tenth, and the comparison the rest.
"""

from __future__ import annotations

from math import log

from segue.judge.dispersion import Dispersion
from segue.judge.errors import Counts, Ratio
from segue.judge.settings import Margin
from segue.judge.strata import SECOND, STRATUM


class Lines:
    """Evidence that more lines match on the new version, for each attempt, than `margin` allows."""

    def __init__(self, false_alarm: float, margin: Margin) -> None:
        if not 0 < false_alarm < 1:
            raise ValueError(f"false_alarm must be a fraction between 0 and 1, not {false_alarm}")
        self._threshold = log(1 / false_alarm)
        self._test, self._guard = Ratio.alarm(margin), Dispersion()
        self._open = Counts()
        self._now = self._began = 0.0
        self.alarm = False

    @property
    def log_e(self) -> float:
        """The logarithm of the evidence."""
        return self._test.log_e

    def look(self, seconds: float, came: Counts) -> None:
        """What came since the last look: lines, and the attempts they came with. Raises ValueError."""
        if min(seconds, came.new, came.of_new, came.old, came.of_old) < 0:
            raise ValueError("a count went back: looks take what came since the last one")
        self._now += seconds
        self._open += came
        if self._open.of_new + self._open.of_old >= STRATUM and self._now - self._began >= SECOND:
            self.close()

    def close(self) -> None:
        """End the present stratum."""
        counts, self._open, self._began = self._open, Counts(), self._now
        if counts.both:
            self._test.see(counts, self._now, self._guard.trust)
            self._guard.add(counts)
            self.alarm = self.alarm or self.log_e >= self._threshold
