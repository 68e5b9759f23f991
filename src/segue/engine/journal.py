"""The journal: what was asked for and what was begun, on disk before it is done.

Rule 1: what must not be half-known is one transaction: a step's end and the turning back it causes, a
decision and the demand that follows from it.
Rule 2: events and samples are for people and statistics; they lie in a second file (`told.py`) that is synced less
often.
Rule 3: only the control plane that holds the home's lock opens the journal.
Rule 4: what came later is told by the order of rows and not by the time of day: the machine's clock may be set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from segue.core import demand as demands
from segue.core.demand import Demand
from segue.core.release import Revision
from segue.core.steps import Plan
from segue.engine import rows
from segue.engine.clock import Clock
from segue.engine.records import (
    ITSELF,
    IntentRecord,
    Parting,
    RolloutRecord,
    ServiceRecord,
    StepRecord,
    Takeover,
    VersionRecord,
)
from segue.engine.told import Told
from segue.errors import Usage
from segue.ports import Intent

REPEATED_WITHIN = timedelta(days=7)
"""So long the same request is given the same answer."""


class Journal(Told):
    """The journal of one home. Its methods are synchronous: when they return, it is written down."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__(folder, clock)
        self._services: dict[str, ServiceRecord] = {}

    @property
    def disk_full(self) -> bool:
        """Whether the disk is full; what turns a rollout back can still be written."""
        return self._db.disk_full

    @property
    def restored(self) -> bool:
        """Whether a file was damaged, so that its last copy stands in for it."""
        return self._db.restored

    def transaction(self) -> AbstractContextManager[None]:
        """All that is written inside is written together or not at all. May be nested."""
        return self._db.transaction()

    def copy(self, rollout: str) -> None:
        """Keep a copy of the journal to go back to, should it be damaged; `rollout` has ended."""
        self._db.copy(rollout)

    def close(self) -> None:
        """Close the files."""
        self._db.close()

    # Services and versions

    def put_service(self, service: ServiceRecord) -> None:
        """Write a service down, in place of what was known of it."""
        self._db.put("service", rows.service(service))
        self._services.pop(service.name, None)

    def change_service(self, name: str, **changes: Any) -> None:
        """Change what is known of a service that was written down."""
        if found := self.service(name):
            self.put_service(replace(found, **changes))

    def service(self, name: str) -> ServiceRecord | None:
        """The service called `name`, if it was written down."""
        if known := self._services.get(name):
            return known
        found = self._db.all("SELECT * FROM service WHERE name = ?", name)
        record = rows.read_service(found[0]) if found else None
        if record is not None and not self._db.writing:  # what is not committed may never have been
            self._services[name] = record
        return record

    def services(self) -> list[ServiceRecord]:
        """All services, by name."""
        return [rows.read_service(row) for row in self._db.all("SELECT * FROM service ORDER BY name")]

    def put_version(self, version: VersionRecord) -> None:
        """Write a revision of a version down."""
        self._db.put("version", rows.version(version))

    def versions(self, service: str) -> list[VersionRecord]:
        """A service's revisions that are known, oldest first."""
        found = self._db.all("SELECT * FROM version WHERE service = ? ORDER BY rowid", service)
        return [rows.read_version(row) for row in found]

    def drop_version(self, service: str, revision: Revision) -> None:
        """Forget a revision."""
        self._db.write("DELETE FROM version WHERE service = ? AND revision = ?", (service, revision))

    # Requests

    def answered(self, key: str, what: str | None = None) -> str | None:
        """The rollout that the request with this key was given, if it was answered.

        `what`: what is asked for now, if that is to be compared. Raises Usage if it was something else then.
        """
        found = self._db.all("SELECT rollout, what FROM request WHERE key = ?", key)
        if found and what and found[0]["what"] not in (what, None):  # an earlier version did not write it down
            raise Usage("another request had this Idempotency-Key: every new one needs its own")
        return str(found[0]["rollout"]) if found else None

    def put_request(self, key: str, rollout: str, what: str | None = None) -> None:
        """Write down that the request with this key is answered by `rollout`; what nobody repeats is forgotten."""
        now = self._clock.now()
        with self.transaction():
            self._db.write("DELETE FROM request WHERE at < ?", ((now - REPEATED_WITHIN).isoformat(),))
            self._db.put("request", {"key": key, "rollout": rollout, "at": now.isoformat(), "what": what})

    # Rollouts and their steps

    def put_rollout(self, rollout: RolloutRecord) -> None:
        """Write a rollout down, in place of what was known of it."""
        self._db.put("rollout", rows.rollout(rollout))

    def rollout(self, id: str) -> RolloutRecord | None:
        """The rollout called `id`."""
        found = self._db.all("SELECT * FROM rollout WHERE id = ?", id)
        return rows.read_rollout(found[0]) if found else None

    def rollouts(self, service: str | None = None, limit: int = -1) -> list[RolloutRecord]:
        """Rollouts, newest first."""
        return list(islice(self.past(service), limit if limit >= 0 else None))

    def past(self, service: str | None = None) -> Iterator[RolloutRecord]:
        """Rollouts, newest first: no more is read than is asked for."""
        of, whose = ("WHERE service = ?", [service]) if service else ("", [])
        found = self._db.each(f"SELECT * FROM rollout {of} ORDER BY rowid DESC", *whose)
        return (rows.read_rollout(row) for row in found)

    def promoted(self, service: str) -> Iterator[Takeover]:
        """What each rollout of `service` has brought to serve: the newest first."""
        found = self._db.each(
            "SELECT new, old, kind = 'rollback' AND who = ? AS failed FROM rollout"
            " WHERE service = ? AND outcome = 'promoted' AND release IS NOT NULL ORDER BY rowid DESC",
            ITSELF,
            service,
        )
        return (Takeover(row["new"], row["old"], bool(row["failed"])) for row in found)

    def unfinished(self, service: str) -> RolloutRecord | None:
        """The rollout of `service` that has not ended."""
        found = self._db.all("SELECT * FROM rollout WHERE service = ? AND ended IS NULL ORDER BY rowid", service)
        return rows.read_rollout(found[-1]) if found else None

    def steps(self, rollout: str) -> list[StepRecord]:
        """The steps of a rollout that have begun, in order."""
        found = self._db.all("SELECT * FROM step WHERE rollout = ? ORDER BY rowid", rollout)
        return [rows.read_step(row) for row in found]

    def begin(self, rollout: RolloutRecord, number: int, demand: Demand) -> None:
        """A step begins: from now on its demand is what must be true."""
        step = rollout.steps[number - 1]
        now = self._clock.now()
        with self.transaction():
            self._db.put("step", rows.step(rollout.id, StepRecord(rollout.way, number, step, demand, now)))
            self.set_demand(rollout.service, demand)

    def end(self, rollout: RolloutRecord, number: int, outcome: str, verdict: dict[str, Any] | None) -> None:
        """A step has ended."""
        self._db.write(
            "UPDATE step SET ended = ?, outcome = ?, verdict = ? WHERE rollout = ? AND way = ? AND number = ?",
            (
                self._clock.now().isoformat(),
                outcome,
                verdict and json.dumps(verdict),
                rollout.id,
                rollout.way,
                number,
            ),
        )

    def turn_back(
        self, rollout: RolloutRecord, back: Plan, at: Demand, reason: str, log: Sequence[str]
    ) -> RolloutRecord:
        """From now on only the way back exists for `rollout`. Call it in the transaction that ends the step."""
        turned = replace(rollout, back=back, turned=reason, turned_at=at, log=tuple(log))
        self.put_rollout(turned)
        return turned

    def set_demand(self, service: str, demand: Demand) -> None:
        """What must be true of `service` from now on."""
        text = json.dumps(demands.encode(demand))
        self._db.write("UPDATE service SET demand = ? WHERE name = ?", (text, service))
        self._services.pop(service, None)

    # Instances

    def put_intent(self, intent: Intent, restarts: int, checked: bool) -> None:
        """Write down that an instance is about to be started."""
        self._db.put("intent", rows.intent(IntentRecord(intent, restarts, False, checked)))

    def mark_intent(
        self, nonce: str, *, stopping: bool = False, checked: bool = False, parting: Parting | None = None
    ) -> None:
        """Write down that an instance has passed its checks, is leaving, or is about to be told to end.

        That it has passed may be lost with the machine, and the instance with it.
        """
        write = self._db.write if stopping or parting else self._db.write_soon
        write(
            "UPDATE intent SET stopping = stopping OR ?, checked = checked OR ?, parting = coalesce(?, parting)"
            " WHERE nonce = ?",
            (stopping, checked, parting and rows.parting(parting), nonce),
        )

    def drop_intent(self, nonce: str) -> None:
        """The instance behind an intent is gone. If this is lost, it is found out again."""
        self._db.write_soon("DELETE FROM intent WHERE nonce = ?", (nonce,))

    def intents(self, service: str) -> list[IntentRecord]:
        """The intents of a service that may have an instance behind them, oldest first."""
        found = self._db.all("SELECT * FROM intent WHERE service = ? ORDER BY rowid", service)
        return [rows.read_intent(row) for row in found]

    # Values

    def remember(self, key: str, value: str) -> None:
        """Write a value down under `key`, in place of the one that was there before."""
        self._db.put("meta", {"key": key, "value": value})

    def recall(self, key: str) -> str | None:
        """The value that was written down under `key`, if one was."""
        found = self._db.all("SELECT value FROM meta WHERE key = ?", key)
        return str(found[0]["value"]) if found else None
