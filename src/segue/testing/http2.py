"""A connection of the prober over cleartext HTTP/2 that does as a browser does when the server goes away.

Rule 1: GOAWAY is read here and not given to `h2`, which would end the connection with it: what the server has
taken is waited for, what it has not is sent again on another connection, and neither is lost.
Rule 2: a stream that the server refuses before it has looked at it is sent again, too.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from segue.testing.keepalive import BODILESS, closed_at_rest
from segue.testing.tally import Loss

if TYPE_CHECKING:
    from segue.testing.prober import Prober, Request

_HEAD, _GOAWAY = 9, 7
"""Bytes before a frame's content, and the type of the frame that announces the end."""


@dataclass(slots=True)
class Stream:
    """One request under way."""

    request: Request
    sent_at: float
    status: int = 0
    version: str = "unknown"


class Http2Connection(asyncio.Protocol):
    """One connection, which has up to `Load.streams` requests under way."""

    def __init__(self, prober: Prober, sock: socket.socket) -> None:
        self._prober, self._sock = prober, sock
        self._loop = asyncio.get_running_loop()
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._fields = _fields(prober)
        self._field = prober.load.version_field.lower().encode()
        self._streams: dict[int, Stream] = {}
        self._due: set[asyncio.TimerHandle] = set()
        self._inbox = b""
        self._last: int | None = None
        self._transport: asyncio.Transport | None = None
        self.over: asyncio.Future[None] = self._loop.create_future()

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return bool(self._streams)

    # Sending

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands: send the first requests."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._http.initiate_connection()
        load = self._prober.load
        for number in range(load.streams):
            self._later(load.pause * ((hash(self) + number * 31) % 97) / 97)
        self._flush()

    def _later(self, seconds: float) -> None:
        if seconds <= 0:
            self._send()
            return

        def send() -> None:
            self._due.discard(handle)
            self._send()
            self._flush()

        handle = self._loop.call_later(seconds, send)
        self._due.add(handle)

    def _send(self) -> None:
        """Send one request, unless nothing more may be sent here."""
        assert self._transport is not None
        if self._prober.done or self._last is not None or (not self._streams and closed_at_rest(self._sock)):
            self.rest()
            return
        request = self._prober.next_request()
        number = self._http.get_next_available_stream_id()
        self._streams[number] = Stream(request, self._loop.time())
        label = [("x-probe", request.label)] if request.label else []
        body = self._prober.load.body if request.method not in BODILESS else b""
        self._http.send_headers(number, [(":method", request.method), *self._fields, *label], end_stream=not body)
        if body:
            self._http.send_data(number, body, end_stream=True)

    def _flush(self) -> None:
        if self._transport is not None and (data := self._http.data_to_send()):
            self._transport.write(data)

    # Receiving

    def data_received(self, data: bytes) -> None:
        """Frames, and with the last one perhaps only its beginning."""
        assert self._transport is not None
        self._inbox += data
        try:
            for event in self._events():
                self._happened(event)
        except ProtocolError as exc:
            for number in list(self._streams):
                self._lose(number, Loss.GARBLED, str(exc) or type(exc).__name__)
            self._transport.abort()
            return
        self._flush()

    def _events(self) -> Iterator[Event]:
        while len(self._inbox) >= _HEAD:
            end = _HEAD + int.from_bytes(self._inbox[:3])
            if len(self._inbox) < end:
                return
            frame, self._inbox = self._inbox[:end], self._inbox[end:]
            if frame[3] == _GOAWAY:
                self._go_away(int.from_bytes(frame[_HEAD : _HEAD + 4]) & 0x7FFFFFFF)
            else:
                yield from self._http.receive_data(frame)

    def _happened(self, event: Event) -> None:
        match event:
            case ResponseReceived(stream_id=number, headers=headers) if number in self._streams:
                fields = dict(headers or ())
                stream = self._streams[number]
                stream.status = int(fields[b":status"])
                stream.version = fields.get(self._field, b"unknown").decode("latin-1")
            case DataReceived(stream_id=number, flow_controlled_length=length) if length:
                self._http.acknowledge_received_data(length, number)
            case StreamEnded(stream_id=number) if number in self._streams:
                stream = self._streams.pop(number)
                took = self._loop.time() - stream.sent_at
                self._prober.answer(stream.request, stream.status, stream.version, took)
                self._next(stream)
            case StreamReset(stream_id=number, error_code=code) if number in self._streams:
                self._reset(number, code)

    def _next(self, stream: Stream) -> None:
        pause = self._prober.load.pause
        self._later(stream.sent_at + pause - self._loop.time() if pause and not self._prober.stopping else 0)

    def _reset(self, number: int, code: ErrorCodes | int | None) -> None:
        stream = self._streams[number]
        if code == ErrorCodes.REFUSED_STREAM:
            self._again(number)
        else:
            self._lose(number, Loss.CUT if stream.status else Loss.RESET, f"the stream was reset: {code!s}")
        self._next(stream)

    def _go_away(self, last: int) -> None:
        self._last = last
        for number in [number for number in self._streams if number > last]:
            self._again(number)
        self.rest()

    # Ends

    def _again(self, number: int) -> None:
        self._prober.counts.again += 1
        self._prober.again.append(self._streams.pop(number).request)

    def _lose(self, number: int, kind: Loss, detail: str) -> None:
        del self._streams[number]
        self._prober.counts.lose(kind, detail)

    def end_if_older(self, limit: float) -> None:
        """Give the requests up that were sent before `limit`."""
        for number, stream in list(self._streams.items()):
            if stream.sent_at < limit:
                self._lose(number, Loss.TIMEOUT, f"no whole answer within {self._prober.load.timeout:g} s")
                self._http.reset_stream(number, ErrorCodes.CANCEL)
                self._next(stream)
        self._flush()

    def rest(self) -> None:
        """Close the connection unless a request is under way."""
        if not self._streams and self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, with or without requests under way."""
        for handle in self._due:
            handle.cancel()
        if not self._streams and exc is None and not self._prober.stopping:
            self._prober.counts.closed_idle += 1
        for number, stream in list(self._streams.items()):
            kind = Loss.CUT if stream.status else Loss.RESET
            self._lose(number, kind, str(exc or "the server closed the connection"))
        if not self.over.done():
            self.over.set_result(None)


def _fields(prober: Prober) -> list[tuple[str, str]]:
    """What every request says, but for its method and its number."""
    load = prober.load
    fixed = [(":scheme", "http"), (":authority", urlsplit(load.url).netloc), (":path", load.target)]
    return fixed + [(name.lower(), value) for name, value in load.fields]
