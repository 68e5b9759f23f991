"""What came of the acts: users' side as the independent client counted it, beside Segue's own books."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segue.demo.acts import Act
from segue.testing.tally import Tally


@dataclass(frozen=True, slots=True)
class Played:
    """An act after it was played. `before`, `after`: the client's tallies, the first from the act before it."""

    number: int
    act: Act
    exit: int
    serves: str | None
    seconds: float
    before: Tally
    after: Tally
    report: Mapping[str, Any]

    @property
    def seen(self) -> Tally:
        """What the client saw since the act before it."""
        return self.after.since(self.before)

    @property
    def reason(self) -> str:
        """Why it ended as it did, in Segue's words."""
        return str(self.report.get("reason") or "")

    @property
    def shielded(self) -> int:
        """The requests that were given to one version and answered by the other."""
        return int((self.report.get("requests") or {}).get("shielded") or 0)

    @property
    def reached(self) -> int:
        """How many instances of the new version a step asked for at most."""
        asked = re.escape(f"{self.report.get('to')}.") + r"\d+: (\d+) instance"
        steps = [str(step["step"]) for step in self.report.get("steps") or [] if step["way"] == "there"]
        return max((int(found[1]) for step in steps if (found := re.match(asked, step))), default=0)

    @property
    def faults(self) -> list[str]:
        """What was not as it must be; empty: all was well."""
        return list(self._faults())

    def _faults(self) -> Iterable[str]:
        act, seen = self.act, self.seen
        if self.exit != act.exit:
            yield f"it exited with {self.exit}, not {act.exit}"
        if self.serves != act.serves:
            yield f"{self.serves or 'no version alone'} serves, not {act.serves}"
        if not re.search(act.because, self.reason):
            yield f"the reason is not that which was expected: {self.reason}"
        if act.reached not in (None, self.reached):
            yield f"{self.reached} instances were updated, not {act.reached}"
        if seen.lost_count:
            yield f"{seen.lost_count} requests were lost: {seen.lost[:3]}"
        if not seen.ended:
            yield "there was no load"


def users_saw(one: Played, replicas: int) -> Iterable[str]:
    """What users saw, what they did not see, and how many of the instances it came to."""
    seen = one.seen
    by = ", ".join(f"{count:,} by {version}" for version, count in sorted(seen.by_version.items()))
    slow = seen.percentile(0.99)
    yield f"Users: {seen.ended:,} requests, {seen.lost_count} lost, p99 {slow:.0f} ms; answered: {by or 'none'}"
    if one.shielded:
        requests, them = ("request", "it") if one.shielded == 1 else ("requests", "them")
        failed, instead = f"{one.report['to']} failed", f"{one.act.serves} answered"
        yield f"Shielded: {one.shielded:,} {requests} that {failed}; {instead} {them}"
    if one.act.reached is not None:
        yield f"Stopped at {one.reached} of {replicas} instances"


def table(played: Sequence[Played], wholes: Sequence[Tally]) -> Iterable[str]:
    """The acts, and the sum at the end."""
    row = "{:<39} {:<11} {:>5} {:>8} {:>4} {:>8}"
    yield row.format("ACT", "OUTCOME", "SECS", "REQUESTS", "LOST", "SHIELDED")
    for one in played:
        act, seen = one.act, one.seen
        outcome = act.outcome if not one.faults else "UNEXPECTED"
        counts = f"{one.seconds:.1f}", f"{seen.ended:,}", seen.lost_count, f"{one.shielded:,}"
        yield row.format(f"{one.number:>2}. {act.how}: {act.title}", outcome, *counts)
    seconds, total = sum(whole.seconds for whole in wholes), sum(whole.total for whole in wholes)
    counts = f"{seconds:.1f}", f"{total:,}", lost(wholes), f"{sum(one.shielded for one in played):,}"
    yield row.format("From the first to the last request", "", *counts)


def lost(wholes: Sequence[Tally]) -> int:
    """How many requests were lost in all."""
    return sum(whole.lost_count for whole in wholes)


def reasons(played: Sequence[Played]) -> Iterable[str]:
    """Why each version that was refused was refused."""
    yield "WHY THEY WERE REFUSED"
    for one in played:
        if one.exit == 1:
            yield f"{one.number:>2}. {one.reason}"


def books(played: Sequence[Played]) -> Iterable[str]:
    """`segue report` of each rollout beside the client's count.

    A rollout's books begin and end with the rollout; the client counts on between them, so it counts more.
    """
    row = "{:<20} {:>9} {:>4}   {:>9} {:>9} {:>8} {:>4} {:>8}"
    yield row.format("", "CLIENT", "", "SEGUE", "", "", "", "").rstrip()
    yield row.format("ROLLOUT", "requests", "lost", "requests", "answered", "shielded", "cut", "balanced")
    for one in played:
        requests = one.report.get("requests") or {}
        answered = sum((requests.get("answered_by") or {}).values())
        yield row.format(
            f"{one.number:>2}. {one.report.get('to')}",
            f"{one.seen.ended:,}",
            one.seen.lost_count,
            *(f"{number:,}" for number in (requests.get("total", 0), answered, one.shielded)),
            requests.get("cut", 0),
            "yes" if requests.get("balanced") else "NO",
        )
