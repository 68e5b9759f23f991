"""An independent HTTP/1.1 load client over raw sockets: ``python -m segue.testing.prober URL``.

Rule 1: nothing of Segue's engine is used here: what users see is counted from outside.
Rule 2: a request is counted in the moment it is written, and ends exactly once, as answered or as lost.
Rule 3: as in a browser, a connection that the server closed while it was at rest costs nothing; but a
request that was written and got no byte is lost: it is not sent again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from segue.testing.http1 import Answer, Garbled
from segue.testing.tally import Counting, Loss, Tally, encode

RETRY_CONNECT = 0.02
"""Seconds before the next attempt after a refused connection: each attempt is one lost request."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for. `rate`: requests a second over all connections, None: as fast as answers come.

    `version_of` finds the version in the answer (its fields and its body); without it the field
    `version_field` is read. `timeout`: seconds for a whole answer. Every request of a method other than
    GET carries its number in ``X-Probe``.
    """

    url: str
    connections: int = 64
    method: str = "GET"
    body: bytes = b""
    rate: float | None = None
    timeout: float = 10.0
    fields: tuple[tuple[str, str], ...] = ()
    version_field: str = "x-version"
    version_of: Callable[[Answer], str] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to connect to."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    def request(self) -> bytes:
        """The request, without the empty line that ends its header."""
        parts = urlsplit(self.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"{self.method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in self.fields]
        if self.body or self.method != "GET":
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n"


class Prober:
    """Sends a `Load` from `start` to `stop`."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.counts = Counting()
        self.stopping = False
        self._host, self._port = load.address
        self._request = load.request()
        self._numbered = load.method != "GET"
        self._name = load.version_field.lower().encode()
        self._users: list[asyncio.Task[None]] = []
        self._open: set[Connection] = set()
        self._began = 0.0

    async def start(self) -> None:
        """Begin to send. Returns at once."""
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        self._users = [asyncio.create_task(self._user()) for _ in range(self.load.connections)]
        self._users.append(asyncio.create_task(self._sweep()))

    async def stop(self) -> Tally:
        """Begin no new request, wait for those under way (at most the timeout), and return the tally."""
        self.stopping = True
        for connection in list(self._open):
            connection.rest()
        await asyncio.gather(*self._users)
        return self.tally()

    def tally(self) -> Tally:
        """What has been counted until now."""
        return self.counts.tally(asyncio.get_running_loop().time() - self._began)

    def next_request(self) -> bytes:
        """The bytes of the next request, which is counted with this."""
        self.counts.total += 1
        if self._numbered:
            return self._request + b"X-Probe: %d\r\n\r\n" % self.counts.total + self.load.body
        return self._request + b"\r\n" + self.load.body

    def version(self, answer: Answer) -> str:
        """The version that gave `answer`."""
        if self.load.version_of is not None:
            return self.load.version_of(answer)
        return answer.fields.get(self._name, b"unknown").decode("latin-1")

    async def _user(self) -> None:
        """Keep one connection open, and open it again when it is lost."""
        loop = asyncio.get_running_loop()
        while not self.stopping:
            sock = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET)
            sock.setblocking(False)
            try:
                await asyncio.wait_for(loop.sock_connect(sock, (self._host, self._port)), self.load.timeout)
            except OSError as exc:  # TimeoutError is one of them
                sock.close()
                self.counts.total += 1
                kind = Loss.TIMEOUT if isinstance(exc, TimeoutError) else Loss.REFUSED
                self.counts.lose(kind, f"connect: {exc.strerror or exc}")
                await asyncio.sleep(RETRY_CONNECT)
                continue
            connection = Connection(self, sock)
            self._open.add(connection)
            await loop.create_connection(lambda made=connection: made, sock=sock)  # type: ignore[misc]
            await connection.over
            self._open.discard(connection)

    async def _sweep(self) -> None:
        """End the requests that have taken too long."""
        loop = asyncio.get_running_loop()
        while not self.stopping or any(connection.answer for connection in self._open):
            await asyncio.sleep(min(0.05, self.load.timeout / 4))
            limit = loop.time() - self.load.timeout
            for connection in list(self._open):
                connection.end_if_older(limit)


class Connection(asyncio.Protocol):
    """One connection, which has one request under way (`answer`) or rests until the next is due."""

    def __init__(self, prober: Prober, sock: socket.socket) -> None:
        self._prober = prober
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._sent_at = 0.0
        self._due: asyncio.TimerHandle | None = None
        self._pause = prober.load.connections / prober.load.rate if prober.load.rate else 0.0
        self._transport: asyncio.Transport | None = None
        self.answer: Answer | None = None
        self.over: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands: send the first request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._pause:  # not all connections at once
            self._due = self._loop.call_later(self._pause * (hash(self) % 97) / 97, self._send)
        else:
            self._send()

    def _send(self) -> None:
        assert self._transport is not None
        if self._prober.stopping or self._closed_at_rest():
            self._transport.abort()
            return
        self._sent_at = self._loop.time()
        self.answer = Answer()
        self._transport.write(self._prober.next_request())

    def _closed_at_rest(self) -> bool:
        """Whether the server has closed the connection, although the event loop has not come to see it yet."""
        try:
            return self._sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer; bytes that nobody asked for end the connection."""
        assert self._transport is not None
        if self.answer is None:
            self._transport.abort()
            return
        try:
            whole = self.answer.feed(data)
        except Garbled as exc:
            self._lose(Loss.GARBLED, str(exc))
            return
        if whole:
            self._answered()

    def _answered(self) -> None:
        answer, self.answer = self.answer, None
        assert answer is not None
        assert self._transport is not None
        now = self._loop.time()
        self._prober.counts.answered(answer.status, self._prober.version(answer), now - self._sent_at)
        if not answer.keeps:
            self._transport.abort()
        elif self._pause and not self._prober.stopping:
            self._due = self._loop.call_at(self._sent_at + self._pause, self._send)
        else:
            self._send()

    def end_if_older(self, limit: float) -> None:
        """Give the request up that was sent before `limit`."""
        if self.answer is not None and self._sent_at < limit:
            self._lose(Loss.TIMEOUT, f"no whole answer within {self._prober.load.timeout:g} s")

    def rest(self) -> None:
        """Close the connection unless a request is under way."""
        if self.answer is None and self._transport is not None:
            self._transport.abort()

    def _lose(self, kind: Loss, detail: str) -> None:
        assert self._transport is not None
        self.answer = None
        self._prober.counts.lose(kind, detail)
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: at rest, after the last byte, or with a request under way."""
        if self._due is not None:
            self._due.cancel()
        if self.answer is not None:
            reason = str(exc or "the server closed the connection")
            if exc is None and self.answer.closed():
                self._answered()
            elif self.answer.begun:
                self._prober.counts.lose(Loss.CUT, reason)
            else:
                self._prober.counts.lose(Loss.RESET, reason)
        elif exc is None and not self._prober.stopping:
            self._prober.counts.closed_idle += 1
        self.answer = None
        if not self.over.done():
            self.over.set_result(None)


async def probe(load: Load, seconds: float | None, every: float | None) -> Tally:
    """Send `load` for `seconds` or until SIGTERM or SIGINT; every `every` seconds print what was counted."""
    prober = Prober(load)
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    if seconds is not None:
        loop.call_later(seconds, told.set)
    await prober.start()
    while not told.is_set():
        try:
            await asyncio.wait_for(told.wait(), every)
        except TimeoutError:
            _print(prober.tally())
    return await prober.stop()


def _print(tally: Tally) -> None:
    sys.stdout.write(json.dumps(encode(tally)) + "\n")
    sys.stdout.flush()


def _load(given: argparse.Namespace) -> Load:
    fields = tuple((name.strip(), value.strip()) for name, _, value in (h.partition(":") for h in given.header))
    return Load(
        given.url,
        connections=given.connections,
        method=given.method,
        body=given.body.encode(),
        rate=given.rate,
        timeout=given.timeout,
        fields=fields,
        version_field=given.version_field,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the load; 0 when there were requests and none was lost, else 1."""
    parser = argparse.ArgumentParser(prog="prober", description="Load a URL and count every request.")
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, help="stop by itself after so long; else on SIGTERM or SIGINT")
    parser.add_argument("--rate", type=float, help="requests a second over all connections")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for a whole answer")
    parser.add_argument("--method", default="GET", choices=("GET", "POST", "PUT", "DELETE"))
    parser.add_argument("--body", default="")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE")
    parser.add_argument("--version-field", default="x-version", help="the field that names the version")
    parser.add_argument("--every", type=float, help="print what was counted so often, a JSON line each time")
    parser.add_argument("--json", action="store_true", help="the tally as a JSON line")
    given = parser.parse_args(argv)
    tally = asyncio.run(probe(_load(given), given.seconds, given.every))
    if given.json:
        _print(tally)
    else:
        sys.stdout.write(
            f"{tally}\n" + "".join(f"  {one.at:%H:%M:%S.%f} {one.kind}: {one.detail}\n" for one in tally.lost)
        )
    return 0 if tally.total and not tally.lost_count else 1


if __name__ == "__main__":
    sys.exit(main())
