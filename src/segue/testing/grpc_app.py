"""A gRPC application without generated code, bytes in and out: ``python -m segue.testing.grpc_app PORT VERSION``.

Rule 1: every answer begins with the version and the process id: ``VERSION PID …``.
Rule 2: on SIGTERM it sends GOAWAY, ends each stream with a last message that says how many came before, and exits
with 0 when the last call is over, at the latest after `GRACE`.

Methods of ``segue.Talk``:
  Echo     unary: what came
  Ticks    server stream: ``hello 0`` at once, then ``tick N`` every so many seconds (the message; empty: none); at
           the end ``bye TICKS``
  Gather   client stream: how many messages and bytes came
  Chat     bidirectional: ``hello 0`` at once, then what came, one by one; at the end ``bye 0 ECHOES``, and the
           call is over when the caller ends it as well
and ``Check`` of ``grpc.health.v1.Health``.

STREAMS_LEAVING in the environment: ``goodbye``, or ``rude``: on SIGTERM it exits at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc

GRACE = 60.0
"""Seconds that calls under way are given at the end."""

SERVING = b"\x08\x01"
"""The health check's answer as bytes of its message: field 1 (status), 1 (SERVING)."""


class Talk:
    """The calls. `leaving` is set when it was asked to end."""

    def __init__(self, version: str) -> None:
        self._sign = f"{version} {os.getpid()}".encode()
        self.leaving = asyncio.Event()

    def handlers(self) -> list[Any]:
        """What a server is to know."""
        calls = {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "Ticks": grpc.unary_stream_rpc_method_handler(self.ticks),
            "Gather": grpc.stream_unary_rpc_method_handler(self.gather),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
        }
        health = {"Check": grpc.unary_unary_rpc_method_handler(check)}
        return [
            grpc.method_handlers_generic_handler("segue.Talk", calls),
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),
        ]

    async def echo(self, message: bytes, _: Any) -> bytes:
        """What came."""
        return self._signed(message)

    async def ticks(self, message: bytes, _: Any) -> AsyncIterator[bytes]:
        """Tick until it leaves."""
        count = 0
        yield self._signed(b"hello 0")
        while not await self._left_within(float(message) if message else None):
            count += 1
            yield self._signed(b"tick %d" % count)
        yield self._signed(b"bye %d" % count)

    async def gather(self, messages: AsyncIterator[bytes], _: Any) -> bytes:
        """Count what comes."""
        number = size = 0
        async for message in messages:
            number += 1
            size += len(message)
        return self._signed(b"%d %d" % (number, size))

    async def chat(self, messages: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        """Echo until it leaves; then let the other side finish, for a write to a stream that ends may be an error."""
        count, source = 0, aiter(messages)
        leaving = asyncio.create_task(self.leaving.wait())
        yield self._signed(b"hello 0")
        while True:
            coming = asyncio.ensure_future(anext(source, None))
            await asyncio.wait({coming, leaving}, return_when=asyncio.FIRST_COMPLETED)
            message = coming.result() if coming.done() else None
            if message is None:
                break
            count += 1
            yield self._signed(message)
        leaving.cancel()
        yield self._signed(b"bye 0 %d" % count)
        while await coming is not None:
            coming = asyncio.ensure_future(anext(source, None))

    def _signed(self, message: bytes) -> bytes:
        return self._sign + b" " + message

    async def _left_within(self, seconds: float | None) -> bool:
        with suppress(TimeoutError):
            return await asyncio.wait_for(self.leaving.wait(), seconds)
        return False


async def check(_: bytes, __: Any) -> bytes:
    """All is well."""
    return SERVING


async def serve(port: int, version: str) -> None:
    """Serve until SIGTERM, then until the last call is over."""
    talk = Talk(version)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(talk.handlers())
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    rude = os.environ.get("STREAMS_LEAVING") == "rude"
    leave = (lambda: os._exit(0)) if rude else talk.leaving.set
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave)
    await talk.leaving.wait()
    await server.stop(GRACE)


def main(argv: list[str]) -> int:
    """Run the application; returns its exit status."""
    asyncio.run(serve(int(argv[0]), argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
