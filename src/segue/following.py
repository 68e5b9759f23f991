"""A file of lines that grows and is rotated: `name`, and what was in it before, `name.1`. Reading it, cutting it.

Rule: who writes holds the file open and only ever appends. So it is rotated by copying it and cutting it off; what
is written in the microseconds between the copy's end and the cut is lost.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path


@dataclass(slots=True)
class Follower:
    """A reader of a log that grows and is rotated. `generation` changes with a rotation."""

    file: Path
    position: int
    generation: int | None
    rest: bytes = b""

    @classmethod
    def from_the_start(cls, file: Path) -> Follower:
        """A reader of all that is there, also of what was rotated last."""
        return cls(file, 0, None)

    def news(self) -> list[str]:
        """The lines that have become whole since the last look."""
        *whole, self.rest = (self.rest + self._read()).split(b"\n")
        return [text_of(line) for line in whole]

    def _read(self) -> bytes:
        last = rotated(self.file, 1)
        missed, position = b"", self.position
        if (generation := inode(last)) != self.generation:
            missed, position = _from(last, position), 0
        new = _from(self.file, position)
        self.generation, self.position = generation, position + len(new)  # at the end: reading may fail
        return missed + new


def rotated(file: Path, number: int) -> Path:
    """Where the `number`-th last part of `file` is, from 1."""
    return file.with_name(f"{file.name}.{number}")


def rotate(file: Path, keep: int) -> None:
    """Give what is in `file` another name and leave it empty; `keep` rotated ones stay, 1 or more. Raises OSError."""
    before = [rotated(file, number) for number in range(1, keep + 1)]
    before[-1].unlink(missing_ok=True)  # first of all: it makes room
    for newer, older in reversed(list(pairwise(before))):
        if newer.exists():
            newer.rename(older)
    draft = file.with_suffix(".draft")
    with file.open("r+b") as source, draft.open("wb") as target:
        os.fchmod(target.fileno(), 0o600)
        shutil.copyfileobj(source, target)
        shutil.copyfileobj(source, target)  # what has come meanwhile: the shorter it takes, the less is lost
        source.truncate(0)
    draft.rename(before[0])


def size_of(file: Path) -> int:
    """The bytes of `file`; none where it is not there."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def inode(file: Path) -> int | None:
    """What tells `file` from another one of the same name."""
    try:
        return file.stat().st_ino
    except FileNotFoundError:
        return None


def _from(file: Path, position: int) -> bytes:
    try:
        with file.open("rb") as source:
            source.seek(position)
            return source.read()
    except FileNotFoundError:
        return b""


def text_of(line: bytes) -> str:
    """A line as text, without its end."""
    return line.decode(errors="replace").rstrip("\r\n")
