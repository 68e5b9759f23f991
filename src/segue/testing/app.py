"""A tiny web application with faults on demand: ``app.py PORT [VERSION]``.

Rule 1: standard library only and no asyncio, so that it starts in some 30 ms; run it with ``python -I -S``.
Rule 2: it shares no code with Segue: what it shows of Segue is seen from outside.
Rule 3: ``/healthz`` tells only whether it is healthy; the other knobs do not touch it.

Knobs in the environment (seconds may be fractions):
  APP_VERSION      the version, when it is not an argument; every answer names it in ``X-Version``
  APP_EXIT         exit with this status at once
  APP_START_DELAY  seconds before it listens
  APP_UNHEALTHY    if set, ``/healthz`` answers 503 for ever
  APP_DELAY        seconds that every answer takes
  APP_BROKEN       what users get: ``500`` | ``hang`` | ``reset`` | ``head`` (reset in the middle of the header) |
                   ``cut`` (in the middle of the body) | ``refuse`` (the first user finds the door shut for good)
  APP_BROKEN_SHARE the fraction of the requests that get it, 1 unless given
  APP_BROKEN_PATH  only requests whose path begins so get it
  APP_ON_TERM      on SIGTERM: ``graceful`` (finish what is in flight) | ``drop`` it | ``ignore`` the signal
  APP_POSTS        a file to which every executed POST adds a line: its ``X-Probe`` header
  APP_SEEN         a file to which every request with that header adds such a line when it comes
  APP_SICK         a file: while it exists, ``/healthz`` answers 503

Paths: ``/slow?1.5`` is answered after 1.5 s, ``/bytes?100000`` with so many bytes, all others with one line.
"""

from __future__ import annotations

import heapq
import os
import random
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import NamedTuple


class Request(NamedTuple):
    """One request, read whole."""

    method: bytes
    path: bytes
    query: bytes
    probe: bytes


class Knobs:
    """The faults that were asked for."""

    def __init__(self, env: dict[str, str]) -> None:
        self.unhealthy = bool(env.get("APP_UNHEALTHY"))
        self.sick = env.get("APP_SICK")
        self.delay = float(env.get("APP_DELAY", "0"))
        self.broken = env.get("APP_BROKEN", "")
        self.broken_share = float(env.get("APP_BROKEN_SHARE", "1"))
        self.broken_path = env.get("APP_BROKEN_PATH", "").encode()
        self.on_term = env.get("APP_ON_TERM", "graceful")
        self.posts = env.get("APP_POSTS")
        self.seen = env.get("APP_SEEN")

    def ill(self) -> bool:
        """Whether it is not healthy now."""
        return self.unhealthy or bool(self.sick and os.access(self.sick, os.F_OK))

    def fault(self, path: bytes) -> str:
        """What goes wrong with the next request, which is for `path`; empty: nothing."""
        hit = self.broken and path.startswith(self.broken_path) and random.random() < self.broken_share
        return self.broken if hit else ""


class Client:
    """One connection. It has at most one request in work; `inbox` holds what came after it."""

    __slots__ = ("busy", "inbox", "last", "outbox", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.inbox = b""
        self.outbox = b""
        self.busy = False
        self.last = False


class App:
    """The server: one thread, one selector, a heap of answers that are due later."""

    def __init__(self, listener: socket.socket, version: str, knobs: Knobs) -> None:
        self.knobs = knobs
        self.listener = listener
        self.head = f"\r\nX-Version: {version}\r\nContent-Type: text/plain\r\nContent-Length: ".encode()
        self.hello = f"hello from {version}\n".encode()
        self.selector = selectors.DefaultSelector()
        self.later: list[tuple[float, int, Client, Callable[[], bytes]]] = []
        self.clients: set[Client] = set()
        self.asked_to_end = False
        self.ending = False
        self.number = 0

    def run(self) -> None:
        """Serve until SIGTERM, then finish what is in flight."""
        self._catch_term()
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        while not self.ending or any(client.busy or client.outbox for client in self.clients):
            wait = max(0.0, self.later[0][0] - time.monotonic()) if self.later else None
            for key, events in self.selector.select(wait):
                self._happened(key.data, events)
            while self.later and self.later[0][0] <= time.monotonic():
                _, _, client, answer = heapq.heappop(self.later)
                self._send(client, answer())
            if self.asked_to_end and not self.ending:
                self._end()

    def _catch_term(self) -> None:
        if self.knobs.on_term == "ignore":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.knobs.on_term != "graceful":
            return
        self.alarm, wake = socket.socketpair()
        self.alarm.setblocking(False)
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.detach())
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked_to_end", True))
        self.selector.register(self.alarm, selectors.EVENT_READ, self.alarm)

    def _happened(self, what: object, events: int) -> None:
        if what is None:
            self._accept()
        elif isinstance(what, Client):  # it may have been closed since
            if events & selectors.EVENT_WRITE and what in self.clients:
                self._send(what, b"")
            if events & selectors.EVENT_READ and what in self.clients:
                self._read(what)
        else:
            self.alarm.recv(16)

    def _accept(self) -> None:
        while self.listener.fileno() >= 0:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = Client(sock)
            self.clients.add(client)
            self.selector.register(sock, selectors.EVENT_READ, client)

    def _end(self) -> None:
        """Take the connections that already wait at the door, then no more; those at rest are closed."""
        self._accept()
        self._let_nobody_in()
        self.ending = True
        for client in [c for c in self.clients if not c.busy and not c.outbox and not c.inbox]:
            self._read(client)
            if client in self.clients and not client.busy:
                self._close(client)

    def _read(self, client: Client) -> None:
        try:
            data = client.sock.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(client)
            return
        client.inbox += data
        if not client.busy:
            self._next(client)

    def _next(self, client: Client) -> None:
        request, client.inbox = take(client.inbox)
        if request is not None:
            client.busy = True
            self._work(client, request)

    def _work(self, client: Client, request: Request) -> None:
        if request.path == b"/healthz":
            self._send(client, self._answer(b"503 Sick" if self.knobs.ill() else b"200 OK", b"health\n"))
            return
        if self.knobs.seen and request.probe:
            add_line(self.knobs.seen, request.probe)
        fault = self.knobs.fault(request.path)
        if fault == "refuse":
            self._shut()
            return
        if request.method == b"POST" and self.knobs.posts:
            add_line(self.knobs.posts, request.probe)
        if fault in ("reset", "head"):
            self._reset(client, b"HTTP/1.1 200 OK\r\nX-Ver" if fault == "head" else b"")
        elif fault != "hang":
            self._reply(client, request, fault)

    def _reply(self, client: Client, request: Request, fault: str) -> None:
        body = b"x" * int(request.query) if request.path == b"/bytes" else self.hello
        client.last = fault == "cut"

        def answer() -> bytes:
            whole = self._answer(b"500 Broken" if fault == "500" else b"200 OK", body, request.method == b"HEAD")
            return whole[:-1] if client.last else whole

        self._after(client, float(request.query) if request.path == b"/slow" else self.knobs.delay, answer)

    def _answer(self, status: bytes, body: bytes, bare: bool = False) -> bytes:
        """An answer as it is now; a `bare` one tells only how long its body would be."""
        close = b"\r\nConnection: close" if self.asked_to_end else b""
        head = b"HTTP/1.1 " + status + self.head + str(len(body)).encode() + close + b"\r\n\r\n"
        return head if bare else head + body

    def _after(self, client: Client, seconds: float, answer: Callable[[], bytes]) -> None:
        if seconds <= 0:
            self._send(client, answer())
            return
        self.number += 1
        heapq.heappush(self.later, (time.monotonic() + seconds, self.number, client, answer))

    def _send(self, client: Client, answer: bytes) -> None:
        if client not in self.clients:
            return
        client.outbox += answer
        try:
            client.outbox = client.outbox[client.sock.send(client.outbox) :]
        except BlockingIOError:
            pass
        except OSError:
            self._close(client)
            return
        write = selectors.EVENT_WRITE if client.outbox else 0
        self.selector.modify(client.sock, selectors.EVENT_READ | write, client)
        if not client.outbox:
            self._sent(client)

    def _sent(self, client: Client) -> None:
        client.busy = False
        if client.last or self.asked_to_end:
            self._close(client)
        elif client.inbox:
            self._next(client)

    def _shut(self) -> None:
        """Nobody is let in any more, and everybody who is inside is thrown out."""
        self._let_nobody_in()
        for client in list(self.clients):
            self._reset(client)

    def _let_nobody_in(self) -> None:
        if self.listener.fileno() >= 0:
            self.selector.unregister(self.listener)
            self.listener.close()

    def _reset(self, client: Client, last_words: bytes = b"") -> None:
        if last_words:
            client.sock.send(last_words)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close(client)

    def _close(self, client: Client) -> None:
        self.clients.discard(client)
        self.selector.unregister(client.sock)
        client.sock.close()


def add_line(path: str, line: bytes) -> None:
    """Add a line to a file that others add to as well."""
    with open(path, "ab", buffering=0) as file:  # noqa: PTH123 (pathlib takes 10 ms to import)
        file.write(line + b"\n")


def take(inbox: bytes) -> tuple[Request | None, bytes]:
    """The first request in `inbox`, once it is there whole, and what follows it."""
    end = inbox.find(b"\r\n\r\n")
    if end < 0:
        return None, inbox
    line, _, headers = inbox[:end].partition(b"\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (h.partition(b":") for h in headers.split(b"\r\n"))}
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        stop = inbox.find(b"0\r\n\r\n", end + 4)  # good enough for the bodies that tests send
        size = stop + 5 - end - 4 if stop >= 0 else len(inbox)
    else:
        size = int(fields.get(b"content-length", b"0"))
    if len(inbox) < end + 4 + size:
        return None, inbox
    method, target, _ = line.split(b" ", 2)
    path, _, query = target.partition(b"?")
    return Request(method, path, query, fields.get(b"x-probe", b"")), inbox[end + 4 + size :]


def main(argv: list[str]) -> int:
    """Run the application; returns its exit status."""
    env = dict(os.environ)
    port = int(argv[0]) if argv else int(env["PORT"])
    version = argv[1] if len(argv) > 1 else env.get("APP_VERSION", "unnamed")
    if "APP_EXIT" in env:
        sys.stderr.write(f"{version} gives up: APP_EXIT is {env['APP_EXIT']}\n")
        return int(env["APP_EXIT"])
    time.sleep(float(env.get("APP_START_DELAY", "0")))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(1024)
    listener.setblocking(False)
    sys.stdout.write(f"{version} listens on port {port}, pid {os.getpid()}\n")
    sys.stdout.flush()
    App(listener, version, Knobs(env)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
