"""Work that many want at the same time is done once for all of them, and not once for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from segue.errors import SegueError

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Round(Generic[T]):
    """Those who wait for the same time, by what they named, and what they are all answered."""

    names: set[str] = field(default_factory=set)
    answers: list[T] = field(default_factory=list)
    error: SegueError | None = None


class Together(Generic[T]):
    """Does `work` for all who wait for it. It is given what they named.

    Who comes while it is being done waits for the next time, so no answer is older than its question.
    """

    def __init__(self, work: Callable[[Collection[str]], Awaitable[T]]) -> None:
        self._work = work
        self._turn = asyncio.Lock()
        self._next: _Round[T] = _Round()

    async def __call__(self, name: str = "") -> T:
        """What `work` returns for all who named something when it began. Raises the SegueError that it raises."""
        mine = self._next
        mine.names.add(name)
        async with self._turn:
            if not mine.answers and mine.error is None:
                await self._do(mine)
        if mine.error is not None:
            raise mine.error
        return mine.answers[0]

    async def _do(self, mine: _Round[T]) -> None:
        """Do it for `mine`. If this is cancelled the next one of them does it."""
        if mine is self._next:
            self._next = _Round()
        try:
            mine.answers.append(await self._work(mine.names))
        except SegueError as error:
            mine.error = error
