"""What the statistics say is what backends and clients have seen."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from h2.connection import H2Connection
from h2.errors import ErrorCodes

from segue.core.release import Revision
from segue.core.traffic import Books, InstanceId, Sample
from segue.evidence.envoy import EnvoyEvidence
from segue.routers.envoy.router import EnvoyRouter

from .world import EITHER, HALF, V1, V2, World, Wrk, alone, ask, asked, port, service, table, until, version


async def attempts(evidence: EnvoyEvidence, revision: Revision) -> tuple[int, int]:
    sample = (await evidence.sample("shop"))[revision]
    return sample.attempts, sample.failures


def entered(books: Books) -> int:
    columns = sum(books.answered.values()) + sum(books.failed.values())
    return columns + books.shielded + books.cut + books.unserved


async def books_with(evidence: EnvoyEvidence, total: int) -> Books:
    """The books once so many requests are in them."""
    await until(lambda: has(evidence, total), f"{total} requests in the books")
    return await evidence.books("shop")


async def has(evidence: EnvoyEvidence, total: int) -> bool:
    return (await evidence.books("shop")).total >= total


async def test_under_load_every_attempt_and_every_request_is_counted_once(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    old, new, evidence = await world.backend("old"), await world.backend("new"), EnvoyEvidence(router)
    await new.mode("500")
    sides = version(V1, Fraction(7, 10), old), version(V2, Fraction(3, 10), new)
    await router.apply(table(service(listen, *sides, trial=V2)))
    async with Wrk(listen) as wrk:
        await until(lambda: has(evidence, 1000), "the load")
        for _ in range(20):
            books = await evidence.books("shop")
            assert books.total == entered(books), "the books must balance while requests begin and end"
        load = await wrk.stop()
    await until(lambda: idle(router), "the end of the load")
    books = await evidence.books("shop")
    assert load.errors == 0, load.text
    assert books.total == entered(books)
    assert 0 <= books.cut <= books.total - load.requests <= 64, "wrk leaves a request on each connection"


async def test_what_is_counted_is_what_came_and_went(router: EnvoyRouter, world: World, listen: str) -> None:
    old, new, evidence = await world.backend("old"), await world.backend("new"), EnvoyEvidence(router)
    await new.mode("500")
    sides = version(V1, Fraction(7, 10), old), version(V2, Fraction(3, 10), new)
    await router.apply(table(service(listen, *sides, trial=V2)))
    assert await asked(listen, 1000, workers=32) == {(200, "old"): 1000}
    books, samples = await books_with(evidence, 1000), await evidence.sample("shop")
    assert books == Books(1000, answered={V1: samples[V1].attempts}, shielded=samples[V2].attempts)
    assert samples[V2].attempts == samples[V2].failures == await new.seen()
    assert await old.seen() == 1000 == samples[V1].attempts + samples[V2].attempts
    assert samples[V1].failures == 0
    each = await evidence.instances("shop")
    assert each == {InstanceId(f"{v}-1"): Sample(samples[v].attempts, samples[v].failures) for v in (V1, V2)}


@EITHER
@pytest.mark.parametrize("mode", ["500", "reset", "cut"])
async def test_every_attempt_is_told_whether_it_is_repeated_or_not(
    router: EnvoyRouter, world: World, listen: str, mode: str, at_rest: bool
) -> None:
    well, ill, evidence = await world.backend("well"), await world.backend("ill"), EnvoyEvidence(router)
    await ill.mode(mode)
    await router.apply(alone(listen, at_rest, well, ill))
    for method in ("GET", "POST"):
        for _ in range(20):
            with contextlib.suppress(asyncio.IncompleteReadError):  # what is cut
                await ask(listen, method=method)
    books = await books_with(evidence, 40)
    failed, all_of_them = await ill.seen(), await ill.seen() + await well.seen()
    assert 0 < failed < all_of_them
    assert (books.total < all_of_them) == (mode == "reset"), "only what is reset is repeated"
    assert await attempts(evidence, V1) == (all_of_them, failed)
    assert sum(sample.attempts for sample in (await evidence.instances("shop")).values()) == all_of_them


@EITHER
async def test_who_leaves_and_what_is_late_has_failed_once(
    router: EnvoyRouter, world: World, listen: str, at_rest: bool
) -> None:
    slow, evidence = await world.backend("slow"), EnvoyEvidence(router)
    await router.apply(alone(listen, at_rest, slow))
    users = [asyncio.create_task(ask(listen, "/hold")) for _ in range(5)]
    await slow.holding(5)
    for user in users:
        user.cancel()
    _, writer = await asyncio.open_connection(*listen.split(":"))
    http, streams = H2Connection(), (1, 3, 5)
    http.initiate_connection()
    for stream in streams:
        head = {":method": "GET", ":path": "/hold", ":authority": "x", ":scheme": "http"}
        http.send_headers(stream, list(head.items()), end_stream=True)
    writer.write(http.data_to_send())
    await slow.holding(8)
    for stream in streams:
        http.reset_stream(stream, ErrorCodes.CANCEL)
    writer.write(http.data_to_send())  # as a browser whose user goes elsewhere; its connection stays
    await until(lambda: tried(evidence, V1, (8, 8)), "eight failures")
    writer.close()
    await slow.mode("hang")
    await router.apply(alone(listen, at_rest, slow, timeout=timedelta(seconds=0.05)))
    for _ in range(5):
        assert (await ask(listen)).status == 504
    await until(lambda: tried(evidence, V1, (13, 13)), "thirteen failures")


async def test_a_request_whose_user_leaves_before_there_is_an_answer_has_failed(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    old, new, evidence = await world.backend("old"), await world.backend("new"), EnvoyEvidence(router)
    await router.apply(table(service(listen, version(V1, 0, old), version(V2, 1, new), trial=V2)))
    await new.mode("hang")
    for method in ("POST", "GET"):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await ask(listen, method=method)
    await until(lambda: tried(evidence, V2, (2, 2)), "two failures")
    await new.mode("ok")
    assert await asked(listen, 10) == {(200, "new"): 10}
    await until(lambda: tried(evidence, V2, (12, 2)), "ten answers")


async def tried(evidence: EnvoyEvidence, revision: Revision, wanted: tuple[int, int]) -> bool:
    return await attempts(evidence, revision) == wanted


async def test_an_attempt_that_another_one_overtook_counts_once(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    old, new, evidence = await world.backend("old"), await world.backend("new"), EnvoyEvidence(router)
    way = service(listen, version(V1, 0, old), version(V2, 1, new), trial=V2)
    await router.apply(table(replace(way, patience=timedelta(seconds=0.1))))
    await new.mode("hang")
    assert await asked(listen, 5) == {(200, "old"): 5}
    await until(lambda: tried(evidence, V2, (5, 5)), "five failures")
    assert await attempts(evidence, V1) == (0, 0)


async def test_an_instance_that_hangs_is_named(router: EnvoyRouter, world: World, listen: str) -> None:
    good, bad, evidence = await world.backend("good"), await world.backend("bad"), EnvoyEvidence(router)
    sides = version(V1, 0, await world.backend("old")), version(V2, 1, good, bad)
    way = service(listen, *sides, trial=V2)
    await router.apply(table(replace(way, patience=timedelta(seconds=0.1))))
    await bad.mode("hang")
    assert set(await asked(listen, 20)) == {(200, "good"), (200, "old")}
    await books_with(evidence, 20)
    found = await evidence.instances("shop")
    old, one, two = (found[InstanceId(name)] for name in ("v1.1-1", "v2.1-1", "v2.1-2"))
    assert two.failures == two.attempts > 0 == one.failures < one.attempts
    assert old.attempts == 0, "what it answered in place of another was not given to it"


async def idle(router: EnvoyRouter) -> bool:
    return not any(seen.in_flight for seen in (await router.observe("shop")).values())


async def outcome(router: EnvoyRouter, *requests: Any) -> tuple[Books, dict[Revision, tuple[int, int]]]:
    """What is counted for these requests, and only for them."""
    evidence = EnvoyEvidence(router)
    before, known = await evidence.books("shop"), await evidence.sample("shop")
    for request in requests:
        with contextlib.suppress(TimeoutError):
            await request
    after = await books_with(evidence, before.total + len(requests))
    samples = await evidence.sample("shop")
    grown = {
        r: (s.attempts - known[r].attempts, s.failures - known[r].failures)
        for r, s in samples.items()
        if s.attempts > known[r].attempts
    }
    assert after.total == entered(after) == before.total + len(requests)
    return _minus(after, before), grown


def _minus(after: Books, before: Books) -> Books:
    return Books(
        after.total - before.total,
        {r: n - before.answered.get(r, 0) for r, n in after.answered.items() if n > before.answered.get(r, 0)},
        {r: n - before.failed.get(r, 0) for r, n in after.failed.items() if n > before.failed.get(r, 0)},
        after.shielded - before.shielded,
        after.hedged - before.hedged,
        after.cut - before.cut,
        after.unserved - before.unserved,
    )


async def test_every_outcome_is_entered_where_it_belongs(router: EnvoyRouter, world: World, listen: str) -> None:
    old, new = await world.backend("old"), await world.backend("new")
    await router.apply(table(service(listen, version(V1, 0, old), version(V2, 1, new), trial=V2)))

    async def seen(mode: str, method: str = "GET", target: str = "/") -> Any:
        await new.mode(mode)
        return await outcome(router, ask(listen, target, method=method))

    assert await seen("ok") == (Books(1, answered={V2: 1}), {V2: (1, 0)})
    assert await seen("500") == (Books(1, shielded=1), {V2: (1, 1)})
    assert await seen("reset") == (Books(1, shielded=1), {V2: (1, 1)})
    assert await seen("hang") == (Books(1, shielded=1, hedged=1), {V2: (1, 1)})
    assert await seen("cut") == (Books(1, cut=1), {V2: (1, 1)})
    assert await seen("500", "POST") == (Books(1, failed={V2: 1}), {V2: (1, 1)})
    assert await seen("reset", "POST") == (Books(1, cut=1), {V2: (1, 1)})
    assert await seen("ok", "GET", "/slow?1.5") == (Books(1, answered={V2: 1}, hedged=1), {V2: (1, 0)})
    await old.mode("500")
    assert await seen("500") == (Books(1, failed={V1: 1}), {V2: (1, 1)})


async def test_a_user_who_leaves_before_there_is_an_answer_was_not_served(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    await router.apply(table(service(listen, version(V1, 1, await world.backend("old")))))
    leaves = asyncio.wait_for(ask(listen, "/hold"), timeout=0.2)
    assert await outcome(router, leaves) == (Books(1, cut=1), {V1: (1, 1)})


async def test_an_answer_that_comes_too_late_for_its_route_is_a_failure(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    old = await world.backend("old")
    await router.apply(table(service(listen, version(V1, 1, old), timeout=timedelta(milliseconds=200))))
    assert await outcome(router, ask(listen, "/slow?30")) == (Books(1, cut=1), {V1: (1, 1)})


async def test_what_no_instance_was_given_is_unserved(router: EnvoyRouter, world: World, listen: str) -> None:
    old, dead = await world.backend("old"), f"127.0.0.1:{port()}"
    await router.apply(table(service(listen, version(V1, 0, old))))
    assert (await outcome(router, ask(listen)))[0] == Books(1, unserved=1)
    await router.apply(table(service(listen, version(V1, 1))))
    assert (await outcome(router, ask(listen)))[0] == Books(1, unserved=1)
    await router.apply(table(service(listen, version(V1, 1, dead))))
    assert (await outcome(router, ask(listen)))[0] == Books(1, unserved=1)


async def test_a_version_that_the_others_stand_in_for_is_no_evidence(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    old = await world.backend("old")
    await router.apply(table(service(listen, version(V1, 0, old), version(V2, 1), trial=V2)))
    assert await outcome(router, ask(listen), ask(listen, method="POST")) == (Books(2, shielded=2), {})


async def test_services_on_one_listener_have_books_of_their_own(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    old = await world.backend("old")
    shop, web = (service(listen, version(V1, 1, old), name=n, hosts=(n,)) for n in ("shop", "web"))
    await router.apply(table(shop, web))
    evidence = EnvoyEvidence(router)
    for host, count in ("shop", 3), ("web", 5), ("nobody", 2):
        for _ in range(count):
            await ask(listen, host=host)
    assert await books_with(evidence, 3) == Books(3, answered={V1: 3})
    assert await evidence.books("web") == Books(5, answered={V1: 5})
    assert await evidence.books("other") == Books()


async def test_the_books_balance_after_the_listener_was_closed_and_opened(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    old, other = await world.backend("old"), f"127.0.0.1:{port()}"
    evidence = EnvoyEvidence(router)
    for place in (listen, other, listen):
        await router.apply(table(service(place, version(V1, 1, old))))
        await asked(place, 10)
        await router.apply(table())
    await router.apply(table(service(listen, version(V1, 1, old))))
    await asked(listen, 10)
    books = await evidence.books("shop")
    assert books.total == entered(books)


async def test_times_are_to_the_first_byte_and_only_of_first_attempts(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    old, new, evidence = await world.backend("old"), await world.backend("new"), EnvoyEvidence(router)
    await new.mode("500")
    await router.apply(table(service(listen, version(V1, HALF, old), version(V2, HALF, new), trial=V2)))
    await asked(listen, 50)
    slow = [ask(listen, "/slow?0.3", method="POST") for _ in range(8)]
    await asyncio.gather(*slow)

    async def complete() -> bool:
        return all(sum(s.latency_us.values()) == s.attempts for s in (await evidence.sample("shop")).values())

    await until(complete, "the histograms")
    samples = await evidence.sample("shop")
    assert sum(s.attempts for s in samples.values()) == 58
    late = sum(n for s in samples.values() for edge, n in s.latency_us.items() if edge > 300_000)
    assert late == 8
