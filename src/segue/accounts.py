"""The users of the machine that instances, hooks and builds run as."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from segue.errors import StartFailed


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the machine."""

    name: str
    uid: int
    gid: int
    home: Path


def other(user: str | None) -> Account | None:
    """The account of `user`, or None where that is nobody else than who we are.

    Raises StartFailed where there is no such user, or where we may not become it.
    """
    if user is None:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise StartFailed(f"there is no user {user} on this machine", next=f"useradd --system {user}") from None
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise StartFailed(f"only root can run something as {user}", next="sudo segue serve")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))


def own_home() -> str:
    """The home folder of the user we are; the root folder where the machine knows none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


def blocked(account: Account, folder: Path) -> Path | None:
    """The first folder on the way into `folder` that `account` may not enter, by its mode; None: there is none."""
    groups = {account.gid, *os.getgrouplist(account.name, account.gid)}
    for step in (*reversed(folder.parents), folder):
        state = step.stat()
        bit = 0o100 if state.st_uid == account.uid else 0o010 if state.st_gid in groups else 0o001
        if not state.st_mode & bit:
            return step
    return None
