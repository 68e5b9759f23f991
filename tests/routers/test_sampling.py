"""While nothing changes and very many requests come, some attempts are counted; where it matters, all are."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.core.release import Experiment, Goal
from segue.core.traffic import RoutingTable, ServiceTable, Traffic
from segue.errors import RouterLost
from segue.evidence.envoy import EnvoyEvidence
from segue.routers.envoy import sampling
from segue.routers.envoy.admin import Admin, Statistics
from segue.routers.envoy.loggers import ATTEMPTS, RESTED
from segue.routers.envoy.router import EnvoyRouter
from segue.routers.envoy.sampling import ALL, BEHIND, ENOUGH, PARTS, SCARCE, Sampling, due

from .world import HALF, V1, V2, Process, World, Wrk, ask, asked, service, table, until, version

FEW = 10
"""Per cent that are counted here where few are."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Routers look often, and count this part where they count few."""
    monkeypatch.setattr(sampling, "EVERY", 0.2)
    monkeypatch.setattr(sampling, "PARTS", (FEW,))


async def said(router: EnvoyRouter) -> dict[str, int]:
    """What Envoy says of what it counts."""
    record = json.loads((router.folder / "envoy.json").read_text())
    return await sampling.said(Admin(record["admin"]))


async def counted(router: EnvoyRouter) -> int:
    """The part of the attempts that it says it counts, in per cent."""
    return (await said(router))[ATTEMPTS]


async def until_counted(router: EnvoyRouter, part: int) -> None:
    """Return when it counts this `part`."""

    async def so() -> bool:
        return await counted(router) == part

    await until(so, f"that {part} % are counted")


async def seen(router: EnvoyRouter) -> tuple[int, int]:
    """Attempts that were counted, and requests, of all that came."""
    evidence = EnvoyEvidence(router)
    samples, books = await evidence.sample("shop"), await evidence.books("shop")
    return sum(sample.attempts for sample in samples.values()), books.total


async def idle(router: EnvoyRouter) -> None:
    """Return when nothing is under way."""

    async def nothing() -> bool:
        return not any((await router.stats(r"^http\.127.*\.downstream_rq_active$", only="Gauges")).values.values())

    await until(nothing, "the end of what is under way")


async def test_where_very_many_come_and_nothing_changes_chance_chooses_some_and_the_books_have_all(
    router: EnvoyRouter, listen: str, old: Process
) -> None:
    await router.apply(table(service(listen, version(V1, 1, old))))
    async with Wrk(listen) as wrk:
        await until_counted(router, FEW)
        first = await seen(router)

        async def many() -> bool:
            return (await seen(router))[1] > first[1] + 5000

        await until(many, "5,000 requests")
        attempts, requests = (now - before for now, before in zip(await seen(router), first, strict=True))
        await wrk.stop()
    # Six standard errors of a tenth, and what came between the two questions.
    assert abs(attempts / requests - FEW / ALL) < 6 * (0.1 * 0.9 / requests) ** 0.5 + 0.02


async def test_where_a_version_may_be_judged_all_are_counted_and_what_began_before_as_well(
    router: EnvoyRouter, listen: str, old: Process, new: Process
) -> None:
    await router.apply(table(service(listen, version(V1, 1, old))))
    async with Wrk(listen):
        await until_counted(router, FEW)
    await idle(router)
    held = [asyncio.create_task(ask(listen, "/hold")) for _ in range(20)]
    await old.holding(20)
    await router.apply(table(service(listen, version(V1, HALF, old), version(V2, HALF, new))))
    await router.settled()
    assert await counted(router) == ALL
    before = await seen(router)
    await old.release()
    await asyncio.gather(*held)
    await asked(listen, 200)
    await idle(router)
    assert tuple(now - then for now, then in zip(await seen(router), before, strict=True)) == (220, 220)


async def test_no_attempt_is_missed_while_rest_comes_and_goes(
    router: EnvoyRouter, listen: str, old: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "ENOUGH", 1e9)
    rests, moves = (table(service(listen, version(V1, 1, old), trial=trial)) for trial in (None, V1))
    assert (rests.at_rest, moves.at_rest) == (True, False)
    await router.apply(rests)
    came = 0

    async def more() -> bool:
        return (await seen(router))[1] > came + 300

    async with Wrk(listen) as wrk:
        for _ in range(10):
            for change in (moves, rests):
                await router.apply(change)
                _, came = await seen(router)
                await until(more, "300 requests more")
        load = await wrk.stop()
    await idle(router)
    attempts, requests = await seen(router)
    assert load.errors == 0, load.text
    assert attempts == requests


async def test_what_came_at_rest_is_told_when_it_ends_long_after(
    router: EnvoyRouter, listen: str, old: Process, new: Process
) -> None:
    await router.apply(table(service(listen, version(V1, 1, old))))
    held = [asyncio.create_task(ask(listen, "/hold")) for _ in range(10)]
    await old.holding(10)
    await router.apply(table(service(listen, version(V1, HALF, old), version(V2, HALF, new))))

    async def looks_away() -> bool:
        return (await said(router))[RESTED] > 0

    await until(looks_away, "that what began since is not looked at")
    await asked(listen, 100)
    await old.release()
    await asyncio.gather(*held)
    await idle(router)
    assert await seen(router) == (110, 110)


async def test_few_are_counted_again_once_nothing_changes(
    router: EnvoyRouter, listen: str, old: Process, new: Process
) -> None:
    rests = table(service(listen, version(V1, 1, old)))
    await router.apply(rests)
    async with Wrk(listen):
        await until_counted(router, FEW)
        await router.apply(table(service(listen, version(V1, 1, old), version(V2, 0, new))))
        assert await counted(router) == ALL
        await router.apply(rests)
        await until_counted(router, FEW)
    await until_counted(router, ALL)


async def test_another_control_plane_that_finds_few_counted_has_all_counted_where_it_matters(
    tmp_path: Path, router: EnvoyRouter, listen: str, old: Process, new: Process
) -> None:
    await router.apply(table(service(listen, version(V1, 1, old))))
    async with Wrk(listen):
        await until_counted(router, FEW)
        await router.close()
        second = EnvoyRouter(tmp_path / "router", concurrency=2, drain=2)
        await second.start()
        try:
            assert (second.pid, await counted(second)) == (router.pid, FEW)
            await second.apply(table(service(listen, version(V1, 1, old), version(V2, 0, new))))
            assert await counted(second) == ALL
        finally:
            await second.close()


async def test_an_envoy_that_starts_counts_all(
    router: EnvoyRouter, listen: str, old: Process, new: Process, world: World
) -> None:
    await router.apply(table(service(listen, version(V1, 1, old))))
    async with Wrk(listen):
        await until_counted(router, FEW)
    before = router.pid
    os.kill(before, signal.SIGKILL)

    async def back() -> bool:
        return router.pid != before

    await until(back, "another Envoy")
    assert await counted(router) == ALL
    await router.apply(table(service(listen, version(V1, HALF, old), version(V2, HALF, new))))
    await asked(listen, 100)
    await idle(router)
    assert await seen(router) == (100, 100)


# Which tables are at rest


GOAL = Goal("/thanks")
REST = service("127.0.0.1:80", version(V1, 1, "127.0.0.1:1", "127.0.0.1:2"))


def test_a_service_with_one_version_that_serves_is_at_rest() -> None:
    assert REST.at_rest
    assert service("127.0.0.1:80").at_rest
    assert RoutingTable().at_rest


@pytest.mark.parametrize(
    "moved",
    [
        service("127.0.0.1:81", version(V1, 1, "127.0.0.1:1"), version(V2, 0), name="blog"),
        service("127.0.0.1:81", version(V1, 1, "127.0.0.1:1", state=Traffic.DRAINING), name="blog"),
        service("127.0.0.1:81", version(V1, 1, "127.0.0.1:1", state=Traffic.UNREADY), name="blog"),
        service("127.0.0.1:81", version(V1, 1, "127.0.0.1:1"), name="blog", trial=V1),
        replace(service("127.0.0.1:81", version(V1, 1, "127.0.0.1:1"), name="blog"), experiment=Experiment(GOAL)),
    ],
)
def test_one_service_that_is_not_at_rest_is_enough(moved: ServiceTable) -> None:
    assert not table(REST, moved).at_rest


# What is asked of Envoy, and when


class Counter:
    """An Envoy's admin interface to which so many requests have come; `lost`: it does not answer the next change."""

    def __init__(self) -> None:
        self.said: dict[str, int] = {}
        self.came, self.changes, self.lost = 0, 0, False

    async def stats(self, pattern: str, *, only: str, used: bool) -> Statistics:
        return Statistics(
            {"http.127.0.0.1_80.downstream_rq_total": self.came, "http.admin.downstream_rq_total": 10**6}
        )

    async def get(self, target: str) -> bytes:
        entries = {key: {"final_value": str(value)} for key, value in self.said.items()}
        return json.dumps({"entries": entries}).encode()

    async def post(self, target: str) -> bytes:
        key, _, value = target.removeprefix("/runtime_modify?").partition("=")
        self.said, self.changes = {**self.said, key: int(value)}, self.changes + 1
        if self.lost:
            self.lost = False
            raise RouterLost("It does not answer.")
        return b"OK"


async def rated(envoy: Counter, *rates: float) -> list[int | None]:
    """The parts that are counted after each look, when so many a second came before it."""
    one, parts = Sampling(cast(Admin, envoy)), []
    await one.resting(0.0)
    for number, rate in enumerate(rates, 1):
        envoy.came += round(2 * rate)
        await one.resting(2.0 * number)
        parts.append(envoy.said.get(ATTEMPTS))
    return parts


async def test_few_are_counted_from_one_rate_on_and_all_below_a_lower_one() -> None:
    busy, quiet = 100 * ENOUGH / FEW, 100 * SCARCE / FEW
    between = (busy + quiet) / 2
    envoy = Counter()
    assert await rated(envoy, between, busy, between, quiet - 1, between) == [None, FEW, FEW, ALL, ALL]
    assert envoy.changes == 2


@given(st.floats(0, 1e6), st.sampled_from((*PARTS, ALL)))
def test_a_part_is_small_where_that_is_enough_and_stays_until_too_few_are_counted(rate: float, part: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "PARTS", PARTS)
        now = due(rate, part)
    assert now == ALL or rate * now / 100 >= SCARCE
    assert now <= part or rate * part / 100 < SCARCE
    assert now in (part, ALL) or rate * now / 100 >= ENOUGH
    assert due(rate, now) == now


async def test_an_envoy_that_begins_anew_is_not_taken_for_a_busy_one() -> None:
    envoy = Counter()
    envoy.came = 10**9
    assert await rated(envoy, -1000, 100 * SCARCE / FEW) == [None, None]


async def test_a_change_whose_answer_was_not_heard_is_asked_about_again() -> None:
    envoy = Counter()
    one = Sampling(cast(Admin, envoy))
    envoy.said, envoy.lost = {ATTEMPTS: FEW}, True
    with pytest.raises(RouterLost):
        await one.moves()
    envoy.said = {ATTEMPTS: FEW}  # it was not done
    await one.moves()
    assert (envoy.said, envoy.changes) == ({ATTEMPTS: ALL}, 2)


async def test_what_is_so_already_is_not_asked_for() -> None:
    envoy = Counter()
    one = Sampling(cast(Admin, envoy))
    await one.moves()
    await one.rests()
    await one.rests()
    assert envoy.changes == 0


async def test_while_there_is_no_rest_only_what_took_longer_is_looked_at_and_envoy_is_told_seldom() -> None:
    envoy, told = Counter(), []
    one = Sampling(cast(Admin, envoy))
    await one.moves()
    for second in range(0, 62, 2):
        await one.moving(100.0 + second)
        told.append(envoy.said.get(RESTED, 0))
    assert all(0 <= longer <= 1000 * (2 * n - BEHIND) for n, longer in enumerate(told) if n)
    assert told[-1] >= 1000 * (60 - BEHIND) / 2
    assert envoy.changes == len({longer for longer in told if longer}) <= 6
    await one.rests()
    assert envoy.said[RESTED] == 0
    await one.moving(200.0)
    assert envoy.said[RESTED] == 0


async def test_what_an_earlier_control_plane_said_is_known() -> None:
    envoy = Counter()
    envoy.said = {RESTED: 8000}
    one = Sampling(cast(Admin, envoy))
    await one.moving(0.0)
    await one.moving(9.5)
    assert envoy.changes == 0
    await one.rests()
    assert envoy.said[RESTED] == 0
