"""What `segue explain` is answered: why a rollout went as it went, and what other settings would have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from segue.engine import documents
from segue.engine import ledger as ledgers
from segue.engine.control import ControlPlane
from segue.engine.explain import Told, explain
from segue.engine.journal import Journal
from segue.engine.otherwise import otherwise
from segue.engine.records import RolloutRecord
from segue.engine.replay import past
from segue.manifest.overrides import overrides

NEWEST = 100
"""So many of a service's rollouts are looked at for one that went back from a version in keep."""


async def explanation(control: ControlPlane, record: RolloutRecord, replay: Sequence[str]) -> dict[str, Any]:
    """The rollout, why it went so, and with `replay`, settings as ``KEY=VALUE``, what they would have changed.

    Raises Usage for a setting that is none, Refused where there is nothing to judge again.
    """
    changes = overrides(replay)
    await control.look(record)
    journal = control.journal
    record = journal.rollout(record.id) or record
    steps, events = journal.steps(record.id), list(journal.all_events(record.id))
    found = past(record, steps, events, journal.polls(record.id)) if changes else None
    told = Told(
        record,
        steps,
        events,
        journal.versions(record.service),
        documents.requests(ledgers.decode(journal.ledger(record.id))),
        list(_later(journal, record)),
    )
    return {
        **documents.rollout(record),
        **explain(told, control.world.clock.now()),
        "replay": await asyncio.to_thread(otherwise, found, changes) if found else None,
    }


def _later(journal: Journal, record: RolloutRecord) -> Iterator[RolloutRecord]:
    """The rollout in which Segue went back from the version that `record` promoted, while the old one was kept."""
    for one in islice(journal.past(record.service), NEWEST):
        if one.id == record.id:
            return
        if one.kind == "rollback" and one.who == "segue" and (one.old, one.new) == (record.new, record.old):
            yield one
