"""Whether a plan's judgements can come to a verdict with the traffic there is, and how soon they see what harm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import inf, isfinite
from typing import Any

from segue.core.demand import Demand
from segue.core.quantities import about, duration
from segue.core.quantities import count as counted
from segue.core.quantities import rate as a_second
from segue.core.release import Revision, Share, version_of
from segue.core.simulate import Played
from segue.core.steps import Gate, Judge, Proof, Silence
from segue.engine.hearing import Hearing
from segue.engine.records import Judging
from segue.engine.usual import Usual
from segue.judge.comparison import FEW
from segue.judge.forecast import HARMS, MOST_RATE, Forecast, Harm
from segue.judge.reasons import share as in_words
from segue.judge.voices import Pace

OTHERWISE = {
    "continue": "going on by health alone, `judge.low_traffic`",
    "hold": "a person is asked, `judge.low_traffic`",
    "rollback": "going back, `judge.low_traffic`",
}
UNDECIDED = {
    "continue": "going on without, `judge.undecided`",
    "hold": "a person is asked, `judge.undecided`",
    "rollback": "going back, `judge.undecided`",
}


class Outlook:
    """What can be expected of the judgements of a plan whose new version is `new`."""

    def __init__(self, judging: Judging, new: Revision, usual: Usual) -> None:
        self._judging, self._new, self.usual = judging, new, usual
        self._forecast = Forecast(judging.settings, usual.sample)
        self._slowest = Hearing(judging).voices.slowest

    def judgements(self, played: Sequence[Played]) -> list[dict[str, Any]]:
        """The judgements among these steps, in their order, as `segue plan --json` shows them."""
        return [found for one in played if (found := self._judgement(one)) is not None]

    def seconds(self, until: Silence | Proof, demand: Demand) -> float:
        """How long a judgement is expected to take; a proof that cannot come is not waited for."""
        if isinstance(until, Silence):
            return until.length.total_seconds()
        share, least, most = demand.share(self._new), until.least.total_seconds(), until.most.total_seconds()
        needs, rate = self._forecast.proof(until.gate, float(share)), self.usual.rate
        if needs is None or not rate or needs > rate * float(share) * most:
            return least
        compared = self._compared(until)
        return min(most, max(least, needs / (rate * float(share)), compared.seconds if compared else 0.0))

    def _compared(self, until: Proof) -> Pace | None:
        """The metric that this proof waits for longest. Later ones have what was compared before them."""
        return self._slowest if until.gate is Gate.FIRST else None

    def traffic(self, old: Revision) -> dict[str, Any]:
        """What was measured of `old`, as `segue plan --json` shows it, with a sentence."""
        usual, rate = self.usual, self.usual.rate
        return {
            "version": version_of(old),
            "per_second": None if rate is None else round(rate, 3),
            "told": usual.told is not None,
            "requests": usual.requests,
            "failures": usual.failures,
            "seconds": round(usual.seconds, 1),
            "open": usual.open,
            "text": self._told(version_of(old)),
        }

    def _told(self, old: str) -> str:
        usual = self.usual
        if usual.told is not None:
            return f"{a_second(usual.told)} requests a second, as you say"
        if not usual.seconds:
            return f"how many requests reach {old} was not measured yet"
        when = f"in the last {duration(usual.seconds)}"
        if not usual.requests:
            return f"no request reached {old} {when}"
        failed = f", {usual.failures:,} failed" if self._forecast.known else ""
        return f"{a_second(usual.rate or 0)} requests a second reached {old} {when}{failed}"

    def _judgement(self, one: Played) -> dict[str, Any] | None:
        if not isinstance(one.step, Judge):
            return None
        until, share = one.step.until, one.demand.share(self._new)
        at = {"step": one.number, "share": float(share)}
        if isinstance(until, Silence):
            return {**at, **self._silence(until, share)}
        return {**at, **self._proof(until, share)}

    def _silence(self, until: Silence, share: Share) -> dict[str, Any]:
        """Nothing is proven by silence: it says something of the harm that would be seen meanwhile."""
        length, rate = until.length.total_seconds(), self.usual.rate
        requests = None if rate is None else round(rate * float(share) * length)
        few = requests is not None and requests < FEW
        some = f"about {requests} requests" if requests else "no request"
        return {
            "waits_for": "silence",
            "least": length,
            "most": length,
            "requests": requests,
            "possible": None if requests is None else not few,
            "needs": None,
            "needs_seconds": None,
            "needs_rate": None,
            "finds": [self._finds(harm, share, length) for harm in HARMS],
            "text": f"{in_words(share)}: {some} in {duration(length)}, too few to judge; health alone"
            if few
            else None,
        }

    def _proof(self, until: Proof, share: Share) -> dict[str, Any]:
        most, rate = until.most.total_seconds(), self.usual.rate
        needs = self._forecast.proof(until.gate, float(share))
        new = None if rate is None else rate * float(share)
        requests = None if new is None else round(new * most)
        compared = self._compared(until)
        in_time = compared is None or compared.seconds <= most
        return {
            "waits_for": "proof",
            "least": until.least.total_seconds(),
            "most": most,
            "requests": requests,
            "possible": None if requests is None else needs is not None and requests >= needs and in_time,
            "needs": needs,
            "needs_seconds": needs / new if needs is not None and new else None,
            "needs_rate": None if needs is None else needs / float(share) / most,
            "compares": asdict(compared) if compared else None,
            "finds": [self._finds(harm, share, most) for harm in HARMS],
            "text": self._words(share, most, requests, needs) or (None if in_time else self._late(share, most)),
        }

    def _late(self, share: Share, most: float) -> str:
        """What is to be said of a proof that waits longer for a metric than it may."""
        assert self._slowest is not None
        metric, comparisons, seconds = self._slowest.metric, self._slowest.comparisons, self._slowest.seconds
        otherwise = UNDECIDED[self._judging.undecided]
        return (
            f"{in_words(share)}: {metric} is to be compared {comparisons} times, which takes {duration(seconds)}; "
            f"the step waits {duration(most)} at most; {otherwise}"
        )

    def _words(self, share: Share, most: float, requests: int | None, needs: int | None) -> str | None:
        """What is to be said of a proof that cannot come; None: it can."""
        if requests is None or (needs is not None and requests >= needs):
            return None
        came = counted(requests, "request")
        some = f"about {about(needs):,}" if needs is not None else "more than there can be"
        otherwise = OTHERWISE[self._judging.low_traffic]
        return f"{in_words(share)}: {came} in {duration(most)}, a verdict needs {some}; {otherwise}"

    def _finds(self, harm: Harm, share: Share, within: float) -> dict[str, Any]:
        """How soon `harm` raises an alarm; where that is too late, or not known: from which traffic on it is not."""
        rate = self.usual.rate
        seconds = inf if rate is None else self._forecast.alarm(harm, float(share), rate)
        in_time = seconds <= within
        least = None if in_time else self._forecast.least_rate(harm, float(share), within)
        return {
            "harm": harm.name,
            "seconds": round(seconds, 1) if isfinite(seconds) else None,
            "in_time": None if rate is None else in_time,
            "from_rate": None if least is None else round(least, 3),
            "ever": isfinite(self._forecast.alarm(harm, float(share), MOST_RATE)),
        }
