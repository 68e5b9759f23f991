"""One probe of an instance's health over HTTP/1.1 or a bare connection: what it says of whom it asks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from segue.core.release import Revision
from segue.core.version import Health, SmokeCommand, Version
from segue.engine.health import probe, smoke
from segue.testing.moments import until


def a_version(path: str | None, timeout: float = 5.0) -> Version:
    health = Health(path=path, timeout=timedelta(seconds=timeout))
    return Version("shop", Revision("v1.1"), "sha256:first", Path("/"), "serve", health=health)


async def nothing_runs(version: Version, command: str, seconds: float) -> tuple[int, str]:
    raise AssertionError(command)


async def asked(address: str, path: str | None = "/healthz", timeout: float = 5.0) -> str | None:
    return await probe(a_version(path, timeout), address, nothing_runs)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n" if b"GET /healthz " in request else b"HTTP/1.1 503 Not now\r\n\r\n")
    writer.close()


@pytest.fixture(params=["127.0.0.1", "[::1]", "unix:"])
async def address(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """Of an application that is healthy at ``/healthz`` only."""
    if request.param == "unix:":
        place = f"unix:{tmp_path / 'shop'}"
        server = await asyncio.start_unix_server(answer, tmp_path / "shop")
    else:
        server = await asyncio.start_server(answer, request.param.strip("[]"), 0)
        place = f"{request.param}:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield place


async def test_it_is_healthy_as_it_answers(address: str) -> None:
    assert await asked(address) is None
    assert await asked(address, "/") == "GET / answered 503, not 200-399"
    assert await asked(address, None) is None


async def test_who_is_not_there_cannot_be_connected_to(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    assert await asked(address) == "cannot connect: Connection refused"
    assert await asked(f"unix:{tmp_path / 'nobody'}") == "cannot connect: No such file or directory"


async def test_who_accepts_nobody_is_waited_for_and_no_longer_than_the_timeout() -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        place = full.getsockname()
        while _is_let_in(stack, place):
            pass
        began = asyncio.get_running_loop().time()
        assert await asked(f"127.0.0.1:{place[1]}", timeout=0.3) == "no answer to the health check within 0.3 s"
        assert asyncio.get_running_loop().time() - began < 5


async def test_who_accepts_late_is_healthy_all_the_same() -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        while _is_let_in(stack, full.getsockname()):
            pass
        waiting = asyncio.create_task(asked(f"127.0.0.1:{full.getsockname()[1]}", None, timeout=30.0))
        await asyncio.sleep(0)  # it knocks
        full.setblocking(False)
        while not waiting.done():
            await asyncio.to_thread(until, lambda: _accept(stack, full) or waiting.done())
        assert await waiting is None


def _is_let_in(stack: ExitStack, place: tuple[str, int]) -> bool:
    """Whether one more who knocks is let in; he stays."""
    client = stack.enter_context(socket.socket())
    client.settimeout(0.2)
    try:
        client.connect(place)
    except TimeoutError:
        return False
    return True


def _accept(stack: ExitStack, listening: socket.socket) -> bool:
    try:
        stack.enter_context(listening.accept()[0])
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize(("output", "said"), [("", ""), ("no\nroute\n", ": no\nroute")])
async def test_a_command_that_fails_a_smoke_test_is_told_with_what_it_wrote(output: str, said: str) -> None:
    async def run(version: Version, command: str, seconds: float) -> tuple[int, str]:
        assert command == "./smoke http://127.0.0.1:1"
        return 3, output

    version = replace(a_version(None), smoke=(SmokeCommand("./smoke {url}"),))
    problem = await smoke(version, "127.0.0.1:1", run, 5)
    assert problem == f"smoke test: `./smoke {{url}}` exited with 3{said}"
