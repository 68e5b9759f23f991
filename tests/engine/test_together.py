"""What many want at the same time is done once for all of them, and never before it was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from segue.errors import RouterLost
from segue.together import Together


class Work:
    """Notes what it was given; each time takes one of the `passes`."""

    def __init__(self, passes: int = 0) -> None:
        self.given: list[set[str]] = []
        self.passes = asyncio.Semaphore(passes)
        self.lost = False

    async def __call__(self, names: Collection[str]) -> int:
        self.given.append(set(names))
        await self.passes.acquire()
        if self.lost:
            raise RouterLost("gone")
        return len(self.given)


async def test_who_comes_meanwhile_waits_for_the_next_time_and_all_of_them_for_one() -> None:
    work = Work()
    together = Together(work)
    first = asyncio.create_task(together("a"))
    await asyncio.sleep(0)
    later = [asyncio.create_task(together(name)) for name in "bcb"]
    await asyncio.sleep(0)
    for _ in range(2):
        work.passes.release()
    assert await first == 1
    assert await asyncio.gather(*later) == [2, 2, 2]
    assert work.given == [{"a"}, {"b", "c"}]


async def test_an_error_is_everybodys_and_the_next_time_is_another_one() -> None:
    work = Work(passes=9)
    work.lost = True
    together = Together(work)
    said = await asyncio.gather(*(together(name) for name in "abc"), return_exceptions=True)
    assert [type(one) for one in said] == [RouterLost] * 3
    work.lost = False
    assert await together("d") == len(work.given)


async def test_where_the_one_who_does_it_gives_up_another_one_does_it() -> None:
    work = Work()
    together = Together(work)
    first = asyncio.create_task(together("a"))
    await asyncio.sleep(0)
    doing, waiting = (asyncio.create_task(together(name)) for name in "bc")
    work.passes.release()
    await first
    while len(work.given) == 1:
        await asyncio.sleep(0)
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    work.passes.release()
    assert await waiting == 3
    assert work.given == [{"a"}, {"b", "c"}, {"b", "c"}]
