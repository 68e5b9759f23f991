"""The moments of a rollout, told apart by its entries in the journal, which is read from outside.

Rule 1: the product knows nothing of this: the journal's file is read while the control plane writes it.
Rule 2: which moments there are is read from what was written of a rollout that nobody disturbed. A list by hand would
miss the step that is added tomorrow.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import NamedTuple, Protocol, TypeVar

from segue.core.demand import Demand
from segue.core.steps import Plan, Scale, Step, decision
from segue.engine import rows
from segue.engine.records import RolloutRecord

T = TypeVar("T")

SHORT = 0.01
"""Seconds: what is shorter is over before one has thought about it, so it is struck at once."""

LOOK_EVERY = 0.001
"""Seconds between two looks into the journal by who waits for an entry."""


def until(what: Callable[[], T | None], within: float = 60.0, every: float = 0.002) -> T:
    """The first true value of `what`; TimeoutError after `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := what()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} s; the last value was {value!r}")
        time.sleep(every)
    return value


class Witness:
    """Reads the journal of `home` while a control plane writes it."""

    def __init__(self, home: Path) -> None:
        self._path = home / "journal" / "journal.db"

    def latest(self) -> RolloutRecord | None:
        """The newest rollout."""
        found = self._ask("SELECT * FROM rollout ORDER BY rowid DESC LIMIT 1")
        return rows.read_rollout(found[0]) if found else None

    def entries(self, rollout: str) -> dict[str, datetime]:
        """What was written of a rollout and when, in that order.

        ``accepted``, ``there 1 began``, ``there 1 ended``, …, ``back 1 began``, …, ``decided``, ``ended``.
        """
        with suppress(sqlite3.Error), closing(self._open()) as db:
            return _entries(db, rollout)
        return {}

    def wait(self, rollout: str, entry: str, within: float = 60.0) -> None:
        """Return as soon as `entry` is written. Raises TimeoutError after `within` seconds."""
        deadline, seen = time.monotonic() + within, None
        with closing(self._open()) as db:
            while time.monotonic() < deadline:
                written = db.execute("PRAGMA data_version").fetchone()[0]
                if written != seen and entry in _entries(db, rollout):
                    return
                seen = written
                time.sleep(LOOK_EVERY)
        raise TimeoutError(f"{entry!r} was not written within {within:g} s")

    def gaps(self, rollout: str) -> list[Gap]:
        """What lies between the entries of a rollout that has ended."""
        found = self._ask("SELECT * FROM rollout WHERE id = ?", rollout)
        return list(_gaps(rows.read_rollout(found[0]), self.entries(rollout)))

    def _ask(self, sql: str, *values: str) -> list[sqlite3.Row]:
        """No connection is kept: the journal is the control plane's. It may be about to be mended."""
        with suppress(sqlite3.Error), closing(self._open()) as db:
            return db.execute(sql, values).fetchall()
        return []

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)
        db.row_factory = sqlite3.Row
        return db


def _entries(db: sqlite3.Connection, rollout: str) -> dict[str, datetime]:
    found: dict[str, str | None] = {}
    for row in db.execute("SELECT started FROM rollout WHERE id = ?", (rollout,)):
        found["accepted"] = row["started"]
    order = "ORDER BY way DESC, number"  # there, then back
    for row in db.execute(f"SELECT way, number, began, ended FROM step WHERE rollout = ? {order}", (rollout,)):
        found[f"{row['way']} {row['number']} began"] = row["began"]
        found[f"{row['way']} {row['number']} ended"] = row["ended"]
    for row in db.execute("SELECT decided, ended FROM rollout WHERE id = ?", (rollout,)):
        found |= {"decided": row["decided"], "ended": row["ended"]}
    read = {name: datetime.fromisoformat(at) for name, at in found.items() if at is not None}
    return dict(sorted(read.items(), key=lambda entry: entry[1]))


class Occasion(Protocol):
    """Something to wait for in a rollout."""

    def entry(self, rollout: RolloutRecord, random: Random) -> str:
        """The entry of the journal after which it has come."""
        ...

    def delay(self, random: Random) -> float:
        """The seconds from there on."""
        ...


class Gap(NamedTuple):
    """What lies between two entries that follow one another: `opens` and `closes`, `seconds` apart where nobody
    disturbs. `name`: such as ``before 4 shift``, ``between 4 shift`` (its own two entries), ``after 10 judge``."""

    name: str
    opens: str
    closes: str
    seconds: float

    def __str__(self) -> str:
        return self.name

    def entry(self, rollout: RolloutRecord, random: Random) -> str:
        """The entry that opens it."""
        return self.opens

    def delay(self, random: Random) -> float:
        """Anywhere in it, so that it is not over yet."""
        return random.uniform(0, 0.9 * self.seconds) if self.seconds > SHORT else 0.0


def _gaps(rollout: RolloutRecord, entries: Mapping[str, datetime]) -> Iterator[Gap]:
    for (opens, at), (closes, then) in pairwise(entries.items()):
        yield Gap(_name(rollout, opens, closes), opens, closes, (then - at).total_seconds())


def _name(rollout: RolloutRecord, opens: str, closes: str) -> str:
    """After a step is before the next one: of the two names it has the second."""
    if opens.endswith("began"):
        return f"between {_step(rollout, opens)}"
    if closes.endswith("began"):
        return f"before {_step(rollout, closes)}"
    return "tidying up" if opens == "decided" else f"after {_step(rollout, opens)}"


def _step(rollout: RolloutRecord, entry: str) -> str:
    way, number, _ = entry.split()
    kind = kinds(rollout, way)[int(number) - 1]
    return f"{number} {kind}" if way == "there" else f"back {number} {kind}"


class Moment(StrEnum):
    """Where in a step, by its two entries."""

    BEFORE = "before"
    BETWEEN = "between"
    AFTER = "after"


LONGEST = {"run": 0.05, "scale up": 0.3, "scale down": 0.1, "judge": 0.3}
"""So many seconds such a step surely takes; others may be over at once."""


class Point(NamedTuple):
    """A step of the kind `what` on the way there, and where in it; of several steps of that kind one is drawn."""

    what: str
    moment: Moment

    def __str__(self) -> str:
        return f"{self.moment} {self.what}"

    def entry(self, rollout: RolloutRecord, random: Random) -> str:
        """The entry after which it has come."""
        begun = kinds(rollout, "there")[
            : decision(rollout.plan)
        ]  # what follows is demanded at once, and begins as no step
        number = random.choice([n for n, kind in enumerate(begun, 1) if kind == self.what])
        if self.moment is Moment.BEFORE:
            return f"there {number - 1} ended" if number > 1 else "accepted"
        return f"there {number} {'began' if self.moment is Moment.BETWEEN else 'ended'}"

    def delay(self, random: Random) -> float:
        """Anywhere in the step, or at once."""
        return random.uniform(0, LONGEST.get(self.what, 0.0)) if self.moment is Moment.BETWEEN else 0.0


def kinds(rollout: RolloutRecord, way: str) -> list[str]:
    """What the steps of one of the rollout's plans are: ``run``, ``scale up``, ``shift`` …"""
    if way == "there":
        return list(_kinds(rollout.plan, rollout.start))
    assert rollout.turned_at is not None
    return list(_kinds(rollout.back, rollout.turned_at))


def _kinds(plan: Plan, demand: Demand) -> Iterator[str]:
    for step in plan:
        yield _kind(step, demand)
        demand = demand.after(step)


def _kind(step: Step, before: Demand) -> str:
    if isinstance(step, Scale):
        return "scale up" if step.count > before.count(step.version) else "scale down"
    return type(step).__name__.lower()
