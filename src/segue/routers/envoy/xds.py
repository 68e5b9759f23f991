"""The server that Envoy asks for its configuration: incremental xDS over one stream (ADS).

`Stream` is what one Envoy was told and has confirmed, without input or output; `ConfigServer` holds what every
Envoy is to have, and talks. Rules of this file:
* New things are told in the order of `Kind`; a removal is published by the caller once nothing refers to it.
* Envoy does not ask for the endpoints of a cluster that changes and waits for them: they are told again.
* A version is ``<epoch>.<number>``; the epoch is the control plane's, so no version is ever used twice.
* What an Envoy says it holds and we do not know (we are new) stays until `prune`.
* Nobody is told that there is nothing of a kind before that is known: an Envoy that takes over from another one has
  it close its listeners as soon as it has all of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2

from segue.errors import RouterLost, RouterRefused
from segue.routers.envoy.snapshot import Kind

_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_KINDS = {kind.url: kind for kind in Kind}
_ALWAYS_SUBSCRIBED = (Kind.CLUSTER, Kind.LISTENER)
_FROM_BEFORE = 0
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Resource(NamedTuple):
    """One resource and the number of the publication that it came with."""

    number: int
    packed: any_pb2.Any


Held = dict[Kind, dict[str, Resource]]


@dataclass
class Told:
    """What one Envoy knows of one kind of resource, by name: the number it was told, and that it confirmed."""

    asked: bool = False
    answered: bool = False
    subscribed: set[str] = field(default_factory=set)
    sent: dict[str, int] = field(default_factory=dict)
    confirmed: dict[str, int] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)


class Stream:
    """One Envoy's side of the conversation."""

    def __init__(self, epoch: int, held: Held, known: Collection[Kind] = tuple(Kind)) -> None:
        self.node = ""
        self.refusal: str | None = None
        self.wake = asyncio.Event()
        self._epoch = epoch
        self._held, self._known = held, known
        self._told = {kind: Told() for kind in Kind}
        self._pending: dict[str, tuple[Kind, dict[str, int], list[str]]] = {}
        self._nonce = 0

    def hear(self, request: Any) -> None:
        """Take in what Envoy says: a subscription, a confirmation, a refusal, or several of them."""
        self.node = request.node.id or self.node
        kind = _KINDS.get(request.type_url)
        if kind is None:
            return
        self._subscribe(kind, request)
        if request.response_nonce:
            self._answer(request)
        self.wake.set()

    def _subscribe(self, kind: Kind, request: Any) -> None:
        told = self._told[kind]
        told.subscribed |= set(request.resource_names_subscribe)
        told.subscribed -= set(request.resource_names_unsubscribe)
        told.answered = told.answered and not request.resource_names_subscribe
        for name in (*request.resource_names_subscribe, *request.resource_names_unsubscribe):
            told.sent.pop(name, None)
            told.confirmed.pop(name, None)
        if not told.asked:
            told.asked = True
            told.unknown = set(request.initial_resource_versions) - set(self._held[kind])

    def _answer(self, request: Any) -> None:
        kind, sent, removed = self._pending.pop(request.response_nonce, (None, {}, []))
        if kind is None:
            return
        if request.HasField("error_detail"):
            self.refusal = request.error_detail.message
            return
        told = self._told[kind]
        told.answered = True
        told.confirmed.update({name: number for name, number in sent.items() if told.sent.get(name) == number})
        for name in removed:
            told.confirmed.pop(name, None)

    def prune(self, kind: Kind) -> None:
        """Have Envoy drop what it held of this kind before we knew it and is not to have."""
        told = self._told[kind]
        if not told.unknown:
            return
        unknown = dict.fromkeys(told.unknown - set(self._held[kind]), _FROM_BEFORE)
        told.sent.update(unknown)
        told.confirmed.update(unknown)
        told.unknown.clear()
        self.wake.set()

    def responses(self) -> Iterator[Any]:
        """Everything that Envoy is to be told now, in order."""
        for kind, told in self._told.items():
            if told.asked and kind in self._known:
                wanted = self._wanted(kind)
                changed = [name for name, held in wanted.items() if told.sent.get(name) != held.number]
                removed = [name for name in told.sent if name not in self._held[kind]]
                if changed or removed or not (told.answered or self._is_pending(kind)):
                    yield self._response(kind, changed, removed)

    def behind(self, kinds: Iterable[Kind]) -> bool:
        """Whether Envoy has not confirmed all of the resources of these kinds."""
        return any(self._behind(kind) for kind in kinds)

    def _behind(self, kind: Kind) -> bool:
        told = self._told[kind]
        held = self._held[kind]
        if kind in _ALWAYS_SUBSCRIBED and not told.answered:
            return True
        if any(told.confirmed.get(name) != resource.number for name, resource in held.items()):
            return True
        return kind in _ALWAYS_SUBSCRIBED and len(told.confirmed) > len(held)

    def _wanted(self, kind: Kind) -> Mapping[str, Resource]:
        held = self._held[kind]
        if kind in _ALWAYS_SUBSCRIBED:
            return held
        return {name: held[name] for name in self._told[kind].subscribed if name in held}

    def _is_pending(self, kind: Kind) -> bool:
        return any(pending[0] is kind for pending in self._pending.values())

    def _response(self, kind: Kind, changed: list[str], removed: list[str]) -> Any:
        told, held = self._told[kind], self._held[kind]
        self._nonce += 1
        numbers = {name: held[name].number for name in changed}
        told.sent.update(numbers)
        for name in removed:
            del told.sent[name]
        self._pending[str(self._nonce)] = (kind, numbers, removed)
        return discovery_pb2.DeltaDiscoveryResponse(
            type_url=kind.url,
            nonce=str(self._nonce),
            resources=[
                discovery_pb2.Resource(
                    name=name, version=f"{self._epoch}.{held[name].number}", resource=held[name].packed
                )
                for name in changed
            ],
            removed_resources=removed,
        )


class ConfigServer:
    """Holds what every Envoy is to have and tells it to those that ask."""

    def __init__(self) -> None:
        self.epoch = 0
        self._held: Held = {kind: {} for kind in Kind}
        self._known: set[Kind] = set()
        self._number = 0
        self._streams: list[Stream] = []
        self._news = asyncio.Event()
        self._server: Any = None

    @property
    def serving(self) -> bool:
        """Whether Envoys are answered."""
        return self._server is not None

    async def open(self, path: Path, epoch: int) -> None:
        """Answer Envoys at the Unix socket `path`, as the `epoch`-th control plane."""
        self.epoch = epoch
        path.unlink(missing_ok=True)
        server = grpc.aio.server(options=_UNLIMITED)
        handler = grpc.stream_stream_rpc_method_handler(
            self._converse,
            request_deserializer=discovery_pb2.DeltaDiscoveryRequest.FromString,
            response_serializer=discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
        )
        methods = {"DeltaAggregatedResources": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        path.chmod(0o600)
        self._server = server

    async def close(self) -> None:
        """Hang up; the Envoys go on with what they have."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(None)

    def put(self, kind: Kind, resources: Mapping[str, any_pb2.Any]) -> bool:
        """Hold these, beside what else is held; returns whether anything changed."""
        held = self._held[kind]
        changed = [name for name, packed in resources.items() if name not in held or _differ(held[name], packed)]
        if changed:
            self._number += 1
            held.update({name: Resource(self._number, resources[name]) for name in changed})
            if kind is Kind.CLUSTER:
                self._tell_again(Kind.ENDPOINTS, changed)
        if changed or kind not in self._known:
            self._known.add(kind)
            self._wake()
        return bool(changed)

    def keep_only(self, kind: Kind, names: Iterable[str]) -> bool:
        """Hold nothing of this kind but these; returns whether anything was dropped."""
        held, kept = self._held[kind], set(names)
        dropped = [name for name in held if name not in kept]
        for name in dropped:
            del held[name]
        if dropped:
            self._wake()
        return bool(dropped)

    def prune(self, kind: Kind) -> None:
        """Have every Envoy drop what it held of this kind before we knew it."""
        for stream in self._streams:
            stream.prune(kind)

    def forget_refusals(self) -> None:
        """What was refused so far is settled."""
        for stream in self._streams:
            stream.refusal = None

    async def connected(self, node: Callable[[], str], timeout: float) -> None:
        """Return when the Envoy that `node` names is being answered: another one, if it is started again meanwhile.

        Raises RouterLost after `timeout` seconds.
        """
        await self._until(lambda: self._stream(node()) is not None, timeout, "The router has not come for its table")

    async def confirmed(self, node: str, kinds: Iterable[Kind], timeout: float) -> None:
        """Return when the Envoy called `node` has confirmed everything of these kinds.

        Raises RouterRefused with Envoy's words, RouterLost when it hangs up or takes longer than `timeout` seconds.
        """
        stream, kinds = self._stream(node), tuple(kinds)
        if stream is None:
            raise RouterLost("The router is gone.")

        def done() -> bool:
            if stream not in self._streams:
                raise RouterLost("The router hung up before it had confirmed its table.")
            if stream.refusal is not None:
                raise RouterRefused(f"The router refuses the table: {stream.refusal}")
            return not stream.behind(kinds)

        await self._until(done, timeout, "The router has not confirmed its table")

    async def _until(self, done: Callable[[], bool], timeout: float, what: str) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not done():
                    await self._news.wait()
        except TimeoutError:
            raise RouterLost(f"{what} within {timeout:g} s.") from None

    async def _converse(self, requests: AsyncIterator[Any], context: Any) -> None:
        stream = Stream(self.epoch, self._held, self._known)
        self._streams.append(stream)
        telling = asyncio.create_task(self._tell(stream, context))
        try:
            async for request in requests:
                stream.hear(request)
                self._announce()
        finally:
            self._streams.remove(stream)
            self._announce()
            telling.cancel()

    async def _tell(self, stream: Stream, context: Any) -> None:
        while True:
            await stream.wake.wait()
            stream.wake.clear()
            for response in stream.responses():
                await context.write(response)

    def _stream(self, node: str) -> Stream | None:
        return next((stream for stream in self._streams if stream.node == node), None)

    def _tell_again(self, kind: Kind, names: Iterable[str]) -> None:
        held = self._held[kind]
        held.update({name: Resource(self._number, held[name].packed) for name in names if name in held})

    def _wake(self) -> None:
        for stream in self._streams:
            stream.wake.set()

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _differ(held: Resource, packed: any_pb2.Any) -> bool:
    return held.packed is not packed and held.packed != packed
