"""Where requests go: shares, instances that leave, versions that fail, hosts and paths, under real load."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import pytest

from segue.core.traffic import Endpoint, InstanceId, Traffic
from segue.errors import RouterRefused
from segue.routers.envoy.router import EnvoyRouter

from .world import (
    HALF,
    V1,
    V2,
    V3,
    Answer,
    Line,
    World,
    Wrk,
    ask,
    asked,
    closed,
    endpoints,
    port,
    service,
    table,
    until,
    version,
)

OLD, NEW = (200, "old"), (200, "new")


async def test_requests_are_split_as_the_shares_say(router: EnvoyRouter, world: World, listen: str) -> None:
    one, two, three = [await world.backend(name) for name in ("one", "two", "three")]
    backends = version(V1, Fraction(1, 2), one), version(V2, Fraction(1, 3), two), version(V3, Fraction(1, 6), three)
    await router.apply(table(service(listen, *backends, trial=V2)))
    answers = await asked(listen, 3000)
    for share, name in (1500, "one"), (1000, "two"), (500, "three"):
        assert abs(answers[200, name] - share) < 160, answers  # six standard deviations
    assert sum(answers.values()) == 3000 == sum(count for (status, _), count in answers.items() if status == 200)


async def test_all_and_nothing_are_exact(router: EnvoyRouter, world: World, listen: str) -> None:
    old, new = await world.backend("old"), await world.backend("new")
    for share, only in (Fraction(0), OLD), (Fraction(1), NEW), (Fraction(0), OLD):
        await router.apply(table(service(listen, version(V1, 1 - share, old), version(V2, share, new), trial=V2)))
        await router.settled()
        assert set(await asked(listen, 200)) == {only}


async def test_no_request_is_lost_in_200_shifts_under_load(router: EnvoyRouter, world: World, listen: str) -> None:
    old, new = await world.backend("old"), await world.backend("new")
    split = {
        s: table(service(listen, version(V1, 1 - s, old), version(V2, s, new), trial=V2))
        for s in (Fraction(0), Fraction(1))
    }
    await router.apply(split[Fraction(0)])
    async with Wrk(listen) as wrk:
        await until(lambda: more_than(old.seen, 100), "the load")
        for share in islice(cycle((Fraction(1), Fraction(0))), 200):
            await router.apply(split[share])
        load = await wrk.stop()
    assert load.errors == 0, load.text
    assert await new.seen() > 0 < load.requests


async def more_than(seen: object, count: int) -> bool:
    return await seen() > count  # type: ignore[operator]


async def test_no_request_is_lost_when_versions_come_and_go(router: EnvoyRouter, world: World, listen: str) -> None:
    backends = {revision: await world.backend(revision) for revision in (V1, V2, V3)}
    await router.apply(table(service(listen, version(V1, 1, backends[V1]))))
    async with Wrk(listen) as wrk:
        await until(lambda: more_than(backends[V1].seen, 100), "the load")
        for old, new in islice(cycle([(V1, V2), (V2, V3), (V3, V1)]), 9):
            for share in (Fraction(0), HALF, Fraction(1)):
                sides = version(old, 1 - share, backends[old]), version(new, share, backends[new])
                await router.apply(table(service(listen, *sides, trial=new)))
            await router.settled()
            await router.apply(table(service(listen, version(new, 1, backends[new]))))
        load = await wrk.stop()
    assert load.errors == 0, load.text


async def test_what_the_shield_repeats_is_answered_while_other_versions_come_and_go(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    old, new = await world.backend("old"), await world.backend("new")
    await new.mode("500")
    sides = version(V1, HALF, old), version(V2, HALF, new)
    tables = [table(service(listen, *sides, *others, trial=V2)) for others in ((), (version(V3, 0),))]
    await router.apply(tables[0])
    async with Wrk(listen) as wrk:
        await until(lambda: more_than(new.seen, 100), "the load")
        for each in islice(cycle(tables), 60):
            await router.apply(each)
        load = await wrk.stop()
    assert load.errors == 0, load.text


async def test_after_the_barrier_no_request_comes_to_a_version_without_a_share(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    old, new = await world.backend("old"), await world.backend("new")
    sides = {
        s: table(service(listen, version(V1, 1 - s, old), version(V2, s, new))) for s in (Fraction(0), Fraction(1))
    }
    await router.apply(sides[Fraction(0)])
    async with Wrk(listen) as wrk:
        await until(lambda: more_than(old.seen, 100), "the load")
        for share, left, instance in islice(cycle([(Fraction(1), old, "v1.1-1"), (Fraction(0), new, "v2.1-1")]), 10):
            await router.apply(sides[share])
            await router.settled()
            await until(lambda name=instance: idle(router, name), "no request in flight")  # type: ignore[misc]
            before, other = await left.seen(), new if left is old else old
            reached = await other.seen()
            await until(lambda o=other, r=reached: more_than(o.seen, r + 50), "more load")  # type: ignore[misc]
            assert await left.seen() == before
        await wrk.stop()


async def idle(router: EnvoyRouter, instance: str) -> bool:
    return (await router.observe("shop"))[InstanceId(instance)].in_flight == 0


async def test_a_draining_instance_gets_nothing_new_and_finishes_what_it_has(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    leaves, stays = await world.backend("leaves"), await world.backend("stays")
    await router.apply(table(service(listen, version(V1, 1, leaves))))
    held = [asyncio.create_task(ask(listen, "/hold")) for _ in range(3)]
    await leaves.holding(3)
    leaving = endpoints("leaving", [leaves], Traffic.DRAINING)
    await router.apply(table(service(listen, version(V1, 1, stays, more=leaving))))
    await router.settled()
    assert set(await asked(listen, 100)) == {(200, "stays")}
    assert (await router.observe("shop"))[leaving[0].instance].in_flight == 3
    await leaves.release()
    assert {answer.body for answer in await asyncio.gather(*held)} == {"leaves"}
    await until(lambda: idle(router, "leaving-1"), "the end of its requests")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("empty", "other"), [(V1, NEW), (V2, OLD)])
async def test_a_version_without_a_ready_instance_is_given_nothing(
    router: EnvoyRouter, world: World, listen: str, empty: str, other: tuple[int, str], method: str
) -> None:
    backends = {V1: await world.backend("old"), V2: await world.backend("new")}
    for state in (Traffic.UNREADY, Traffic.DRAINING):
        sides = [version(v, HALF, b, state=state if v == empty else Traffic.READY) for v, b in backends.items()]
        await router.apply(table(service(listen, *sides, trial=V2)))
        assert set(await asked(listen, 50, method=method)) == {other}


@pytest.mark.parametrize("state", [Traffic.UNREADY, Traffic.DRAINING])
async def test_instances_that_are_out_get_nothing_even_if_all_are(
    router: EnvoyRouter, world: World, listen: str, state: Traffic
) -> None:
    old, new = await world.backend("old"), await world.backend("new")
    for backends in [version(V1, 1, old, state=state)], [version(v, HALF, old, new, state=state) for v in (V1, V2)]:
        await router.apply(table(service(listen, *backends)))
        assert {status for status, _ in await asked(listen, 50)} == {503}
    assert await old.seen() + await new.seen() == 0


async def test_one_ready_instance_of_many_keeps_its_versions_whole_share(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    old, new = await world.backend("old"), await world.backend("new")
    for state in (Traffic.DRAINING, Traffic.UNREADY):
        out = endpoints("out", [f"127.0.0.1:{port()}" for _ in range(9)], state)
        await router.apply(table(service(listen, version(V1, 1, old, more=out), version(V2, 0, new))))
        await router.settled()
        assert set(await asked(listen, 100)) == {OLD}


@pytest.mark.parametrize("mode", ["500", "reset"])
async def test_users_do_not_see_that_the_version_on_trial_fails(
    router: EnvoyRouter, world: World, listen: str, mode: str
) -> None:
    old, new = await world.backend("old"), await world.backend("new")
    await new.mode(mode)
    await router.apply(table(service(listen, version(V1, HALF, old), version(V2, HALF, new), trial=V2)))
    for method in ("GET", "HEAD", "OPTIONS"):
        assert {status for status, _ in await asked(listen, 60, method=method)} == {200}
    assert sum((await new.stat())["seen"].values()) > 30
    before = await old.seen()
    assert (500 if mode == "500" else 503) in {status for status, _ in await asked(listen, 60, method="POST")}
    assert await old.seen() - before + (await new.stat())["seen"]["POST"] == 60, "a POST was executed twice"


@pytest.mark.parametrize("state", [None, Traffic.DRAINING, Traffic.UNREADY])
async def test_a_version_on_trial_that_nobody_stands_behind_any_more_is_repeated_by_its_own_others(
    router: EnvoyRouter, world: World, listen: str, state: Traffic | None
) -> None:
    good, dead, old = [await world.backend(name) for name in ("new", "dead", "old")]
    await dead.mode("reset")
    left = version(V1, 0, *([old] if state else []), state=state or Traffic.READY)
    nobody = f"127.0.0.1:{port()}"
    await router.apply(table(service(listen, left, version(V2, 1, good, dead, nobody), trial=V2)))
    assert set(await asked(listen, 60)) == {NEW}
    assert await dead.seen() > 10


async def test_users_do_not_wait_for_a_version_on_trial_that_hangs(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    old, new = await world.backend("old"), await world.backend("new")
    await new.mode("hang")
    await router.apply(table(service(listen, version(V1, 0, old), version(V2, 1, new), trial=V2)))
    assert await ask(listen) == Answer(200, "old")


async def test_a_slow_answer_of_the_version_on_trial_is_not_cut(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    old, new = await world.backend("old"), await world.backend("new")
    await router.apply(table(service(listen, version(V1, 0, old), version(V2, 1, new), trial=V2)))
    assert await ask(listen, "/slow?2.5") == Answer(200, "new")


async def test_the_old_versions_failures_are_its_own(router: EnvoyRouter, world: World, listen: str) -> None:
    old, new = await world.backend("old"), await world.backend("new")
    await old.mode("500")
    await router.apply(table(service(listen, version(V1, 1, old), version(V2, 0, new), trial=V2)))
    assert await ask(listen) == Answer(500, "old")
    assert await old.seen() == 1 and await new.seen() == 0


@pytest.mark.parametrize("script", ["", 'wrk.method = "POST"\nwrk.body = "x"\n'])
async def test_killing_the_version_on_trial_in_mid_load_loses_nothing_that_had_not_reached_it(
    router: EnvoyRouter, world: World, listen: str, script: str, tmp_path: Path
) -> None:
    (tmp_path / "wrk.lua").write_text(script)
    old, new = await world.backend("old"), await world.backend("new")
    sides = version(V1, Fraction(7, 10), old), version(V2, Fraction(3, 10), new)
    await router.apply(table(service(listen, *sides, trial=V2)))
    async with Wrk(listen, script=tmp_path / "wrk.lua") as wrk:
        await until(lambda: more_than(new.seen, 100), "the load")
        await new.kill()
        before = await old.seen()
        await until(lambda: more_than(old.seen, before + 500), "the load on the old version")
        load = await wrk.stop()
    assert load.errors <= (64 if script else 0), load.text


async def test_a_refused_connection_is_tried_elsewhere_whatever_the_method(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    alive, dead = await world.backend("old"), f"127.0.0.1:{port()}"
    await router.apply(table(service(listen, version(V1, 1, alive, dead))))
    for method in ("GET", "POST"):
        assert set(await asked(listen, 50, method=method)) == {OLD}
    await router.apply(table(service(listen, version(V1, 0, alive), version(V2, 1, dead))))
    for method in ("GET", "POST"):
        assert set(await asked(listen, 50, method=method)) == {OLD}


async def test_a_service_without_any_share_answers_503_by_itself(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    old = await world.backend("old")
    await router.apply(table(service(listen, version(V1, 0, old))))
    assert await ask(listen) == Answer(503, "shop is not being served.\n")


async def test_instances_may_listen_on_unix_sockets(router: EnvoyRouter, world: World, listen: str) -> None:
    old = await world.backend("old", f"unix:{world.folder}/old.sock")
    await router.apply(table(service(listen, version(V1, 1, old))))
    held = asyncio.create_task(ask(listen, "/hold"))
    await old.holding()
    (seen,) = (await router.observe("shop")).values()
    assert seen.healthy and seen.in_flight == 1
    await old.release()
    assert await held == Answer(200, "old")


async def test_services_share_a_listener_by_host_and_by_path(router: EnvoyRouter, world: World, listen: str) -> None:
    names = ("all", "host", "path")
    backends = {name: await world.backend(name) for name in names}
    places = {"all": {}, "host": {"hosts": ("a.example",)}, "path": {"path": "/two"}}
    await router.apply(table(*(service(listen, version(V1, 1, backends[n]), name=n, **places[n]) for n in names)))
    for host, path, name in [
        ("a.example", "/", "host"),
        ("A.example:80", "/two", "host"),
        ("b.example", "/", "all"),
        ("b.example", "/two", "path"),
        ("b.example", "/two/x?y", "path"),
        ("b.example", "/twofold", "all"),
    ]:
        assert (await ask(listen, path, host=host)).body == name, (host, path)


async def test_an_answer_may_take_as_long_as_its_route_says(router: EnvoyRouter, world: World, listen: str) -> None:
    old = await world.backend("old")
    await router.apply(table(service(listen, version(V1, 1, old), timeout=timedelta(milliseconds=200))))
    assert (await ask(listen, "/slow?30")).status == 504


async def test_users_do_not_say_how_their_requests_are_treated(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    old = await world.backend("old")
    await router.apply(table(service(listen, version(V1, 1, old))))
    hurry = "x-envoy-upstream-rq-timeout-ms: 100\r\nx-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 5\r\n"
    assert await ask(listen, "/slow?0.4", headers=hurry) == Answer(200, "old")
    await old.mode("500")
    assert await ask(listen, method="POST", headers=hurry) == Answer(500, "old")
    assert await old.seen() == 2


async def test_a_listener_opens_with_its_first_service_and_closes_with_its_last(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    old, other = await world.backend("old"), f"127.0.0.1:{port()}"
    one, two = (service(listen, version(V1, 1, old), name=n, hosts=(n,)) for n in ("one", "two"))
    three = service(other, version(V1, 1, old), name="three")
    for _ in range(2):
        await router.apply(table(one, two, three))
        assert (await ask(listen, host="two")).status == 200
        await router.apply(table(two, three))
        assert (await ask(listen, host="one")).status == 404
        assert (await ask(listen, host="two")).status == 200
        await router.apply(table(three))
        await until(lambda: closed(listen), "the end of the listener")
        assert (await ask(other)).status == 200


async def test_what_is_open_to_one_service_stays_while_another_comes_changes_and_goes(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    ours, theirs, newer = [await world.backend(name) for name in ("ours", "theirs", "newer")]
    elsewhere = f"127.0.0.1:{port()}"
    one = service(listen, version(V1, 1, ours), name="one", hosts=("one",))
    await router.apply(table(one))
    line, held = await Line.to(listen), asyncio.create_task(ask(listen, "/hold", host="one"))
    await ours.holding()
    for others in (
        [service(listen, version(V1, 1, theirs), name="two", hosts=("two",))],
        [service(listen, version(V1, HALF, theirs), version(V2, HALF, newer), name="two", hosts=("two",), trial=V2)],
        [service(listen, version(V2, 1, newer), name="two", hosts=("two", "three"), path="/x")],
        [service(elsewhere, version(V2, 1, newer), name="two")],
        [],
    ):
        await router.apply(table(one, *others))
        await router.settled()
        answer = await line.ask("one")
        assert (answer, answer.closing) == (Answer(200, "ours"), False)
    await ours.release()
    kept = await held
    assert (kept.status, kept.closing) == (200, False)


async def test_a_table_that_envoy_refuses_is_reported_and_changes_nothing(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    good = service(listen, version(V1, 1, await world.backend("good")), name="good", hosts=("good",))
    await router.apply(table(good))
    bad_host = service(listen, version(V1, 1, await world.backend("bad")), name="bad", hosts=("bad", ""))
    bad_end = service(listen, version(V1, 1, "no-address:80"), name="bad", hosts=("bad",))
    bad_listener = service("192.0.2.1:80", version(V1, 1, await world.backend("bad")), name="bad")
    for bad in (bad_host, bad_end, bad_listener):
        with pytest.raises(RouterRefused):
            await router.apply(table(good, bad))
        assert router.table == table(good)
        assert (await ask(listen, host="good")) == Answer(200, "good")
        assert (await ask(listen, host="bad")).status == 404
    other = service(listen, version(V1, 1, await world.backend("other")), name="other", hosts=("other",))
    await router.apply(table(good, other))
    assert (await ask(listen, host="other")) == Answer(200, "other")


async def test_an_instance_is_seen_by_its_own_address(router: EnvoyRouter, world: World, listen: str) -> None:
    one, two = await world.backend("one"), await world.backend("two")
    ends = [Endpoint(InstanceId(p.name), p.address, Traffic.READY) for p in (one, two)]
    await router.apply(table(service(listen, version(V1, 1, more=(ends[0],)), version(V2, 0, more=(ends[1],)))))
    held = asyncio.create_task(ask(listen, "/hold"))
    await one.holding()
    assert {i: o.in_flight for i, o in (await router.observe("shop")).items()} == {"one": 1, "two": 0}
    await one.release()
    await held
