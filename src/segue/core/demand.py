"""The demand: what must be true of a service now. The keeper makes it true; nothing else starts or stops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from fractions import Fraction
from math import ceil
from types import MappingProxyType
from typing import Any

from segue.core.release import NOTHING, Revision, Share
from segue.core.steps import Scale, Shift, Step


@dataclass(frozen=True, slots=True)
class Demand:
    """How many instances of each version there are to be, and how the traffic is split between them.

    `counts` and `shares` hold positive entries only; `sizes` says with how many instances a version
    carries all of the traffic, `slack` the part of that strength which may be lacking for a while (in_place).
    The version in `kept` stays warm until `kept_until` without a share.
    """

    counts: Mapping[Revision, int] = field(default_factory=dict)
    shares: Mapping[Revision, Share] = field(default_factory=dict)
    sizes: Mapping[Revision, int] = field(default_factory=dict)
    slack: Fraction = NOTHING
    kept: Revision | None = None
    kept_until: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("counts", "shares", "sizes"):
            values = {key: value for key, value in sorted(getattr(self, name).items()) if value}
            object.__setattr__(self, name, MappingProxyType(values))

    def count(self, version: Revision) -> int:
        """How many instances of `version` there are to be."""
        return self.counts.get(version, 0)

    def share(self, version: Revision) -> Share:
        """The share of the traffic that `version` is given."""
        return self.shares.get(version, NOTHING)

    def needed(self, version: Revision) -> int:
        """How many ready instances of `version` cover its share."""
        size = self.sizes.get(version, self.count(version))
        return ceil(self.share(version) * size * (1 - self.slack))

    def after(self, step: Step) -> Demand:
        """The demand once `step` has begun."""
        match step:
            case Scale(version, count):
                return replace(self, counts={**self.counts, version: count})
            case Shift(shares):
                return replace(self, shares=dict(shares))
            case _:
                return self


def encode(demand: Demand) -> dict[str, Any]:
    """`demand` as JSON; `decode` reads it back."""
    return {
        "counts": dict(demand.counts),
        "shares": {version: str(share) for version, share in demand.shares.items()},
        "sizes": dict(demand.sizes),
        "slack": str(demand.slack),
        "kept": demand.kept,
        "kept_until": demand.kept_until and demand.kept_until.isoformat(),
    }


def decode(document: Mapping[str, Any]) -> Demand:
    """The demand that `encode` wrote as `document`."""
    return Demand(
        counts={Revision(v): n for v, n in document["counts"].items()},
        shares={Revision(v): Fraction(s) for v, s in document["shares"].items()},
        sizes={Revision(v): n for v, n in document["sizes"].items()},
        slack=Fraction(document["slack"]),
        kept=document["kept"] and Revision(document["kept"]),
        kept_until=document["kept_until"] and datetime.fromisoformat(document["kept_until"]),
    )
