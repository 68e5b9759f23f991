"""What instances write of themselves: lines that match a pattern are evidence against the version that writes them.

Only whole lines count, and only those written while somebody attends to the instance. A line that matches several
patterns counts once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence

from segue.core.traffic import InstanceId
from segue.minding import beside
from segue.ports import Matches, Platform

AGAIN = 1.0
"""Seconds until it is tried again where there were no descriptors to read with."""
LONGEST = 300
"""Characters of a line that are kept to be shown."""


class LogLines:
    """Counts lines that match any of `patterns` in the output of instances that run on `platform`."""

    def __init__(self, platform: Platform, patterns: Sequence[str]) -> None:
        self._platform = platform
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._found: dict[InstanceId, Matches] = {}
        self._readers: dict[InstanceId, asyncio.Task[None]] = {}

    def attend(self, instances: Iterable[InstanceId]) -> None:
        """Read what these write from now on, and nothing any more of others; what was counted stays."""
        wanted = set(instances)
        for gone in set(self._readers) - wanted:
            self._readers.pop(gone).cancel()
        for new in wanted - set(self._readers):
            self._found.setdefault(new, Matches())
            self._readers[new] = beside(self._read(new), new)

    def matches(self) -> Mapping[InstanceId, Matches]:
        """What was counted of each instance so far."""
        return dict(self._found)

    async def close(self) -> None:
        """Read nothing any more."""
        readers, self._readers = list(self._readers.values()), {}
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    async def _read(self, instance: InstanceId) -> None:
        while True:
            try:
                return await self._follow(instance)
            except OSError:  # for a want of our own, which passes
                await asyncio.sleep(AGAIN)

    async def _follow(self, instance: InstanceId) -> None:
        async for line in self._platform.logs(instance, lines=0, follow=True):
            if any(pattern.search(line) for pattern in self._patterns):
                self._found[instance] = Matches(self._found[instance].count + 1, line.strip()[:LONGEST])
