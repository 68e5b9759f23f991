"""How requests ended, as the router tells it: whole, cut, repeated elsewhere; a WebSocket, by its goodbye."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded, StreamReset
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError

from segue.core.traffic import Books, Ends, InstanceId, Observed, Traffic
from segue.evidence.envoy import EnvoyEvidence
from segue.routers.envoy.router import EnvoyRouter
from segue.testing.site import free_port

from .world import EITHER, V1, Answer, World, alone, ask, service, table, until, version

LEAVES = InstanceId("v1.1-1")
OTHER = InstanceId("v1.1-2")


@dataclass
class App:
    """An application with streams, in a process of its own."""

    address: str
    process: asyncio.subprocess.Process


@pytest.fixture
async def app() -> AsyncIterator[App]:
    port = free_port()
    command = [sys.executable, "-m", "segue.testing.streams", str(port), "v1"]
    process = await asyncio.create_subprocess_exec(*command)

    async def listens() -> bool:
        try:
            return (await ask(f"127.0.0.1:{port}", "/healthz")).status == 200
        except ConnectionRefusedError:
            return False

    await until(listens)
    yield App(f"127.0.0.1:{port}", process)
    if process.returncode is None:
        process.kill()
    await process.wait()


async def seen(router: EnvoyRouter) -> Observed:
    """What the router sees of the instance that leaves."""
    return (await router.observe("shop"))[LEAVES]


async def events(listen: str) -> str:
    """Server-sent events over HTTP/1.1: how they end."""
    reader, writer = await asyncio.open_connection(*listen.split(":"))
    writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    try:
        await reader.readuntil(b"\r\n0\r\n\r\n")
        return "whole"
    except asyncio.IncompleteReadError:
        return "cut"
    finally:
        writer.close()


async def events_http2(listen: str) -> str:
    """The same over HTTP/2."""
    reader, writer = await asyncio.open_connection(*listen.split(":"))
    http = H2Connection()
    http.initiate_connection()
    head = {":method": "GET", ":path": "/events", ":authority": "x", ":scheme": "http"}
    http.send_headers(1, list(head.items()), end_stream=True)
    try:
        while True:
            writer.write(http.data_to_send())
            for event in http.receive_data(await reader.read(65536)):
                if isinstance(event, StreamEnded | StreamReset):
                    return "whole" if isinstance(event, StreamEnded) else "cut"
                if isinstance(event, DataReceived):
                    http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
    finally:
        writer.close()


async def closed(line: ClientConnection) -> int | None:
    """The code that a WebSocket is closed with."""
    async with line:
        with suppress(ConnectionClosedError):
            async for _ in line:
                pass
    return line.close_code


@dataclass
class Users:
    """Those who are connected to the instance that leaves."""

    events: asyncio.Task[str]
    events_http2: asyncio.Task[str]
    websocket: asyncio.Task[int | None]
    poll: asyncio.Task[Answer]
    post: asyncio.Task[Answer]


async def connected(router: EnvoyRouter, world: World, listen: str, app: App, at_rest: bool) -> Users:
    """Users of the only instance; then it drains, and another one is ready."""
    await router.apply(alone(listen, at_rest, app.address))
    users = Users(
        asyncio.create_task(events(listen)),
        asyncio.create_task(events_http2(listen)),
        asyncio.create_task(closed(await connect(f"ws://{listen}/ws"))),
        asyncio.create_task(ask(listen, "/poll")),
        asyncio.create_task(ask(listen, "/poll", method="POST")),
    )

    async def all_here() -> bool:
        return (await seen(router)).in_flight == 5

    await until(all_here)
    other = version(V1, 1, app.address, await world.backend("other")).endpoints[1:]
    leaving = version(V1, 1, app.address, state=Traffic.DRAINING, more=other)
    await router.apply(table(service(listen, leaving)))
    await router.settled()
    assert await seen(router) == Observed(False, 5)
    return users


async def all_ended(router: EnvoyRouter) -> Ends:
    """How they ended, once they have."""

    async def none_open() -> bool:
        now = await seen(router)
        return now.in_flight == now.ends.closed == 0  # the log of WebSockets comes a moment later

    await until(none_open)
    return (await seen(router)).ends


@EITHER
async def test_what_an_instance_ends_with_a_goodbye_is_whole(
    router: EnvoyRouter, world: World, listen: str, app: App, at_rest: bool
) -> None:
    users = await connected(router, world, listen, app, at_rest)
    app.process.terminate()
    assert await all_ended(router) == Ends(whole=5)
    assert (await users.events, await users.events_http2, await users.websocket) == ("whole", "whole", 1001)
    assert (await users.poll).body == (await users.post).body == "leaving\n"
    assert await EnvoyEvidence(router).books("shop") == Books(5, answered={V1: 5})


@EITHER
async def test_what_breaks_off_is_cut_and_what_may_be_repeated_is(
    router: EnvoyRouter, world: World, listen: str, app: App, at_rest: bool
) -> None:
    users = await connected(router, world, listen, app, at_rest)
    app.process.kill()
    # Of a request that came at rest only the last attempt is told: what was repeated is not told of here.
    assert await all_ended(router) == Ends(cut=4, repeated=0 if at_rest else 1)
    assert (await users.events, await users.events_http2, await users.websocket) == ("cut", "cut", 1006)
    assert (await users.poll) == Answer(200, "other")
    assert (await users.post).status == 503
    assert await EnvoyEvidence(router).books("shop") == Books(5, answered={V1: 2}, cut=3)


@pytest.mark.parametrize("goodbye", [True, False])
async def test_a_goodbye_is_told_from_what_messages_say(
    router: EnvoyRouter, listen: str, app: App, goodbye: bool
) -> None:
    await router.apply(table(service(listen, version(V1, 1, app.address))))
    async with connect(f"ws://{listen}/ws") as line:
        await line.recv()
        for length in (1, 20, 21, 5_000, 20_000, 20_000):  # every kind of head, and payloads in many parts
            message = "\x88\x02\x03\xe9" * length
            await line.send(message)
            assert await line.recv() == message
        await router.apply(table(service(listen, version(V1, 1, app.address, state=Traffic.DRAINING))))
        if goodbye:
            app.process.terminate()
        else:
            app.process.kill()
        with suppress(ConnectionClosedError):
            async for _ in line:
                pass
    assert await all_ended(router) == (Ends(whole=1) if goodbye else Ends(cut=1))


@EITHER
async def test_users_who_leave_cut_nothing(
    router: EnvoyRouter, world: World, listen: str, app: App, at_rest: bool
) -> None:
    users = await connected(router, world, listen, app, at_rest)
    for task in vars(users).values():
        task.cancel()
    await asyncio.gather(*vars(users).values(), return_exceptions=True)
    ends = await all_ended(router)
    assert (ends.whole + ends.closed, ends.cut, ends.repeated) == (5, 0, 0)


async def test_ends_are_counted_of_instances_that_drain_only(router: EnvoyRouter, world: World, listen: str) -> None:
    stays, leaves = await world.backend("stays"), await world.backend("leaves")
    await router.apply(table(service(listen, version(V1, 1, leaves))))
    assert (await ask(listen)).status == 200
    assert (await seen(router)).ends == Ends()
    more = version(V1, 1, leaves, stays).endpoints[1:]
    await router.apply(table(service(listen, version(V1, 1, leaves, state=Traffic.DRAINING, more=more))))
    assert (await seen(router)).ends == Ends(whole=1)
    assert (await ask(listen)).body == "stays"
    assert (await router.observe("shop"))[OTHER].ends == Ends()
