"""The name of a version that was given none: the git commit, or the time."""

from __future__ import annotations

import hashlib
import subprocess
from datetime import datetime
from pathlib import Path

_GIT_TIMEOUT = 30.0
_LARGEST = 1 << 20
"""Bytes of an untracked file that are hashed; of a larger one its size and time of change."""


def default_version(folder: Path, now: datetime) -> str:
    """The commit that `folder` is at, with ``-dirty.<hash>`` when it differs; without git the time ``now``.

    The hash is of what differs, also of files that git does not know yet: the same content has the same name.
    """
    commit = git(folder, "rev-parse", "--short", "HEAD")
    if commit is None:
        return now.strftime("%Y%m%d-%H%M%S")
    name = commit.decode().strip()
    status = git(folder, "status", "--porcelain", "-z", "--untracked-files=all", "--", ".")
    return f"{name}-dirty.{_difference(folder, status)}" if status else name


def _difference(folder: Path, status: bytes) -> str:
    digest = hashlib.sha256(status)
    digest.update(git(folder, "diff", "HEAD", "--no-ext-diff", "--binary", "--", ".") or b"")
    for name in (git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", ".") or b"").split(b"\0"):
        if name:
            digest.update(name + b"\0" + _content(folder / name.decode(errors="surrogateescape")))
    return digest.hexdigest()[:7]


def _content(path: Path) -> bytes:
    try:
        about = path.lstat()
        if path.is_file() and about.st_size <= _LARGEST:
            return hashlib.sha256(path.read_bytes()).digest()
        return f"{about.st_size} {about.st_mtime_ns}".encode()
    except OSError:
        return b""


def git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints; None where there is no git, no repository, no commit, or it may not be asked."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, timeout=_GIT_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
