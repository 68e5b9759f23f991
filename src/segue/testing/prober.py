"""An independent load client over raw sockets, HTTP/1.1 or 2: ``python -m segue.testing.prober URL``.

Rule 1: nothing of Segue's engine is used here: what users see is counted from outside.
Rule 2: a request is counted in the moment it is written, and ends exactly once, as answered or as lost.
Rule 3: as in a browser, a connection that the server closed while it was at rest costs nothing; but a
request that was written and got no byte is lost: it is not sent again. (Over HTTP/2 it is sent again when the
server says that it has not looked at it.)
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
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from segue.testing.http1 import Answer
from segue.testing.keepalive import BODILESS, Connection
from segue.testing.tally import Counting, Loss, Tally, encode

if TYPE_CHECKING:
    from segue.testing.http2 import Http2Connection

RETRY_CONNECT = 0.02
"""Seconds before the next attempt after a refused connection: each attempt is one lost request."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for. `rate`: requests a second over all connections, None: as fast as answers come.

    `method`: one, or several with commas between them, which take turns. `version_of` finds the version in the
    answer (its fields and its body); without it the field `version_field` is read. `timeout`: seconds for a whole
    answer. Every request of a method other than GET, and with a `name` every request, carries its number after
    that name in ``X-Probe``; numbers of those that were not lost are added to the file `answered`.
    `streams`: so many requests at a time on each connection, by HTTP/2; 0: HTTP/1.1.
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
    name: str = ""
    answered: Path | None = None
    streams: int = 0

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to connect to."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    @property
    def target(self) -> str:
        """Path and query."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    @property
    def pause(self) -> float:
        """Seconds from one request to the next, of each that may be under way at a time."""
        return self.connections * max(self.streams, 1) / self.rate if self.rate else 0.0

    def header(self, method: str) -> bytes:
        """The request, without the empty line that ends its header."""
        lines = [f"{method} {self.target} HTTP/1.1", f"Host: {urlsplit(self.url).netloc}"]
        lines += [f"{name}: {value}" for name, value in self.fields]
        if self.body or method not in BODILESS:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n"


class Request(NamedTuple):
    """One request. `label`: its number after the name of its load; empty: it carries none."""

    method: str
    label: str


class Prober:
    """Sends a `Load` from `start` to `stop`."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.counts = Counting()
        self.stopping = False
        self.again: list[Request] = []
        self._host, self._port = load.address
        self._methods = load.method.split(",")
        self._headers = {method: load.header(method) for method in self._methods}
        self._name = load.version_field.lower().encode()
        self._answered: IO[str] | None = load.answered.open("a", buffering=1) if load.answered else None
        self._users: list[asyncio.Task[None]] = []
        self._open: set[Connection | Http2Connection] = set()
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

    @property
    def done(self) -> bool:
        """Whether no request is to be sent any more."""
        return self.stopping and not self.again

    def next_request(self) -> Request:
        """The next request, which is counted with this unless it was before."""
        if self.again:
            return self.again.pop()
        self.counts.total += 1
        method = self._methods[self.counts.total % len(self._methods)]
        numbered = self.load.name or method != "GET"
        return Request(method, f"{self.load.name}{self.counts.total}" if numbered else "")

    def written(self, request: Request) -> bytes:
        """`request` as bytes of HTTP/1.1."""
        label = b"X-Probe: %s\r\n" % request.label.encode() if request.label else b""
        return self._headers[request.method] + label + b"\r\n" + self.load.body

    def answer(self, request: Request, status: int, version: str, seconds: float) -> None:
        """`request` has its whole answer."""
        self.counts.answered(status, version, seconds)
        if self._answered is not None and status < 500:
            self._answered.write(f"{request.label}\n")

    def version(self, answer: Answer) -> str:
        """The version that gave `answer`."""
        if self.load.version_of is not None:
            return self.load.version_of(answer)
        return answer.fields.get(self._name, b"unknown").decode("latin-1")

    async def _user(self) -> None:
        """Keep one connection open, and open it again when it is lost."""
        loop = asyncio.get_running_loop()
        while not self.done:
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
            connection = self._connection(sock)
            self._open.add(connection)
            await loop.create_connection(lambda made=connection: made, sock=sock)  # type: ignore[misc]
            await connection.over
            self._open.discard(connection)

    def _connection(self, sock: socket.socket) -> Connection | Http2Connection:
        if not self.load.streams:
            return Connection(self, sock)
        from segue.testing.http2 import Http2Connection  # what it needs is a tool of tests

        return Http2Connection(self, sock)

    async def _sweep(self) -> None:
        """End the requests that have taken too long."""
        loop = asyncio.get_running_loop()
        while not self.stopping or any(connection.busy for connection in self._open):
            await asyncio.sleep(min(0.05, self.load.timeout / 4))
            limit = loop.time() - self.load.timeout
            for connection in list(self._open):
                connection.end_if_older(limit)


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
        name=given.name,
        answered=given.answered,
        streams=given.http2,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the load; 0 when there were requests and none was lost, else 1."""
    parser = argparse.ArgumentParser(prog="prober", description="Load a URL and count every request.")
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, help="stop by itself after so long; else on SIGTERM or SIGINT")
    parser.add_argument("--rate", type=float, help="requests a second over all connections")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for a whole answer")
    parser.add_argument("--method", default="GET", help="or several in turn: GET,HEAD,OPTIONS")
    parser.add_argument("--http2", type=int, default=0, metavar="STREAMS", help="HTTP/2, so many requests at a time")
    parser.add_argument("--name", default="", help="what stands before each request's number in X-Probe")
    parser.add_argument("--answered", type=Path, metavar="FILE", help="gets a line for each request not lost")
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
