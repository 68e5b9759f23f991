"""Instructions that Envoy executes for one request, counted under valgrind: the same to 0.2 % on a busy machine.

What the kernel does for it, about a quarter of the time, is not in them, and an instruction is not a time; but clocks
on shared cores are off by more than what most features cost. Envoy has one worker here, and its worker is counted
while 16 connections ask in turn.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import common
from envoys import Document, every

from segue.routers.envoy import sampling
from segue.routers.envoy.http import RESTS
from segue.routers.envoy.loggers import ATTEMPTS, RESTED
from segue.routers.envoy.process import binary
from segue.testing.http1 import Answer

WARM, COUNTED = 600, 1500
"""Requests before, and while, instructions are counted."""
CONNECTIONS = 16
UP_WITHIN = 240.0
_THREAD = re.compile(r"Th (\d+)\s+([\d,]+)")


@dataclass(frozen=True)
class Counted:
    """What was counted of one configuration."""

    name: str
    instructions: float


def missing() -> str | None:
    """Why nothing can be counted here; None: it can."""
    return None if shutil.which("valgrind") and shutil.which("callgrind_control") else "valgrind is not installed"


def count(
    folder: Path, name: str, document: Document, port: int, fields: Sequence[str] = (), tls: bool = False
) -> Counted:
    """Count for requests with these header `fields` at `port`, where an Envoy with `document` listens."""
    common.progress(f"    instructions: {name} …")
    config = folder / "counted.json"
    admin = {"address": {"pipe": {"path": str(folder / "counted.sock"), "mode": 0o600}}}
    config.write_text(json.dumps({**document, "admin": admin}))
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--callgrind-out-file=/dev/null", "-q"]
    command += [str(binary()), "-c", str(config), "--concurrency", "1", "-l", "critical", "--use-dynamic-base-id"]
    envoy = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        _wait(envoy, port)
        _control("-i", "on", envoy.pid)
        asyncio.run(_ask(port, WARM, fields, tls))
        before = _totals(envoy.pid)
        asyncio.run(_ask(port, COUNTED, fields, tls))
        after = _totals(envoy.pid)
    finally:
        envoy.kill()
        envoy.wait()
    main = min(after)
    return Counted(name, max(after[thread] - before.get(thread, 0) for thread in after if thread != main) / COUNTED)


def _wait(envoy: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + UP_WITHIN
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if envoy.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Envoy did not come up under valgrind within {UP_WITHIN:g} s") from None
        time.sleep(0.1)


def _control(*arguments: object) -> str:
    command = ["callgrind_control", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _totals(pid: int) -> dict[int, int]:
    """The instructions of each thread until now."""
    return {int(thread): int(number.replace(",", "")) for thread, number in _THREAD.findall(_control("-e", pid))}


async def _ask(port: int, requests: int, fields: Sequence[str], tls: bool) -> None:
    head = "\r\n".join([f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}", *fields, "", ""]).encode()
    context = ssl.create_default_context() if tls else None
    if context is not None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    left = iter(range(requests))

    async def user() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        for _ in left:
            writer.write(head)
            answer = Answer()
            while not answer.feed(await reader.read(65536)):
                pass
            if answer.status != 200:
                raise RuntimeError(f"an answer was {answer.status}")
        writer.close()

    await asyncio.gather(*(user() for _ in range(CONNECTIONS)))


def rest(document: Document) -> None:
    """Have `document` as a router has it at rest that has noticed that very many requests come."""
    for hosts in every(document["static_resources"]["listeners"], "virtual_hosts"):
        hosts[:] = [{**host, **RESTS} for host in hosts]
    _say(document, {ATTEMPTS: sampling.PARTS[0], RESTED: 0})


def move(document: Document) -> None:
    """Have `document` as a router has it some seconds after the rest is over."""
    _say(document, {ATTEMPTS: sampling.ALL, RESTED: 1000})


def _say(document: Document, runtime: Mapping[str, int]) -> None:
    document["layered_runtime"]["layers"][0]["static_layer"].update(runtime)


def _count_all(document: Document) -> None:
    _say(document, {ATTEMPTS: sampling.ALL})


def _each_attempt(document: Document) -> None:
    for hosts in every(document["static_resources"]["listeners"], "virtual_hosts"):
        for host in hosts:
            for key in RESTS:
                del host[key]
    _say(document, {RESTED: 1000})


def _without(*names: str) -> Callable[[Document], None]:
    """Takes these settings of the connection manager away."""

    def cut(document: Document) -> None:
        for filters in every(document["static_resources"]["listeners"], "filters"):
            for each in filters:
                for name in names:
                    each.get("typed_config", {}).pop(name, None)

    return cut


def _no_attempt_log(document: Document) -> None:
    for logs in every(document, "access_log"):
        del logs[1]


def _no_users_address(document: Document) -> None:
    for configuration in every(document["static_resources"]["listeners"], "route_config"):
        configuration.pop("request_headers_to_add")


def _no_route_policy(document: Document) -> None:
    for routes in every(document, "routes"):
        for route in routes:
            route.pop("request_body_buffer_limit", None)
            route.get("route", {}).pop("retry_policy", None)


PARTS: dict[str, Callable[[Document], None]] = {
    "a log of its own: each attempt is told, few counted": _each_attempt,
    "a choice of attempts: all are counted": _count_all,
    "the log of last attempts": _no_attempt_log,
    "all logs": _without("access_log"),
    "retries and buffered bodies": _no_route_policy,
    "taking forged headers away": _without("early_header_mutation_extensions"),
    "the users' addresses": _no_users_address,
    "a bound for the time of a header": _without("request_headers_timeout"),
    "normal paths": _without("normalize_path"),
}
"""What of the steady configuration can be taken away, to see what it costs."""
