"""Too much: frames within HTTP/2, answers that nobody reads, more users and more memory than there may be."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from segue.routers.envoy import http, machine
from segue.routers.envoy.machine import Limits
from segue.routers.envoy.router import EnvoyRouter
from segue.routers.envoy.static import CONFIG
from segue.testing import certificates

from .world import V1, Answer, World, ask, secured, service, table, until, version

PATIENCE = 10
"""Seconds that a test waits for a frame, for an answer, or for the end of a connection."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame().serialize()
REFUSED_STREAM, CANCEL = 7, 8
MIB = 2**20


async def connected(
    listen: str, tls: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection."""
    host, _, port = listen.rpartition(":")
    return await asyncio.open_connection(host, int(port), ssl=tls)


async def status(reader: asyncio.StreamReader) -> int:
    """The status of the next answer; 0: the connection ended."""
    try:
        async with asyncio.timeout(PATIENCE):
            return int((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0


def request(stream: int, method: str = "GET", *, ends: bool = True) -> bytes:
    """A request that is held; the body of a POST, and a head that does not end, are to come."""
    fields = [(":method", method), (":scheme", "http"), (":path", "/hold"), (":authority", "x")]
    flags = [*(["END_HEADERS"] if ends else []), *(["END_STREAM"] if method == "GET" else [])]
    return HeadersFrame(stream, Encoder().encode(fields), flags=flags).serialize()


async def frame(reader: asyncio.StreamReader) -> Frame:
    """The next frame."""
    async with asyncio.timeout(PATIENCE):
        found, length = Frame.parse_frame_header(memoryview(await reader.readexactly(9)))
        found.parse_body(memoryview(await reader.readexactly(length)))
        return found


async def test_a_connection_has_at_most_100_requests_at_a_time_and_is_told_so(
    router: EnvoyRouter, world: World, listen: str
) -> None:
    await router.apply(table(service(listen, version(V1, 1, await world.backend("app")))))
    reader, writer = await connected(listen)
    writer.write(PREFACE + b"".join(request(2 * number + 1) for number in range(101)))
    told = await frame(reader)
    assert isinstance(told, SettingsFrame)
    assert told.settings[SettingsFrame.MAX_CONCURRENT_STREAMS] == 100
    assert told.settings[SettingsFrame.INITIAL_WINDOW_SIZE] == 65536
    while not isinstance(refused := await frame(reader), RstStreamFrame):
        assert not isinstance(refused, HeadersFrame), "a held request was answered"
    assert (refused.stream_id, refused.error_code) == (201, REFUSED_STREAM)
    writer.close()


FLOODS = {
    "requests that are taken back at once": [
        b"".join(request(n) + RstStreamFrame(n, error_code=CANCEL).serialize() for n in range(1, 6000, 2))
    ],
    "pings whose answers nobody reads": [PingFrame(opaque_data=b"12345678").serialize() * 1000] * 1000,
    "settings whose answers nobody reads": [SettingsFrame().serialize() * 1000] * 2000,
    "empty parts of a body": [request(1, "POST") + DataFrame(1).serialize() * 10],
    "priorities": [PriorityFrame(1, stream_weight=1).serialize() * 1000],
    "windows": [request(1) + WindowUpdateFrame(1, window_increment=1).serialize() * 1000],
    "a head that does not end": [request(1, ends=False) + b"\0\0\0\x09\0\0\0\0\x01" * 10000],
}


async def flooded(listen: str, frames: list[bytes], tls: ssl.SSLContext | None) -> None:
    """Return when Envoy has closed the connection on which these are sent."""
    reader, writer = await connected(listen, tls)
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(PREFACE)
            for some in frames:
                writer.write(some)
                await writer.drain()
            while await reader.read(65536):
                pass
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("tls", [False, True], ids=["in the clear", "with TLS"])
async def test_a_connection_that_is_flooded_with_frames_is_closed_and_others_are_not(
    tls: bool, router: EnvoyRouter, world: World, listen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(http.EDGE, "delayed_close_timeout", "0.05s")
    app, context = await world.backend("app"), None
    made = service(listen, version(V1, 1, app))
    if tls:
        files = certificates.write(tmp_path, "cert", ["127.0.0.1"])
        made, context = secured(made, files), ssl.create_default_context(cafile=str(files[0]))
        context.set_alpn_protocols(["h2"])
    await router.apply(table(made))
    reader, calm = await connected(listen, context)
    calm.write(PREFACE + request(1))
    await app.holding()
    for name, frames in FLOODS.items():
        try:
            await flooded(listen, frames, context)
        except TimeoutError:
            pytest.fail(f"{name}: the connection was not closed")
    await app.release()
    while not isinstance(answer := await frame(reader), HeadersFrame):
        pass
    assert (":status", "200") in Decoder().decode(answer.data)
    calm.close()


@dataclass
class Origin:
    """An application whose answers do not end; a body it reads to its end, and answers it when it is told to."""

    address: str = ""
    sent: int = 0
    asked: int = 0
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            if length := re.search(rb"content-length: (\d+)", head):
                left = int(length[1])
                while left:
                    left -= len(await reader.read(min(left, MIB)))
                await self.answers.wait()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                return
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                self.sent += 65536
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """The application."""
    made = Origin()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()


async def allocated(router: EnvoyRouter) -> int:
    """Bytes that Envoy has allocated."""
    return (await router.stats("^server.memory_allocated$")).values["server.memory_allocated"]


async def test_an_answer_that_nobody_reads_costs_little_memory_and_is_not_asked_for_further(
    router: EnvoyRouter, origin: Origin, listen: str
) -> None:
    await router.apply(table(service(listen, version(V1, 1, origin.address))))
    before, sent, still, users = await allocated(router), -1, 0, []
    for _ in range(40):
        users.append(socket.create_connection(listen.split(":")))
        users[-1].sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")

    async def stuck() -> bool:
        nonlocal sent, still
        still = still + 1 if sent == origin.sent > 0 else 0
        sent = origin.sent
        return still == 25

    await until(stuck, "the end of what the application can send", seconds=60)
    assert (await allocated(router) - before) / len(users) < 480 * 1024
    for user in users:
        user.close()


Start = Callable[[Limits], Awaitable[EnvoyRouter]]


@pytest.fixture
async def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Starts a router whose Envoy may take so much."""
    routers = []

    async def start(limits: Limits) -> EnvoyRouter:
        monkeypatch.setattr(machine, "limits", lambda: limits)
        routers.append(EnvoyRouter(tmp_path / "router", concurrency=2, drain=2))
        await routers[-1].start()
        return routers[-1]

    yield start
    for router in routers:
        await router.shutdown()


async def test_more_users_than_there_may_be_are_sent_away_until_one_leaves(
    started: Start, world: World, listen: str
) -> None:
    app = await world.backend("app")
    router = await started(Limits(2**33, 4))
    await router.apply(table(service(listen, version(V1, 1, app))))
    users = [await connected(listen) for _ in range(4)]
    for reader, writer in users:
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await status(reader) == 200
    assert await ask(listen) == Answer(0, "")
    await until(lambda: sent_away(router), "its being counted")
    await router.apply(table(service(listen, version(V1, 1, app), hosts=("x",))))
    await router.settled()
    users[0][1].close()
    await until(lambda: answered(listen), "a place")
    for _, writer in users:
        writer.close()


async def sent_away(router: EnvoyRouter) -> bool:
    found = await router.stats(r"^listener\..*\.downstream_global_cx_overflow$")
    return sum(found.values.values()) == 1


async def answered(listen: str) -> bool:
    return await ask(listen) == Answer(200, "app")


async def test_when_memory_runs_short_requests_are_refused_and_connections_wait_until_there_is_some(
    started: Start, origin: Origin, listen: str
) -> None:
    router = await started(Limits(40 * MIB, 1000))
    await router.apply(table(service(listen, version(V1, 1, origin.address))))
    (reader, writer), (resting, rests) = await connected(listen), await connected(listen)
    uploads, body = [], bytes(3 * MIB)
    for _ in range(14):
        uploads.append(await connected(listen))
        uploads[-1][1].write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body))
    await until(lambda: let_in(len(uploads), origin), "what is uploaded")
    for _, user in uploads:
        user.write(body)  # what could be repeated is kept until there is an answer
    await until(lambda: acts(router, "stop_accepting_connections"), "the shortage")
    for sooner in ("shrink_heap", "disable_http_keepalive", "stop_accepting_requests"):
        assert await acts(router, sooner), f"{sooner} comes before"
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert await status(reader) == 503
    async with asyncio.timeout(PATIENCE):
        assert await resting.read(1) == b"", "who rests does so for two seconds, and not for an hour"
    late, later = await connected(listen)
    later.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    await router.settled()
    origin.answers.set()
    assert {await status(answer) for answer, _ in uploads} == {200}
    assert await status(late) == 200
    for each in (writer, rests, later, *(user for _, user in uploads)):
        each.transport.abort()


async def let_in(uploads: int, origin: Origin) -> bool:
    """Whether so many have come to the application."""
    return origin.asked == uploads


async def acts(router: EnvoyRouter, action: str) -> bool:
    """Whether Envoy does what it does when memory runs short."""
    name = f"overload.envoy.overload_actions.{action}.active"
    return bool((await router.stats(f"^{name}$")).values[name])


async def test_an_envoy_that_nobody_controls_has_the_same_limits(
    started: Start, world: World, listen: str, tmp_path: Path
) -> None:
    router = await started(Limits(2**30, 1234))
    await router.apply(table(service(listen, version(V1, 1, await world.backend("app")))))
    await router.settled()
    texts = [(tmp_path / "router" / name).read_text() for name in ("envoy-0-boot.json", CONFIG)]
    asking, static = (json.loads(text)["overload_manager"] for text in texts)
    assert asking == static and "1234" in texts[1]


@pytest.mark.parametrize(
    ("groups", "files", "memory"),
    [
        ("0::/a/b\n", {"memory.max": "max", "a/memory.max": "3000000", "a/b/memory.max": "max"}, 3000000),
        ("0::/\n", {"memory.max": "2000000"}, 2000000),
        ("4:cpu:/a\n3:memory:/a\n", {"memory/memory.limit_in_bytes": "1000000"}, 1000000),
        ("3:memory:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712"}, None),
    ],
)
def test_envoy_takes_half_of_what_there_is(
    groups: str, files: dict[str, str], memory: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = tmp_path / "mounted"
    for name, text in files.items():
        (mounted / name).parent.mkdir(parents=True, exist_ok=True)
        (mounted / name).write_text(f"{text}\n")
    (tmp_path / "groups").write_text(groups)
    whole = machine.limits().memory
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "_MOUNTED", mounted)
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (1024, 20_000))
    assert machine.limits() == Limits(memory // 2 if memory else whole, 9_900)
