"""The prober over HTTP/2, against a server that says goodbye, refuses, cuts, and against the tiny application."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import RequestReceived
from loads import tiny

from segue.testing.load import Probe
from segue.testing.prober import Load, Prober
from segue.testing.tally import Loss, Tally

Manner = Callable[["Server", int, int], None]
"""What the server does with the request on a stream, the so-and-so-many-th of its connection."""


class Server(asyncio.Protocol):
    """One connection of a server that treats every request in its manner, and counts those that it answered."""

    def __init__(self, manner: Manner, answered: Counter[str]) -> None:
        self.http = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._manner, self._answered, self._requests = manner, answered, 0
        self.methods: dict[int, str] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.http.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.http.receive_data(data):
            if isinstance(event, RequestReceived):
                self._requests += 1
                self.methods[event.stream_id] = str(dict(event.headers)[":method"])
                self._manner(self, event.stream_id, self._requests)
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.http.data_to_send())

    def answer(self, stream: int, status: int = 200) -> None:
        self._answered[self.methods[stream]] += 1
        bare = self.methods[stream] == "HEAD"
        fields = [(":status", str(status)), ("x-version", "v7"), ("content-length", "2")]
        self.http.send_headers(stream, fields, end_stream=bare)
        if not bare:
            self.http.send_data(stream, b"hi", end_stream=True)

    def go_away(self, last: int) -> None:
        """Send GOAWAY past `h2`, which would not let us answer any more."""
        self.flush()
        self.transport.write(b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + last.to_bytes(4) + b"\x00\x00\x00\x00")


@asynccontextmanager
async def served(manner: Manner) -> AsyncIterator[tuple[str, Counter[str]]]:
    """A server's URL, and how many requests of each method it has answered."""
    answered: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(manner, answered), "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", answered
    finally:
        server.close()


async def seen(load: Load, enough: Callable[[Tally], bool]) -> Tally:
    prober = Prober(load)
    await prober.start()
    async with asyncio.timeout(20):
        while not enough(prober.tally()):
            await asyncio.sleep(0.01)
    return await prober.stop()


async def test_every_answer_is_counted_with_its_status_and_version() -> None:
    async with served(lambda server, stream, _: server.answer(stream)) as (url, answered):
        load = Load(url, connections=2, streams=4, method="GET,HEAD,OPTIONS")
        tally = await seen(load, lambda t: t.total >= 300)
    assert tally.total == tally.by_status[200] == tally.by_version["v7"] == answered.total()
    assert set(answered) == {"GET", "HEAD", "OPTIONS"}
    assert (tally.lost, tally.again) == ((), 0)


async def test_an_answer_of_5xx_is_lost() -> None:
    async with served(lambda server, stream, _: server.answer(stream, 503)) as (url, _):
        tally = await seen(Load(url, connections=1, streams=2), lambda t: t.lost_count >= 5)
    assert tally.losses == {Loss.STATUS: tally.total}


async def test_what_a_server_that_goes_away_has_not_looked_at_is_sent_again_and_the_rest_waited_for() -> None:
    def manner(server: Server, stream: int, number: int) -> None:
        if number == 5:  # streams 1 and 3 … were taken; this one and what comes after it was not
            server.go_away(stream - 2)
        elif number < 5:  # the answers come after the goodbye
            asyncio.get_running_loop().call_later(0.02, lambda: (server.answer(stream), server.flush()))

    async with served(manner) as (url, answered):
        tally = await seen(Load(url, connections=2, streams=8), lambda t: t.again >= 20)
    assert tally.lost == ()
    assert tally.total == tally.by_status[200] == answered.total()


async def test_a_stream_that_was_refused_is_sent_again_and_another_one_that_was_reset_is_lost() -> None:
    def manner(server: Server, stream: int, number: int) -> None:
        if number % 5 == 0:
            server.http.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
        elif number % 5 == 1:
            server.http.reset_stream(stream, ErrorCodes.INTERNAL_ERROR)
        else:
            server.answer(stream)

    async with served(manner) as (url, answered):
        tally = await seen(Load(url, connections=1, streams=4), lambda t: t.total >= 100)
    assert tally.again >= 10
    assert tally.losses == {Loss.RESET: tally.total - answered.total()}


async def test_an_answer_that_ends_before_its_end_is_cut() -> None:
    def manner(server: Server, stream: int, number: int) -> None:
        server.http.send_headers(stream, [(":status", "200")])
        server.http.send_data(stream, b"h")
        server.http.reset_stream(stream, ErrorCodes.INTERNAL_ERROR)

    async with served(manner) as (url, _):
        tally = await seen(Load(url, connections=1, streams=2), lambda t: t.lost_count >= 5)
    assert tally.losses == {Loss.CUT: tally.total}


async def test_requests_under_way_on_a_connection_that_breaks_are_lost() -> None:
    def manner(server: Server, stream: int, number: int) -> None:
        if number == 4:
            server.transport.abort()

    async with served(manner) as (url, _):
        tally = await seen(Load(url, connections=1, streams=4), lambda t: t.lost_count >= 8)
    assert tally.losses == {Loss.RESET: tally.total}


async def test_a_request_without_an_answer_is_given_up_after_the_timeout() -> None:
    async with served(lambda *_: None) as (url, _):
        tally = await seen(Load(url, connections=1, streams=3, timeout=0.2), lambda t: t.lost_count >= 5)
    assert tally.losses == {Loss.TIMEOUT: tally.total}


@pytest.mark.parametrize("method", ["GET,HEAD,OPTIONS", "POST"])
def test_requests_with_a_name_are_told_apart_and_the_answered_ones_are_written_down(
    method: str, tmp_path: Path
) -> None:
    answered, asked = tmp_path / "answered", tmp_path / "seen"
    with tiny(APP_SEEN=str(asked)) as (url, _):
        probe = Probe(url, "--method", method, "--name", "tea-", "--answered", str(answered), connections=4)
        probe.more(200)
        tally = probe.finish()
    assert tally.lost == ()
    labels = [f"tea-{number + 1}" for number in range(tally.total)]
    assert sorted(answered.read_text().split()) == sorted(asked.read_text().split()) == sorted(labels)
