"""Claims: files that whoever is first to make them wins. A launcher's claim says who it is.

A claim is ``<boot id> <pid> <start time> <time of day>``, or one word: the start was given up, or what was
started has ended and everything it left is gone. So a claim answers, after any crash, what became of a start.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from segue.platforms.identity import Identity
from segue.platforms.launch import put

GIVEN_UP, OVER = "given-up", "over"
ENDED = frozenset((GIVEN_UP, OVER))


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim's file says: who was started and when, or neither."""

    identity: Identity | None
    started: datetime | None


def read(file: Path) -> Claim | None:
    """What `file` says; None: nobody has claimed it."""
    try:
        words = file.read_text().split()
    except FileNotFoundError:
        return None
    if len(words) != 4:
        return Claim(None, None)
    boot, pid, started, time = words
    return Claim(Identity(boot, int(pid), started), datetime.fromtimestamp(float(time), UTC))


def give_up(file: Path) -> Claim:
    """What `file` says; if nobody has claimed it, claim it so that nobody can start any more."""
    found = read(file)
    if found is None:
        put(str(file), GIVEN_UP, first=True)
        found = read(file)
    return found or Claim(None, None)


def close(file: Path) -> None:
    """Note that what was started has ended and that nothing is left of it."""
    put(str(file), OVER)
