"""Services that change at the same time wait for one table, not for as many as there are services."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from fractions import Fraction

import pytest

from segue.core.release import Revision
from segue.core.traffic import Backend, Route, ServiceTable
from segue.engine.routing import TableKeeper
from segue.errors import RouterRefused
from segue.testing.clock import VirtualClock
from segue.testing.fakes import FakeRouter, World

Scene = Callable[[TableKeeper, FakeRouter], Awaitable[None]]


def table(service: str, share: int = 1) -> ServiceTable:
    backend = Backend(Revision("v1.1"), Fraction(share))
    return ServiceTable(service, Route(hosts=(f"{service}.example",)), (backend,))


def play(scene: Scene) -> None:
    clock = VirtualClock()
    router = World(clock).router

    async def played() -> None:
        await scene(TableKeeper(router), router)

    clock.run(played())


async def begun(tables: TableKeeper, *services: str) -> list[asyncio.Task[None]]:
    """Changes that wait for the router."""
    tasks = [asyncio.create_task(tables.put(name, table(name))) for name in services]
    await VirtualClock.current().idle()
    return tasks


def test_changes_that_come_while_a_table_is_being_confirmed_are_in_the_next_one() -> None:
    async def scene(tables: TableKeeper, router: FakeRouter) -> None:
        router.confirming.close()
        tasks = [*await begun(tables, "first"), *await begun(tables, *(f"s{n}" for n in range(50)))]
        router.confirming.open()
        await asyncio.gather(*tasks)
        assert [len(told.services) for _, told in router.history] == [0, 1, 51]
        assert tables.confirmed == router.table.services

    play(scene)


def test_what_is_refused_among_others_is_named_and_concerns_nobody_else() -> None:
    async def scene(tables: TableKeeper, router: FakeRouter) -> None:
        router.refuse("bad", "not this one")
        router.confirming.close()
        tasks = [*await begun(tables, "first"), *await begun(tables, "one", "bad", "other")]
        router.confirming.open()
        said = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in said] == [type(None), type(None), RouterRefused, type(None)]
        assert "bad" in str(said[2])
        assert "not this one" in str(said[2])
        assert sorted(tables.confirmed) == ["first", "one", "other"] == sorted(router.table.services)

    play(scene)


def test_where_the_one_who_tells_the_router_gives_up_the_others_are_told_all_the_same() -> None:
    async def scene(tables: TableKeeper, router: FakeRouter) -> None:
        router.confirming.close()
        first, *others = [*await begun(tables, "first"), *await begun(tables, "one", "other")]
        first.cancel()
        router.confirming.open()
        await asyncio.gather(*others)
        with pytest.raises(asyncio.CancelledError):
            await first
        assert sorted(tables.confirmed) == ["one", "other"]

    play(scene)
