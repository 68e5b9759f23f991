"""What a listener must carry comes through a rollout unharmed: each protocol by a real client.

All clients of a rollout visit at once, and everybody's part is looked at by itself. The twin, an application that
leaves without goodbye, shows that the clients see what is cut.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import callers
import curls
import grpc
import pytest
import users
from homes import Service
from users import Stream, Visit
from visits import body_sum, came_through, opened, rolled, seen, written

from segue.testing import certificates, streams
from segue.testing.site import Segue

MB = 2**20
BODY = 64 * MB
SLOW_BODY = 32 * MB
SUM = hashlib.sha256(streams.BLOCK).hexdigest()
"""What the trailer must be."""


@pytest.fixture
def shop(segue: Segue) -> Service:
    """A service that talks for long."""
    return Service(segue, "shop")


@pytest.fixture
def rpc(segue: Segue) -> Service:
    """A service that talks gRPC, in the same home."""
    return Service(segue, "rpc")


# What ought to have come


def websocket(found: list[Stream]) -> None:
    came_through(found, goodbye=1001, left=1000)
    assert all(len(stream.bye or ()) == 2 for stream in found[:-1])
    assert any(stream.echoes for stream in found)


def events(found: list[Stream]) -> None:
    came_through(found, goodbye=0, left=-15)


def long_poll(found: list[tuple[str, str, str]]) -> None:
    assert found[0] == ("200", "v1", "leaving\n")
    assert found[-1] == ("200", "v2", "news")
    assert all(answer == ("200", "v1", "leaving\n") for answer in found[:-1])


def taken(found: list[tuple[bool, tuple[str, str, str]]]) -> None:
    _by_both(answer[1] for _, answer in found)
    for continued, (status, _, body) in found:
        assert (continued, status, json.loads(body)["size"]) == (True, "200", 14)


def refused(found: list[tuple[bool, tuple[str, str, str]]]) -> None:
    _by_both(answer[1] for _, answer in found)
    for continued, (status, _, body) in found:
        assert (continued, status, body) == (False, "413", "too much\n")


def upload(found: list[tuple[int, str, Any]]) -> None:
    for status, code, said in found:
        assert (status, code) == (0, "200"), said
        assert (said["size"], said["sha256"]) == (BODY, body_sum(BODY))


def download(found: list[tuple[int, str]]) -> None:
    assert set(found) == {(0, body_sum(BODY))}


def slow_reader(found: tuple[int, str, int]) -> None:
    *came, before = found
    assert came == [SLOW_BODY, body_sum(SLOW_BODY)]
    assert 0 < before < SLOW_BODY, "it had come to its end before anybody was to leave"


def trailers(found: list[str]) -> None:
    assert set(found) == {SUM}


def forwarded(found: list[dict[str, str]], proto: str = "http") -> None:
    for headers in found:
        *_, peer = headers.pop("x-forwarded-for").split(",")
        assert peer.strip() == curls.PEER
        assert headers["x-forwarded-proto"] == proto
        believed = {name: value for name, value in headers.items() if re.search("forged|6666|6.6.6.6", value)}
        assert not believed, "what a user says of himself reached the application"


def bursts(found: list[str]) -> None:
    if not shutil.which("h2load"):
        pytest.skip("h2load is not installed: scripts/test-tools")
    assert found
    assert not any(found), found


def _by_both(versions: Iterable[str]) -> None:
    assert {"v1", "v2"} <= set(versions)


def unary(found: list[bytes]) -> None:
    assert set(found) == {b"a pound of tea"}


def grpc_health(found: list[bytes]) -> None:
    assert set(found) == {b"\x08\x01"}


def client_stream(found: list[bytes]) -> None:
    assert set(found) == {b"20 20000"}


def grpc_stream(found: list[Stream]) -> None:
    came_through(found, goodbye=grpc.StatusCode.OK, left=grpc.StatusCode.CANCELLED)


H2 = "--http2-prior-knowledge"
CHECKS: Mapping[str, Callable[[Any], None]] = {
    "WebSocket": websocket,
    "another WebSocket": websocket,
    "a third WebSocket": websocket,
    "server-sent events": events,
    "server-sent events over HTTP/2": events,
    "long polling": long_poll,
    "an upload that is expected": taken,
    "an upload that is refused beforehand": refused,
    "a large upload": upload,
    "a large download": download,
    "a client that reads slowly": slow_reader,
    "trailers": trailers,
    "trailers over HTTP/2": trailers,
    "x-forwarded-*": forwarded,
    "h2load": bursts,
    "gRPC, unary": unary,
    "gRPC, health": grpc_health,
    "gRPC, client stream": client_stream,
    "gRPC, server stream": grpc_stream,
    "gRPC, bidirectional stream": grpc_stream,
}


@pytest.mark.parametrize("strategy", ["rolling", pytest.param("blue_green", marks=pytest.mark.slow)])
def test_what_users_have_open_comes_through(
    strategy: str, shop: Service, rpc: Service, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    file = written(tmp_path / "body", BODY)

    async def scene() -> Mapping[str, Any]:
        visit = Visit(shop.url)
        async with callers.line(f"127.0.0.1:{rpc.port}") as channel:
            clients = {
                "WebSocket": users.talks(visit),
                "another WebSocket": users.talks(visit),
                "a third WebSocket": users.talks(visit),
                "server-sent events": curls.follows(visit),
                "server-sent events over HTTP/2": curls.follows(visit, H2),
                "long polling": curls.polls(visit),
                "an upload that is expected": curls.expects(visit, most=100),
                "an upload that is refused beforehand": curls.expects(visit, most=10),
                "a large upload": curls.uploads(visit, file, rate="40M"),
                "a large download": curls.downloads(visit, BODY, rate="40M"),
                "a client that reads slowly": users.reads_slowly(visit, SLOW_BODY),
                "trailers": curls.trailers(visit),
                "trailers over HTTP/2": curls.trailers(visit, H2),
                "x-forwarded-*": curls.forgeries(visit),
                "h2load": curls.bursts(visit),
                "gRPC, unary": callers.echoes(visit, channel),
                "gRPC, health": callers.healths(visit, channel),
                "gRPC, client stream": callers.gatherings(visit, channel),
                "gRPC, server stream": callers.subscribes(visit, channel),
                "gRPC, bidirectional stream": callers.chats(visit, channel),
            }
            return await rolled(visit, clients, shop, rpc)

    opened(strategy, shop, rpc)
    found = asyncio.run(scene())
    for name, check in CHECKS.items():
        with subtests.test(name):
            check(seen(found[name]))


@pytest.mark.parametrize("strategy", ["rolling", pytest.param("blue_green", marks=pytest.mark.slow)])
def test_what_users_have_open_with_tls_comes_through(
    strategy: str,
    shop: Service,
    rpc: Service,
    tmp_path: Path,
    subtests: pytest.Subtests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cert, key = map(str, certificates.write(tmp_path, "site", ["127.0.0.1"]))
    for trusted_by in ("CURL_CA_BUNDLE", "SSL_CERT_FILE"):  # curl; Python
        monkeypatch.setenv(trusted_by, cert)
    file = written(tmp_path / "body", BODY)

    async def scene() -> Mapping[str, Any]:
        visit = Visit(shop.url.replace("http", "https", 1))
        async with callers.line(f"127.0.0.1:{rpc.port}", Path(cert).read_bytes()) as channel:
            clients = {
                "WebSocket": users.talks(visit),
                "server-sent events": curls.follows(visit, "--http1.1"),
                "server-sent events over HTTP/2": curls.follows(visit, "--http2"),
                "long polling": curls.polls(visit),
                "a large upload": curls.uploads(visit, file, rate="40M"),
                "a large download": curls.downloads(visit, BODY, rate="40M"),
                "trailers over HTTP/2": curls.trailers(visit, "--http2"),
                "x-forwarded-*": curls.forgeries(visit),
                "h2load": curls.bursts(visit),
                "gRPC, unary": callers.echoes(visit, channel),
                "gRPC, bidirectional stream": callers.chats(visit, channel),
            }
            return await rolled(visit, clients, shop, rpc)

    opened(strategy, shop, rpc, tls={"cert": cert, "key": key})
    found = asyncio.run(scene())
    for name, came in found.items():
        with subtests.test(name):
            check = partial(forwarded, proto="https") if name == "x-forwarded-*" else CHECKS[name]
            check(seen(came))


@pytest.mark.slow
def test_an_application_that_leaves_without_goodbye_is_seen_to_do_so(
    shop: Service, rpc: Service, subtests: pytest.Subtests
) -> None:
    async def scene() -> Mapping[str, Any]:
        visit = Visit(shop.url)
        async with callers.line(f"127.0.0.1:{rpc.port}") as channel:
            clients = {
                "WebSocket": users.talks(visit),
                "server-sent events": curls.follows(visit),
                "server-sent events over HTTP/2": curls.follows(visit, H2),
                "gRPC, server stream": callers.subscribes(visit, channel),
            }
            return await rolled(visit, clients, shop, rpc)

    opened("blue_green", shop, rpc, stop={"drain": "0s", "grace": "1s"}, env={"STREAMS_LEAVING": "rude"})
    found = asyncio.run(scene())
    ends = {
        "WebSocket": 1006,
        "server-sent events": 18,
        "server-sent events over HTTP/2": 92,
        "gRPC, server stream": grpc.StatusCode.INTERNAL,
    }
    for name, end in ends.items():
        with subtests.test(name):
            assert [stream.end for stream in seen(found[name])][:-1] == [end]
            with pytest.raises(AssertionError):
                CHECKS[name](found[name])
