"""What the edge lets in: what it refuses, how long it waits for users, and what an application sees of a request."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from segue.core.traffic import Preview
from segue.evidence.envoy import EnvoyEvidence
from segue.routers.envoy import http, listeners, loggers, process
from segue.routers.envoy.router import EnvoyRouter
from segue.routers.envoy.static import start_static
from segue.testing import certificates

from .world import V1, World, ask, closed, port, secured, service, table, until, version

HOST = b"host: shop.example\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
POST = b"POST / HTTP/1.1\r\n" + HOST
PATIENCE = 10
"""Seconds that a test waits for an answer or for the end of a connection."""


@dataclass
class Echo:
    """An application that answers with the head that it was sent."""

    address: str = ""
    heads: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
                self.heads.append(head.decode("latin-1"))
                writer.write(b"HTTP/1.1 200 OK\r\nserver: app/1\r\ncontent-length: %d\r\n\r\n" % len(head) + head)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@dataclass
class User:
    """A connection of somebody who says what he wants."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def comes(cls, listen: str) -> User:
        """Connect."""
        host, _, port = listen.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    def says(self, what: bytes) -> None:
        """Send it."""
        self.writer.write(what)

    async def status(self) -> int:
        """The status of the next answer, whose body is left alone; 0: the connection ended."""
        try:
            async with asyncio.timeout(PATIENCE):
                head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0
        return int(head.split(b" ")[1])

    async def ends(self) -> None:
        """Return when Envoy has closed the connection; what comes until then is dropped."""
        try:
            async with asyncio.timeout(PATIENCE):
                while await self.reader.read(65536):
                    pass
        except ConnectionError:
            pass
        finally:
            self.writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    """The application."""
    made = Echo()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, limit=2**20)
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is to be closed is not lingered on."""
    monkeypatch.setitem(http.EDGE, "delayed_close_timeout", "0.05s")
    monkeypatch.setitem(http.EDGE, "drain_timeout", "0.05s")


@pytest.fixture
async def edge(router: EnvoyRouter, echo: Echo, listen: str, brisk: None) -> str:
    """Where the application is reached."""
    await router.apply(table(service(listen, version(V1, 1, echo.address))))
    return listen


async def answers(edge: str, *requests: bytes) -> list[int]:
    """The status that each gets on a connection of its own."""

    async def answer(request: bytes) -> int:
        user = await User.comes(edge)
        user.says(request)
        status = await user.status()
        user.writer.close()
        return status

    return list(await asyncio.gather(*map(answer, requests)))


async def seen(edge: str, echo: Echo, request: bytes) -> list[str]:
    """The lines of the head that the application saw of a request."""
    assert await answers(edge, request) == [200], request
    return echo.heads[-1].split("\r\n")


async def test_heads_that_are_too_long_are_refused(edge: str, echo: Echo) -> None:
    long = b"a: " + b"x" * 61 * 1024
    path = b"GET /" + b"x" * 61 * 1024 + b" HTTP/1.1\r\n" + HOST
    many = b"".join(b"h%d: x\r\n" % number for number in range(100))
    refused = await answers(edge, GET + long + b"\r\n\r\n", path + b"\r\n", GET + many + b"\r\n")
    assert refused == [431, 431, 431] and not echo.heads
    few = b"".join(b"h%d: x\r\n" % number for number in range(90))
    assert await answers(edge, GET + long[: 50 * 1024] + b"\r\n\r\n", GET + few + b"\r\n") == [200, 200]


TWOFOLD = {
    "two lengths": POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "the same length twice": POST + b"content-length: 2\r\ncontent-length: 2\r\n\r\nab",
    "a list of lengths": POST + b"content-length: 2, 2\r\n\r\nab",
    "a length with a sign": POST + b"content-length: +2\r\n\r\nab",
    "a length below nothing": POST + b"content-length: -1\r\n\r\nab",
    "a length in hexadecimal digits": POST + b"content-length: 0x2\r\n\r\nab",
    "a length and chunks": POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "chunks within something else": POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "almost chunks": POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks twice": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks after a tabulator": POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks before a space": POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "a chunk that is too long to count": POST + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nab\r\n",
    "a chunk with a sign": POST + b"transfer-encoding: chunked\r\n\r\n+2\r\nab\r\n0\r\n\r\n",
    "a chunk whose line does not end": POST + b"transfer-encoding: chunked\r\n\r\n2;\nx\r\nab\r\n0\r\n\r\n",
    "a space before the colon": GET + b"a : b\r\n\r\n",
    "a head that begins in mid-line": b"GET / HTTP/1.1\r\n a: b\r\n" + HOST + b"\r\n",
    "a zero": GET + b"a: b\0c\r\n\r\n",
    "a header without a name": GET + b": b\r\n\r\n",
    "a host with a space": b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
    "a host with a control character": b"GET / HTTP/1.1\r\nhost: a\x01b\r\n\r\n",
    "a method that is none": b"G(T / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a path with a control character": b"GET /\x01 HTTP/1.1\r\n" + HOST + b"\r\n",
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01" + b"x" * 100,
}


async def test_what_could_be_read_in_two_ways_is_refused_and_its_connection_closed(
    router: EnvoyRouter, edge: str, echo: Echo
) -> None:
    async def refused(request: bytes) -> int:
        user = await User.comes(edge)
        user.says(request)
        status = await user.status()
        await user.ends()
        return status

    statuses = dict(zip(TWOFOLD, await asyncio.gather(*map(refused, TWOFOLD.values())), strict=True))
    assert {name: status for name, status in statuses.items() if status not in (400, 501)} == {}
    begun = [head for head in echo.heads if "transfer-encoding: chunked" in head]
    assert begun == echo.heads and len(begun) <= 3  # three go wrong in the body: their heads may have been passed on
    assert await answers(edge, GET + b"\r\n") == [200]
    books = await EnvoyEvidence(router).books("shop")  # so they had a route
    assert (books.total, books.answered, books.cut) == (4, {V1: 1}, 3)


async def test_requests_without_a_host_that_could_be_one_are_refused(edge: str, echo: Echo) -> None:
    requests = [b"GET / HTTP/1.1\r\n" + host + b"\r\n" for host in (b"", b"host: a/b\r\n", b"host: \xc3\xa4\r\n")]
    assert await answers(edge, *requests) == [400, 400, 400] and not echo.heads


async def test_what_is_written_badly_and_can_be_read_in_one_way_reaches_the_application_well_written(
    edge: str, echo: Echo
) -> None:
    folded = await seen(edge, echo, GET + b"a: b\r\n c\r\nd: e\rf\r\n\r\n")
    assert {"a: b c", "d: ef"} <= set(folded)
    assert (await seen(edge, echo, b"GET  / HTTP/1.1\nhost: x\n\n"))[:2] == ["GET / HTTP/1.1", "host: x"]


async def test_a_path_is_walked_to_its_end_and_its_slashes_are_left_alone(edge: str, echo: Echo) -> None:
    walked = {
        "/a/../b": "/b",
        "/a/%2e%2e/b": "/b",
        "/%2e%2e/b": "/b",
        "/../../b": "/b",
        "/./b": "/b",
        "/a\\b": "/a/b",
    }
    same = {path: path for path in ("/a//b", "/@scope%2fname", "/a%5cb", "/a%252fb", "/a?b=../c")}
    for path, there in (walked | same).items():
        assert (await seen(edge, echo, f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()))[0] == (
            f"GET {there} HTTP/1.1"
        )


async def test_an_absolute_address_says_the_host(router: EnvoyRouter, edge: str, echo: Echo) -> None:
    await router.apply(table(service(edge, version(V1, 1, echo.address), hosts=("a.example",))))
    head = await seen(edge, echo, b"GET http://a.example/b HTTP/1.1\r\nhost: b.example\r\n\r\n")
    assert head[:2] == ["GET /b HTTP/1.1", "host: a.example"]
    assert await answers(edge, b"GET http://b.example/ HTTP/1.1\r\nhost: a.example\r\n\r\n") == [404]


FORGED = [
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-client-cert",
    "x-original-forwarded-for",
    "X_Forwarded_For",
    "X-Forwarded_Host",
    "x_real-ip",
    "x-real-ip",
    "forwarded",
    "x-envoy-internal",
    "x-envoy-external-address",
    "x-envoy-original-path",
    "x-envoy-force-trace",
    "x-envoy-retry-on",
    "x-envoy-max-retries",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-decorator-operation",
]


async def test_users_do_not_say_who_they_are(edge: str, echo: Echo) -> None:
    forged = "".join(f"{name}: mine\r\n" for name in FORGED)
    head = await seen(edge, echo, GET + forged.encode() + b"underscored_header: mine\r\n\r\n")
    assert [line for line in head if "mine" in line] == ["underscored_header: mine"]
    fields = dict(line.split(": ", 1) for line in head[1:] if line)
    assert fields["x-forwarded-proto"] == "http" and fields["x-forwarded-for"] == "127.0.0.1"
    assert not [name for name in fields if name.startswith("x-envoy-")]
    assert re.fullmatch(r"[0-9a-f-]{36}", fields["x-request-id"])


@pytest.mark.parametrize("who", ["127.0.0.1", "127.0.0.9"])
async def test_an_application_is_told_the_address_its_user_came_from(
    router: EnvoyRouter, echo: Echo, listen: str, who: str
) -> None:
    preview = Preview(f"127.0.0.1:{port()}", V1)

    async def told(place: str) -> list[str]:
        user = User(*await asyncio.open_connection(*place.split(":"), local_addr=(who, 0)))
        user.says(GET + b"x-forwarded-for: 10.1.1.1\r\n\r\n")
        assert await user.status() == 200
        user.writer.close()
        return re.findall("x-forwarded-for: (.*)\r\n", echo.heads[-1])

    await router.apply(table(replace(service(listen, version(V1, 1, echo.address)), preview=preview)))
    assert (await told(listen), await told(preview.listen)) == ([who], [who])
    await router.settled()
    await router.close()
    os.kill(router.pid, signal.SIGKILL)
    await until(lambda: closed(listen), "the death of Envoy")
    alone = start_static(router.folder)
    assert alone
    try:
        await until(lambda: listens(listen), "the last table")
        assert (await told(listen), await told(preview.listen)) == ([who], [who])
    finally:
        os.kill(alone, signal.SIGKILL)


async def test_an_application_is_told_whether_its_user_came_with_tls(
    router: EnvoyRouter, echo: Echo, listen: str, tmp_path: Path
) -> None:
    files = certificates.write(tmp_path, "cert", ["a.example"])
    await router.apply(table(secured(service(listen, version(V1, 1, echo.address)), files)))
    context = ssl.create_default_context(cafile=str(files[0]))
    reach = {"ssl": context, "server_hostname": "a.example"}
    user = User(*await asyncio.open_connection(*listen.split(":"), **reach))
    user.says(GET + b"x-forwarded-proto: http\r\n\r\n")
    assert await user.status() == 200
    user.writer.close()
    assert re.findall("x-forwarded-proto: (.*)\r\n", echo.heads[-1]) == ["https"]


async def listens(place: str) -> bool:
    """Whether somebody listens there."""
    return not await closed(place)


async def test_what_is_said_of_the_user_cannot_be_taken_away_by_naming_it_in_connection(
    edge: str, echo: Echo
) -> None:
    named = [GET + b"connection: " + name + b"\r\n\r\n" for name in (b"close, x-forwarded-for", b"x-forwarded-proto")]
    assert await answers(edge, *named, GET + b"connection: host\r\n\r\n") == [400, 400, 400] and not echo.heads
    head = await seen(edge, echo, GET + b"connection: x-request-id, a, upgrade\r\nupgrade: h2c\r\na: b\r\n\r\n")
    names = {line.partition(":")[0] for line in head}
    assert "x-request-id" in names and not {"connection", "upgrade", "a"} & names


async def test_the_application_says_what_serves_and_nobody_else_does(edge: str) -> None:
    assert "\r\nserver: app/1\r\n" in (await ask(edge)).head
    refused = await ask(edge, headers="connection: host\r\n")
    assert refused.status == 400 and "server:" not in refused.head


async def test_users_of_http_1_0_are_served(edge: str, echo: Echo) -> None:
    user = await User.comes(edge)
    user.says(b"GET / HTTP/1.0\r\n" + HOST + b"\r\n")
    assert await user.status() == 200
    await user.ends()
    assert echo.heads[-1].startswith("GET / HTTP/1.1\r\n")


async def test_a_user_who_does_not_come_to_the_end_of_the_head_is_not_waited_for(
    router: EnvoyRouter, echo: Echo, listen: str, brisk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(http.EDGE, "request_headers_timeout", "0.3s")
    await router.apply(table(service(listen, version(V1, 1, echo.address))))
    slow, patient = await User.comes(listen), await User.comes(listen)
    patient.says(POST + b"content-length: 2\r\n\r\na")
    slow.says(GET + b"a: ")
    assert await slow.status() == 408
    await slow.ends()
    patient.says(b"b")
    assert await patient.status() == 200
    patient.writer.close()


async def test_a_user_who_does_not_come_to_an_agreement_on_tls_is_not_waited_for(
    router: EnvoyRouter, echo: Echo, listen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "HANDSHAKE", "0.3s")
    files = certificates.write(tmp_path, "cert", ["a.example"])
    await router.apply(table(secured(service(listen, version(V1, 1, echo.address)), files)))
    said = ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), said, server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    user = await User.comes(listen)
    user.says(said.read())
    assert await user.reader.read(1), "no part of a handshake"
    await user.ends()


async def test_a_connection_at_rest_ends_and_one_that_waits_for_an_answer_does_not(
    router: EnvoyRouter, world: World, listen: str, brisk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(http.EDGE, "common_http_protocol_options", {"idle_timeout": "0.3s"})
    app = await world.backend("app")
    await router.apply(table(service(listen, version(V1, 1, app))))
    waits, rests = await User.comes(listen), await User.comes(listen)
    waits.says(b"GET /hold HTTP/1.1\r\n" + HOST + b"\r\n")
    await app.holding()
    rests.says(GET + b"\r\n")
    assert await rests.status() == 200
    await rests.ends()
    await app.release()
    assert await waits.status() == 200
    waits.writer.close()


def test_nobody_is_waited_for_longer_and_nobody_has_more_than_the_pages_say() -> None:
    place = listeners.listener("127.0.0.1:443", ["a.example"])
    secure = place["filter_chains"][0]
    manager = secure["filters"][0]["typed_config"]
    assert (manager["request_headers_timeout"], secure["transport_socket_connect_timeout"]) == ("10s", "10s")
    assert (manager["stream_idle_timeout"], manager["request_timeout"]) == ("0s", "0s"), "an application's own affair"
    assert manager["common_http_protocol_options"] == {"idle_timeout": "3600s", "max_headers_count": 100}
    assert manager["max_request_headers_kb"] == 60
    assert manager["http2_protocol_options"] == {
        "max_concurrent_streams": 100,
        "initial_stream_window_size": 64 * 1024,
        "initial_connection_window_size": 1024 * 1024,
    }
    assert place["per_connection_buffer_limit_bytes"] == 32 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="it is read in /proc/net/tcp")
async def test_a_silent_user_is_asked_for_a_sign_of_life(edge: str) -> None:
    user = await User.comes(edge)
    user.says(GET + b"\r\n")
    assert await user.status() == 200
    ends = [f":{user.writer.get_extra_info(name)[1]:04X}" for name in ("peername", "sockname")]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    (timer,) = [row[5] for row in rows if [row[1][-5:], row[2][-5:]] == ends]
    kind, _, ticks = timer.partition(":")
    assert kind == "02" and 290 * 100 < int(ticks, 16) <= 300 * 100, timer
    user.writer.close()


async def test_only_whoever_runs_it_can_ask_envoy_and_read_what_it_writes(
    router: EnvoyRouter, edge: str, tmp_path: Path
) -> None:
    folder = tmp_path / "router"
    for path in (process.admin_socket(folder, 0), folder / loggers.ACCESS_LOG):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
