"""A disk that fills up while something is written: it is written all the same, whole, with the room kept aside."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segue.engine import database as database_module
from segue.engine.database import RESERVE_BYTES, Database
from segue.errors import DiskFull
from segue.testing.clock import VirtualClock

SCHEMA = "CREATE TABLE IF NOT EXISTS line (number INTEGER PRIMARY KEY, text TEXT);"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "journal", SCHEMA, VirtualClock(), lambda: None)
    yield made
    made.close()


def put(database: Database, number: int, text: str = "x") -> None:
    database.put("line", {"number": number, "text": text})


def numbers(database: Database) -> list[int]:
    return [row["number"] for row in database.all("SELECT number FROM line ORDER BY number")]


def limit(database: Database, monkeypatch: pytest.MonkeyPatch, *, frees: bool = True) -> None:
    """From now on there is no room; with what is kept aside there is some again, if it `frees` any."""
    pages = database.all("PRAGMA page_count")[0][0]
    database._db.execute(f"PRAGMA max_page_count = {pages}")
    free = database._free_reserve

    def freed() -> None:
        free()
        if frees:
            database._db.execute("PRAGMA max_page_count = 1000000")

    monkeypatch.setattr(database, "_free_reserve", freed)


def test_a_statement_for_which_there_is_no_room_is_written_with_all_before_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(database, monkeypatch)
    with database.transaction():
        for number in range(5):
            put(database, number, "long" * 1000)
    assert numbers(database) == [0, 1, 2, 3, 4]
    assert not (database._folder / "reserve").exists()
    put(database, 5)
    assert numbers(database) == [0, 1, 2, 3, 4, 5], "what was written is not written again"


class Filling:
    """A connection whose disk is full at the next commit: SQLite undoes the transaction by itself."""

    def __init__(self, db: sqlite3.Connection, times: int) -> None:
        self._db, self.times = db, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def commit(self) -> None:
        if self.times:
            self.times -= 1
            self._db.rollback()
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        self._db.commit()


def test_a_disk_that_is_full_at_the_commit_costs_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_db", Filling(database._db, 1))
    with database.transaction():
        put(database, 1)
        with database.transaction():
            put(database, 2)
    assert numbers(database) == [1, 2]


def test_where_not_even_the_reserve_helps_nothing_is_written_and_that_is_said(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(database, 1)
    monkeypatch.setattr(database, "_db", Filling(database._db, 2))
    with pytest.raises(DiskFull, match="disk is full"):
        put(database, 2)
    assert numbers(database) == [1]
    put(database, 3)
    assert numbers(database) == [1, 3]


def test_what_is_kept_aside_is_not_given_up_before_it_is_needed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_room", lambda _: RESERVE_BYTES - 1)  # somebody fills the disk
    put(database, 1)
    assert database.disk_full
    assert (database._folder / "reserve").stat().st_size == RESERVE_BYTES, "he would fill that as well"
    monkeypatch.setattr(database_module, "_room", lambda _: 10 * RESERVE_BYTES)
    assert not database.disk_full


def test_what_fails_inside_is_undone_and_not_repeated(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction():
        put(database, 1)
        raise ZeroDivisionError
    put(database, 2)
    assert numbers(database) == [2]
    assert (database._folder / "reserve").stat().st_size == RESERVE_BYTES
