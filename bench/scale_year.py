"""A year of history: ten rollouts a day of one service, one a day of each of the others.

One real rollout is carried out; the year is that one's record, written again and again through the journal.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from scale_home import Home
from scale_runs import ROLLING

from segue.core.release import Revision
from segue.engine.journal import Journal
from segue.engine.records import RolloutRecord, StepRecord

DAYS = 365
OFTEN = 10
"""Rollouts a day of the first service."""


_EVENTS = """
INSERT INTO told.event (at, event, service, rollout, body)
SELECT ?, event, ?, ?, body FROM told.event WHERE rollout = ? ORDER BY seq"""
"""Four million of them are written by SQLite alone."""


@dataclass
class Past:
    """A clock that says what it is told."""

    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def now(self) -> datetime:
        """The time of day that is wanted."""
        return self.at

    def follow(self) -> None:
        """It is set by hand."""

    def monotonic(self) -> float:
        """Nobody asks."""
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        """Nobody waits."""
        raise NotImplementedError


@dataclass(frozen=True)
class Template:
    """What was written down of one rollout; its events stay where they are."""

    record: RolloutRecord
    steps: Sequence[StepRecord]
    ledger: dict[str, object]


def live(home: Home) -> int:
    """Have the home look as after a year of deployments; returns how many there were."""
    with home.plane() as plane:
        rollout = plane.ask("POST", "/v1/services/s0/rollouts", home.order(0, "next", ROLLING))["rollout"]
        for _ in plane.events(f"/v1/rollouts/{rollout}/events"):
            pass
    home.end_envoy()
    clock = Past()
    journal = Journal(home.folder / "journal", clock)
    services = journal.services()
    template = _template(journal, rollout)
    written = 0
    for day in range(DAYS, 0, -1):
        with journal.transaction():
            for name, ago in _day(home.services, day):
                clock.at = datetime.now(UTC) - ago
                _write(journal, template, name, written, clock)
                written += 1
    with journal.transaction():
        for service in services:
            journal.put_service(service)
    journal.copy(rollout)
    journal.close()
    return written


def _day(services: int, days: int) -> Iterator[tuple[str, timedelta]]:
    """Who is deployed so many days ago, and exactly when, in order."""
    each = [(f"s{number}", timedelta(days=days, seconds=-number)) for number in range(services)]
    often = [("s0", timedelta(days=days, hours=-number)) for number in range(1, OFTEN)]
    return iter(sorted([*each, *often], key=lambda one: -one[1]))


def _template(journal: Journal, rollout: str) -> Template:
    record, ledger = journal.rollout(rollout), journal.ledger(rollout)
    assert record is not None
    assert ledger is not None
    return Template(record, journal.steps(rollout), ledger)


def _write(journal: Journal, template: Template, service: str, number: int, clock: Past) -> None:
    """Write the template down as a rollout of `service` that began when the clock says."""
    began = clock.now()
    shift = began - template.record.started
    record = replace(
        template.record,
        id=f"{began:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
        service=service,
        old=Revision(f"r{number - 1}.1"),
        new=Revision(f"r{number}.1"),
        started=began,
        decided=(template.record.decided or began) + shift,
        ended=(template.record.ended or began) + shift,
    )
    journal.put_request(secrets.token_hex(16), record.id)
    for step in template.steps:
        clock.at = step.began + shift
        journal.begin(record, step.number, step.demand)
        clock.at = (step.ended or step.began) + shift
        journal.end(record, step.number, step.outcome or "done", step.verdict)
    journal._db.write(_EVENTS, (began.isoformat(), service, record.id, template.record.id))
    journal.put_ledger(record.id, template.ledger)
    journal.put_rollout(record)
