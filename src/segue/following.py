"""Reading a file of lines while it grows and is rotated: `name`, and what was in it before, `name.1`."""

from __future__ import annotations

from dataclasses import dataclass
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
