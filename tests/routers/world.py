"""What the router's tests need of the world: backends, tables, a client, load."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from segue.certificate import read
from segue.core.release import Revision, Share
from segue.core.traffic import Backend, Endpoint, InstanceId, Route, RoutingTable, ServiceTable, Tls, Traffic
from segue.testing.site import free_port

V1, V2, V3 = Revision("v1.1"), Revision("v2.1"), Revision("v3.1")
HALF = Fraction(1, 2)
_BACKEND = Path(__file__).with_name("backend.py")


@dataclass
class Process:
    """A backend in a process of its own."""

    name: str
    address: str
    process: asyncio.subprocess.Process

    async def mode(self, mode: str) -> None:
        """Behave like this from now on."""
        await ask(self.address, f"/__mode?{mode}")

    async def stat(self) -> dict[str, Any]:
        """What it has seen."""
        found: dict[str, Any] = json.loads((await ask(self.address, "/__stat")).body)
        return found

    async def seen(self) -> int:
        """How many requests reached it."""
        return sum((await self.stat())["seen"].values())

    async def holding(self, count: int = 1) -> None:
        """Return when it holds so many requests: what the router counts may still be on its way here."""

        async def holds() -> bool:
            return bool((await self.stat())["held"] == count)

        await until(holds, f"{count} held requests")

    async def release(self) -> None:
        """Answer what is held."""
        await ask(self.address, "/__release")

    async def kill(self) -> None:
        """End it at once."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@dataclass
class World:
    """The backends of one test."""

    folder: Path
    processes: list[Process] = field(default_factory=list)

    async def backend(self, name: str, address: str = "127.0.0.1:0") -> Process:
        """A new backend; `name` is its answer."""
        command = [sys.executable, "-I", "-S", str(_BACKEND), name, address]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        address = f"127.0.0.1:{port}" if port else address
        self.processes.append(Process(name, address, process))
        return self.processes[-1]

    async def close(self) -> None:
        """Leave nothing behind."""
        for process in self.processes:
            await process.kill()


@dataclass(frozen=True)
class Answer:
    """What a client got. `status` 0: the connection ended before there was an answer. `head`: in small letters."""

    status: int
    body: str
    head: str = field(default="", compare=False, repr=False)

    @property
    def closing(self) -> bool:
        """Whether the connection is over with this answer."""
        return not self.status or "\r\nconnection: close\r\n" in self.head

    @property
    def cookies(self) -> list[str]:
        """The cookies it is told to keep, with their attributes."""
        return re.findall(r"\r\nset-cookie: ([^\r]*)", self.head)


async def ask(
    address: str, target: str = "/", *, method: str = "GET", host: str = "x", body: bytes = b"", headers: str = ""
) -> Answer:
    """One request on a connection of its own."""
    if address.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
    else:
        name, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(name, int(port))
    head = f"{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    try:
        writer.write(head.encode() + body)
        return await _answer(reader, method)
    finally:
        writer.close()


class Line:
    """A connection on which a user asks again and again."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, address: str) -> Line:
        """One to the ``host:port`` `address`."""
        name, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(name, int(port)))

    async def ask(self, host: str = "x") -> Answer:
        """The next request on it. It is closed once the answer says so."""
        self._writer.write(f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        answer = await _answer(self._reader, "GET")
        if answer.closing:
            self._writer.close()
        return answer


async def _answer(reader: asyncio.StreamReader, method: str) -> Answer:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: (\d+)", head)
        body = b"" if method == "HEAD" or not length else await reader.readexactly(int(length[1]))
    except (asyncio.IncompleteReadError, ConnectionError):
        return Answer(0, "")
    return Answer(int(head.split(" ")[1]), body.decode(), head)


async def asked(address: str, count: int, *, method: str = "GET", workers: int = 8) -> Counter[tuple[int, str]]:
    """How `count` requests were answered, some at the same time: status and body."""
    answers: Counter[tuple[int, str]] = Counter()
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            answer = await ask(address, method=method)
            answers[answer.status, answer.body.strip()] += 1

    await asyncio.gather(*(work() for _ in range(workers)))
    return answers


async def closed(listen: str) -> bool:
    """Whether nobody listens there."""
    try:
        _, writer = await asyncio.open_connection(*listen.split(":"))
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it dies at this moment
        return False
    writer.close()
    return False


def port() -> int:
    """A port that nobody listens on."""
    return free_port()


def endpoints(revision: str, processes: Sequence[Process | str], state: Traffic) -> tuple[Endpoint, ...]:
    """An endpoint for each backend or address."""
    addresses = [p if isinstance(p, str) else p.address for p in processes]
    return tuple(Endpoint(InstanceId(f"{revision}-{n}"), a, state) for n, a in enumerate(addresses, 1))


def version(
    revision: Revision,
    share: Share | int,
    *processes: Process | str,
    state: Traffic = Traffic.READY,
    more: tuple[Endpoint, ...] = (),
) -> Backend:
    """One version of a service."""
    return Backend(revision, Fraction(share), (*endpoints(revision, processes, state), *more))


def service(
    listen: str, *backends: Backend, name: str = "shop", trial: Revision | None = None, **route: Any
) -> ServiceTable:
    """One service."""
    return ServiceTable(name, Route(listen=listen, **route), backends, trial)


def secured(found: ServiceTable, files: tuple[Path, Path], redirect: str | None = None) -> ServiceTable:
    """The service with TLS: it shows what `files`, a certificate and its key, hold."""
    tls = Tls(str(files[0]), str(files[1]), redirect)
    return replace(found, route=replace(found.route, tls=tls), certificate=read(tls.cert, tls.key).certificate)


def table(*services: ServiceTable) -> RoutingTable:
    """All of them."""
    return RoutingTable({s.service: s for s in services})


EITHER = pytest.mark.parametrize("at_rest", [True, False], ids=["at rest", "in a rollout"])
"""When requests come: which of Envoy's logs tells of their attempts depends on it."""


def alone(listen: str, at_rest: bool, *processes: Process | str, **route: Any) -> RoutingTable:
    """V1, which all requests are given, at rest or not."""
    sides = version(V1, 1, *processes), version(V2, 0)
    found = table(service(listen, *sides[: 1 if at_rest else 2], **route))
    assert found.at_rest == at_rest
    return found


async def until(condition: Callable[[], Awaitable[bool]], what: str = "the condition", seconds: float = 20) -> None:
    """Poll until `condition` holds."""
    try:
        async with asyncio.timeout(seconds):
            while not await condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"{what} did not come true within {seconds} s")


@dataclass(frozen=True)
class Load:
    """What wrk saw."""

    requests: int
    errors: int
    text: str


class Wrk:
    """wrk against one address, until it is stopped."""

    def __init__(self, listen: str, *, connections: int = 64, script: Path | None = None) -> None:
        self._command = ["wrk", "-t1", f"-c{connections}", "-d60s", "--timeout", "20s"]
        self._command += ["-s", str(script)] if script else []
        self._command += [f"http://{listen}/"]

    async def __aenter__(self) -> Wrk:
        if not shutil.which("wrk"):
            pytest.skip("wrk is not installed")
        self._process = await asyncio.create_subprocess_exec(*self._command, stdout=asyncio.subprocess.PIPE)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def stop(self) -> Load:
        """End it and return what it saw."""
        self._process.send_signal(2)
        text = (await self._process.communicate())[0].decode()
        requests = re.search(r"(\d+) requests in", text)
        assert requests, text
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        sockets = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        errors = int(bad[1]) if bad else 0
        return Load(int(requests[1]), errors + sum(map(int, sockets.groups())) if sockets else errors, text)
