"""Many who ask at the same time are answered by few questions to Envoy, which compares all its names for each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from segue.core.traffic import Endpoint, InstanceId, Traffic
from segue.evidence.envoy import EnvoyEvidence
from segue.routers.envoy.names import MANY
from segue.routers.envoy.router import EnvoyRouter

from .world import V1, World, ask, service, table, until, version


@pytest.fixture
def questions(router: EnvoyRouter, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The patterns that Envoy's statistics were searched for."""
    asked: list[str] = []
    stats = router.stats

    async def counted(pattern: str, **options: Any) -> object:
        asked.append(pattern)
        return await stats(pattern, **options)

    monkeypatch.setattr(router, "stats", counted)
    return asked


async def test_many_who_wait_for_the_barrier_wait_for_one_or_two(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    await router.apply(table(service(listen, version(V1, 1, await world.backend("old")))))
    created = "listener_manager.listener_create_success"
    before = (await router.stats(f"^{created}$")).values[created]
    await asyncio.gather(*(router.settled() for _ in range(20)))
    grown = (await router.stats(f"^{created}$")).values[created] - before
    assert 2 <= grown <= 4, "each barrier is made once on each of two workers"


@pytest.mark.parametrize("number", [3, MANY + 1])
async def test_services_that_are_looked_at_at_the_same_time_are_told_of_their_own_instances(
    number: int, router: EnvoyRouter, listen: str, questions: list[str]
) -> None:
    states = [list(Traffic)[n % 3] for n in range(number)]
    ends = [Endpoint(InstanceId(f"s{n}-1"), f"127.0.{n}.1:1", state) for n, state in enumerate(states)]
    services = [
        service(listen, version(V1, 1, more=(end,)), name=f"s{n}", hosts=(f"s{n}.example",))
        for n, end in enumerate(ends)
    ]
    await router.apply(table(*services))
    questions.clear()
    seen = await asyncio.gather(*(router.observe(f"s{n}") for n in range(number)))
    assert [set(found) for found in seen] == [{end.instance} for end in ends]
    healthy = [found[end.instance].healthy for found, end in zip(seen, ends, strict=True)]
    assert healthy == [state is Traffic.READY for state in states]
    assert len(questions) <= 4, "twice: how those that drain ended, and how all are"


async def test_each_service_is_told_of_its_own_requests(
    router: EnvoyRouter, world: World, listen: str, questions: list[str]
) -> None:
    names = ["shop", "shop2", "two.shop"]
    backend, evidence = await world.backend("old"), EnvoyEvidence(router)
    await router.apply(table(*(service(listen, version(V1, 1, backend), name=n, hosts=(n,)) for n in names)))
    for number, name in enumerate(names, 1):
        for _ in range(number):
            await ask(listen, host=name)

    async def totals() -> Sequence[int]:
        return [books.total for books in await asyncio.gather(*map(evidence.books, names))]

    async def counted() -> bool:
        return await totals() == [1, 2, 3]

    await until(counted, "all requests in the books")
    questions.clear()
    samples = await asyncio.gather(*map(evidence.sample, names))
    assert [sample[V1].attempts for sample in samples] == [1, 2, 3]
    assert len(questions) <= 2
    questions.clear()
    assert await totals() == [1, 2, 3]
    assert len(questions) <= 10, "twice: five for all of them"
