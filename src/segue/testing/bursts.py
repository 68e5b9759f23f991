"""Requests in bursts with a rest between them: every connection behind the router rests as long, and then is used.

A burst needs as many connections to the instances as it has requests, if each takes a moment to answer. After a
rest of just what an application allows an idle connection, each request of the next burst is written at the
moment at which the application may be closing its connection.

Rule 1: nothing is sent twice: what got no whole answer is lost.
Rule 2: a connection to the router that an answer asked to close is replaced, which costs nobody anything.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass

from segue.testing.http1 import Answer, Garbled
from segue.testing.tally import Counting, Loss, Tally

ANSWERED_WITHIN = 10.0
"""Seconds that an answer may take."""


@dataclass(frozen=True, slots=True)
class Bursts:
    """What is asked for at `address`, ``host:port``.

    `rounds` bursts of `together` requests, whose users have the `methods` in turn. A connection is to rest from the
    first to the second number of seconds of `rest`: which of them is left to chance, once for a burst and ± `spread`
    for each request. Those whose answers came early in a burst rest longer than those whose came late.
    """

    address: str
    rest: tuple[float, float]
    rounds: int = 20
    together: int = 200
    spread: float = 0.003
    methods: tuple[str, ...] = ("GET", "POST")

    def request(self, method: str) -> bytes:
        """One request as bytes."""
        body = b"" if method == "GET" else b"a pound of tea"
        head = f"{method} / HTTP/1.1\r\nHost: {self.address}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


async def send(bursts: Bursts) -> Mapping[str, Tally]:
    """Send them all; what became of them, by method."""
    loop = asyncio.get_running_loop()
    began = at = loop.time()
    counts = {method: Counting() for method in bursts.methods}
    methods = [bursts.methods[number % len(bursts.methods)] for number in range(bursts.together)]
    users = [_User(bursts.address, bursts.request(method), counts[method]) for method in methods]
    for _ in range(bursts.rounds):
        await asyncio.gather(*(user.ask(at + random.uniform(-1, 1) * bursts.spread) for user in users))
        lasted, ended = loop.time() - at, loop.time()
        at = ended + max(random.uniform(bursts.rest[0] - lasted, bursts.rest[1]), 0)
    for user in users:
        user.leave()
    return {method: counting.tally(loop.time() - began) for method, counting in counts.items()}


class _User:
    """One user, whose connection to the router is kept."""

    def __init__(self, address: str, request: bytes, counts: Counting) -> None:
        self._address = address
        self._request = request
        self._counts = counts
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, at: float) -> None:
        """One request at the moment `at`, which is answered or lost when this returns."""
        loop = asyncio.get_running_loop()
        if self._streams is None:
            host, _, port = self._address.rpartition(":")
            self._streams = await asyncio.open_connection(host, int(port))
        await asyncio.sleep(at - loop.time())
        self._counts.total += 1
        sent = loop.time()
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                answer = await _answer(self._request, *self._streams)
        except TimeoutError:
            self._lose(Loss.TIMEOUT, f"no whole answer within {ANSWERED_WITHIN:g} s")
        except (Garbled, EOFError, ConnectionError) as error:
            self._lose(Loss.RESET, str(error))
        else:
            self._counts.answered(answer.status, "any", loop.time() - sent)
            if not answer.keeps:
                self.leave()

    def _lose(self, kind: Loss, detail: str) -> None:
        self._counts.lose(kind, detail)
        self.leave()

    def leave(self) -> None:
        """Close the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _answer(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Answer:
    writer.write(request)
    answer = Answer()
    while not answer.whole:
        data = await reader.read(65536)
        if not data:
            raise EOFError("the connection was closed")
        answer.feed(data)
    return answer


async def idle_limit(
    address: str, request: bytes, connections: int = 16, within: float = 30.0
) -> tuple[float, float]:
    """How long the server at `address` lets a connection rest after an answer: seconds, the least and the most.

    (0, 0) if it closes with its answer. TimeoutError if it does not close `within` so many seconds.
    """
    async with asyncio.timeout(within):
        seen = await asyncio.gather(*(_rests(address, request) for _ in range(connections)))
    return min(seen), max(seen)


async def _rests(address: str, request: bytes) -> float:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        answer = await _answer(request, reader, writer)
        began = asyncio.get_running_loop().time()
        if answer.keeps:
            await reader.read()
            return asyncio.get_running_loop().time() - began
        return 0.0
    finally:
        writer.close()
