"""Connections to instances that rest: the router closes them before an application does that keeps them for a second.

A request that is written while the application closes its connection is lost, unless it may be repeated. The full
size, with real servers, is in ``bench/keep_alive.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from segue.routers.envoy import config, http
from segue.routers.envoy.documents import Document
from segue.routers.envoy.router import EnvoyRouter
from segue.testing.bursts import Bursts, send
from segue.testing.tally import Tally

from .world import V1, service, table, version

REST = 1.0
"""Seconds: the least that gunicorn, uvicorn and their like can be set to."""


class Impatient(asyncio.Protocol):
    """Answers at once, and closes what has been idle for a second."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.closing: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        if self.closing is not None:
            self.closing.cancel()
        self.closing = self.loop.call_later(REST, self.transport.close)
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
async def impatient() -> AsyncIterator[str]:
    """Its address."""
    server = await asyncio.get_running_loop().create_server(Impatient, "127.0.0.1", 0, backlog=1024)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


async def posts(listen: str, bursts: int) -> Tally:
    """What becomes of POSTs that meet the application as it closes its connections, if it does."""
    return (await send(Bursts(listen, (REST - 0.01, REST + 0.01), bursts, together=80, methods=("POST",))))["POST"]


async def test_no_post_is_lost_to_a_connection_that_the_application_closes(
    router: EnvoyRouter, impatient: str, listen: str
) -> None:
    await router.apply(table(service(listen, version(V1, 1, impatient))))
    seen = await posts(listen, bursts=4)
    assert seen.lost == ()
    assert seen.total == 320


async def test_posts_are_lost_where_the_router_leaves_it_to_the_application_to_close(
    router: EnvoyRouter, impatient: str, listen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(*arguments: Any) -> Document:
        [(name, options)] = http.upstream(*arguments).items()
        return {name: {key: value for key, value in options.items() if key != "common_http_protocol_options"}}

    monkeypatch.setattr(config, "upstream", careless)
    await router.apply(table(service(listen, version(V1, 1, impatient))))
    for _ in range(10):  # the moment is met in nearly each of them
        if (await posts(listen, bursts=2)).lost_count:
            return
    pytest.fail("no request met the moment at which a connection is closed")
