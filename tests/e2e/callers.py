"""Users who call by gRPC: see `users`. They are strict: a call that fails raises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
from users import EVERY, Stream, Visit

MESSAGES = 20
"""So many a caller sends who sends a stream."""


def line(address: str, roots: bytes | None = None) -> Any:
    """A channel to ``host:port``, which connects again at once; with `roots`, by TLS."""
    options = [("grpc.max_reconnect_backoff_ms", 100)]
    if roots is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(roots), options)


async def echoes(visit: Visit, channel: Any) -> list[bytes]:
    """Unary calls: what was answered, but for the version and the process."""

    async def once() -> bytes:
        answer: bytes = await channel.unary_unary("/segue.Talk/Echo")(b"a pound of tea")
        return answer.split(b" ", 2)[2]

    return await visit.again(once)


async def healths(visit: Visit, channel: Any) -> list[bytes]:
    """What the health check says."""

    async def once() -> bytes:
        answer: bytes = await channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
        return answer

    return await visit.again(once)


async def gatherings(visit: Visit, channel: Any) -> list[bytes]:
    """Streams of messages: how many of them, and how many bytes, the application says it has got."""

    async def messages() -> AsyncIterator[bytes]:
        for _ in range(MESSAGES):
            yield bytes(1000)
            await asyncio.sleep(0)

    async def once() -> bytes:
        answer: bytes = await channel.stream_unary("/segue.Talk/Gather")(messages())
        return answer.split(b" ", 2)[2]

    return await visit.again(once)


async def subscribes(visit: Visit, channel: Any, every: float | None = EVERY) -> list[Stream]:
    """A stream of ticks, asked for anew whenever it ends. `every`: None: there are none."""
    found = []
    while not visit.over.is_set():
        call = channel.unary_stream("/segue.Talk/Ticks")(str(every or "").encode())
        found.append(await _hear(visit, call, Stream()))
    return found


async def chats(visit: Visit, channel: Any) -> list[Stream]:
    """A conversation, begun anew whenever it ends."""
    found = []
    while not visit.over.is_set():
        call, stream = channel.stream_stream("/segue.Talk/Chat")(), Stream()
        speaking = asyncio.create_task(_speak(visit, call, stream))
        found.append(await _hear(visit, call, stream))
        speaking.cancel()
    return found


async def _hear(visit: Visit, call: Any, stream: Stream) -> Stream:
    """What came of a call, until it ended or the visit was over; then it is cancelled."""
    leaving = asyncio.create_task(_cancel(visit, call))
    try:
        while (message := await call.read()) is not grpc.aio.EOF:
            stream.version, _, kind, *words = message.decode().split()
            if kind != "hello":
                stream.heard(kind, words)
            visit.here(stream.version)
        stream.end = await call.code()
    except asyncio.CancelledError:
        stream.end = grpc.StatusCode.CANCELLED
    except grpc.aio.AioRpcError as error:
        stream.end = error.code()
    finally:
        leaving.cancel()
    return stream


async def _cancel(visit: Visit, call: Any) -> None:
    await visit.over.wait()
    call.cancel()


async def _speak(visit: Visit, call: Any, stream: Stream) -> None:
    """Talk until the other side says goodbye."""
    said = 0
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it has ended meanwhile
        while stream.bye is None and not await visit.pause(EVERY):
            said += 1
            await call.write(f"say {said}".encode())
        await call.done_writing()
