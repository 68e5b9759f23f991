"""Asking the sources beside the router, each at its own pace, and none while it is still being asked.

Rule 1: commands, addresses and bounds are asked at once when the split of the traffic has changed, so that a
judgement has a word about this split.
Rule 2: what is compared is asked when the split has been in force for as long as one value looks back, and again each
time as much has passed: comparisons must not share what they look at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from segue.core.sources import About, Answer, Asked, Metric
from segue.engine.clock import Clock
from segue.ports import Source


@dataclass(slots=True)
class _Turn:
    """How far it is with one source: when it is due, and when what is being asked was asked."""

    source: Source
    every: float
    compared: bool
    due: float = 0.0
    began: float = 0.0
    asking: asyncio.Task[Answer] | None = None


class Inquiry:
    """Asks `sources`, which are what `asked` describes, as often as that says."""

    def __init__(self, asked: Sequence[Asked], sources: Sequence[Source], clock: Clock) -> None:
        self._clock = clock
        self._turns = [
            _Turn(source, one.every.total_seconds(), isinstance(one, Metric) and one.worse is not None)
            for one, source in zip(asked, sources, strict=True)
        ]
        self._split = inf

    def splitting(self) -> None:
        """The split of the traffic is about to change: nothing is asked until it has."""
        self._split = inf

    def split(self) -> None:
        """The split of the traffic has changed just now, or nobody knows for how long it has been as it is."""
        self._split = now = self._clock.monotonic()
        for turn in self._turns:
            turn.due = now + (turn.every if turn.compared else 0.0)

    def ask(self, about: Callable[[], About], *, beside: bool) -> None:
        """Ask those whose time has come; what they say is for `heard`. `beside`: the old version has a share, too."""
        now = self._clock.monotonic()
        for turn in self._turns if now >= self._split else ():
            if turn.asking is None and now >= turn.due and (beside or not turn.compared):
                turn.began, turn.due = now, now + turn.every
                turn.asking = asyncio.create_task(turn.source.ask(about()))

    def heard(self) -> Iterator[tuple[int, Answer, bool]]:
        """What was said meanwhile, each with its source's number, and whether it is about the present split.

        What is about two splits cannot be compared, and is left out.
        """
        for number, turn in enumerate(self._turns):
            if turn.asking is None or not turn.asking.done():
                continue
            answer, turn.asking = turn.asking.result(), None
            current = turn.began >= self._split
            if current or not turn.compared:
                yield number, answer, current

    async def close(self) -> None:
        """Ask nothing any more."""
        asking = [turn.asking for turn in self._turns if turn.asking is not None]
        for turn in self._turns:
            turn.asking = None
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
