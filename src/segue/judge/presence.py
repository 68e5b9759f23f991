"""Whether there is an old version to compare with at the same time.

It is known to be away if the engine says so. Else it counts as away when it has had no attempt for ten seconds and
for fifty attempts on the new version: a small share of little traffic has gaps too. How many attempts each has
depends on the split alone, so the test may be chosen by it (`bound.py`).
"""

from __future__ import annotations

SECONDS = 10.0
ATTEMPTS = 50


class Presence:
    """Watches the old version's attempts."""

    __slots__ = ("_last", "_since")

    def __init__(self) -> None:
        self._last, self._since = 0.0, 0

    def alone(self, now: float, new: int, old: int) -> bool:
        """Whether a look in which they had so many attempts finds the new version alone, by what was before it."""
        if old:
            self._last, self._since = now, 0
            return False
        alone = new > 0 and now - self._last >= SECONDS and self._since >= ATTEMPTS
        self._since += new
        return alone
