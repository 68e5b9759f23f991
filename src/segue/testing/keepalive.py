"""A connection of the prober over HTTP/1.1, kept alive as a browser keeps it."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from segue.testing.http1 import Answer, Garbled
from segue.testing.tally import Loss

if TYPE_CHECKING:
    from segue.testing.prober import Prober, Request

BODILESS = ("GET", "HEAD", "OPTIONS")
"""Methods whose requests have no body, however much there is to send."""


class HeadAnswer(Answer):
    """The answer to HEAD, which ends with its header whatever that says."""

    def _read_head(self) -> bool:
        if not super()._read_head():
            return False
        self._end, self.until_close = self.body_at, False
        return True


class Connection(asyncio.Protocol):
    """One connection, which has one request under way (`answer`) or rests until the next is due."""

    def __init__(self, prober: Prober, sock: socket.socket) -> None:
        self._prober = prober
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._sent_at = 0.0
        self._due: asyncio.TimerHandle | None = None
        self._pause = prober.load.pause
        self._transport: asyncio.Transport | None = None
        self._request: Request | None = None
        self.answer: Answer | None = None
        self.over: asyncio.Future[None] = self._loop.create_future()

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self.answer is not None

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
        if self._prober.done or closed_at_rest(self._sock):
            self._transport.abort()
            return
        self._sent_at = self._loop.time()
        self._request = self._prober.next_request()
        self.answer = HeadAnswer() if self._request.method == "HEAD" else Answer()
        self._transport.write(self._prober.written(self._request))

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
        assert self._request is not None
        assert self._transport is not None
        now = self._loop.time()
        self._prober.answer(self._request, answer.status, self._prober.version(answer), now - self._sent_at)
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


def closed_at_rest(sock: socket.socket) -> bool:
    """Whether the server has closed the connection, although the event loop has not come to see it yet."""
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
