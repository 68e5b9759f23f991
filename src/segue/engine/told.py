"""What people are told and what the judge has seen: the journal's second file, which is synced less often.

Rule: what is here may be lost with the machine's last seconds. Nothing that must be true is read from it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from segue.engine import rows
from segue.engine.clock import Clock
from segue.engine.database import Database
from segue.engine.records import Event
from segue.errors import DiskFull
from segue.judge.experiment import Seen


class Visitor(NamedTuple):
    """Somebody who takes part in an experiment: a digest of who it is, on which version, and whether at the goal."""

    who: bytes
    new: bool
    reached: bool


class Told:
    """The database of one home, and what is told in it. Methods are synchronous."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._clock = clock
        self._followers: dict[asyncio.Event, tuple[str | None, str | None]] = {}
        self._told: list[tuple[str | None, str | None]] = []
        self._db = Database(folder, rows.SCHEMA, clock, self._wake, rows.ADDED)

    # Events

    def tell(self, event: str, *, service: str | None = None, rollout: str | None = None, **body: Any) -> None:
        """Tell clients that something happened."""
        self._told.append((rollout, service))
        self._db.put(
            "told.event",
            {
                "at": self._clock.now().isoformat(),
                "event": event,
                "service": service,
                "rollout": rollout,
                "body": json.dumps(body),
            },
        )

    def events(self, after: int = 0, *, rollout: str | None = None, service: str | None = None) -> list[Event]:
        """Events after the one numbered `after`, in order."""
        named = {"rollout": rollout, "service": service}
        wanted = {column: value for column, value in named.items() if value is not None}
        of = "".join(f" AND {column} = ?" for column in wanted)
        sql = f"SELECT * FROM told.event WHERE seq > ?{of} ORDER BY seq LIMIT 1000"
        return [rows.read_event(row) for row in self._db.all(sql, after, *wanted.values())]

    def all_events(self, rollout: str) -> Iterator[Event]:
        """Every event of `rollout`, in order."""
        after = 0
        while found := self.events(after, rollout=rollout):
            yield from found
            after = found[-1].seq

    async def follow(
        self, after: int = 0, *, rollout: str | None = None, service: str | None = None
    ) -> AsyncIterator[Event]:
        """Events after the one numbered `after`, and then all that come, for ever."""
        news = asyncio.Event()
        self._followers[news] = rollout, service
        try:
            while True:
                news.clear()
                found = self.events(after, rollout=rollout, service=service)
                for event in found:
                    after = event.seq
                    yield event
                if not found:
                    await news.wait()
        finally:
            del self._followers[news]

    def _wake(self) -> None:
        """Wake those who follow what was told: a hundred rollouts have a hundred followers."""
        told, self._told = self._told, []
        for news, (rollout, service) in self._followers.items():
            if any(rollout in (None, its_rollout) and service in (None, whose) for its_rollout, whose in told):
                news.set()

    def last_seq(self) -> int:
        """The number of the newest event."""
        return int(self._db.all("SELECT coalesce(max(seq), 0) AS seq FROM told.event")[0]["seq"])

    # What the judge has seen

    def put_ledger(self, rollout: str, document: dict[str, Any]) -> None:
        """Write down what has been counted for a rollout so far, if there is room."""
        with suppress(DiskFull):
            self._db.put("told.ledger", {"rollout": rollout, "body": json.dumps(document)})

    def ledger(self, rollout: str) -> dict[str, Any] | None:
        """What has been counted for a rollout."""
        found = self._db.all("SELECT body FROM told.ledger WHERE rollout = ?", rollout)
        return json.loads(found[0]["body"]) if found else None

    def put_poll(self, rollout: str, document: dict[str, Any]) -> None:
        """Write down what was counted since the last look, so that it can be judged again after a crash.

        With little room it is not, for there is a way back to be written: what was heard is known all the same as
        long as this process lives.
        """
        if not self._db.disk_full:
            with suppress(DiskFull):
                self._db.put("told.poll", {"rollout": rollout, "body": json.dumps(document)})

    def poll(self, rollout: str, what: str) -> dict[str, Any] | None:
        """The first of a rollout's entries that is of this kind."""
        sql = "SELECT body FROM told.poll WHERE rollout = ? AND json_extract(body, '$.what') = ? ORDER BY seq LIMIT 1"
        return next((json.loads(row["body"]) for row in self._db.all(sql, rollout, what)), None)

    def polls(self, rollout: str) -> list[dict[str, Any]]:
        """What was counted for a rollout, look by look."""
        found = self._db.all("SELECT body FROM told.poll WHERE rollout = ? ORDER BY seq", rollout)
        return [json.loads(row["body"]) for row in found]

    def drop_polls(self, rollouts: Sequence[str]) -> None:
        """Forget the single looks of old rollouts; their ledgers stay."""
        for rollout in rollouts:
            self._db.write("DELETE FROM told.poll WHERE rollout = ?", (rollout,))

    # Who takes part in an experiment

    def put_visitors(self, rollout: str, seen: Sequence[Visitor]) -> None:
        """Write down who was seen. Who was seen before stays with the first version, and at the goal.

        Raises DiskFull.
        """
        with self._db.transaction():
            for visitor in seen:
                self._db.write(
                    "INSERT INTO told.visitor VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (rollout, who) DO UPDATE SET reached = reached OR excluded.reached",
                    (rollout, visitor.who, visitor.new, visitor.reached),
                )

    def visitors(self, rollout: str) -> Seen:
        """How many were seen with each version, and how many of them at the goal."""
        kept = self._db.all("SELECT * FROM told.experiment WHERE rollout = ?", rollout)
        if kept:
            return Seen(**{key: kept[0][key] for key in ("new", "old", "reached_new", "reached_old")})
        found = self._db.all(
            "SELECT new, count(*) AS users, sum(reached) AS reached FROM told.visitor WHERE rollout = ? GROUP BY new",
            rollout,
        )
        users = {bool(row["new"]): (row["users"], row["reached"]) for row in found}
        (new, reached_new), (old, reached_old) = users.get(True, (0, 0)), users.get(False, (0, 0))
        return Seen(new, old, reached_new, reached_old)

    def conclude(self, rollouts: Sequence[str]) -> None:
        """Of the experiments that these were keep the numbers alone, and nobody."""
        for rollout in rollouts:
            if self._db.all("SELECT 1 FROM told.visitor WHERE rollout = ? LIMIT 1", rollout):
                with self._db.transaction():
                    self._db.put("told.experiment", {"rollout": rollout, **asdict(self.visitors(rollout))})
                    self._db.write("DELETE FROM told.visitor WHERE rollout = ?", (rollout,))
