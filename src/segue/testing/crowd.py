"""Many users who stay connected: ``python -m segue.testing.crowd KIND URL COUNT``.

Each opens a connection, gets one answer on it, and rests. Kinds: ``http1``, ``http2`` (by prior knowledge), ``tls``
(HTTP/1.1), ``websocket``, which says something, is echoed, and stays. Rule 1: nobody leaves by himself. Rule 2: every
connection that ends is counted by how it ended, and its user comes back: ``goodbye`` is a WebSocket's close with 1001
after a ``bye`` that fits what was echoed, ``other`` a close with another code, ``closed`` an end of the stream at
rest, ``cut`` anything else. Rule 3: an opening that fails is counted as ``refused``, and tried again.

What has been seen is printed as a line of JSON whenever it has changed; SIGTERM ends it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.frames import CloseCode

from segue.testing.http1 import Answer

AT_ONCE = 200
"""So many connections are being opened at a time."""
OPENED_WITHIN = 30.0
AGAIN = 0.1
"""Seconds before another attempt after one that was refused."""
_TOLD = 0.1
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
_SETTINGS_SEEN = bytes(3) + b"\x04\x01" + bytes(4)
_END_STREAM, _HEADERS, _DATA = 1, 1, 0


@dataclass
class Seen:
    """`open`: connections that rest now. `versions`: who welcomed them (WebSocket). `ended`: by how."""

    open: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)


class Members:
    """The crowd itself."""

    def __init__(self, kind: str, url: str) -> None:
        self.seen = Seen()
        self._url = url
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._path = parts.path or "/"
        self._opening = asyncio.Semaphore(AT_ONCE)
        self._stay = {"http1": self._http1, "tls": self._http1, "http2": self._http2, "websocket": self._websocket}[
            kind
        ]
        self._tls = _trusting() if kind == "tls" else None

    async def member(self) -> None:
        """One user, for ever."""
        while True:
            self.seen.ended[await self._stay()] += 1
            await asyncio.sleep(AGAIN)

    async def _http1(self) -> str:
        head = f"GET {self._path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n\r\n".encode()
        answer = Answer()
        return await self._rest(head, answer.feed)

    async def _http2(self) -> str:
        authority, path = f"{self._host}:{self._port}".encode(), self._path.encode()
        block = b"\x82\x86\x04" + bytes([len(path)]) + path + b"\x41" + bytes([len(authority)]) + authority
        head = len(block).to_bytes(3, "big") + bytes([_HEADERS, 5]) + (1).to_bytes(4, "big") + block
        frames = Frames()
        return await self._rest(_PREFACE + head + _SETTINGS_SEEN, frames.feed)

    async def _rest(self, first: bytes, answered: Callable[[bytes], bool]) -> str:
        """Say `first`, read until it is `answered`, and rest until the other side ends it."""
        try:
            async with self._opening, asyncio.timeout(OPENED_WITHIN):
                reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=4096)
                writer.write(first)
                while not answered(data := await reader.read(4096)):
                    if not data:
                        return "refused"
        except OSError:
            return "refused"
        self.seen.open += 1
        try:
            while await reader.read(4096):
                pass  # such as a GOAWAY, before the end
            return "closed"
        except OSError:
            return "cut"
        finally:
            self.seen.open -= 1
            writer.close()

    async def _websocket(self) -> str:
        try:
            async with self._opening:
                socket = await connect(
                    self._url, ping_interval=None, compression=None, open_timeout=OPENED_WITHIN, max_queue=None
                )
        except (OSError, WebSocketException):
            return "refused"
        self.seen.open += 1
        try:
            return await self._talk(socket)
        finally:
            self.seen.open -= 1

    async def _talk(self, socket: ClientConnection) -> str:
        fits = False
        try:
            welcome = str(await socket.recv()).split()
            self.seen.versions[welcome[1]] += 1
            await socket.send("here")
            echoes = 0
            async for message in socket:
                echoes += message == "here"
                fits = str(message).split() == ["bye", "0", str(echoes)]
        except ConnectionClosed:
            pass
        if socket.close_code == CloseCode.GOING_AWAY and fits:
            return "goodbye"
        return "cut" if socket.close_code == CloseCode.ABNORMAL_CLOSURE else "other"


class Frames:
    """As much of HTTP/2 as tells that the answer on the first stream is whole."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> bool:
        """Take `data`; whether the answer is whole now."""
        self._buffer += data
        while len(self._buffer) >= 9:
            end = 9 + int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < end:
                return False
            kind, flags = self._buffer[3], self._buffer[4]
            self._buffer = self._buffer[end:]
            if kind in (_HEADERS, _DATA) and flags & _END_STREAM:
                return True
        return False


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _stand(kind: str, url: str, count: int) -> None:
    members = Members(kind, url)
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    tasks = [asyncio.create_task(members.member()) for _ in range(count)]
    last = ""
    while not told.is_set():
        now = json.dumps(vars(members.seen))
        if now != last:
            sys.stdout.write(now + "\n")
            sys.stdout.flush()
            last = now
        with suppress(TimeoutError):
            await asyncio.wait_for(told.wait(), _TOLD)
    for task in tasks:
        task.cancel()


class Crowd:
    """A crowd in a process of its own. Construct it to start it."""

    def __init__(self, kind: str, url: str, count: int) -> None:
        self._out = _scratch()
        command = [sys.executable, "-m", "segue.testing.crowd", kind, url, str(count)]
        self._process = subprocess.Popen(command, stdout=self._out, start_new_session=True)

    def seen(self) -> Seen:
        """What it had seen a moment ago."""
        size = os.fstat(self._out.fileno()).st_size
        lines = os.pread(self._out.fileno(), 65536, max(0, size - 65536)).rpartition(b"\n")[0].splitlines()
        if not lines:
            return Seen()
        found: dict[str, Any] = json.loads(lines[-1])
        return Seen(found["open"], Counter(found["versions"]), Counter(found["ended"]))

    def until(self, what: Callable[[Seen], bool], within: float = 120.0) -> Seen:
        """What it has seen when `what` is true of that. Raises TimeoutError, and RuntimeError if it has ended."""
        deadline = time.monotonic() + within
        while not what(seen := self.seen()):
            if self._process.poll() is not None:
                raise RuntimeError(f"the crowd has ended with status {self._process.returncode}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {within:g} s; seen so far: {seen}")
            time.sleep(0.05)
        return seen

    def stop(self) -> Seen:
        """Send it home; what it has seen."""
        self._process.terminate()
        self._process.wait(60)
        seen = self.seen()
        self._out.close()
        return seen

    def kill(self) -> None:
        """End it without asking what it saw."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _scratch() -> IO[bytes]:
    return tempfile.TemporaryFile()


def main(argv: list[str]) -> int:
    """Stand there; returns the exit status."""
    asyncio.run(_stand(argv[0], argv[1], int(argv[2])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
