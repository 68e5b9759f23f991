"""The fakes keep their ports' promises, do what a test orders, and write down what they were asked."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from segue.core.release import Revision
from segue.core.traffic import Backend, Endpoint, InstanceId, Preview, Route, RoutingTable, ServiceTable, Traffic
from segue.errors import Refused, RouterLost, RouterRefused, StartFailed
from segue.ports import Commands, Ended, Evidence, Instance, Platform, Router
from segue.testing.calls import Apply, Began, Confirmed, Exited, Seen, Settled, Start, Stop
from segue.testing.clock import Crashed, VirtualClock
from segue.testing.contracts.router import RouterContract
from segue.testing.fakes import Behaviour, FakeRouter, Script, World, a_version, losses

V1, V2 = Revision("v1.1"), Revision("v2.1")
ONE = InstanceId("shop-v1.1-1")
GRACE = timedelta(seconds=10)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def world(clock: VirtualClock) -> World:
    return World(clock)


async def started(world: World, instance: InstanceId = ONE, revision: str = V1) -> Instance:
    version = a_version(revision=revision)
    return await world.platform.start(version, await world.platform.place(version, instance))


def table(
    shares: dict[Revision, Fraction | int], *endpoints: Endpoint, trial: Revision | None = None
) -> RoutingTable:
    backends = tuple(
        Backend(revision, Fraction(share), tuple(end for end in endpoints if revision in end.instance))
        for revision, share in shares.items()
    )
    return RoutingTable({"shop": ServiceTable("shop", Route(), backends, trial)})


def endpoint(instance: Instance, state: Traffic = Traffic.READY) -> Endpoint:
    return Endpoint(instance.id, instance.intent.address, state)


def test_the_fakes_are_ports(world: World) -> None:
    platform: Platform = world.platform
    router: Router = world.router
    evidence: Evidence = world.evidence
    commands: Commands = world.commands
    assert platform and router and evidence and commands


# Platform


async def test_an_instance_runs_until_it_is_stopped(world: World) -> None:
    instance = await started(world)
    assert world.platform.running == [instance]
    assert await world.platform.find([instance.intent]) == [instance]
    assert await world.platform.listens(instance)
    assert await world.platform.stop(instance, "TERM", GRACE)
    assert world.platform.running == []
    assert await world.platform.find([instance.intent]) == []
    assert await world.platform.gone(instance) == 0


async def test_stopping_twice_is_stopping_once(world: World) -> None:
    instance = await started(world)
    assert await world.platform.stop(instance, "TERM", GRACE)
    assert await world.platform.stop(instance, "TERM", timedelta(0))
    assert sum(isinstance(call, Exited) for call in world.record.calls) == 1


async def test_every_start_has_its_own_place(world: World) -> None:
    first, second = await started(world), await started(world)
    assert first.id == second.id
    assert first.intent.nonce != second.intent.nonce
    assert first.intent.address != second.intent.address
    assert first.pid != second.pid


async def test_an_intent_is_started_once(world: World) -> None:
    instance = await started(world)
    await world.platform.stop(instance, "TERM", GRACE)
    with pytest.raises(StartFailed):
        await world.platform.start(a_version(), instance.intent)


async def test_an_intent_that_was_looked_for_in_vain_will_never_run(world: World) -> None:
    intent = await world.platform.place(a_version(), ONE)
    assert await world.platform.find([intent]) == []
    with pytest.raises(StartFailed):
        await world.platform.start(a_version(), intent)


def test_a_start_that_is_under_way_is_given_up(world: World, clock: VirtualClock) -> None:
    async def main() -> None:
        world.platform.starting.close()
        starting = asyncio.create_task(started(world))
        await clock.idle()
        assert world.platform.starting.waiting == 1
        [start] = [call for call in world.record.calls if isinstance(call, Start)]
        assert await world.platform.find([start.intent]) == []
        world.platform.starting.open()
        with pytest.raises(StartFailed):
            await starting
        assert world.platform.running == []

    clock.run(main())


async def test_a_start_fails_as_it_was_ordered_and_then_succeeds(world: World) -> None:
    world.platform.order(V1, Behaviour(fails="no such command", log=("sh: serve: not found",)), Behaviour())
    with pytest.raises(StartFailed, match="no such command") as failure:
        await started(world)
    assert failure.value.log == ("sh: serve: not found",)
    assert (await started(world)).intent.nonce == "nonce-2"


async def test_an_order_for_an_instance_goes_before_that_for_its_revision(world: World) -> None:
    world.platform.order(V1, Behaviour(fails="all of them"))
    world.platform.order(ONE, Behaviour())
    assert await started(world)
    with pytest.raises(StartFailed, match="all of them"):
        await started(world, InstanceId("shop-v1.1-2"))


def test_an_instance_becomes_healthy_when_it_was_ordered_to(world: World, clock: VirtualClock) -> None:
    async def main() -> None:
        world.platform.order(V1, Behaviour(ready=5))
        instance = await started(world)
        command = f"health http://{instance.intent.address}"
        await clock.sleep(4.9)
        assert (await world.commands.run(a_version(), command, 2))[0] == 1
        assert not await world.platform.listens(instance)
        await clock.sleep(0.1)
        assert (await world.commands.run(a_version(), command, 2))[0] == 0
        assert await world.platform.listens(instance)
        world.platform.sick.add(ONE)
        assert (await world.commands.run(a_version(), command, 2))[0] == 1

    clock.run(main())


def test_one_that_is_never_ready_is_never_ready(world: World, clock: VirtualClock) -> None:
    async def main() -> None:
        world.platform.order(V1, Behaviour(ready=float("inf")))
        instance = await started(world)
        await clock.sleep(1e6)
        assert world.platform.running and not world.platform.healthy(instance.intent.address)

    clock.run(main())


async def test_smoke_tests_fail_as_they_were_ordered(world: World) -> None:
    world.platform.order(V1, Behaviour(smoke="the shop is empty"))
    instance = await started(world)
    assert await world.commands.run(a_version(), f"smoke http://{instance.intent.address}", 2) == (
        1,
        "the shop is empty",
    )
    assert await world.commands.run(a_version(), f"health http://{instance.intent.address}", 2) == (0, "")


def test_an_instance_that_ends_by_itself_is_seen_to_end(world: World, clock: VirtualClock) -> None:
    async def main() -> None:
        world.platform.order(V1, Behaviour(exits=30, status=7))
        instance = await started(world)
        assert await world.platform.gone(instance) == 7
        assert clock.monotonic() == 30
        assert await world.platform.find([instance.intent]) == []
        assert await world.platform.stop(instance, "TERM", timedelta(0))

    clock.run(main())


def test_an_instance_that_dies_now_is_seen_to_end_now(world: World, clock: VirtualClock) -> None:
    async def main() -> None:
        instance = await started(world)
        waiting = asyncio.create_task(world.platform.gone(instance))
        await clock.idle()
        world.platform.exit(ONE, -9)
        assert await waiting == -9

    clock.run(main())
    assert clock.monotonic() < 1


def test_one_that_does_not_end_is_killed_after_its_grace(world: World, clock: VirtualClock) -> None:
    async def main() -> None:
        world.platform.order(V1, Behaviour(ends=60))
        instance = await started(world)
        assert not await world.platform.stop(instance, "TERM", GRACE)
        assert clock.monotonic() == 10
        assert await world.platform.gone(instance) == -9

    clock.run(main())


async def test_without_grace_it_is_killed_at_once(world: World) -> None:
    assert not await world.platform.stop(await started(world), "TERM", timedelta(0))


async def test_a_stranger_on_the_port_is_told_apart(world: World) -> None:
    world.platform.order(V1, Behaviour(stranger=True))
    instance = await started(world)
    assert world.platform.healthy(instance.intent.address)
    assert not await world.platform.listens(instance)


def test_logs_give_the_last_lines_and_those_that_come(world: World, clock: VirtualClock) -> None:
    async def main() -> None:
        world.platform.order(V1, Behaviour(log=("one", "two", "three")))
        await started(world)
        assert [line async for line in world.platform.logs(ONE, lines=2, follow=False)] == ["two", "three"]
        seen: list[str] = []

        async def follow() -> None:
            async for line in world.platform.logs(ONE, lines=0, follow=True):
                seen.append(line)

        following = asyncio.create_task(follow())
        await clock.idle()
        world.platform.write(ONE, "four")
        await clock.idle()
        following.cancel()
        assert seen == ["four"]

    clock.run(main())


# Commands


async def hook(world: World, tmp_path: Path, command: str = "./expand.sh", *, once: str | None = None) -> Ended:
    return await world.commands(
        command,
        folder=tmp_path,
        environment={},
        user=None,
        timeout=timedelta(minutes=10),
        log=tmp_path / "log",
        status=tmp_path / once if once else None,
    )


async def test_a_command_does_what_was_ordered_and_else_succeeds(world: World, tmp_path: Path) -> None:
    world.commands.order("./expand.sh", Script(status=3, output="column exists"))
    assert await hook(world, tmp_path) == Ended(3)
    assert (tmp_path / "log").read_text() == "column exists\n"
    assert await hook(world, tmp_path, "./contract.sh")


def test_a_command_takes_its_time_and_at_most_its_timeout(world: World, clock: VirtualClock, tmp_path: Path) -> None:
    world.commands.order("./expand.sh", Script(seconds=60))
    assert clock.run(hook(world, tmp_path)) == Ended(0)
    assert clock.monotonic() == 60
    world.commands.order("./expand.sh", Script(seconds=3600))
    assert clock.run(hook(world, tmp_path)) == Ended(None, timed_out=True)
    assert clock.monotonic() == 660


def test_a_command_with_a_status_is_begun_once(world: World, clock: VirtualClock, tmp_path: Path) -> None:
    world.commands.order("./expand.sh", Script(status=2, seconds=60))

    async def main() -> None:
        first = asyncio.create_task(hook(world, tmp_path, once="status"))
        await clock.sleep(20)
        first.cancel()
        assert await hook(world, tmp_path, once="status") == Ended(2)
        assert clock.monotonic() == 60
        assert await hook(world, tmp_path, once="status") == Ended(2)
        assert clock.monotonic() == 60

    clock.run(main())
    assert world.record.calls.count(Began("./expand.sh")) == 1


# Router


async def test_a_listener_that_somebody_else_has_is_refused(world: World) -> None:
    await world.router.refuse_taken("127.0.0.1:8080")
    world.router.taken.add("127.0.0.1:8080")
    with pytest.raises(Refused, match="8080"):
        await world.router.refuse_taken("127.0.0.1:8080")


async def test_a_table_is_in_force_once_it_is_confirmed(world: World) -> None:
    instance = await started(world)
    await world.router.apply(table({V1: 1}, endpoint(instance)))
    assert world.router.shares("shop") == {V1: 1}
    world.router.in_flight[ONE] = 3
    [seen] = (await world.router.observe("shop")).items()
    assert seen[0] == ONE and seen[1].healthy and seen[1].in_flight == 3


async def test_only_a_ready_instance_is_healthy_to_the_router(world: World) -> None:
    instance = await started(world)
    for state in Traffic:
        await world.router.apply(table({V1: 1}, endpoint(instance, state)))
        assert (await world.router.observe("shop"))[ONE].healthy is (state is Traffic.READY)


def test_a_slow_confirmation_waits_for_the_test(world: World, clock: VirtualClock) -> None:
    async def main() -> None:
        world.router.confirming.close()
        applying = asyncio.create_task(world.router.apply(table({V1: 1})))
        await clock.sleep(60)
        assert not applying.done() and world.router.shares("shop") == {}
        world.router.confirming.let_through()
        await applying
        assert world.router.shares("shop") == {V1: 1}
        again = asyncio.create_task(world.router.apply(table({V2: 1})))
        await clock.sleep(60)
        assert not again.done()
        again.cancel()

    clock.run(main())


def test_a_slow_barrier_waits_for_the_test(world: World, clock: VirtualClock) -> None:
    async def main() -> None:
        world.router.settling.close()
        settling = asyncio.create_task(world.router.settled())
        await clock.sleep(60)
        assert not settling.done()
        world.router.settling.open()
        await settling

    clock.run(main())


async def test_a_refused_table_leaves_the_one_before_in_force(world: World) -> None:
    await world.router.apply(table({V1: 1}))
    world.router.refuse("shop", "no such cluster", when=lambda t: any(b.revision == V2 for b in t.backends))
    with pytest.raises(RouterRefused, match=r"shop.*no such cluster"):
        await world.router.apply(table({V2: 1}))
    assert world.router.shares("shop") == {V1: 1}
    await world.router.apply(table({V1: 1}))
    world.router.accept("shop")
    await world.router.apply(table({V2: 1}))
    assert world.router.shares("shop") == {V2: 1}


async def test_a_preview_where_somebody_else_listens_is_refused(world: World) -> None:
    before = table({V1: 1})
    await world.router.apply(before)
    world.router.taken.add("127.0.0.1:8081")
    shown = replace(before.services["shop"], preview=Preview("127.0.0.1:8081", V1))
    with pytest.raises(RouterRefused, match="8081"):
        await world.router.apply(RoutingTable({"shop": shown}))
    assert world.router.table == before


async def test_a_table_that_has_not_changed_is_not_refused_for_its_service(world: World) -> None:
    await world.router.apply(table({V1: 1}))
    world.router.refuse("shop")
    await world.router.apply(table({V1: 1}))


async def test_shares_that_do_not_sum_to_one_are_refused(world: World) -> None:
    with pytest.raises(RouterRefused, match="5/6"):
        await world.router.apply(table({V1: Fraction(1, 2), V2: Fraction(1, 3)}))


async def test_a_lost_router_is_there_again_after_so_many_calls(world: World) -> None:
    await world.router.apply(table({V1: 1}))
    world.router.lose(3)
    with pytest.raises(RouterLost):
        await world.router.observe("shop")
    with pytest.raises(RouterLost):
        await world.evidence.sample("shop")
    with pytest.raises(RouterLost):
        await world.router.settled()
    await world.router.settled()


class TestRouterContract(RouterContract):
    @pytest.fixture
    def router(self) -> FakeRouter:
        return World(VirtualClock()).router


# Evidence


def test_traffic_flows_by_the_confirmed_shares(world: World, clock: VirtualClock) -> None:
    async def main() -> None:
        await world.router.apply(table({V1: 1}))
        world.evidence.flow("shop", rate=30)
        await clock.sleep(10)
        await world.router.apply(table({V1: Fraction(2, 3), V2: Fraction(1, 3)}))
        await clock.sleep(10)
        samples = await world.evidence.sample("shop")
        assert {revision: sample.attempts for revision, sample in samples.items()} == {V1: 500, V2: 100}

    clock.run(main())


def test_failures_begin_when_they_were_ordered_to(world: World, clock: VirtualClock) -> None:
    async def main() -> None:
        await world.router.apply(table({V1: Fraction(1, 2), V2: Fraction(1, 2)}, trial=V2))
        world.evidence.flow("shop", rate=100)
        await clock.sleep(60)
        world.evidence.flow("shop", rate=100, failing={V2: 0.5, V1: 0.25})
        await clock.sleep(8)
        samples = await world.evidence.sample("shop")
        assert (samples[V1].failures, samples[V2].failures) == (100, 200)
        books = await world.evidence.books("shop")
        assert (books.failed[V1], books.failed[V2], books.shielded) == (100, 0, 200)
        assert books.total == sum(books.answered.values()) + sum(books.failed.values()) + books.shielded == 6800

    clock.run(main())


def test_counts_never_go_back_but_by_a_restart(world: World, clock: VirtualClock) -> None:
    async def main() -> None:
        await world.router.apply(table({V1: 1}))
        world.evidence.flow("shop", rate=10)
        last = 0
        for tick in range(100):
            await clock.sleep(0.1)
            if tick % 3 == 0:
                await world.router.apply(table({V1: 1}))
            count = (await world.evidence.sample("shop"))[V1].attempts
            assert count >= last
            last = count
        world.evidence.restart()
        await clock.sleep(1)
        assert (await world.evidence.sample("shop"))[V1].attempts == 10

    clock.run(main())


async def test_nobody_was_seen_where_nothing_flows(world: World) -> None:
    assert await world.evidence.sample("shop") == {}
    assert (await world.evidence.books("shop")).total == 0


# The record


async def test_a_good_end_loses_nothing(world: World) -> None:
    instance = await started(world)
    await world.router.apply(table({V1: 1}, endpoint(instance)))
    await world.router.apply(table({V1: 1}, endpoint(instance, Traffic.DRAINING)))
    await world.router.settled()
    await world.router.observe("shop")
    await world.platform.stop(instance, "TERM", GRACE)
    assert list(losses(world.record.calls)) == []
    kinds = [type(call) for call in world.record.calls]
    assert kinds.index(Settled) < kinds.index(Seen) < kinds.index(Stop) < kinds.index(Exited)


@pytest.mark.parametrize("left_out", ["drain", "barrier", "look", "wait"])
async def test_a_careless_end_is_found(world: World, left_out: str) -> None:
    instance = await started(world)
    await world.router.apply(table({V1: 1}, endpoint(instance)))
    if left_out != "drain":
        await world.router.apply(table({V1: 1}, endpoint(instance, Traffic.DRAINING)))
    if left_out != "barrier":
        await world.router.settled()
    world.router.in_flight[ONE] = 1 if left_out == "wait" else 0
    if left_out != "look":
        await world.router.observe("shop")
    await world.platform.stop(instance, "TERM", GRACE)
    assert len(list(losses(world.record.calls))) == 1


async def test_a_look_before_the_barrier_does_not_count(world: World) -> None:
    instance = await started(world)
    await world.router.apply(table({V1: 1}, endpoint(instance)))
    await world.router.apply(table({V1: 1}, endpoint(instance, Traffic.DRAINING)))
    await world.router.observe("shop")
    await world.router.settled()
    await world.platform.stop(instance, "TERM", GRACE)
    assert list(losses(world.record.calls)) == [f"{ONE} was stopped with requests in flight, or without looking"]


async def test_ending_what_has_died_or_never_served_loses_nothing(world: World) -> None:
    died, never = await started(world), await started(world, InstanceId("shop-v1.1-2"))
    await world.router.apply(table({V1: 1}, endpoint(died), endpoint(never, Traffic.UNREADY)))
    world.platform.exit(died.id)
    await world.platform.stop(died, "TERM", timedelta(0))
    await world.platform.stop(never, "TERM", GRACE)
    assert list(losses(world.record.calls)) == []


async def _engine(world: World) -> None:
    instance = await started(world)
    await world.router.apply(table({V1: 1}, endpoint(instance)))


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_happens_before_or_after_an_act_and_the_world_stays(
    world: World, clock: VirtualClock, after: bool
) -> None:
    world.record.crash_at(2, after=after)
    with pytest.raises(Crashed):
        clock.run(_engine(world))
    assert isinstance(world.record.calls[-1], Start)
    assert len(world.platform.running) == int(after)
    clock.run(_engine(world))
    assert world.router.shares("shop") == {V1: 1}
    assert len(world.platform.running) == 1 + int(after)


def test_the_order_of_what_was_done_can_be_read(world: World, clock: VirtualClock) -> None:
    clock.run(_engine(world))
    assert [type(call).__name__ for call in world.record.calls] == ["Place", "Start", "Apply", "Confirmed"]
    applied, confirmed = world.record.calls[2:]
    assert isinstance(applied, Apply) and isinstance(confirmed, Confirmed) and applied.table is confirmed.table
