"""The lock on a home: one control plane at a time. Where locks cannot be relied on, there is none."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from segue.errors import Unreachable

MOUNTS = Path("/proc/self/mounts")
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs")


class Lock:
    """The lock on a home. It is the process's own: it goes with it, however it ends.

    Raises Unreachable where another control plane has it, and on a network file system.
    """

    def __init__(self, home: Path, mounts: Path = MOUNTS) -> None:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (kind := file_system(home, mounts)) in NETWORK_FILE_SYSTEMS:
            what = f"{home} is on a network file system ({kind}), where locks cannot be relied on"
            raise Unreachable(what, next="let SEGUE_HOME name a folder on a local disk")
        self._file = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise Unreachable("another control plane holds this home's lock", next="segue status") from error

    def release(self) -> None:
        """Let another control plane have the home."""
        os.close(self._file)


def file_system(path: Path, mounts: Path = MOUNTS) -> str | None:
    """The kind of file system that `path` is or will be on; None where the system does not tell."""
    try:
        entries = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return None
    whole = path.resolve()
    best = ("", "")
    for _, point, kind, *_ in entries:
        point = point.replace("\\040", " ")
        if whole.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1] or None
