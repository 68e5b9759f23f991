"""Folders and files of the version store: whose they are, and who may pass."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path, PurePosixPath

from segue.accounts import Account
from segue.errors import StartFailed


def make(folder: Path) -> None:
    """Make `folder`, and those above it that are missing, for us alone."""
    for missing in reversed([step for step in (folder, *folder.parents) if not step.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


def open_way(folder: Path, top: Path) -> None:
    """Let everybody pass through `folder` and those above it up to `top`; what they hold stays unseen."""
    for step in (folder, *folder.parents):
        step.chmod(stat.S_IMODE(step.stat().st_mode) | 0o011)
        if step == top:
            return


def write(file: Path, text: str) -> None:
    """Put a whole file, for us alone, into its place and onto the disk."""
    draft = file.with_name(f".{file.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as writing:
        writing.write(text)
        writing.flush()
        os.fsync(writing.fileno())
    draft.rename(file)


def give(folder: Path, account: Account | None) -> None:
    """Make `folder` and all in it the account's, closed to others.

    Itself last: until then the account cannot enter, and put a link into the way of what is still to be given.
    """
    folder.chmod(0o700)
    if account is None:
        return
    for _, folders, files, inside in os.fwalk(folder):
        for name in (*folders, *files):
            os.chown(name, account.uid, account.gid, dir_fd=inside, follow_symlinks=False)
    os.chown(folder, account.uid, account.gid)


def share(first: Path, shared: Path, name: PurePosixPath, account: Account | None) -> None:
    """Make the folder `name` below `shared` for all versions, if it is missing, with the content of `first`.

    Raises StartFailed where it would lie in a folder that is shared itself: what is in that one is not ours.
    """
    place = shared / name
    if above := next((step for step in reversed(place.parents[: len(name.parts) - 1]) if _is_given(step)), None):
        raise StartFailed(f"the shared folder {name} lies in {above.relative_to(shared)}, which is shared already")
    if place.exists():
        return
    make(place.parent)
    if account is not None:
        open_way(place.parent, shared)
    closed = place.with_name(f".{place.name}.new")
    if closed.exists():
        shutil.rmtree(closed)
    closed.mkdir(mode=0o700)
    draft = closed / "draft"
    if first.is_dir() and not first.is_symlink():
        shutil.copytree(first, draft, symlinks=True)
    else:
        draft.mkdir()
    give(draft, account)
    draft.rename(place)
    closed.rmdir()


def _is_given(folder: Path) -> bool:
    """Whether `folder`, if it is there, is not ours alone any more."""
    try:
        state = folder.lstat()
    except FileNotFoundError:
        return False
    return state.st_uid != os.geteuid() or not stat.S_ISDIR(state.st_mode)
