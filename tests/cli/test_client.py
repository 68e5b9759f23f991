"""The small HTTP client: every way in which a body may come, and every way in which nobody answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segue.cli.client import Absent, Broken, Client
from segue.cli.fastjson import loads
from segue.errors import SegueError, Unreachable

from .conftest import is_root

Answering = Callable[..., Client]


@pytest.fixture
def answering(home: Path) -> Iterator[Answering]:
    """A server that sends the given pieces, one after the other, and ends the connection."""
    threads = []

    def serve(*pieces: bytes, hangs: bool = False) -> Client:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(home / "x.sock"))
        listening.listen(1)
        client = Client(str(home / "x.sock"))

        def run() -> None:
            with listening, listening.accept()[0] as connection:
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)
                if hangs:
                    connection.recv(1)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return client

    yield serve
    for thread in threads:
        thread.join()


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD + b"Content-Length: 8\r\n\r\n" + b'{"a": 1}'],
        [HEAD + b"content-length:8\r\n\r\n", b'{"a"', b": 1}"],
        [HEAD, b"Transfer-Encoding: chunked\r\n\r\n", b"3\r\n", b'{"a\r\n5;x=y\r\n": 1}\r\n0\r\n\r\n'],
        [HEAD + b"TRANSFER-ENCODING: Chunked\r\n\r\n8\r", b'\n{"a": 1}', b"\r\n0", b"\r\n\r\n"],
        [HEAD + b"\r\n", b'{"a": 1}'],
        [HEAD + b"Content-Length: 8\r\nConnection: close\r\n\r\n" + b'{"a": 1} and more'],
    ],
)
def test_a_document_arrives_however_it_is_sent(answering: Answering, pieces: list[bytes]) -> None:
    assert answering(*pieces).ask("GET", "/") == {"a": 1}


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"HTTP/1.1 20"],
        [HEAD + b"Content-Length: 9\r\n"],
        [HEAD + b"Content-Length: 9\r\n\r\n" + b'{"a": 1}'],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n8\r\n" + b'{"a"'],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n8\r\n" + b'{"a": 1}\r\n'],
    ],
)
def test_an_answer_that_does_not_arrive_whole_is_broken(answering: Answering, pieces: list[bytes]) -> None:
    with pytest.raises(Broken):
        answering(*pieces).ask("GET", "/")


def test_lines_are_put_together_from_parts(answering: Answering) -> None:
    client = answering(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        b"4\r\none\n\r\n",
        b"3\r\ntw\xe2\r\n",
        b"3\r\n\x82\xac\n\r\n0\r\n\r\n",
    )
    with client.open("GET", "/") as body:
        assert [line.decode() for line in body.lines() if line is not None] == ["one", "tw€"]


def test_a_quiet_stream_ticks(answering: Answering) -> None:
    client = answering(HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n", hangs=True)
    with client.open("GET", "/") as body:
        lines = body.lines(tick=0.01)
        assert [next(lines) for _ in range(3)] == [b"one", None, None]


def test_a_server_that_does_not_answer_is_unreachable(answering: Answering) -> None:
    client = answering(hangs=True)
    with pytest.raises(Unreachable, match=r"did not answer within 0\.1 s"):
        client.ask("GET", "/", timeout=0.1)


@pytest.mark.parametrize("content", [b"<html>", b"", b"{} {}", b"\xff"])
def test_what_is_not_json_is_not_a_control_plane(answering: Answering, content: bytes) -> None:
    client = answering(HEAD + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
    with pytest.raises(Unreachable, match="is not a control plane"):
        client.ask("GET", "/")


def test_something_that_speaks_no_http_is_not_a_control_plane(answering: Answering) -> None:
    with pytest.raises(Unreachable, match="is not a control plane"):
        answering(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").ask("GET", "/")


def test_an_error_is_raised_as_it_was_told(answering: Answering) -> None:
    said = b'{"error": {"code": "refused", "exit": 4, "message": "busy", "next": "segue wait"}}'
    with pytest.raises(SegueError, match="busy") as caught:
        answering(b"HTTP/1.1 409 Conflict\r\n\r\n" + said).ask("GET", "/")
    assert caught.value.document() == {"code": "refused", "exit": 4, "message": "busy", "next": "segue wait"}


def test_an_error_without_a_document_is_unreachable(answering: Answering) -> None:
    with pytest.raises(Unreachable, match="status 500"):
        answering(b"HTTP/1.1 500 Oops\r\n\r\n[]").ask("GET", "/")


def test_without_a_socket_nobody_is_there(home: Path) -> None:
    with pytest.raises(Absent):
        Client(str(home / "none.sock")).ask("GET", "/")


def test_behind_a_stale_socket_nobody_is_there(home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(home / "stale.sock"))
    with pytest.raises(Absent):
        Client(str(home / "stale.sock")).ask("GET", "/")


@pytest.mark.skipif(is_root(), reason="nothing is forbidden to root")
def test_a_socket_of_somebody_else_is_told_as_such(home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(home / "theirs.sock"))
        (home / "theirs.sock").chmod(0)
        with pytest.raises(Unreachable, match="another user"):
            Client(str(home / "theirs.sock")).ask("GET", "/")


def test_a_path_that_is_too_long_is_told_as_such(home: Path) -> None:
    with pytest.raises(Unreachable, match="cannot be reached"):
        Client(str(home / ("x" * 120))).ask("GET", "/")


@pytest.mark.parametrize(
    ("text", "value"),
    [(b' {"a": [1, 2.5, null, true, "\xe2\x82\xac\\u20ac"]}\n', {"a": [1, 2.5, None, True, "€€"]}), (b"0", 0)],
)
def test_the_fast_reader_reads_what_json_reads(text: bytes, value: object) -> None:
    assert loads(text) == value


@pytest.mark.parametrize("text", [b"", b"{", b"{'a': 1}", b"1 2", b"\xff", b"nul"])
def test_the_fast_reader_refuses_what_is_not_json(text: bytes) -> None:
    with pytest.raises(ValueError):
        loads(text)
