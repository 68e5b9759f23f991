"""A backend that does what it is told and counts what reaches it: ``backend.py NAME ADDRESS``.

``/slow?1.5`` is answered after 1.5 s, ``/hold`` after ``/__release``; ``/__mode?500`` makes every other answer a
500 (``hang``, ``reset``, ``cut``, ``ok``), ``/__stat`` tells what was seen: requests by method, and how many wait.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable


class State:
    """What all connections share."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mode = "ok"
        self.seen: Counter[str] = Counter()
        self.held: list[Callable[[], None]] = []


class Backend(asyncio.Protocol):
    """One connection, HTTP/1.1."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.buffer = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            length = next((int(x[15:]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")), 0)
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            self.request(method, target)

    def request(self, method: str, target: str) -> None:
        path, _, query = target.partition("?")
        state = self.state
        if path == "/__mode":
            state.mode = query
            return self.answer(method)
        if path == "/__stat":
            return self.answer(method, body=json.dumps({"seen": state.seen, "held": len(state.held)}))
        if path == "/__release":
            held, state.held = state.held, []
            for release in held:
                release()
            return self.answer(method)
        state.seen[method] += 1
        if path == "/hold":
            state.held.append(lambda: self.answer(method))
            return None
        if path == "/slow":
            asyncio.get_running_loop().call_later(float(query), self.answer, method)
            return None
        return self.fault(method, state.mode)

    def fault(self, method: str, mode: str) -> None:
        if mode == "reset":
            self.transport.abort()
        elif mode == "cut":
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
            self.transport.close()
        elif mode != "hang":
            self.answer(method, status=500 if mode == "500" else 200)

    def answer(self, method: str, *, status: int = 200, body: str = "") -> None:
        text = (body or self.state.name).encode()
        head = f"HTTP/1.1 {status} X\r\nx-version: {self.state.name}\r\ncontent-length: {len(text)}\r\n\r\n".encode()
        self.transport.write(head + (b"" if method == "HEAD" else text))


async def main(name: str, address: str) -> None:
    state, loop = State(name), asyncio.get_running_loop()
    if address.startswith("unix:"):
        server = await loop.create_unix_server(lambda: Backend(state), address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        server = await loop.create_server(lambda: Backend(state), host, int(port), backlog=1024)
    print(server.sockets[0].getsockname()[1] if host_port(address) else 0, flush=True)
    await server.serve_forever()


def host_port(address: str) -> bool:
    return not address.startswith("unix:")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
