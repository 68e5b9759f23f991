"""What a process that must not end says on its standard error: what cannot be written is dropped.

A log on a full disk refuses every line, and so does a terminal that has gone: neither is a reason to end.
"""

from __future__ import annotations

import io
import os
import sys


class Unheard(io.TextIOBase):
    """A stream to the descriptor `number` that never fails."""

    def __init__(self, number: int) -> None:
        self._number = number

    def write(self, text: str) -> int:
        """Write `text`, or as much of it as can be written."""
        try:
            os.write(self._number, text.encode(errors="replace"))
        except OSError:
            pass
        return len(text)

    def writable(self) -> bool:
        """Always."""
        return True


def never_fail() -> None:
    """From now on what this process prints cannot end it."""
    sys.stdout, sys.stderr = Unheard(1), Unheard(2)
