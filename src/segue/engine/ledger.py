"""What has been counted for one rollout since it began, over restarts of the router and of the control plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pydantic import TypeAdapter

from segue.core.release import Revision
from segue.core.samples import plus, since
from segue.core.traffic import Books, Sample


@dataclass(frozen=True, slots=True)
class Counts:
    """Attempts by version, and the account of the requests."""

    samples: Mapping[Revision, Sample] = field(default_factory=dict)
    books: Books = field(default_factory=Books)


@dataclass(slots=True)
class Ledger:
    """`total` was counted since the rollout began; `last` is what the router's counters said at the last look.

    `before` is the old version's sample when the new one got its first share. `gaps`: how often the router's
    counters began anew, so that what it had counted since the last look is unknown.
    """

    total: Counts = field(default_factory=Counts)
    last: Counts | None = None
    before: Sample | None = None
    gaps: int = 0

    def look(self, now: Counts) -> None:
        """Add what was counted since the last look."""
        now = Counts({v: replace(sample, parts={}) for v, sample in now.samples.items()}, now.books)
        last = self.last or now
        if now.books.total < last.books.total:
            self.gaps += 1
            last = Counts()
        empty = Sample()
        samples = dict(self.total.samples)
        for version, sample in now.samples.items():
            grown = since(sample, last.samples.get(version, empty))
            samples[version] = plus(samples.get(version, empty), grown)
        self.total = Counts(samples, _plus(self.total.books, _minus(now.books, last.books)))
        self.last = now

    def of(self, version: Revision | None) -> Sample | None:
        """The attempts on `version` since the rollout began."""
        return self.total.samples.get(version) if version else None


LEDGER = TypeAdapter(Ledger)


def encode(ledger: Ledger) -> dict[str, Any]:
    """`ledger` as JSON; `decode` reads it back."""
    document: dict[str, Any] = LEDGER.dump_python(ledger, mode="json")
    return document


def decode(document: Mapping[str, Any] | None) -> Ledger:
    """The ledger that `encode` wrote as `document`; a new one where nothing was written yet."""
    return LEDGER.validate_python(document) if document else Ledger()


def _plus(one: Books, other: Books) -> Books:
    return _each(one, other, 1)


def _minus(one: Books, other: Books) -> Books:
    return _each(one, other, -1)


def _each(one: Books, other: Books, sign: int) -> Books:
    merged: dict[str, Any] = {}
    for column in fields(Books):
        a, b = getattr(one, column.name), getattr(other, column.name)
        if isinstance(a, Mapping):
            merged[column.name] = {key: a.get(key, 0) + sign * b.get(key, 0) for key in sorted({*a, *b})}
        else:
            merged[column.name] = a + sign * b
    return Books(**merged)
