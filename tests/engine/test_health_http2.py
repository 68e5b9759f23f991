"""Health checks, smoke tests and warm-up of instances that speak HTTP/2 or gRPC, by real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from segue.core.release import Revision
from segue.core.traffic import Protocol
from segue.core.version import Health, SmokeHttp, Version, WarmUp
from segue.engine.health import GRPC_HEALTH, probe, smoke, warm

Serve = Callable[[Callable[[bytes, Any], Awaitable[bytes]]], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A gRPC server whose health method and ``/shop.Shop/Buy`` are answered by what is given."""
    servers = []

    async def start(answer: Callable[[bytes, Any], Awaitable[bytes]]) -> str:
        server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(answer)
        for service, method in (("grpc.health.v1.Health", "Check"), ("shop.Shop", "Buy")):
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        await server.stop(None)


def a_version(protocol: Protocol, path: str | None = GRPC_HEALTH, **more: Any) -> Version:
    version = Version("shop", Revision("v1.1"), "", Path(), "", health=Health(path=path), protocol=protocol)
    return replace(version, **more)


async def nothing_runs(version: Version, command: str, seconds: float) -> tuple[int, str]:
    raise AssertionError("no command is to run")


async def serving(message: bytes, context: Any) -> bytes:
    return b"\x08\x01"


async def not_serving(message: bytes, context: Any) -> bytes:
    return b"\x08\x02"


async def unavailable(message: bytes, context: Any) -> bytes:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
    raise AssertionError


@pytest.mark.parametrize(
    ("answer", "path", "problem"),
    [
        (serving, GRPC_HEALTH, None),
        (not_serving, GRPC_HEALTH, "/grpc.health.v1.Health/Check does not say SERVING"),
        (unavailable, GRPC_HEALTH, "/grpc.health.v1.Health/Check ended with gRPC status 14"),
        (not_serving, "/shop.Shop/Buy", None),
        (serving, "/shop.Shop/Sell", "/shop.Shop/Sell ended with gRPC status 12"),
        (unavailable, None, None),
    ],
)
async def test_a_grpc_instance_is_healthy_when_its_method_says_so(
    answer: Any, path: str | None, problem: str | None, serve: Serve
) -> None:
    assert await probe(a_version(Protocol.GRPC, path), await serve(answer), nothing_runs) == problem


async def speak(answers: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> asyncio.Server:
    return await asyncio.start_server(answers, "127.0.0.1", 0)


def where(server: asyncio.Server) -> str:
    return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def answer_by_path(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP/2: ``/204`` is answered 204, with a body where that may be."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_connection()
    while data := await reader.read(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                path = dict(event.headers)[b":path"].decode()
                connection.send_headers(event.stream_id, [(":status", path[1:])])
                connection.send_data(event.stream_id, b"x" * 16000, end_stream=True)
        writer.write(connection.data_to_send())
    writer.close()


async def test_an_http2_instance_is_healthy_when_its_answer_says_so() -> None:
    async with await speak(answer_by_path) as server:
        assert await probe(a_version(Protocol.HTTP2, "/302"), where(server), nothing_runs) is None
        problem = await probe(a_version(Protocol.HTTP2, "/503"), where(server), nothing_runs)
    assert problem == "GET /503 answered 503, not 200-399"


async def test_what_speaks_http1_only_is_not_healthy_over_http2() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
        writer.close()

    async with await speak(answer) as server:
        problem = await probe(a_version(Protocol.HTTP2, "/up"), where(server), nothing_runs)
    assert problem == "/up: what answers does not speak HTTP/2"


async def test_smoke_tests_and_warm_up_call_methods(serve: Serve) -> None:
    calls = []

    async def count(message: bytes, context: Any) -> bytes:
        calls.append(message)
        return b"the shop is open"

    address = await serve(count)
    buys = a_version(Protocol.GRPC, smoke=(SmokeHttp("/shop.Shop/Buy", contains="open"),))
    assert await smoke(buys, address, nothing_runs, 5) is None
    wrong = replace(buys, smoke=(SmokeHttp("/shop.Shop/Buy", contains="shut"),))
    assert await smoke(wrong, address, nothing_runs, 5) == (
        "smoke test: /shop.Shop/Buy: the answer does not contain 'shut'"
    )
    missing = replace(buys, smoke=(SmokeHttp("/shop.Shop/Sell"),))
    assert await smoke(missing, address, nothing_runs, 5) == "smoke test: /shop.Shop/Sell ended with gRPC status 12"
    calls.clear()
    await warm(replace(buys, warm_up=WarmUp(7, ("/shop.Shop/Buy",))), address)
    assert calls == [b""] * 7
