"""The witnesses are tested first: a client that sees no loss where there is one would make every other test pass."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from loads import eventually, tiny

from segue.testing.http1 import Answer
from segue.testing.load import H2load, Probe, Wrk, read_h2load, read_wrk, tools_missing
from segue.testing.moments import until
from segue.testing.prober import Load, Prober
from segue.testing.site import free_port
from segue.testing.tally import Counting, Loss, Tally, decode, encode

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
WHOLE = b"HTTP/1.1 200 OK\r\nX-Version: v7\r\nContent-Length: 2\r\n\r\nhi"


@asynccontextmanager
async def served(answer: Handler) -> AsyncIterator[str]:
    """A server that treats every connection with `answer`; its URL."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


async def request(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def seen(load: Load, enough: Callable[[Tally], bool]) -> Tally:
    """The tally of `load`, stopped as soon as `enough` is true."""
    prober = Prober(load)
    await prober.start()
    async with asyncio.timeout(20):
        while not enough(prober.tally()):
            await asyncio.sleep(0.01)
    return await prober.stop()


def some_lost(tally: Tally) -> bool:
    return tally.lost_count >= 5


def always(answer: bytes, close: bool = False) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request(reader)
            writer.write(answer)
            await writer.drain()
            if close:
                return

    return handle


async def test_every_answer_is_counted_with_its_status_and_version_and_nothing_is_lost() -> None:
    async with served(always(WHOLE)) as url:
        tally = await seen(Load(url, connections=8), lambda t: t.total >= 500)
    assert tally.total == tally.by_status[200] == tally.by_version["v7"] == sum(tally.latency_us.values())
    assert tally.lost == ()
    assert 0 < tally.percentiles["p50"] <= tally.percentiles["max"]


async def test_an_answer_in_chunks_and_one_that_ends_with_the_connection_are_whole() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    async with served(always(chunked)) as url:
        tally = await seen(Load(url, connections=2), lambda t: t.total >= 20)
    assert (tally.lost, set(tally.by_status)) == ((), {200})
    async with served(always(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", close=True)) as url:
        tally = await seen(Load(url, connections=2), lambda t: t.total >= 20)
    assert (tally.lost, set(tally.by_status)) == ((), {200})


@pytest.mark.parametrize("step", [1, 2, 7])
def test_an_answer_is_whole_with_its_last_byte_and_not_before(step: int) -> None:
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\na;x=y\r\n0123456789\r\n0\r\nT: 1\r\n\r\n"
    )
    for whole in (WHOLE, chunked):
        answer = Answer()
        pieces = [whole[i : i + step] for i in range(0, len(whole), step)]
        assert [answer.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]


async def test_a_version_may_be_found_in_the_body() -> None:
    async with served(always(WHOLE)) as url:
        load = Load(url, connections=2, version_of=lambda answer: answer.body.decode())
        tally = await seen(load, lambda t: t.total >= 20)
    assert set(tally.by_version) == {"hi"}


async def test_an_answer_of_5xx_is_lost_and_one_of_4xx_is_not() -> None:
    async with served(always(WHOLE.replace(b"200 OK", b"503 No"))) as url:
        tally = await seen(Load(url, connections=2), some_lost)
    assert tally.losses == {Loss.STATUS: tally.total}
    async with served(always(WHOLE.replace(b"200 OK", b"404 No"))) as url:
        tally = await seen(Load(url, connections=2), lambda t: t.total >= 20)
    assert tally.lost_count == 0


async def test_a_connection_closed_after_the_request_was_written_is_a_reset() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)

    async with served(handle) as url:
        tally = await seen(Load(url, connections=2), some_lost)
    assert tally.losses == {Loss.RESET: tally.total}


async def test_a_connection_aborted_after_the_request_was_written_is_a_reset() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.transport.abort()

    async with served(handle) as url:
        tally = await seen(Load(url, connections=2), some_lost)
    assert tally.losses == {Loss.RESET: tally.total}


@pytest.mark.parametrize("missing", [1, 10, 45])
async def test_an_answer_that_ends_before_its_end_is_cut(missing: int) -> None:
    async with served(always(WHOLE[:-missing], close=True)) as url:
        tally = await seen(Load(url, connections=2), some_lost)
    assert tally.losses == {Loss.CUT: tally.total}


async def test_chunks_that_end_before_the_last_one_are_cut() -> None:
    begun = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    async with served(always(begun, close=True)) as url:
        tally = await seen(Load(url, connections=2), some_lost)
    assert tally.losses == {Loss.CUT: tally.total}


async def test_an_answer_that_is_not_http_is_lost() -> None:
    async with served(always(b"SSH-2.0 who are you?\r\n\r\n")) as url:
        tally = await seen(Load(url, connections=2), some_lost)
    assert tally.losses == {Loss.GARBLED: tally.total}


async def test_more_bytes_than_announced_are_garbled() -> None:
    async with served(always(WHOLE + b"!")) as url:
        tally = await seen(Load(url, connections=1), some_lost)
    assert tally.losses[Loss.GARBLED] >= 5


async def test_a_refused_connection_is_a_lost_request() -> None:
    tally = await seen(Load(f"http://127.0.0.1:{free_port()}/", connections=2), some_lost)
    assert tally.losses == {Loss.REFUSED: tally.total}
    assert "refused" in tally.lost[0].detail or "Connect call failed" in tally.lost[0].detail


async def test_a_request_without_an_answer_is_given_up_after_the_timeout() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with served(handle) as url:
        tally = await seen(Load(url, connections=5, timeout=0.2), some_lost)
    assert tally.losses == {Loss.TIMEOUT: tally.total}


async def test_a_connection_closed_while_at_rest_costs_nothing() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(WHOLE)
        await writer.drain()
        await asyncio.sleep(0.01)  # the client rests now, for it is paced

    async with served(handle) as url:
        tally = await seen(Load(url, connections=4, rate=20), lambda t: t.closed_idle >= 8)
    assert tally.lost == ()
    assert tally.by_status[200] == tally.total


async def test_a_request_under_way_when_the_prober_is_stopped_is_waited_for_and_counted() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        await asyncio.sleep(0.2)
        writer.write(WHOLE)
        await writer.drain()

    async with served(handle) as url:
        tally = await seen(Load(url, connections=3), lambda t: t.total == 3)
    assert (tally.total, tally.by_status, tally.lost) == (3, {200: 3}, ())


async def test_a_rate_is_kept() -> None:
    async with served(always(WHOLE)) as url:
        tally = await seen(Load(url, connections=10, rate=100), lambda t: t.seconds >= 1.5)
    assert tally.total / tally.seconds < 120


async def test_one_loss_among_thousands_is_seen() -> None:
    number = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        while True:
            await request(reader)
            number += 1
            if number == 1500:
                return
            writer.write(WHOLE)
            await writer.drain()

    async with served(handle) as url:
        tally = await seen(Load(url, connections=8), lambda t: t.total >= 3000)
    assert tally.losses == {Loss.RESET: 1}
    assert tally.total == tally.by_status[200] + 1


def test_a_tally_survives_json_and_the_difference_of_two_is_what_came_between() -> None:
    counts = Counting()
    for number in range(100):
        counts.total += 1
        counts.answered(500 if number == 40 else 200, "v1", 0.001 * number)
    earlier = counts.tally(1.0)
    counts.total += 1
    counts.lose(Loss.CUT, "half")
    later = decode(encode(counts.tally(2.0)))
    assert later == counts.tally(2.0)
    assert later.since(earlier) == Tally(total=1, seconds=1.0, losses={Loss.CUT: 1}, lost=later.lost[1:])
    assert earlier.percentile(0.5) == pytest.approx(49, rel=0.05)


def test_the_prober_as_a_process_tells_how_it_goes_and_ends_when_told() -> None:
    with tiny() as (url, _):
        probe = Probe(url, connections=16)
        probe.more(2000)
        tally = probe.finish()
    assert tally.total >= 2000
    assert tally.by_version == {"v1": tally.total}
    assert tally.lost == ()


needs_tools = pytest.mark.skipif(
    bool(tools_missing()), reason=f"not installed: {tools_missing()} (scripts/test-tools)"
)


@needs_tools
@pytest.mark.parametrize("fault", ["500", "reset", "cut"])
def test_all_three_clients_see_what_a_broken_application_loses(fault: str) -> None:
    with tiny(APP_BROKEN=fault, APP_BROKEN_SHARE="0.2") as (url, _):
        probe, wrk = Probe(url, connections=8), Wrk(url, connections=8)
        probe.until(lambda tally: tally.lost_count >= 20)
        assert probe.stop().lost >= 20
        assert wrk.stop().lost > 0


def test_killing_the_application_in_mid_load_is_seen() -> None:
    with tiny(APP_DELAY="0.05") as (url, process):
        probe = Probe(url, connections=32)
        probe.more(100)
        process.kill()
        tally = probe.until(lambda tally: Loss.REFUSED in tally.losses)
        probe.finish()
    assert tally.losses[Loss.RESET] > 0  # those in flight; a few more may have knocked at a door that was closing


@pytest.mark.parametrize(("manner", "drops"), [("graceful", False), ("drop", True)])
def test_the_tiny_application_finishes_what_is_in_flight_only_when_it_is_graceful(
    manner: str, drops: bool, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    seen.touch()
    with tiny(APP_DELAY="1", APP_ON_TERM=manner, APP_SEEN=str(seen)) as (url, process):
        probe = Probe(url, "--name", "p", connections=32)
        until(lambda: len(seen.read_bytes().splitlines()) == 32)  # all are in flight, and for a second
        process.send_signal(signal.SIGTERM)
        status = process.wait(10)
        tally = probe.finish()
    assert (status != 0) == drops
    if drops:
        assert 200 not in tally.by_status and tally.losses[Loss.RESET] >= 32  # and who knocks while the door closes
    else:
        assert tally.by_status == {200: 32} and Loss.RESET not in tally.losses


def test_a_post_is_executed_as_often_as_it_was_sent(tmp_path: Path) -> None:
    posts = tmp_path / "posts"
    with tiny(APP_POSTS=str(posts)) as (url, _):
        probe = Probe(url, "--method", "POST", "--body", "buy", connections=4)
        probe.more(200)
        tally = probe.finish()
    executed = posts.read_text().split()
    assert len(executed) == len(set(executed)) == tally.total == tally.by_status[200]


def test_what_wrk_prints_is_read() -> None:
    errors = "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 5\n"
    outcome = read_wrk("  1000 requests in 2.0s\n" + errors)
    assert (outcome.requests, outcome.lost) == (1010, 15)
    assert read_wrk("  1000 requests in 2.0s\n").lost == 0
    with pytest.raises(RuntimeError):
        read_wrk("unable to connect")


def test_what_h2load_prints_is_read() -> None:
    line = "requests: 10 total, 10 started, 9 done, 6 succeeded, 3 failed, 2 errored, 0 timeout"
    assert (read_h2load(line).requests, read_h2load(line).lost) == (9, 3)
    with pytest.raises(RuntimeError):
        read_h2load("nothing")


@needs_tools
def test_h2load_against_a_server_without_http2_does_not_pass_for_success() -> None:
    with tiny() as (url, _):
        load = H2load(url, connections=1, streams=1, seconds=1)
        eventually(lambda: load.rounds() > 0)
        outcome = load.stop()
    assert outcome.lost > 0 or outcome.requests == 0
