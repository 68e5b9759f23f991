"""The copy of the journal to go back to, should that be damaged: brought up to date, and not written anew.

What is live is written again each time. Rollouts that have ended are not, for they never change: to copy a year of
them takes a second, in which nothing else would be done.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

LIVE = "meta", "service", "version", "request", "intent"

_RUNNING = "SELECT id FROM main.rollout WHERE ended IS NULL UNION SELECT id FROM spare.rollout WHERE ended IS NULL"
_LACKING = "SELECT id FROM main.rollout WHERE id NOT IN (SELECT id FROM spare.rollout)"


class Spare:
    """The copy at `path` of the journal that `db` has open. Nothing is read or written before the first `update`."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db, self._path = db, path
        self._attached = self._complete = False

    def update(self, rollout: str) -> None:
        """Bring it up to date, with `rollout`, which has ended. Without room for that it stays as it was."""
        try:
            if not self._attached:
                self._attach()
            lacking = [] if self._complete else self._ids(_LACKING)
            self._write({rollout, *self._ids(_RUNNING), *lacking})
            self._complete = True
        except (sqlite3.OperationalError, OSError):
            return
        except sqlite3.DatabaseError:  # it is damaged itself
            self._drop()

    def _attach(self) -> None:
        """Have it beside the journal: as it is there, or made of the whole journal."""
        self._open()
        if any(self._columns("main", table) != self._columns("spare", table) for table in (*LIVE, "rollout", "step")):
            self._drop()
            self._make()
            self._open()

    def _open(self) -> None:
        self._db.execute("ATTACH ? AS spare", (str(self._path),))
        self._attached = True
        self._db.execute("PRAGMA spare.synchronous=NORMAL")

    def _columns(self, of: str, table: str) -> list[str]:
        return [row["name"] for row in self._db.execute(f"PRAGMA {of}.table_info({table})")]

    def _make(self) -> None:
        fresh = self._path.with_suffix(".new")
        try:
            with closing(sqlite3.connect(fresh)) as whole:
                self._db.backup(whole)
            fresh.replace(self._path)
        finally:
            fresh.unlink(missing_ok=True)  # a disk that is full gets its room back

    def _drop(self) -> None:
        if self._attached:
            self._attached = self._complete = False
            self._db.execute("DETACH spare")
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    def _ids(self, query: str) -> list[str]:
        return [row["id"] for row in self._db.execute(query)]

    def _write(self, rollouts: Iterable[str]) -> None:
        """Copy all that is live, and these rollouts with their steps, in one transaction: in their places."""
        these = [(rollout,) for rollout in sorted(rollouts)]
        self._db.execute("BEGIN")
        try:
            for table in LIVE:
                self._db.execute(f"DELETE FROM spare.{table}")
                self._db.execute(self._copied(table))
            for table, key in (("rollout", "id"), ("step", "rollout")):
                self._db.executemany(f"DELETE FROM spare.{table} WHERE {key} = ?", these)
                self._db.executemany(f"{self._copied(table)} WHERE {key} = ?", these)
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.OperationalError):  # some errors have rolled it back already
                self._db.execute("ROLLBACK")
            raise

    def _copied(self, table: str) -> str:
        """What copies rows of `table`: what came later is told by their numbers, which are kept."""
        names = ", ".join(("rowid", *self._columns("main", table)))
        return f"INSERT INTO spare.{table} ({names}) SELECT {names} FROM main.{table}"
