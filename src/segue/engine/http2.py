"""One request to an instance over HTTP/2 without TLS: a GET, or a gRPC method with an empty message."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import h2.connection
import h2.events
import h2.exceptions

from segue.core.traffic import Protocol

MOST = 1 << 20
"""Bytes of an answer's body that are kept."""

_EMPTY_MESSAGE = bytes(5)


@dataclass(slots=True)
class Reply:
    """An answer. `called`: how the gRPC method ended, 0 for well; None where it did not say.

    `trouble`: why there is no whole answer, although something was connected to.
    """

    status: int = 0
    body: bytes = b""
    called: int | None = None
    whole: bool = False
    trouble: str | None = None
    owed: int = field(default=0, repr=False)

    @property
    def serving(self) -> bool:
        """Whether the body is the message of the gRPC health protocol that says SERVING."""
        return self.body[5:] == b"\x08\x01"

    def take(self, event: Any) -> None:
        """Take in what came."""
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                told = {_text(name): _text(value) for name, value in event.headers}
                self.status = int(told.get(":status", self.status))
                self.called = int(told["grpc-status"]) if "grpc-status" in told else self.called
            case h2.events.DataReceived():
                self.body += event.data[: MOST - len(self.body)]
                self.owed += event.flow_controlled_length
            case h2.events.StreamEnded():
                self.whole = True
            case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                self.trouble = "the answer was given up"


async def ask(place: str | tuple[str, int], host: str, path: str, protocol: Protocol) -> Reply:
    """The answer to one request for `path` at `place`, a Unix socket's path or host and port. Raises OSError."""
    if isinstance(place, str):
        reader, writer = await asyncio.open_unix_connection(place)
    else:
        reader, writer = await asyncio.open_connection(*place)
    connection = h2.connection.H2Connection()
    try:
        connection.initiate_connection()
        grpc = protocol is Protocol.GRPC
        connection.send_headers(1, _headers(host, path, grpc=grpc), end_stream=not grpc)
        if grpc:
            connection.send_data(1, _EMPTY_MESSAGE, end_stream=True)
        writer.write(connection.data_to_send())
        return await _reply(connection, reader, writer)
    except h2.exceptions.ProtocolError:
        return Reply(trouble="what answers does not speak HTTP/2")
    finally:
        writer.close()


async def _reply(connection: h2.connection.H2Connection, reader: asyncio.StreamReader, writer: Any) -> Reply:
    reply = Reply()
    while not reply.whole and reply.trouble is None:
        data = await reader.read(65536)
        if not data or data.startswith(b"HTTP/1."):  # no frame begins so
            return Reply(trouble="what answers does not speak HTTP/2" if data else "no answer came")
        for event in connection.receive_data(data):
            reply.take(event)
        if reply.owed and not reply.whole:
            connection.acknowledge_received_data(reply.owed, 1)
            reply.owed = 0
        writer.write(connection.data_to_send())
    return reply


def _headers(host: str, path: str, *, grpc: bool) -> list[tuple[str, str]]:
    method = "POST" if grpc else "GET"
    headers = [(":method", method), (":scheme", "http"), (":authority", host), (":path", path)]
    if grpc:
        headers += [("content-type", "application/grpc"), ("te", "trailers")]
    return [*headers, ("user-agent", "segue")]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
