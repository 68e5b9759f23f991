"""An application that talks for long, over HTTP/1.1: ``python -m segue.testing.streams PORT VERSION``.

Rule 1: it holds its streams itself: on SIGTERM it says goodbye to each in the words of its protocol, finishes what
else is under way, and exits with 0.
Rule 2: what a client must know to tell that nothing was lost on the way is said in the goodbye: how much was sent.
Rule 3: bodies pass through in parts, so that its memory does not grow with them.

Paths (seconds may be fractions):
  /healthz         whether it is well
  /headers         the request's headers as they came, JSON: ``[[name, value], …]``
  /ws?every=S      WebSocket: ``hello VERSION PID``, then ``tick N`` every S seconds (not given: none), and an echo;
                   at the end ``bye TICKS ECHOES`` and a close with 1001
  /events?every=S  server-sent events: ``hello``, ``tick``, at the end ``bye``, whose data is the number of ticks
  /poll?seconds=S  a long poll: answered when somebody tells, when it leaves (``leaving``), or after S (``nothing``)
  /tell            its body answers all polls that wait; the answer is how many
  /sink?most=N     takes a body, and answers with its size, its sha256, its trailers, and what was expected, JSON;
                   of more than N announced bytes it reads none and answers 413
  /bytes?size=N    a body of so many bytes, see `blocks`
  /trailers        a chunked body, then ``X-Sum``, which is its sha256

STREAMS_LEAVING in the environment: ``goodbye``, or ``rude``: on SIGTERM it exits at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request as Opening
from websockets.protocol import State
from websockets.server import ServerProtocol

from segue.testing.http_server import Connection, Fields, Request

BLOCK = bytes(range(256)) * 256
"""What bodies are made of."""


def blocks(size: int) -> Iterator[bytes]:
    """The body of ``/bytes?size=…``, in parts."""
    for _ in range(size // len(BLOCK)):
        yield BLOCK
    yield BLOCK[: size % len(BLOCK)]


class App:
    """What all conversations share. `leaving` is set when it was asked to end."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.leaving = asyncio.Event()
        self.polls: set[asyncio.Future[bytes]] = set()
        self._resting: set[asyncio.StreamWriter] = set()
        self._conversations: set[asyncio.Task[None]] = set()

    async def serve(self, port: int) -> None:
        """Serve until SIGTERM, then until the last conversation is over."""
        rude = os.environ.get("STREAMS_LEAVING") == "rude"
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, (lambda: os._exit(0)) if rude else self.leave)
        server = await asyncio.start_server(self._meet, "127.0.0.1", port, backlog=1024)
        await self.leaving.wait()
        server.close()
        while self._conversations:
            await asyncio.wait(self._conversations)

    def leave(self) -> None:
        """Say goodbye to everybody."""
        self.leaving.set()
        self.tell(b"leaving\n")
        for writer in self._resting:
            writer.close()

    def tell(self, what: bytes) -> int:
        """Answer the polls that wait; how many."""
        waiting, self.polls = self.polls, set()
        for poll in waiting:
            poll.set_result(what)
        return len(waiting)

    async def left_within(self, seconds: float | None) -> bool:
        """Whether it is asked to end before `seconds` (None: ever) are over."""
        with suppress(TimeoutError):
            return await asyncio.wait_for(self.leaving.wait(), seconds)
        return False

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        try:
            await self._converse(Connection(reader, writer, [("X-Version", self.version)]))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side has gone
        finally:
            writer.close()
            with suppress(ConnectionError):  # the other side has gone
                await writer.wait_closed()  # before that the last of it is still here, and would end with the loop
            self._conversations.discard(task)

    async def _converse(self, connection: Connection) -> None:
        while not self.leaving.is_set() and not connection.writer.is_closing():
            self._resting.add(connection.writer)
            try:
                request = await connection.request()
            finally:
                self._resting.discard(connection.writer)
            await PATHS.get(request.path, unknown)(self, connection, request)
            await connection.writer.drain()


async def well(_: App, connection: Connection, __: Request) -> None:
    """Answer that all is well."""
    connection.answer("200 OK", b"well\n")


async def unknown(_: App, connection: Connection, __: Request) -> None:
    """Answer that there is no such path."""
    connection.answer("404 Not Found", b"there is no such path\n", ("Connection", "close"))
    connection.writer.close()


async def headers(_: App, connection: Connection, request: Request) -> None:
    """Show what came."""
    connection.answer("200 OK", json.dumps(request.headers).encode(), ("Content-Type", "application/json"))


async def poll(app: App, connection: Connection, request: Request) -> None:
    """Wait for news."""
    news: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    app.polls.add(news)
    try:
        what = await asyncio.wait_for(news, 0 if app.leaving.is_set() else request.seconds("seconds"))
    except TimeoutError:
        app.polls.discard(news)
        what = b"nothing\n"
    connection.answer("200 OK", what)


async def tell(app: App, connection: Connection, request: Request) -> None:
    """Give the news to those who wait."""
    what = b"".join([part async for part in connection.body(request, [])])
    connection.answer("200 OK", b"%d\n" % app.tell(what))


async def sink(_: App, connection: Connection, request: Request) -> None:
    """Take an upload, unless it is too large."""
    if int(request.get("content-length") or 0) > int(request.query.get("most", sys.maxsize)):
        connection.answer("413 Content Too Large", b"too much\n", ("Connection", "close"))
        connection.writer.close()
        return
    size, digest, trailers = 0, hashlib.sha256(), Fields()
    async for part in connection.body(request, trailers):
        size += len(part)
        digest.update(part)
    found = {"size": size, "sha256": digest.hexdigest(), "trailers": trailers, "expected": request.get("expect")}
    connection.answer("200 OK", json.dumps(found).encode(), ("Content-Type", "application/json"))


async def download(_: App, connection: Connection, request: Request) -> None:
    """Give as many bytes as are wanted."""
    size = int(request.query["size"])
    connection.head("200 OK", ("Content-Length", str(size)))
    for block in blocks(size):
        connection.writer.write(block)
        await connection.writer.drain()


async def with_trailers(_: App, connection: Connection, __: Request) -> None:
    """Say after the body what its sum was."""
    connection.head("200 OK", ("Trailer", "X-Sum"), ("Transfer-Encoding", "chunked"))
    connection.chunk(BLOCK)
    connection.last_chunk(("X-Sum", hashlib.sha256(BLOCK).hexdigest()))


async def events(app: App, connection: Connection, request: Request) -> None:
    """Tell of every tick."""

    def send(kind: str, data: object) -> None:
        connection.chunk(f"event: {kind}\ndata: {data}\n\n".encode())

    kind = (("Content-Type", "text/event-stream"), ("Cache-Control", "no-store"), ("Transfer-Encoding", "chunked"))
    connection.head("200 OK", *kind)
    send("hello", f"{app.version} {os.getpid()}")
    ticks = 0
    while not await app.left_within(request.seconds("every")):
        ticks += 1
        send("tick", ticks)
        await connection.writer.drain()
    send("bye", ticks)
    connection.last_chunk()


async def websocket(app: App, connection: Connection, request: Request) -> None:
    """Tick and echo."""
    socket = WebSocket(connection, request)
    socket.say(f"hello {app.version} {os.getpid()}")
    pushing = asyncio.create_task(socket.push(app, request.seconds("every")))
    try:
        while not socket.over and (data := await connection.reader.read(65536)):
            socket.hear(data)
    finally:
        pushing.cancel()
        connection.writer.close()


class WebSocket:
    """One WebSocket, opened by `request`."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._writer = connection.writer
        self._protocol = ServerProtocol()
        self._ticks = self._echoes = 0
        self._protocol.receive_data(request.raw)
        for event in self._protocol.events_received():
            if isinstance(event, Opening):
                self._protocol.send_response(self._protocol.accept(event))

    @property
    def over(self) -> bool:
        """Whether both sides have closed it."""
        return self._protocol.close_expected()

    def say(self, text: str) -> None:
        """Send a message."""
        self._protocol.send_text(text.encode())
        self._flush()

    def hear(self, data: bytes) -> None:
        """Echo what came; after a goodbye, from either side, nothing more is said."""
        self._protocol.receive_data(data)
        for frame in self._protocol.events_received():
            open_still = self._protocol.state is State.OPEN
            if open_still and isinstance(frame, Frame) and frame.opcode is Opcode.TEXT:
                self._echoes += 1
                self._protocol.send_text(bytes(frame.data))
        self._flush()

    async def push(self, app: App, every: float | None) -> None:
        """Tick until it leaves, then say goodbye, unless the other side has."""
        while not await app.left_within(every) and self._protocol.state is State.OPEN:
            self._ticks += 1
            self.say(f"tick {self._ticks}")
        if self._protocol.state is State.OPEN:
            self.say(f"bye {self._ticks} {self._echoes}")
            self._protocol.send_close(CloseCode.GOING_AWAY, "leaving")
            self._flush()

    def _flush(self) -> None:
        self._writer.write(b"".join(self._protocol.data_to_send()))


PATHS: Mapping[str, Callable[[App, Connection, Request], Awaitable[None]]] = {
    "/healthz": well,
    "/headers": headers,
    "/ws": websocket,
    "/events": events,
    "/poll": poll,
    "/tell": tell,
    "/sink": sink,
    "/bytes": download,
    "/trailers": with_trailers,
}


def main(argv: list[str]) -> int:
    """Run the application; returns its exit status."""
    asyncio.run(App(argv[1]).serve(int(argv[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
