"""A control plane that plays a script: HTTP over a Unix socket, the answers as in the API's description.

Each answer is a document, or a stream of events that may break off in the middle. Every request is kept.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Event = dict[str, Any]


@dataclass
class Request:
    """One request that the client made."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Any
    key: str | None


@dataclass
class Stream:
    """The events of a rollout. A connection breaks off after each sequence number in `breaks`, once.

    `then`: what is answered after the first time.
    """

    events: Sequence[Event]
    breaks: list[int] = field(default_factory=list)
    ends: bool = True
    then: Failure | None = None


@dataclass
class Text:
    """A body of plain text."""

    lines: Sequence[str]


@dataclass
class Failure:
    """An error document."""

    status: int
    error: dict[str, Any]


@dataclass
class Late:
    """A document that is answered with once the plane is released."""

    document: Any


@dataclass
class Silence:
    """No answer: the connection is ended."""

    times: int = 1


class Plane:
    """The script, and what was asked."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {("GET", "/healthz"): {"ok": True, "version": "0", "pid": 4242}}
        self.requests: list[Request] = []
        self.released = threading.Event()
        self.chunked = True

    def on(self, method: str, path: str, answer: Any) -> None:
        """Answer requests for `path` so."""
        self.answers[method, path] = answer

    def asked(self, method: str, path: str) -> list[Request]:
        """The requests for `path`."""
        return [r for r in self.requests if (r.method, r.path) == (method, path)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        request = Request(method, parts.path, parse_qs(parts.query), body, self.headers.get("Idempotency-Key"))
        self.server.plane.requests.append(request)
        default = Failure(404, {"code": "refused", "exit": 4, "message": f"Nothing at {parts.path}.", "next": None})
        self._send(self.server.plane.answers.get((method, parts.path), default), request)

    def _send(self, answer: Any, request: Request) -> None:
        match answer:
            case Stream():
                self._stream(answer, int(request.query.get("after", ["0"])[0]))
            case Text(lines=lines):
                self._head(200)
                for line in lines:
                    self._part(line.encode() + b"\n")
                self._end()
            case Failure(status=status, error=error):
                self._document(status, {"error": error})
            case Late(document=document):
                self.server.plane.released.wait(30)
                self._document(202, document)
            case Silence() if answer.times:
                answer.times -= 1
                self.close_connection = True
            case Silence():
                self._document(200, {"rollout": "r1"})
            case (status, document):
                self._document(status, document)
            case _ if callable(answer):
                self._document(200, answer(request))
            case _:
                self._document(200, answer)

    def _document(self, status: int, document: Any) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, stream: Stream, after: int) -> None:
        self._head(200)
        for event in stream.events:
            if event["seq"] > after:
                self._part(json.dumps(event).encode() + b"\n")
            if event["seq"] in stream.breaks:
                stream.breaks.remove(event["seq"])
                if stream.then:
                    self.server.plane.on("GET", urlsplit(self.path).path, stream.then)
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
        if not stream.ends:
            self.server.plane.released.wait(30)
        self._end()

    def _head(self, status: int) -> None:
        self.send_response(status)
        if self.server.plane.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Connection", "close")
        self.end_headers()

    def _part(self, data: bytes) -> None:
        if self.server.plane.chunked:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        else:
            self.wfile.write(data)
        self.wfile.flush()

    def _end(self) -> None:
        if self.server.plane.chunked:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *_: object) -> None:
        return


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    plane: Plane

    def handle_error(self, *_: object) -> None:
        return


@contextmanager
def control_plane(home: Path) -> Iterator[Plane]:
    """A canned control plane that answers for `home`."""
    plane = Plane()
    server = _Server(str(home / "segue.sock"), _Handler)
    server.plane = plane
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield plane
    finally:
        plane.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
        (home / "segue.sock").unlink(missing_ok=True)
