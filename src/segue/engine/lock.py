"""The lock on a home: one control plane at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from segue.errors import Unreachable


class Lock:
    """The lock on a home. It is the process's own: it goes with it, however it ends."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise Unreachable("another control plane holds this home's lock", next="segue status") from error

    def release(self) -> None:
        """Let another control plane have the home."""
        os.close(self._file)
