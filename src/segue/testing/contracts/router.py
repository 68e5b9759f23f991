"""What every router keeps. Subclass `RouterContract` in a test and give it a fixture called `router`."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from segue.core.release import Revision
from segue.core.traffic import (
    Backend,
    Endpoint,
    InstanceId,
    Observed,
    Preview,
    Route,
    RoutingTable,
    ServiceTable,
    Sticky,
    Traffic,
)
from segue.errors import RouterRefused
from segue.ports import Router

OLD, NEW = Revision("v1.1"), Revision("v2.1")
HALF = Fraction(1, 2)
LISTEN = "127.0.0.1:0"
"""Any port that is free."""


def instance(revision: Revision, number: int, state: Traffic = Traffic.READY) -> Endpoint:
    """One instance, at an address of its own where nobody listens."""
    port = 1 + number + (100 if revision == NEW else 0)
    return Endpoint(InstanceId(f"shop-{revision}-{number}"), f"127.0.0.1:{port}", state)


def table(*backends: Backend, service: str = "shop") -> RoutingTable:
    """The table of one service."""
    return RoutingTable({service: ServiceTable(service, Route(listen=LISTEN), backends)})


class RouterContract:
    """The promises of `segue.ports.Router`."""

    async def test_every_instance_of_the_table_is_seen_and_the_ready_ones_are_healthy(self, router: Router) -> None:
        ready, unready, draining = (instance(OLD, n, state) for n, state in enumerate(Traffic, 1))
        await router.apply(table(Backend(OLD, Fraction(1), (ready, unready, draining))))
        assert await router.observe("shop") == {
            ready.instance: Observed(healthy=True, in_flight=0),
            unready.instance: Observed(healthy=False, in_flight=0),
            draining.instance: Observed(healthy=False, in_flight=0),
        }

    async def test_instances_of_a_version_without_a_share_are_seen_as_well(self, router: Router) -> None:
        old, new = instance(OLD, 1), instance(NEW, 1)
        await router.apply(table(Backend(OLD, Fraction(1), (old,)), Backend(NEW, Fraction(0), (new,))))
        assert (await router.observe("shop"))[new.instance].healthy

    async def test_a_change_of_an_instance_is_seen_once_it_is_applied(self, router: Router) -> None:
        for state in (Traffic.READY, Traffic.DRAINING, Traffic.READY, Traffic.UNREADY):
            end = instance(OLD, 1, state)
            await router.apply(table(Backend(OLD, Fraction(1), (end,))))
            assert (await router.observe("shop"))[end.instance].healthy is (state is Traffic.READY)

    async def test_an_instance_that_is_not_in_the_table_any_more_is_not_seen(self, router: Router) -> None:
        one, two = instance(OLD, 1), instance(OLD, 2)
        await router.apply(table(Backend(OLD, Fraction(1), (one, two))))
        await router.apply(table(Backend(OLD, Fraction(1), (two,))))
        assert set(await router.observe("shop")) == {two.instance}

    async def test_a_service_that_is_not_in_the_table_has_no_instances(self, router: Router) -> None:
        await router.apply(table(Backend(OLD, Fraction(1), (instance(OLD, 1),))))
        assert await router.observe("other") == {}
        await router.apply(RoutingTable())
        assert await router.observe("shop") == {}

    async def test_applying_a_table_twice_is_applying_it_once(self, router: Router) -> None:
        end = instance(OLD, 1)
        for _ in range(2):
            await router.apply(table(Backend(OLD, Fraction(1), (end,))))
        assert set(await router.observe("shop")) == {end.instance}

    async def test_shares_that_are_not_the_whole_are_refused_and_nothing_changes(self, router: Router) -> None:
        old, new = instance(OLD, 1), instance(NEW, 1)
        await router.apply(table(Backend(OLD, Fraction(1), (old,))))
        with pytest.raises(RouterRefused, match="shop"):
            await router.apply(table(Backend(OLD, HALF, (old,)), Backend(NEW, Fraction(1, 3), (new,))))
        assert set(await router.observe("shop")) == {old.instance}

    async def test_a_preview_where_a_service_is_reached_is_refused_and_nothing_changes(self, router: Router) -> None:
        old, new = instance(OLD, 1), instance(NEW, 1)
        await router.apply(table(Backend(OLD, Fraction(1), (old,))))
        both = table(Backend(OLD, Fraction(1), (old,)), Backend(NEW, Fraction(0), (new,)))
        shown = replace(both.services["shop"], preview=Preview(LISTEN, NEW))
        with pytest.raises(RouterRefused, match="shop"):
            await router.apply(RoutingTable({"shop": shown}))
        assert set(await router.observe("shop")) == {old.instance}

    async def test_users_may_stay_on_their_versions_while_shares_move(self, router: Router) -> None:
        for sticky in Sticky(), Sticky(header="X-User-Id"), None:
            for share in HALF, Fraction(1), HALF, Fraction(0):
                sides = Backend(OLD, 1 - share, (instance(OLD, 1),)), Backend(NEW, share, (instance(NEW, 1),))
                one = replace(table(*sides).services["shop"], trial=NEW, sticky=sticky, replays=3)
                await router.apply(RoutingTable({"shop": one}))
        assert len(await router.observe("shop")) == 2

    async def test_nobody_needs_to_have_a_share(self, router: Router) -> None:
        end = instance(OLD, 1)
        await router.apply(table(Backend(OLD, Fraction(0), (end,))))
        assert (await router.observe("shop"))[end.instance].healthy

    async def test_the_barrier_is_passed_after_every_table(self, router: Router) -> None:
        for share in (Fraction(0), HALF, Fraction(1)):
            backends = Backend(OLD, 1 - share, (instance(OLD, 1),)), Backend(NEW, share, (instance(NEW, 1),))
            await router.apply(table(*backends))
            await router.settled()
        assert len(await router.observe("shop")) == 2
