"""What came of the acts: users' side as the independent client counted it, beside Segue's own books."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from segue.demo.acts import Act
from segue.testing.tally import Tally


@dataclass(frozen=True, slots=True)
class Played:
    """An act after it was played. `before`, `after`: the client's tallies, the first from the act before it."""

    act: Act
    exit: int
    serves: str | None
    seconds: float
    before: Tally
    after: Tally
    report: Any

    @property
    def seen(self) -> Tally:
        """What the client saw since the act before it."""
        return self.after.since(self.before)

    @property
    def faults(self) -> list[str]:
        """What was not as it must be; empty: all was well."""
        found = []
        if self.exit != self.act.exit:
            found.append(f"it exited with {self.exit}, not {self.act.exit}")
        if self.serves != self.act.serves:
            found.append(f"{self.serves or 'no version alone'} serves, not {self.act.serves}")
        if self.seen.lost_count:
            found.append(f"{self.seen.lost_count} requests were lost: {self.seen.lost[:3]}")
        if not self.seen.ended:
            found.append("there was no load")
        return found


def users_saw(seen: Tally) -> str:
    """One line on what users saw."""
    by = ", ".join(f"{count:,} by {version}" for version, count in sorted(seen.by_version.items()))
    slow = seen.percentile(0.99)
    return f"Users: {seen.ended:,} requests, {seen.lost_count} lost; answered: {by or 'none'}; p99 {slow:.0f} ms"


def table(played: Sequence[Played], whole: Tally) -> Iterable[str]:
    """The acts, and the sum at the end."""
    row = "{:<41} {:<11} {:<11} {:>6} {:>9} {:>5}"
    yield row.format("ACT", "STRATEGY", "OUTCOME", "SECS", "REQUESTS", "LOST")
    for one in played:
        outcome = one.act.outcome if not one.faults else "UNEXPECTED"
        seen = one.seen
        yield row.format(
            one.act.title, one.act.strategy, outcome, f"{one.seconds:.1f}", f"{seen.ended:,}", seen.lost_count
        )
    yield row.format(
        "From the first to the last request", "", "", f"{whole.seconds:.1f}", f"{whole.total:,}", whole.lost_count
    )


def books(played: Sequence[Played]) -> Iterable[str]:
    """`segue report` of each rollout beside the client's count.

    A rollout's books begin and end with the rollout; the client counts on between them, so it counts more.
    """
    row = "{:<30} {:>9} {:>5}   {:>9} {:>9} {:>8} {:>5} {:>8}"
    yield row.format("", "CLIENT", "", "SEGUE", "", "", "", "")
    yield row.format("ROLLOUT", "requests", "lost", "requests", "answered", "shielded", "cut", "balanced")
    for one in played:
        requests = (one.report or {}).get("requests") or {}
        answered = sum((requests.get("answered_by") or {}).values())
        yield row.format(
            f"{one.act.serves if one.act.build is None else one.act.command[2]} ({one.act.strategy})",
            f"{one.seen.ended:,}",
            one.seen.lost_count,
            *(f"{number:,}" for number in (requests.get("total", 0), answered, requests.get("shielded", 0))),
            requests.get("cut", 0),
            "yes" if requests.get("balanced") else "NO",
        )
