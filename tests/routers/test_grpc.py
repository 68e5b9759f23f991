"""gRPC and HTTP/2 to the instances, by real calls: they arrive, and a call that fails is evidence."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from segue.core.traffic import Protocol, ServiceTable
from segue.evidence.envoy import EnvoyEvidence
from segue.routers.envoy.router import EnvoyRouter

from .world import HALF, V1, V2, service, table, until, version

Answer = Callable[[bytes, Any], Awaitable[bytes]]
Serve = Callable[[Answer], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A gRPC server whose method ``/shop.Shop/Buy`` is answered by what is given."""
    servers = []

    async def start(answer: Answer) -> str:
        server = grpc.aio.server()
        methods = {"Buy": grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Shop", methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        await server.stop(None)


def aborting(status: grpc.StatusCode) -> Answer:
    async def answer(message: bytes, context: Any) -> bytes:
        await context.abort(status, "no")
        raise AssertionError

    return answer


async def fine(message: bytes, context: Any) -> bytes:
    return b"sold " + message


def speaking(protocol: Protocol, told: ServiceTable) -> ServiceTable:
    return replace(told, backends=tuple(replace(backend, protocol=protocol) for backend in told.backends))


async def bought(listen: str, calls: int) -> list[grpc.StatusCode]:
    """How so many calls ended."""
    ended = []
    async with grpc.aio.insecure_channel(listen) as channel:
        buy = channel.unary_unary("/shop.Shop/Buy")
        for _ in range(calls):
            try:
                await buy(b"tea")
                ended.append(grpc.StatusCode.OK)
            except grpc.aio.AioRpcError as error:
                ended.append(error.code())
    return ended


@pytest.mark.parametrize(
    ("status", "failed"),
    [(grpc.StatusCode.UNAVAILABLE, True), (grpc.StatusCode.INTERNAL, True), (grpc.StatusCode.NOT_FOUND, False)],
    ids=lambda value: value.name if isinstance(value, grpc.StatusCode) else "",
)
async def test_a_call_that_its_server_could_not_answer_is_a_failure_of_its_version(
    router: EnvoyRouter, serve: Serve, listen: str, status: grpc.StatusCode, failed: bool
) -> None:
    old, new, evidence = await serve(fine), await serve(aborting(status)), EnvoyEvidence(router)
    split = service(listen, version(V1, HALF, old), version(V2, HALF, new), trial=V2)
    await router.apply(table(speaking(Protocol.GRPC, split)))
    ended = await bought(listen, 40)
    assert set(ended) == {grpc.StatusCode.OK, status}

    async def counted() -> bool:
        return sum(sample.attempts for sample in (await evidence.sample("shop")).values()) == 40

    await until(counted, "all attempts are counted")
    samples, books = await evidence.sample("shop"), await evidence.books("shop")
    assert samples[V1].failures == 0
    assert samples[V2].attempts == ended.count(status)
    assert samples[V2].failures == (ended.count(status) if failed else 0)
    assert books.failed == ({V2: ended.count(status)} if failed else {})
    assert books.total == 40 == sum(books.answered.values()) + sum(books.failed.values())


async def test_a_call_that_never_reached_the_new_version_is_answered_by_the_old_one(
    router: EnvoyRouter, serve: Serve, listen: str
) -> None:
    old = await serve(fine)
    split = service(listen, version(V1, HALF, old), version(V2, HALF, "127.0.0.1:1"), trial=V2)
    await router.apply(table(speaking(Protocol.GRPC, split)))
    assert set(await bought(listen, 20)) == {grpc.StatusCode.OK}
