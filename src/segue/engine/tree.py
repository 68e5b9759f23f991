"""A source's files: which ones a version takes, what they are together (the digest), and how they are copied.

Rule 1: the digest and the copy are made from the same list, so nothing is copied that the digest does not know.
Rule 2: a link is a link: it is never followed, neither to read nor to write. One that leads out of the source
is refused, since what it leads to is not the version's.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath

from pathspec import GitIgnoreSpec

from segue.errors import StartFailed

_IGNORE_FILES = (".segueignore", ".gitignore")
"""The first one that says anything about a file decides: what git ignores (a build's output) can be taken again."""


class Kind(Enum):
    """What an entry of a source is. Sockets, pipes and devices are left out."""

    FOLDER = "folder"
    FILE = "file"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Entry:
    """One folder, file or link of a source, by its path from there."""

    path: PurePosixPath
    kind: Kind


@dataclass(frozen=True, slots=True)
class _Rules:
    """An ignore file: its folder as a prefix (``""`` or ``a/b/``) of the paths it speaks about, and what it says."""

    prefix: str
    above: str
    spec: GitIgnoreSpec

    def say(self, path: str) -> bool | None:
        """Whether `path` is ignored; None: nothing is said about it. Paths of folders end with ``/``."""
        if not path.startswith(self.prefix):
            return None
        return self.spec.check_file(self.above + path[len(self.prefix) :]).include


def entries(source: Path, without: Collection[Path] = ()) -> Iterator[Entry]:
    """What a version takes of `source`, parents first, in an order of its own that is always the same.

    ``.git``, what the ignore files say, and the folders `without` are left out.
    """
    source = source.resolve()
    yield from _walk(source, "", list(_rules_above(source)), without)


def _walk(source: Path, prefix: str, rules: list[_Rules], without: Collection[Path]) -> Iterator[Entry]:
    rules = [*_rules_of(source / prefix, prefix, ""), *rules]
    with os.scandir(source / prefix) as found:
        inside = sorted(found, key=lambda entry: entry.name)
    for item in inside:
        kind = _kind(item)
        path = prefix + item.name + ("/" if kind is Kind.FOLDER else "")
        if kind is None or item.name == ".git" or Path(item.path) in without or _ignored(path, rules):
            continue
        yield Entry(PurePosixPath(path), kind)
        if kind is Kind.FOLDER:
            yield from _walk(source, path, rules, without)


def _kind(item: os.DirEntry[str]) -> Kind | None:
    if item.is_symlink():
        return Kind.LINK
    if item.is_dir():
        return Kind.FOLDER
    return Kind.FILE if item.is_file() else None


def _ignored(path: str, rules: list[_Rules]) -> bool:
    said = (rule.say(path) for rule in rules)
    return next((answer for answer in said if answer is not None), False)


def _rules_of(folder: Path, prefix: str, above: str) -> Iterator[_Rules]:
    for name in _IGNORE_FILES:
        try:
            lines = (folder / name).read_text(errors="surrogateescape").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            continue
        yield _Rules(prefix, above, GitIgnoreSpec.from_lines(lines))


def _rules_above(source: Path) -> Iterator[_Rules]:
    """The ignore files between `source` and the top of the repository it lies in, the nearest first."""
    top = next((folder for folder in (source, *source.parents) if (folder / ".git").exists()), source)
    for folder in source.parents:
        if folder.is_relative_to(top):
            yield from _rules_of(folder, "", source.relative_to(folder).as_posix() + "/")


def digest(source: Path | None, settings: Mapping[str, object], without: Collection[Path] = ()) -> str:
    """What identifies a version: a hash of its files, their paths and executable bits, and of its settings.

    `settings` is what JSON can hold. Raises StartFailed where the source cannot be read.
    """
    whole = hashlib.sha256(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode())
    if source is not None:
        try:
            for entry in entries(source, without):
                whole.update(_hash(source, entry))
        except OSError as error:
            raise unreadable(source, error) from error
    return whole.hexdigest()


def _hash(source: Path, entry: Entry) -> bytes:
    """A hash of one entry; nothing for a folder: git does not know it either."""
    file = source / entry.path
    if entry.kind is Kind.FOLDER:
        return b""
    if entry.kind is Kind.LINK:
        content, runs = hashlib.sha256(os.fsencode(file.readlink())), False
    else:
        with _open(file) as opened:
            content = hashlib.file_digest(opened, "sha256")
            runs = bool(os.fstat(opened.fileno()).st_mode & stat.S_IXUSR)
    name = hashlib.sha256(os.fsencode(entry.path))
    return b"%s %d %s %s" % (entry.kind.value.encode(), runs, name.digest(), content.digest())


def copy(source: Path, entry: Entry, target: Path) -> None:
    """Copy one entry to its place below `target`. Raises OSError; StartFailed for a link that leads out."""
    original, copied = source / entry.path, target / entry.path
    match entry.kind:
        case Kind.FOLDER:
            copied.mkdir()
        case Kind.LINK:
            copied.symlink_to(_inner(source, entry.path))
        case Kind.FILE:
            _copy_file(original, copied)


def _copy_file(original: Path, copied: Path) -> None:
    with _open(original) as reading, copied.open("xb") as writing:
        state = os.fstat(reading.fileno())
        shutil.copyfileobj(reading, writing, 1024 * 1024)
        os.fchmod(writing.fileno(), stat.S_IMODE(state.st_mode) & 0o777)
    os.utime(copied, ns=(state.st_atime_ns, state.st_mtime_ns))


def _open(file: Path) -> io.BufferedReader:
    """The file, which was no link when it was listed: it is not to be one now."""
    return os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def _inner(source: Path, path: PurePosixPath) -> Path:
    """What the link at `path` says. Raises StartFailed if it leads out of the source."""
    leads = (source / path).readlink()
    end = os.path.realpath(source / path)  # Path.resolve would raise for links that go round in a circle)
    if leads.is_absolute() or not Path(end).is_relative_to(source.resolve()):
        raise StartFailed(
            f"{path} is a link that leads out of the source (to {leads})",
            next=f"echo /{path} >> .segueignore",
        )
    return leads


def unreadable(source: Path, error: OSError) -> StartFailed:
    """The error that is told to people where a source cannot be read or copied."""
    return StartFailed(f"{error.filename or source}: {(error.strerror or str(error)).lower()}")
