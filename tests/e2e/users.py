"""Users who stay through a rollout: the visit, what comes of a stream, and those who speak for themselves.

Rule 1: a client goes on until the visit is over; to whom goodbye was said comes back at once.
Rule 2: a client judges nothing: it tells what came and how it ended. What ought to have come, the tests say.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

T = TypeVar("T")
EVERY = 0.05
"""Seconds between two ticks that a user asks for, and between two things that a user says."""


class Visit:
    """The time from the first user's coming until the rollout is over."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.over, self.leaving = asyncio.Event(), asyncio.Event()
        self._at: dict[asyncio.Task[Any], str | None] = {}
        self._came = asyncio.Event()

    def begin(self, name: str, client: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Let `client` come."""
        task = asyncio.create_task(client, name=name)
        task.add_done_callback(lambda _: self._came.set())
        self._at[task] = None
        return task

    def here(self, version: str = "") -> None:
        """The client whose task this is has a stream at `version`, or, without one, has come."""
        if task := asyncio.current_task():
            self._at[task] = version
            self._came.set()

    async def all_at(self, version: str, within: float = 20) -> None:
        """Until all have come, and those who have a stream have it at `version`; TimeoutError says who does not.

        Who has failed is not waited for.
        """
        try:
            async with asyncio.timeout(within):
                while self._elsewhere(version):
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError as late:
            raise TimeoutError(f"not at {version} within {within:g} s: {self._elsewhere(version)}") from late

    def _elsewhere(self, version: str) -> list[str]:
        return [task.get_name() for task, at in self._at.items() if not task.done() and at not in ("", version)]

    async def pause(self, seconds: float = EVERY) -> bool:
        """Rest for `seconds`, or until the visit is over; whether it is."""
        with suppress(TimeoutError):
            return await asyncio.wait_for(self.over.wait(), seconds)
        return False

    async def again(self, what: Callable[[], Awaitable[T]], every: float = 0.5) -> list[T]:
        """What came of doing it again and again."""
        found = []
        while not self.over.is_set():
            found.append(await what())
            self.here()
            await self.pause(every)
        return found


@dataclass
class Stream:
    """What came of one stream. `end`: a WebSocket's close code, curl's exit status, or gRPC's code."""

    version: str = ""
    ticks: list[int] = field(default_factory=list)
    echoes: list[int] = field(default_factory=list)
    bye: list[int] | None = None
    end: object = None

    def heard(self, kind: str, words: list[str]) -> None:
        """One more message."""
        if kind == "hello":
            self.version = words[0]
        elif kind == "bye":
            self.bye = [int(word) for word in words]
        else:
            {"tick": self.ticks, "say": self.echoes}[kind].append(int(words[0]))


# WebSockets


async def talks(visit: Visit, every: float | None = EVERY) -> list[Stream]:
    """A WebSocket, opened anew whenever it ends. `every`: None: nobody says anything."""
    found = []
    while not visit.over.is_set():
        found.append(await _talk(visit, every))
    return found


async def _talk(visit: Visit, every: float | None) -> Stream:
    """One WebSocket, until it ends or the visit is over."""
    stream = Stream()
    query = f"?every={every}" if every else ""
    async with connect(f"{visit.url.replace('http', 'ws', 1)}ws{query}", ping_interval=None) as line:
        speaking = asyncio.create_task(_speak(visit, line, every))
        with suppress(ConnectionClosed):
            async for message in line:
                kind, *words = str(message).split()
                stream.heard(kind, words)
                visit.here(stream.version)
        speaking.cancel()
    stream.end = line.close_code
    return stream


async def _speak(visit: Visit, line: ClientConnection, every: float | None) -> None:
    said = 0
    with suppress(ConnectionClosed):
        while every and not await visit.pause(every):
            said += 1
            await line.send(f"say {said}")
        await visit.over.wait()
        await line.close()


# One who reads slowly


async def reads_slowly(visit: Visit, size: int) -> tuple[int, str, int]:
    """A download, read 1 KB at a time, with pauses until v1's instances have begun to leave.

    How much came, its sha256, and how much had come until then.
    """
    host, port = visit.url.removeprefix("http://").rstrip("/").split(":")
    loop = asyncio.get_running_loop()
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        line.setblocking(False)
        await loop.sock_connect(line, (host, int(port)))
        await loop.sock_sendall(line, f"GET /bytes?size={size} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        body = (await loop.sock_recv(line, 1024)).partition(b"\r\n\r\n")[2]
        visit.here()
        count, digest, before = len(body), hashlib.sha256(body), 0
        while count < size and (part := await loop.sock_recv(line, 1024)):
            count += len(part)
            digest.update(part)
            if not visit.leaving.is_set():
                before = count
                await visit.pause(0.002)
    return count, digest.hexdigest(), before
