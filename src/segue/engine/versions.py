"""The version store: what versions are made of, on disk.

::

    <folder>/<service>/shared/<name>             folders that all versions of the service share
    <folder>/<service>/<revision>/files          the copy in which the version runs
                                  /copied        it is whole (but not yet built)
                                  /complete      it is whole and built
                                  /build.log     what the build said
                                  /environment   the secrets, ours alone

Rule 1: a step's marker is written after it. What has no marker was cut short by a crash and is done again; a
build that still runs is waited for.
Rule 2: the copy belongs to the version's user; everything else is ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from segue.accounts import Account, blocked, other
from segue.core.release import Revision
from segue.engine import tree
from segue.engine.folders import give, make, open_way, share, write
from segue.engine.tree import Entry, Kind
from segue.errors import SegueError, StartFailed, Usage
from segue.ports import Commands, Ended

_BATCH = 64
"""Entries that are copied before the event loop has its turn."""

_TAIL = 20
"""Lines of a failed build's output that are shown."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How one version is made. `own`: its folder in the store. `files`: where it will run."""

    what: str
    own: Path
    files: Path
    source: Path | None
    shared: tuple[PurePosixPath, ...]
    build: str | None
    environment: Mapping[str, str] = field(repr=False)
    account: Account | None
    on_progress: Progress

    @property
    def all_share(self) -> Path:
        """What the versions of the service have in common."""
        return self.own.parent / "shared"


class VersionStore:
    """The versions of all services, below `folder`. `run` runs builds, each at most for `build_timeout`."""

    def __init__(self, folder: Path, run: Commands, *, build_timeout: timedelta = timedelta(hours=1)) -> None:
        self._folder = folder.absolute()
        self._run = run
        self._build_timeout = build_timeout

    async def digest(self, source: Path | None, settings: Mapping[str, object], without: Sequence[Path] = ()) -> str:
        """What identifies a version: equal for equal settings and files but `without`. Raises StartFailed."""
        return await asyncio.to_thread(tree.digest, source, settings, (*self._own_folders, *without))

    async def prepare(
        self,
        service: str,
        revision: Revision,
        *,
        folder: Path,
        source: Path | None,
        shared: Sequence[str] = (),
        build: str | None = None,
        environment: Mapping[str, str],
        user: str | None = None,
        on_progress: Progress = lambda text: None,
    ) -> Path:
        """Copy and build a version; returns the folder to run it in. Without a source that is `folder` itself.

        Done once: a version that is complete is left as it is. Raises StartFailed.
        """
        own = self._of(service, revision)
        recipe = _Recipe(
            what=f"{service} {revision}",
            own=own,
            files=own / "files" if source else folder,
            source=source.resolve() if source else None,
            shared=_names(shared),
            build=build,
            environment=environment,
            account=other(user),
            on_progress=on_progress,
        )
        if not (own / "complete").exists():
            with _disk(recipe.what):
                await self._complete(recipe)
        return recipe.files

    def save_environment(self, service: str, revision: Revision, environment: Mapping[str, str]) -> None:
        """Keep a version's environment until it is deleted, for our eyes only. Raises StartFailed."""
        with _disk(f"the environment of {service} {revision}"):
            own = self._of(service, revision)
            make(own)
            write(own / "environment", json.dumps(dict(environment)))

    def environment(self, service: str, revision: Revision) -> dict[str, str]:
        """What `save_environment` kept. Raises StartFailed if there is nothing."""
        with _disk(f"the environment of {service} {revision}"):
            kept: dict[str, str] = json.loads((self._of(service, revision) / "environment").read_text())
            return kept

    async def delete(self, service: str, revision: Revision) -> None:
        """Remove a version with its environment. What is shared stays. Deleting twice is deleting once."""
        own = self._of(service, revision)
        with _disk(f"{service} {revision}"):
            (own / "environment").unlink(missing_ok=True)
            (own / "complete").unlink(missing_ok=True)
            if own.exists():
                await asyncio.to_thread(shutil.rmtree, own)

    async def delete_others(self, known: Mapping[str, Collection[Revision]]) -> None:
        """Remove all versions but those `known`, by service. What versions share stays: it is their users' data."""
        kept = {self._of(service, revision) for service, revisions in known.items() for revision in revisions}
        others = [own for own in self._folder.glob("*/*") if own not in kept and own.name != "shared"]
        for own in others:
            with _disk(str(own)):
                await asyncio.to_thread(shutil.rmtree, own)

    @property
    def _own_folders(self) -> tuple[Path, Path]:
        """Never part of a source: our folder, and Segue's home around it."""
        folder = self._folder.resolve()
        return folder, folder.parent

    def _of(self, service: str, revision: Revision) -> Path:
        return self._folder / _file_name(service) / _file_name(revision)

    async def _complete(self, recipe: _Recipe) -> None:
        self._open_way(recipe)
        try:
            await self._copied(recipe)
            if recipe.build is not None:
                await self._built(recipe, recipe.build)
            write(recipe.own / "complete", "")
        except (OSError, SegueError):
            await asyncio.to_thread(_drop_files, recipe.own)  # a disk that is full gets its room back
            raise

    async def _copied(self, recipe: _Recipe) -> None:
        if (recipe.own / "copied").exists():
            return
        await asyncio.to_thread(_clear, recipe.own)
        if recipe.source is not None:
            await self._copy(recipe, recipe.source)
        write(recipe.own / "copied", "")

    async def _copy(self, recipe: _Recipe, source: Path) -> None:
        draft = recipe.own / "copying"
        draft.mkdir(mode=0o700)
        found = await asyncio.to_thread(_listed, source, self._own_folders, recipe.shared)
        recipe.on_progress(f"copying {sum(entry.kind is not Kind.FOLDER for entry in found)} files")
        for start in range(0, len(found), _BATCH):  # in batches, so that a cancelled copy ends
            await asyncio.to_thread(_copy_all, source, found[start : start + _BATCH], draft)
        for name in recipe.shared:
            await asyncio.to_thread(share, source / name, recipe.all_share, name, recipe.account)
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).symlink_to(recipe.all_share / name)
        await asyncio.to_thread(give, draft, recipe.account)
        draft.rename(recipe.files)

    async def _built(self, recipe: _Recipe, build: str) -> None:
        ended = await self._build(recipe, build)
        if ended.unknown:  # cut short by a crash, at an unknown point
            (recipe.own / "copied").unlink()
            await self._copied(recipe)
            ended = await self._build(recipe, build)
        if not ended.succeeded:
            how = "took too long" if ended.timed_out else f"ended with status {ended.status}"
            raise StartFailed(f"the build of {recipe.what} {how}: {build}", log=_tail(recipe.own / "build.log"))

    async def _build(self, recipe: _Recipe, build: str) -> Ended:
        recipe.on_progress(f"building: {build}")
        return await self._run(
            build,
            folder=recipe.files,
            environment=recipe.environment,
            user=recipe.account.name if recipe.account else None,
            timeout=self._build_timeout,
            log=recipe.own / "build.log",
            status=recipe.own / "build",
        )

    def _open_way(self, recipe: _Recipe) -> None:
        """Make the version's folder, and let its user pass through those above it. Raises StartFailed."""
        make(recipe.own)
        if recipe.account is None:
            return
        open_way(recipe.own, top=self._folder.parent)
        closed = blocked(recipe.account, recipe.own)
        if closed is not None:
            raise StartFailed(
                f"{recipe.account.name} may not enter {closed}, above its files", next=f"chmod o+x {closed}"
            )


def _names(shared: Sequence[str]) -> tuple[PurePosixPath, ...]:
    names = tuple(PurePosixPath(os.path.normpath(name)) for name in shared)
    for name in names:
        if name.is_absolute() or name == PurePosixPath(".") or ".." in name.parts:
            raise Usage(f"a shared folder lies in the source: {name} does not")
    return names


def _listed(source: Path, without: Collection[Path], shared: Collection[PurePosixPath]) -> list[Entry]:
    found = tree.entries(source, without)
    return [entry for entry in found if not any(name in (entry.path, *entry.path.parents) for name in shared)]


def _copy_all(source: Path, batch: Sequence[Entry], target: Path) -> None:
    for entry in batch:
        tree.copy(source, entry, target)


def _clear(own: Path) -> None:
    _drop_files(own)
    for name in ("build", "build.began", "build.log"):
        (own / name).unlink(missing_ok=True)


def _drop_files(own: Path) -> None:
    (own / "copied").unlink(missing_ok=True)
    for name in ("copying", "files"):
        if (own / name).exists():
            shutil.rmtree(own / name)


def _tail(log: Path) -> tuple[str, ...]:
    return tuple(log.read_text(errors="replace").splitlines()[-_TAIL:])


def _file_name(name: str) -> str:
    """`name` as the name of one file: whatever it is, it leads nowhere else."""
    quoted = quote(name, safe="")
    return quoted.replace(".", "%2E") if set(quoted) == {"."} else quoted


@contextmanager
def _disk(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        file = f"{error.filename}: " if error.filename else ""
        raise StartFailed(f"{what}: {file}{(error.strerror or str(error)).lower()}") from error
