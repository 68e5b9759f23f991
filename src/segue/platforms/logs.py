"""The instances' output: one file each, which outlives restarts of the instance and of the control plane."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from segue import following
from segue.core.traffic import InstanceId, VersionId, copied
from segue.errors import SegueError
from segue.following import Follower, inode, rotated, size_of, text_of

_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Logs:
    """The logs in `folder`. `limit`: bytes after which one is rotated; `keep`: how many rotated ones stay, 1 or more.

    `every`: seconds between two looks at a log that is followed.
    """

    folder: Path
    limit: int = 10 * 1024 * 1024
    keep: int = 3
    every: float = 0.2

    def file(self, name: str) -> Path:
        """The log of the instance called `name`."""
        return self.folder / f"{quote(name, safe='')}.log"

    def tail(self, name: str, lines: int) -> tuple[str, ...]:
        """The last `lines` lines, over rotations, with the one that is not yet whole."""
        file = self.file(name)
        return self._tail(file, size_of(file), lines)

    async def read(self, name: str, lines: int, follow: bool) -> AsyncIterator[str]:
        """The last `lines` lines, and with `follow` all that come, each when it is whole."""
        file = self.file(name)
        reader = Follower(file, _end_of_lines(file) if follow else size_of(file), inode(rotated(file, 1)))
        for line in self._tail(file, reader.position, lines):
            yield line
        while follow:
            for line in reader.news():
                yield line
            await asyncio.sleep(self.every)

    def keep_only(self, known: Collection[VersionId]) -> None:
        """Remove the logs, with their rotated parts, of the instances of all versions but those `known`."""
        for file in self.folder.glob("*.log*"):
            name = InstanceId(unquote(file.name.rpartition(".log")[0]))
            if copied(name) not in known:
                file.unlink(missing_ok=True)

    async def rotate(self) -> None:
        """Rotate every log that has grown beyond the limit. Raises SegueError where the disk does not let us."""
        for file in self.folder.glob("*.log"):
            if size_of(file) > self.limit:
                try:
                    await asyncio.to_thread(following.rotate, file, self.keep)
                except OSError as error:
                    raise SegueError(f"{file.name} cannot be rotated: {error.strerror}") from error

    def _parts(self, file: Path) -> list[Path]:
        return [file, *(rotated(file, number) for number in range(1, self.keep + 1))]

    def _tail(self, file: Path, end: int, lines: int) -> tuple[str, ...]:
        found: list[bytes] = []
        for part in self._parts(file):
            if len(found) < lines:
                found[:0] = _last_lines(part, end if part == file else size_of(part), lines - len(found))
        return tuple(text_of(line) for line in found)


def _end_of_lines(file: Path) -> int:
    """Where the last whole line ends."""
    size = size_of(file)
    last = _last_lines(file, size, 1)
    return size - len(last[0]) if last and not last[0].endswith(b"\n") else size


def _last_lines(file: Path, end: int, count: int) -> list[bytes]:
    """The last `count` lines before `end`, with their line ends."""
    if count <= 0 or end == 0:
        return []
    text, start = b"", end
    with file.open("rb") as source:
        while start > 0 and text.count(b"\n") <= count:
            size = min(_BLOCK, start)
            start -= size
            source.seek(start)
            text = source.read(size) + text
    return text.splitlines(keepends=True)[-count:]
