"""Tables as documents: the split is exact, names can be read back, clusters never change."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise

import pytest
from envoy.config.route.v3 import route_pb2
from hypothesis import given
from hypothesis import strategies as st

from segue.core.release import Revision
from segue.core.traffic import Backend, Preview, Route, ServiceTable, Sticky, Traffic
from segue.errors import RouterRefused
from segue.routers.envoy import names, routes
from segue.routers.envoy.config import documents
from segue.routers.envoy.names import RouteName
from segue.routers.envoy.snapshot import Builder, Kind, Snapshot

from .world import HALF, V1, V2, V3, service, table, version

LISTEN = "127.0.0.1:8080"


def limits(table: ServiceTable) -> dict[str, tuple[int, int]]:
    """Which of a million numbers lead to which version: from, to."""
    found: dict[str, tuple[int, int]] = {}
    begin = 0
    for document in documents(table).routes.everybody:
        name = RouteName.parse(document["name"])
        fraction = document["match"].get("runtime_fraction", {}).get("default_value", {"numerator": routes.MILLION})
        assert name
        if name.kind in names.SAFE:
            continue
        found[name.revision] = (begin, fraction["numerator"])
        begin = fraction["numerator"]
    return found


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(any))
def test_every_split_is_exact_to_a_millionth(parts: list[int]) -> None:
    shares = [Fraction(part, sum(parts)) for part in parts]
    backends = tuple(Backend(Revision(f"v{n}.1"), share) for n, share in enumerate(shares))
    given = limits(ServiceTable("shop", Route(), backends))
    for backend in backends:
        begin, end = given.get(backend.revision, (0, 0))
        assert abs(Fraction(end - begin, routes.MILLION) - backend.share) <= Fraction(1, routes.MILLION)


def test_a_version_without_a_share_has_a_cluster_and_no_route() -> None:
    made = documents(service(LISTEN, version(V1, 1), version(V2, 0)))
    assert {"shop@v1.1", "shop@v2.1"} <= set(made.endpoints)
    assert {route["name"] for route in made.routes.everybody} == {"shop:v1.1:read", "shop:v1.1:all"}


def test_where_one_version_serves_a_get_is_found_first_and_treated_as_other_safe_methods_are() -> None:
    get, safe, other = documents(service(LISTEN, version(V1, 1))).routes.everybody
    assert get["match"].pop("headers") == [{"name": ":method", "string_match": {"exact": "GET"}}]
    assert safe["match"].pop("headers")[0]["name"] == ":method"
    assert get == safe != other


def test_the_shield_stands_before_the_version_on_trial_only() -> None:
    sides = version(V1, Fraction(2, 3), "127.0.0.1:1"), version(V2, Fraction(1, 3), "127.0.0.1:2")
    made = documents(service(LISTEN, *sides, trial=V2))
    policies = {route["name"]: route["route"] for route in made.routes.everybody}
    assert list(policies) == ["shop:v2.1:safe", "shop:v2.1:other", "shop:v1.1:read", "shop:v1.1:all"]
    assert "5xx" in policies["shop:v2.1:safe"]["retry_policy"]["retry_on"]
    for name in ("shop:v2.1:other", "shop:v1.1:read", "shop:v1.1:all"):
        assert "5xx" not in policies[name]["retry_policy"]["retry_on"]
        assert "hedge_policy" not in policies[name]


@pytest.mark.parametrize("trial", [None, V2])
def test_without_a_shield_no_version_has_one(trial: Revision | None) -> None:
    made = documents(
        service(LISTEN, version(V1, Fraction(2, 3)), version(V2, Fraction(1, 3)), trial=trial, shield=trial is None)
    )
    assert not any(route["name"].endswith(":safe") for route in made.routes.everybody)


@pytest.mark.parametrize("shield", [True, False])
def test_what_an_instance_dropped_is_repeated_for_safe_methods_only_and_not_without_a_shield(shield: bool) -> None:
    made = documents(service(LISTEN, version(V1, 1), shield=shield))
    repeated = {
        r["name"] for r in made.routes.everybody if ",reset," in f",{r['route']['retry_policy']['retry_on']},"
    }
    assert repeated == ({"shop:v1.1:read"} if shield else set())


def test_clusters_stay_as_they_are_whatever_the_shares_and_the_trial_are() -> None:
    one = documents(service(LISTEN, version(V1, 1), version(V2, 0), trial=V2)).clusters
    two = documents(
        service(LISTEN, version(V1, Fraction(1, 3)), version(V2, Fraction(2, 3), state=Traffic.DRAINING))
    ).clusters
    assert one == two


def test_how_long_the_shield_waits_concerns_routes_only() -> None:
    sides = version(V1, HALF, "127.0.0.1:1"), version(V2, HALF, "127.0.0.1:2")
    one, two = (
        documents(replace(service(LISTEN, *sides, trial=V2), patience=timedelta(seconds=time))) for time in (1, 2.5)
    )
    assert (one.clusters, one.endpoints) == (two.clusters, two.endpoints)
    waits = [
        [route["route"]["retry_policy"].get("per_try_timeout") for route in each.routes.everybody]
        for each in (one, two)
    ]
    assert waits == [["1.000000s", None, None, None], ["2.500000s", None, None, None]]


def test_how_many_requests_may_be_repeated_concerns_one_cluster_only() -> None:
    sides = version(V1, HALF), version(V2, HALF)
    one, two = (documents(replace(service(LISTEN, *sides, trial=V2), replays=bound)) for bound in (None, 7))
    changed = {name: cluster for name, cluster in two.clusters.items() if cluster != one.clusters[name]}
    assert {name: c["circuit_breakers"]["thresholds"][0]["max_retries"] for name, c in changed.items()} == {
        "shop~v2.1": 7
    }
    assert one.routes == two.routes


def test_when_a_version_comes_the_others_keep_their_clusters_and_the_names_that_their_routes_lead_to() -> None:
    two = documents(service(LISTEN, version(V1, 1), version(V2, 0)))
    three = documents(service(LISTEN, version(V1, 1), version(V2, 0), version(V3, 0)))
    assert set(two.clusters) < set(three.clusters)
    assert [route["route"]["cluster"] for route in two.routes.everybody] == [
        route["route"]["cluster"] for route in three.routes.everybody
    ]
    assert all(three.clusters[f"shop@{revision}"] == two.clusters[f"shop@{revision}"] for revision in (V1, V2))


@given(*[st.text("abc.:-_@~", min_size=1)] * 2, st.sampled_from(["safe", "other", "read", "all"]))
def test_the_name_of_a_route_can_be_read_back(label: str, other: str, kind: str) -> None:
    name = RouteName("shop", f"{label}.{len(other)}", kind)
    assert RouteName.parse(str(name)) == name


@pytest.mark.parametrize("text", ["", "-", "~barrier", "shop"])
def test_the_name_of_another_route_is_none_of_ours(text: str) -> None:
    assert RouteName.parse(text) is None


def test_addresses_are_hosts_with_ports_or_unix_sockets() -> None:
    def found(text: str) -> object:
        return next(iter(names.address(text).values()))

    assert found("127.0.0.1:80") == {"address": "127.0.0.1", "port_value": 80}
    assert found("[::1]:80") == {"address": "::1", "port_value": 80}
    assert found("localhost:80") == {"address": "127.0.0.1", "port_value": 80}
    assert found("unix:/run/x") == {"path": "/run/x"}
    for wrong in ("8080", "host", "host:port", ""):
        with pytest.raises(ValueError, match="is not an address"):
            names.address(wrong)


def test_only_what_changed_is_built_again() -> None:
    builder = Builder()
    one, two = (service(LISTEN, version(V1, 1), name=name, hosts=(f"{name}.x",)) for name in ("one", "two"))
    other = service("127.0.0.1:8081", version(V1, 1), name="other", trial=V1)
    tables = [
        table(one, two, other),
        table(one, replace(two, backends=(version(V1, 0),)), other),
        table(one, replace(two, backends=(version(V1, 0, "127.0.0.1:1"),)), other),
        table(one, replace(two, backends=(version(V1, 0, "127.0.0.1:1"), version(V2, 0))), other),
    ]
    built = [builder.build(each).resources for each in tables]
    changes = [
        {
            (kind.name, name)
            for kind in Kind
            for name, packed in before[kind].items()
            if after[kind][name] is not packed
        }
        for before, after in pairwise(built)
    ]
    assert changes == [{("ROUTES", LISTEN)}, {("ENDPOINTS", "two@v1.1")}, {("CLUSTER", "two~v1.1")}]


def test_where_rest_ends_hosts_lose_their_mark_and_nothing_else_is_built_again() -> None:
    builder = Builder()
    one, two = (service(LISTEN, version(V1, 1), name=name, hosts=(f"{name}.x",)) for name in ("one", "two"))
    rests = builder.build(table(one, two))
    moves = builder.build(table(one, replace(two, trial=V1)))
    again = builder.build(table(one, two))
    assert again == rests
    assert _marks(rests) == {"one.x": True, "two.x": True}
    assert _marks(moves) == {"one.x": False, "two.x": False}
    assert all(rests.resources[kind] == moves.resources[kind] for kind in Kind if kind is not Kind.ROUTES)


def _marks(snapshot: Snapshot) -> dict[str, bool]:
    """Whether what comes to each host is marked as coming at rest, and has no entry in the log of attempts."""
    routes = route_pb2.RouteConfiguration.FromString(snapshot.resources[Kind.ROUTES][LISTEN].value)
    marks = {host.name: "segue" in host.metadata.filter_metadata for host in routes.virtual_hosts}
    assert marks == {host.name: "segue.counted" in host.typed_per_filter_config for host in routes.virtual_hosts}
    return marks


def test_what_is_built_from_a_table_before_is_what_is_built_at_once() -> None:
    ways = [{}, {"sticky": Sticky()}, {"sticky": Sticky("X-User")}, {"patience": timedelta(seconds=2.5)}]
    ways += [{"preview": Preview("127.0.0.1:8081", V2, token)} for token in (None, "x")]
    splits = [(version(V1, 1 - share), version(V2, share)) for share in (Fraction(0), HALF, Fraction(1))]
    ends = version(V1, HALF, "127.0.0.1:1"), version(V2, HALF, "127.0.0.1:2")
    tables = [replace(service(LISTEN, *sides, trial=V2), **way) for sides in (*splits, ends) for way in ways]  # type: ignore[arg-type]
    builder = Builder()
    for each in [*tables, *reversed(tables), *sorted(tables, key=lambda t: hash(t))]:
        assert builder.build(table(each)) == Builder().build(table(each))


def test_two_services_at_the_same_place_are_refused_by_name() -> None:
    claims = [service(LISTEN, version(V1, 1), name=name, hosts=("x", name), path="/a") for name in ("one", "two")]
    with pytest.raises(RouterRefused, match=r"one and two are both to answer at .*8080, host x, path /a"):
        Builder().build(table(*claims))
