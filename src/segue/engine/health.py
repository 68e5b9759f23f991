"""Whether an instance can serve: one probe of its health, one pass of its smoke tests."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import cycle, islice
from typing import TYPE_CHECKING

from segue.core.traffic import Protocol
from segue.core.version import Health, Smoke, SmokeHttp, Version

if TYPE_CHECKING:
    import httpx

    from segue.engine import http2

RunCommand = Callable[[Version, str, float], Awaitable[tuple[int, str]]]
"""Runs a command in a version's folder and environment, at most so many seconds: exit status, last output."""


GRPC_HEALTH = "/grpc.health.v1.Health/Check"

_HEAD = 4096
"""Bytes of an answer that are kept."""

_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL}
"""What cannot be done for a want of our own: descriptors, memory, ports."""


async def probe(version: Version, address: str, run: RunCommand) -> str | None:
    """Why the instance at `address` is not healthy now; None: it is.

    Raises OSError where it cannot be asked for a want of our own, which says nothing of the instance.
    """
    health, seconds = version.health, version.health.timeout.total_seconds()
    try:
        async with asyncio.timeout(seconds):
            if health.command is not None:
                status, _ = await run(version, expand(health.command, address), seconds)
                return None if status == 0 else f"the health command exited with {status}"
            if health.path is not None and version.protocol is not Protocol.HTTP1:
                return await _called(version, health, health.path, address)
            return await _answer(health, address)
    except TimeoutError:
        return f"no answer to the health check within {seconds:g} s"
    except OSError as error:
        if error.errno in _OURS:
            raise
        return f"cannot connect: {error.strerror or error}"


async def _answer(health: Health, address: str) -> str | None:
    line = await _exchange(health.path, address)
    if health.path is None:
        return None
    words = line.partition(b"\n")[0].split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return f"GET {health.path} was not answered in HTTP"
    status, (low, high) = int(words[1]), health.expect
    return None if low <= status <= high else f"GET {health.path} answered {status}, not {_range(health.expect)}"


async def _called(version: Version, health: Health, path: str, address: str) -> str | None:
    """As `_answer`, over HTTP/2. With gRPC the path is a method; that of the health protocol says SERVING."""
    reply = await _ask(version.protocol, path, address)
    if problem := _refused(reply, version.protocol, path, health.expect):
        return problem
    unwell = version.protocol is Protocol.GRPC and path == GRPC_HEALTH and not reply.serving
    return f"{path} does not say SERVING" if unwell else None


def _refused(reply: http2.Reply, protocol: Protocol, path: str, expect: tuple[int, int]) -> str | None:
    """What is wrong with an answer over HTTP/2; None: it is what was expected. A gRPC method has to end well."""
    if reply.trouble is not None:
        return f"{path}: {reply.trouble}"
    if protocol is Protocol.GRPC:
        ended = f"gRPC status {reply.called}" if reply.called is not None else f"HTTP status {reply.status}"
        return None if reply.called == 0 else f"{path} ended with {ended}"
    low, high = expect
    return None if low <= reply.status <= high else f"GET {path} answered {reply.status}, not {_range(expect)}"


async def _ask(protocol: Protocol, path: str, address: str) -> http2.Reply:
    from segue.engine import http2  # most services speak HTTP/1.1

    return await http2.ask(_place(address), _host(address), path, protocol)


async def _exchange(path: str | None, address: str) -> bytes:
    """The beginning of the answer to a GET of `path`, once its first line is there. No path: connect."""
    with _socket(address) as sock:
        loop, answer = asyncio.get_running_loop(), b""
        await _connect(sock, _place(address))
        if path is None:
            return answer
        request = f"GET {path} HTTP/1.1\r\nHost: {_host(address)}\r\nConnection: close\r\n\r\n"
        await loop.sock_sendall(sock, request.encode())
        while b"\n" not in answer and (part := await loop.sock_recv(sock, 65536)):
            answer = (answer + part)[:_HEAD]
    return answer


def _socket(address: str) -> socket.socket:
    """A bare socket: with a thousand instances, asyncio's streams would cost three times as much."""
    family = socket.AF_UNIX if address.startswith("unix:") else socket.AF_INET6 if "[" in address else socket.AF_INET
    sock = socket.socket(family)
    sock.setblocking(False)
    return sock


async def _connect(sock: socket.socket, place: str | tuple[str, int]) -> None:
    """Connect, with no turn of the loop where that is done at once: on this machine it is when it is asked again."""
    error = sock.connect_ex(place)
    if error == errno.EINPROGRESS:
        error = sock.connect_ex(place)
    if error in (errno.EALREADY, errno.EAGAIN):
        await asyncio.get_running_loop().sock_connect(sock, place)
    elif error:
        raise OSError(error, os.strerror(error))


def _place(address: str) -> str | tuple[str, int]:
    if address.startswith("unix:"):
        return address.removeprefix("unix:")
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _host(address: str) -> str:
    return "localhost" if address.startswith("unix:") else address


def _range(expect: tuple[int, int]) -> str:
    low, high = expect
    return str(low) if low == high else f"{low}-{high}"


def expand(command: str, address: str) -> str:
    """`command` with ``{url}`` replaced by the instance's address."""
    return command.replace("{url}", address if address.startswith("unix:") else f"http://{address}")


async def smoke(version: Version, address: str, run: RunCommand, seconds: float) -> str | None:
    """Which smoke test the instance at `address` failed and how; None: it passed all."""
    for test in version.smoke:
        problem = await _smoke(version, test, address, run, seconds)
        if problem:
            return f"smoke test: {problem}"
    return None


async def _smoke(version: Version, test: Smoke, address: str, run: RunCommand, seconds: float) -> str | None:
    if not isinstance(test, SmokeHttp):
        status, output = await run(version, expand(test.command, address), seconds)
        last = output[-300:].strip()
        return None if status == 0 else f"`{test.command}` exited with {status}{f': {last}' if last else ''}"
    if version.protocol is not Protocol.HTTP1:
        return await _smoke_called(version, test, address, seconds)
    import httpx  # a fifth of the time that the control plane takes to start, and often not needed

    try:
        async with _client(address, seconds) as client:
            response = await client.get(test.path)
    except httpx.HTTPError as error:
        return f"GET {test.path}: {error or type(error).__name__}"
    low, high = test.expect
    if not low <= response.status_code <= high:
        return f"GET {test.path} answered {response.status_code}, not {_range(test.expect)}"
    if test.contains is not None and test.contains not in response.text:
        return f"GET {test.path}: the answer does not contain {test.contains!r}"
    return None


async def _smoke_called(version: Version, test: SmokeHttp, address: str, seconds: float) -> str | None:
    """As `_smoke`, over HTTP/2."""
    try:
        async with asyncio.timeout(seconds):
            reply = await _ask(version.protocol, test.path, address)
    except (OSError, TimeoutError) as error:
        return f"{test.path}: {error or type(error).__name__}"
    if problem := _refused(reply, version.protocol, test.path, test.expect):
        return problem
    if test.contains is not None and test.contains.encode() not in reply.body:
        return f"{test.path}: the answer does not contain {test.contains!r}"
    return None


async def warm(version: Version, address: str) -> None:
    """Have the instance at `address` answer its warm-up requests. Whatever it answers will do, also nothing."""
    warm_up = version.warm_up
    if warm_up is None:
        return
    import httpx

    seconds = version.health.timeout.total_seconds()
    async with _client(address, seconds) as client:
        for path in islice(cycle(warm_up.paths), warm_up.requests):
            with suppress(TimeoutError, OSError, httpx.HTTPError):
                async with asyncio.timeout(seconds):
                    if version.protocol is Protocol.HTTP1:
                        await client.get(path)
                    else:
                        await _ask(version.protocol, path, address)


def _client(address: str, seconds: float) -> httpx.AsyncClient:
    import httpx

    unix = address.startswith("unix:")
    transport = httpx.AsyncHTTPTransport(uds=address.removeprefix("unix:") if unix else None)
    headers = {"user-agent": "segue-smoke"}
    base = "http://localhost" if unix else f"http://{address}"
    return httpx.AsyncClient(transport=transport, base_url=base, timeout=seconds, headers=headers)
