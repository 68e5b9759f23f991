"""The journal's files: opened, mended, copied, and written in transactions, also when the disk is full."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from errno import ENOSPC
from pathlib import Path
from typing import Any

from segue.engine.clock import Clock
from segue.engine.spare import Spare
from segue.errors import DiskFull

RESERVE_BYTES = 4 << 20
"""Room kept aside so that a rollout can be turned back on a full disk."""

_NO_ROOM = sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE
"""What SQLite says of a full disk: the second one where the index of what waits to be merged has to grow."""

KEPT_DAMAGED = 3
"""So many damaged journals are kept, the newest."""


class Database:
    """Two SQLite files in `folder` as one database: ``journal`` synced at each commit, ``events`` less often.

    `added`: columns that came with later versions, by table.
    `restored`: a file was damaged, and its last good copy has taken its place. `written` is called after each
    transaction.
    """

    def __init__(
        self,
        folder: Path,
        schema: str,
        clock: Clock,
        written: Callable[[], None],
        added: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._full = False
        self._statements: list[tuple[str, Sequence[Any] | dict[str, Any]]] = []
        self._folder, self._written, self._depth = folder, written, 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.restored = self._mend("journal", clock) | self._mend("events", clock)
        self._db = self._open(schema)
        self._spare = Spare(self._db, folder / "journal.copy.db")
        for table, column in added:
            self._add(table, column)
        self._keep_reserve()

    def _open(self, schema: str) -> sqlite3.Connection:
        db = sqlite3.connect(self._folder / "journal.db", isolation_level=None)
        db.row_factory = sqlite3.Row
        db.execute("ATTACH ? AS told", (str(self._folder / "events.db"),))
        for part, level in (("main", "FULL"), ("told", "NORMAL")):
            db.execute(f"PRAGMA {part}.journal_mode=WAL")
            db.execute(f"PRAGMA {part}.synchronous={level}")
        db.executescript(schema)
        return db

    def _add(self, table: str, column: str) -> None:
        """Give `table` the column that one of an earlier version lacks."""
        if column not in {row["name"] for row in self.all(f"PRAGMA table_info({table})")}:
            self.write(f"ALTER TABLE {table} ADD COLUMN {column} TEXT", ())

    def _mend(self, name: str, clock: Clock) -> bool:
        """Put a damaged file aside; in its place, or a lost one's, its last good copy. Returns whether it was so."""
        path, copy = self._folder / f"{name}.db", self._folder / f"{name}.copy.db"
        if _sound(path) if path.exists() else not copy.exists():
            return False
        stamp = clock.now().strftime("%Y%m%dT%H%M%S")
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{path}{suffix}").rename(self._folder / f"{name}.damaged-{stamp}.db{suffix}")
        self._forget_damaged(name)
        if copy.exists() and _sound(copy):
            with closing(sqlite3.connect(copy)) as spare, closing(sqlite3.connect(path)) as mended:
                spare.backup(mended)
        return True

    def _forget_damaged(self, name: str) -> None:
        """Keep the newest of the damaged files for whoever wants to look at them; the disk is not theirs."""
        found = sorted(self._folder.glob(f"{name}.damaged-*"), key=lambda path: path.stat().st_mtime, reverse=True)
        stamps = list(dict.fromkeys(path.name.partition(".db")[0] for path in found))
        for path in found:
            if path.name.partition(".db")[0] in stamps[KEPT_DAMAGED:]:
                path.unlink()

    def copy(self, rollout: str) -> None:
        """Keep a copy of the journal to go back to, should it be damaged; `rollout` has ended since the last time."""
        self._spare.update(rollout)
        self._keep_reserve()

    def close(self) -> None:
        """Close the files."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside is written together or not at all. May be nested.

        Where the disk fills up meanwhile the room that was kept aside is used, and what was written is written again.
        """
        if self._depth:
            yield
            return
        if not self._full and _room(self._folder) < RESERVE_BYTES:
            self._full = True  # what is kept aside is given up when it is needed: before, others would take it
        self._db.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
            self._with_room(self._db.commit)
        finally:
            self._db.rollback()  # where it was committed there is nothing to undo
            self._depth -= 1
            self._statements.clear()
            self._written()

    def _with_room(self, write: Callable[[], object]) -> object:
        """Do what `write` does; if the disk is full, once more with the room that can be made. Raises DiskFull.

        That is what was kept aside, and what the files that wait to be merged have grown to.
        """
        with suppress(DiskFull), _space():
            return write()
        self._free_reserve()
        self._db.rollback()  # SQLite may have done so itself, with all that was written before
        with suppress(sqlite3.OperationalError):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._db.execute("BEGIN IMMEDIATE")
        with _space():
            for sql, values in self._statements:
                self._db.execute(sql, values)
            return write()

    @property
    def disk_full(self) -> bool:
        """Whether there is hardly any room but what was kept aside, or not even that."""
        if self._full:
            self._keep_reserve()
        return self._full

    @property
    def writing(self) -> bool:
        """Whether a transaction is under way."""
        return self._depth > 0

    def write(self, sql: str, values: Sequence[Any] | dict[str, Any]) -> None:
        """Execute one statement that writes."""
        with self.transaction():
            self._with_room(lambda: self._db.execute(sql, values))
            self._statements.append((sql, values))

    def write_soon(self, sql: str, values: Sequence[Any]) -> None:
        """As `write`, but not waited for: it is lost if the machine goes down before the next one that is."""
        if self.writing:
            return self.write(sql, values)
        self._db.execute("PRAGMA main.synchronous=NORMAL")
        try:
            self.write(sql, values)
        finally:
            self._db.execute("PRAGMA main.synchronous=FULL")

    def put(self, table: str, values: dict[str, Any]) -> None:
        """Write a row, in place of the one with the same key: it keeps that one's place in the order of rows."""
        names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
        new = ", ".join(f"{name} = excluded.{name}" for name in values)
        self.write(f"INSERT INTO {table} ({names}) VALUES ({marks}) ON CONFLICT DO UPDATE SET {new}", values)

    def all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """The rows that a query finds."""
        return self._db.execute(sql, values).fetchall()

    def each(self, sql: str, *values: Any) -> Iterator[sqlite3.Row]:
        """The rows that a query finds, one after the other: no more is read than is asked for."""
        return iter(self._db.execute(sql, values))

    def _keep_reserve(self) -> None:
        try:
            if _room(self._folder) > 4 * RESERVE_BYTES:
                reserve = self._folder / "reserve"
                if not reserve.exists() or reserve.stat().st_size < RESERVE_BYTES:
                    reserve.write_bytes(b"\0" * RESERVE_BYTES)
                self._full = False
        except OSError:
            self._free_reserve()

    def _free_reserve(self) -> None:
        self._full = True
        with suppress(FileNotFoundError):
            (self._folder / "reserve").unlink()


@contextmanager
def _space() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode not in _NO_ROOM:
            raise
        raise DiskFull(ENOSPC, "the disk is full") from error


def _sound(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path)) as db:
            return [row[0] for row in db.execute("PRAGMA quick_check")] == ["ok"]
    except sqlite3.DatabaseError:
        return False


def _room(folder: Path) -> int:
    """Bytes that can still be written below `folder`."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
