"""One Envoy's side of the conversation: what it is told, and when it counts as confirmed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2

from segue.routers.envoy.snapshot import Kind, Packed
from segue.routers.envoy.xds import ConfigServer, Held, Resource, Stream

ALL = tuple(Kind)


def resource(number: int) -> Resource:
    return Resource(number, Packed(value=str(number).encode()))


def held(**resources: dict[str, int]) -> Held:
    return {kind: {k: resource(n) for k, n in resources.get(kind.name.lower(), {}).items()} for kind in Kind}


def hears(stream: Stream, kind: Kind, *names: str, **more: Any) -> list[Any]:
    """What Envoy is told after it has said this."""
    more = {"resource_names_subscribe": names, **more}
    stream.hear(discovery_pb2.DeltaDiscoveryRequest(type_url=kind.url, **more))
    return list(stream.responses())


def confirms(stream: Stream, response: Any) -> list[Any]:
    stream.hear(discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce))
    return list(stream.responses())


def names(response: Any) -> dict[str, str]:
    return {r.name: r.version for r in response.resources}


def test_versions_name_the_epoch_and_the_number() -> None:
    stream = Stream(7, held(cluster={"a": 1, "b": 2}))
    (told,) = hears(stream, Kind.CLUSTER)
    assert names(told) == {"a": "7.1", "b": "7.2"}


def test_what_is_told_is_behind_until_it_is_confirmed() -> None:
    stream = Stream(1, held(cluster={"a": 1}))
    (told,) = hears(stream, Kind.CLUSTER)
    assert stream.behind([Kind.CLUSTER])
    assert confirms(stream, told) == []
    assert not stream.behind([Kind.CLUSTER])


def test_nobody_is_told_that_there_are_none_before_that_is_known() -> None:
    known: set[Kind] = set()
    stream = Stream(1, held(), known)
    assert hears(stream, Kind.LISTENER) == []
    known.add(Kind.LISTENER)
    (told,) = stream.responses()
    assert names(told) == {}


def test_an_empty_answer_is_an_answer() -> None:
    stream = Stream(1, held())
    (told,) = hears(stream, Kind.LISTENER)
    assert names(told) == {} and stream.behind([Kind.LISTENER])
    assert confirms(stream, told) == []
    assert not stream.behind([Kind.LISTENER])


def test_the_confirmation_of_an_older_one_does_not_confirm_a_newer_one() -> None:
    has = held(cluster={"a": 1})
    stream = Stream(1, has)
    (first,) = hears(stream, Kind.CLUSTER)
    has[Kind.CLUSTER]["a"] = resource(2)
    (second,) = stream.responses()
    confirms(stream, first)
    assert stream.behind([Kind.CLUSTER])
    confirms(stream, second)
    assert not stream.behind([Kind.CLUSTER])


def test_only_what_is_subscribed_to_is_told() -> None:
    stream = Stream(1, held(endpoints={"a": 1, "b": 1}))
    (told,) = hears(stream, Kind.ENDPOINTS, "a")
    assert set(names(told)) == {"a"}
    (told,) = hears(stream, Kind.ENDPOINTS, "b")
    assert set(names(told)) == {"b"}


def test_only_what_changed_is_told_again() -> None:
    has = held(cluster={"a": 1, "b": 1})
    stream = Stream(1, has)
    confirms(stream, hears(stream, Kind.CLUSTER)[0])
    has[Kind.CLUSTER]["b"] = resource(2)
    (told,) = stream.responses()
    assert names(told) == {"b": "1.2"}


def test_new_things_are_told_in_the_order_in_which_they_refer_to_each_other() -> None:
    has = held()
    stream = Stream(1, has)
    for kind in reversed(ALL):
        for told in hears(stream, kind, "a"):
            confirms(stream, told)
    for kind in reversed(ALL):
        has[kind]["a"] = resource(1)
    assert [told.type_url for told in stream.responses()] == [kind.url for kind in ALL]


def test_a_refusal_is_remembered_and_what_replaces_it_is_told() -> None:
    has = held(cluster={"a": 1})
    stream = Stream(1, has)
    (told,) = hears(stream, Kind.CLUSTER)
    error = status_pb2.Status(message="no")
    hears(stream, Kind.CLUSTER, response_nonce=told.nonce, error_detail=error)
    assert stream.refusal == "no"
    assert stream.behind([Kind.CLUSTER])
    has[Kind.CLUSTER]["a"] = resource(2)
    (told,) = stream.responses()
    confirms(stream, told)
    assert not stream.behind([Kind.CLUSTER])


def test_a_removal_is_behind_until_it_is_confirmed() -> None:
    has = held(listener={"a": 1})
    stream = Stream(1, has)
    confirms(stream, hears(stream, Kind.LISTENER)[0])
    del has[Kind.LISTENER]["a"]
    (told,) = stream.responses()
    assert list(told.removed_resources) == ["a"] and stream.behind([Kind.LISTENER])
    confirms(stream, told)
    assert not stream.behind([Kind.LISTENER])


def test_what_an_envoy_brings_from_before_stays_until_it_is_pruned() -> None:
    stream = Stream(2, held(cluster={"a": 1}))
    (told,) = hears(stream, Kind.CLUSTER, initial_resource_versions={"a": "1.9", "old": "1.3"})
    assert names(told) == {"a": "2.1"} and not told.removed_resources
    confirms(stream, told)
    assert not stream.behind([Kind.CLUSTER])
    stream.prune(Kind.CLUSTER)
    (told,) = stream.responses()
    assert list(told.removed_resources) == ["old"]


async def test_an_envoy_that_is_started_again_while_it_is_waited_for_is_known_by_its_new_name(tmp_path: Path) -> None:
    server, running = ConfigServer(), ["dead"]
    await server.open(tmp_path / "ads.sock", epoch=1)
    waiting = asyncio.create_task(server.connected(lambda: running[-1], timeout=20))
    await asyncio.sleep(0)
    running.append("another")
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'ads.sock'}") as channel:
        talk = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
        )()
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=Kind.CLUSTER.url)
        request.node.id = "another"
        await talk.write(request)
        await waiting
        talk.cancel()
    await server.close()
