"""What a load client saw: every request is counted once, as answered or as lost, and often as both.

An answer of 5xx is in `by_status` and lost; a request without a whole answer is lost and has no status.
So `total` = answers + losses other than those of kind ``status``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from math import exp, log
from typing import Any, TypeVar

EXAMPLES = 20
"""So many losses of each kind are kept with time and detail; all are counted."""


class Loss(StrEnum):
    """How a request was lost."""

    REFUSED = "refused"
    RESET = "reset before an answer"
    CUT = "cut in the middle"
    TIMEOUT = "timeout"
    STATUS = "status"
    GARBLED = "not HTTP"


@dataclass(frozen=True, slots=True)
class Lost:
    """One lost request: when it was noticed, how it was lost, and what is known of it."""

    at: datetime
    kind: Loss
    detail: str


@dataclass(frozen=True, slots=True)
class Tally:
    """What a load client saw in `seconds`.

    `losses` counts all by kind, `lost` has the first examples. `latency_us`: upper edge of a bucket of
    2 % width → answers that came whole within it. `closed_idle`: connections that the server closed while
    they were at rest, which costs nobody anything; `again`: requests that were sent once more, since the server
    had said that it did not look at them.
    """

    total: int = 0
    seconds: float = 0.0
    by_status: Mapping[int, int] = field(default_factory=dict)
    by_version: Mapping[str, int] = field(default_factory=dict)
    losses: Mapping[Loss, int] = field(default_factory=dict)
    lost: tuple[Lost, ...] = ()
    latency_us: Mapping[int, int] = field(default_factory=dict)
    closed_idle: int = 0
    again: int = 0

    @property
    def lost_count(self) -> int:
        """How many requests were lost."""
        return sum(self.losses.values())

    @property
    def ended(self) -> int:
        """How many requests were answered or lost; what is missing to `total` is under way."""
        return sum(self.by_status.values()) + self.lost_count - self.losses.get(Loss.STATUS, 0)

    def percentile(self, fraction: float) -> float:
        """The time in milliseconds within which `fraction` of the answers came; 0 without any."""
        wanted = fraction * sum(self.latency_us.values())
        seen = 0
        for edge, count in sorted(self.latency_us.items()):
            seen += count
            if seen >= wanted:
                return edge / 1000
        return 0.0

    @property
    def percentiles(self) -> dict[str, float]:
        """The usual percentiles of the time to the whole answer, in milliseconds."""
        return {
            "p50": self.percentile(0.5),
            "p90": self.percentile(0.9),
            "p99": self.percentile(0.99),
            "p99.9": self.percentile(0.999),
            "max": self.percentile(1.0),
        }

    def since(self, earlier: Tally) -> Tally:
        """What was seen after `earlier`, a tally of the same client."""
        return Tally(
            total=self.total - earlier.total,
            seconds=self.seconds - earlier.seconds,
            by_status=_minus(self.by_status, earlier.by_status),
            by_version=_minus(self.by_version, earlier.by_version),
            losses=_minus(self.losses, earlier.losses),
            lost=self.lost[len(earlier.lost) :],
            latency_us=_minus(self.latency_us, earlier.latency_us),
            closed_idle=self.closed_idle - earlier.closed_idle,
            again=self.again - earlier.again,
        )

    def __str__(self) -> str:
        versions = ", ".join(f"{version}: {count:,}" for version, count in sorted(self.by_version.items()))
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.losses.items()))
        return (
            f"{self.total:,} requests, {self.lost_count:,} lost{kinds and f' ({kinds})'}; {versions or 'no answer'}"
        )


_K = TypeVar("_K")


def _minus(whole: Mapping[_K, int], part: Mapping[_K, int]) -> dict[_K, int]:
    return dict(Counter(whole) - Counter(part))


def bucket(seconds: float) -> int:
    """The upper edge, in microseconds, of the bucket that `seconds` falls in."""
    steps = int(log(max(seconds * 1e6, 1.0)) / _STEP) + 1
    return round(exp(steps * _STEP))


_STEP = log(1.02)


def encode(tally: Tally) -> dict[str, Any]:
    """`tally` as JSON; `decode` reads it back."""
    return {
        "total": tally.total,
        "lost_count": tally.lost_count,
        "seconds": round(tally.seconds, 3),
        "by_status": {str(status): count for status, count in sorted(tally.by_status.items())},
        "by_version": dict(sorted(tally.by_version.items())),
        "losses": {kind.value: count for kind, count in tally.losses.items()},
        "lost": [{"at": one.at.isoformat(), "kind": one.kind.value, "detail": one.detail} for one in tally.lost],
        "percentiles_ms": tally.percentiles,
        "latency_us": {str(edge): count for edge, count in sorted(tally.latency_us.items())},
        "closed_idle": tally.closed_idle,
        "again": tally.again,
    }


def decode(document: Mapping[str, Any]) -> Tally:
    """The tally that `encode` wrote as `document`."""
    return Tally(
        total=document["total"],
        seconds=document["seconds"],
        by_status={int(status): count for status, count in document["by_status"].items()},
        by_version=document["by_version"],
        losses={Loss(kind): count for kind, count in document["losses"].items()},
        lost=tuple(
            Lost(datetime.fromisoformat(one["at"]), Loss(one["kind"]), one["detail"]) for one in document["lost"]
        ),
        latency_us={int(edge): count for edge, count in document["latency_us"].items()},
        closed_idle=document["closed_idle"],
        again=document["again"],
    )


class Counting:
    """A tally that is still growing."""

    def __init__(self) -> None:
        self.total = 0
        self.closed_idle = 0
        self.again = 0
        self._status: Counter[int] = Counter()
        self._version: Counter[str] = Counter()
        self._losses: Counter[Loss] = Counter()
        self._lost: list[Lost] = []
        self._latency: Counter[int] = Counter()

    def answered(self, status: int, version: str, seconds: float) -> None:
        """A whole answer has come, `seconds` after the request was written."""
        self._status[status] += 1
        self._version[version] += 1
        self._latency[bucket(seconds)] += 1
        if status >= 500:
            self.lose(Loss.STATUS, f"{status} from {version}")

    def lose(self, kind: Loss, detail: str) -> None:
        """A request was lost."""
        self._losses[kind] += 1
        if self._losses[kind] <= EXAMPLES:
            self._lost.append(Lost(datetime.now(UTC), kind, detail))

    def tally(self, seconds: float) -> Tally:
        """What has been counted, after `seconds`."""
        return Tally(
            total=self.total,
            seconds=seconds,
            by_status=dict(self._status),
            by_version=dict(self._version),
            losses=dict(self._losses),
            lost=tuple(self._lost),
            latency_us=dict(self._latency),
            closed_idle=self.closed_idle,
            again=self.again,
        )
