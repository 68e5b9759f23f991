"""How much of the version on trial's work the others may be given at a time, and what users get beyond that."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from segue.core.traffic import Books, ServiceTable
from segue.evidence.envoy import EnvoyEvidence
from segue.routers.envoy.router import EnvoyRouter

from .world import HALF, V1, V2, Answer, Process, World, Wrk, ask, service, table, until, version


def bounded(listen: str, old: Process, new: Process, replays: int | None, patience: float = 1) -> ServiceTable:
    """All users are on the new version."""
    sides = service(listen, version(V1, 0, old), version(V2, 1, new), trial=V2)
    return replace(sides, replays=replays, patience=timedelta(seconds=patience))


async def in_the_books(evidence: EnvoyEvidence, total: int) -> Books:
    """The books once so many requests are in them."""

    async def complete() -> bool:
        return (await evidence.books("shop")).total == total

    await until(complete, f"{total} requests in the books")
    return await evidence.books("shop")


@pytest.mark.parametrize(("mode", "answer"), [("500", Answer(500, "new")), ("reset", None)])
async def test_beyond_the_budget_users_get_what_their_version_did(
    router: EnvoyRouter, listen: str, old: Process, new: Process, mode: str, answer: Answer | None
) -> None:
    await router.apply(table(bounded(listen, old, new, 0)))
    await new.mode(mode)
    answers = [await ask(listen) for _ in range(20)]
    assert all(each == answer if answer else each.status == 503 for each in answers)
    assert await old.seen() == 0 and await new.seen() == 20
    books = await in_the_books(EnvoyEvidence(router), 20)
    assert books == (Books(20, failed={V2: 20}) if answer else Books(20, cut=20))
    sample = (await EnvoyEvidence(router).sample("shop"))[V2]
    assert (sample.attempts, sample.failures) == (20, 20)


async def test_within_the_budget_failures_are_answered_by_the_others(
    router: EnvoyRouter, listen: str, old: Process, new: Process
) -> None:
    await router.apply(table(bounded(listen, old, new, 1)))
    await new.mode("500")
    for _ in range(20):
        assert await ask(listen) == Answer(200, "old")
    books = await in_the_books(EnvoyEvidence(router), 20)
    assert books == Books(20, shielded=20)


async def test_the_budget_is_of_requests_at_a_time(
    router: EnvoyRouter, listen: str, old: Process, new: Process
) -> None:
    await router.apply(table(bounded(listen, old, new, 2, patience=0.1)))
    waiting = [asyncio.create_task(ask(listen, "/hold")) for _ in range(2)]
    await old.holding(2)
    await new.mode("500")
    assert await ask(listen) == Answer(500, "new")
    await old.release()
    assert await asyncio.gather(*waiting) == [Answer(200, "old")] * 2
    assert await ask(listen) == Answer(200, "old")


async def test_a_slow_request_beyond_the_budget_is_not_sent_to_the_others_and_not_cut(
    router: EnvoyRouter, listen: str, old: Process, new: Process
) -> None:
    await router.apply(table(bounded(listen, old, new, 0, patience=0.1)))
    assert await ask(listen, "/slow?0.8") == Answer(200, "new")
    assert await old.seen() == 0
    books = await in_the_books(EnvoyEvidence(router), 1)
    assert books == Books(1, answered={V2: 1}, hedged=1)


async def test_the_budget_changes_at_any_time_and_nothing_is_lost(
    router: EnvoyRouter, listen: str, old: Process, new: Process
) -> None:
    sides = service(listen, version(V1, HALF, old), version(V2, HALF, new), trial=V2)
    await router.apply(table(sides))
    await new.mode("500")
    async with Wrk(listen) as wrk:

        async def loaded() -> bool:
            return await new.seen() > 100

        await until(loaded, "the load")
        for bound in [1_000, 500, None, 64] * 10:
            await router.apply(table(replace(sides, replays=bound)))
        load = await wrk.stop()
    assert load.errors == 0, load.text


async def test_only_the_version_on_trial_has_a_budget(
    router: EnvoyRouter, listen: str, old: Process, new: Process, world: World
) -> None:
    dead = "127.0.0.1:1"
    sides = service(listen, version(V1, 1, old, dead), version(V2, 0, new), trial=V2)
    await router.apply(table(replace(sides, replays=0)))
    for method in "GET", "POST":
        for _ in range(20):
            assert await ask(listen, method=method) == Answer(200, "old")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_never_reached_the_version_on_trial_is_bounded_as_well(
    router: EnvoyRouter, listen: str, old: Process, new: Process, method: str
) -> None:
    await new.kill()
    for replays, status in (0, 503), (1, 200):
        await router.apply(table(bounded(listen, old, new, replays)))
        await router.settled()
        assert (await ask(listen, method=method)).status == status
    books = await in_the_books(EnvoyEvidence(router), 2)
    assert books == Books(2, shielded=1, unserved=1)


async def test_a_version_on_trial_without_a_ready_instance_needs_no_budget(
    router: EnvoyRouter, listen: str, old: Process
) -> None:
    sides = service(listen, version(V1, 0, old), version(V2, 1), trial=V2)
    await router.apply(table(replace(sides, replays=0)))
    for _ in range(20):
        assert await ask(listen) == Answer(200, "old")
