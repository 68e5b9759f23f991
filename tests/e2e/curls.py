"""Users who come with curl, and h2load: see `users`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from users import EVERY, Stream, Visit

from segue.testing.load import read_h2load, tool

PEER = "127.0.0.2"
"""Where forgers come from: a user at 127.0.0.1 is shown as the machine's own address."""

FORGED = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "forged.example",
    "X-Forwarded-Port": "6666",
    "X-Forwarded-Scheme": "forged",
    "X-Forwarded-Ssl": "forged",
    "X-Forwarded-Prefix": "/forged",
    "X-Real-IP": "6.6.6.6",
    "X-Request-Id": "forged",
    "X-Envoy-External-Address": "6.6.6.6",
    "X-Envoy-Retry-On": "forged",
    "Forwarded": "for=6.6.6.6;proto=https;host=forged.example",
}


@dataclass(frozen=True)
class Curl:
    """What became of a curl: its exit status, what it wrote, and what it told about it."""

    status: int
    out: bytes
    told: str

    @property
    def answer(self) -> tuple[str, str, str]:
        """HTTP status, version and body, of a curl that was run with `SIGNED`."""
        body, _, last = self.out.decode().rpartition("\n")
        status, _, version = last.partition(" ")
        return status, version, body


SIGNED = ("-w", "\n%{http_code} %header{x-version}")


async def begun(*arguments: str) -> asyncio.subprocess.Process:
    """A curl that runs."""
    command = ("curl", "-sS", *arguments)
    return await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def curl(*arguments: str) -> Curl:
    """Run curl to its end."""
    process = await begun(*arguments)
    try:
        out, told = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return Curl(process.returncode or 0, out, told.decode())


async def follows(visit: Visit, *options: str, every: float | None = EVERY) -> list[Stream]:
    """Server-sent events, asked for anew whenever they end. `every`: None: there are none."""
    found = []
    while not visit.over.is_set():
        found.append(await _follow(visit, *options, every=every))
    return found


async def _follow(visit: Visit, *options: str, every: float | None) -> Stream:
    """Server-sent events until they end or the visit is over."""
    query = f"?every={every}" if every else ""
    process = await begun("-N", *options, f"{visit.url}events{query}")
    assert process.stdout is not None
    leaving = asyncio.create_task(_end(visit, process))
    stream, event = Stream(), ""
    async for line in process.stdout:
        name, _, value = line.decode().strip().partition(": ")
        if name == "event":
            event = value
        elif name == "data":
            stream.heard(event, value.split())
            visit.here(stream.version)
    stream.end = await process.wait()
    leaving.cancel()
    return stream


async def _end(visit: Visit, process: asyncio.subprocess.Process) -> None:
    await visit.over.wait()
    process.terminate()


async def polls(visit: Visit) -> list[tuple[str, str, str]]:
    """Long polls: who is told that the application leaves asks again. When the visit is over somebody tells."""
    telling = asyncio.create_task(_tell(visit))
    answers = [await _poll(visit)]
    while answers[-1][2] == "leaving\n":
        answers.append(await _poll(visit))
    telling.cancel()
    return answers


async def _poll(visit: Visit) -> tuple[str, str, str]:
    """One long poll."""
    visit.here()
    return (await curl(*SIGNED, f"{visit.url}poll?seconds=60")).answer


async def _tell(visit: Visit) -> None:
    await visit.over.wait()
    while True:  # each asks one instance, which is perhaps not the one that is waited for
        await curl("-d", "news", f"{visit.url}tell")


async def expects(visit: Visit, most: int) -> list[tuple[bool, tuple[str, str, str]]]:
    """Small uploads that wait for ``100 Continue``, where up to `most` bytes are taken: if it came, the answer."""

    async def once() -> tuple[bool, tuple[str, str, str]]:
        wait = ("-v", "-H", "Expect: 100-continue", "--expect100-timeout", "30")
        done = await curl(*SIGNED, *wait, "-d", "a pound of tea", f"{visit.url}sink?most={most}")
        return "< HTTP/1.1 100 Continue" in done.told, done.answer

    return await visit.again(once)


async def uploads(visit: Visit, file: Path, rate: str) -> list[tuple[int, str, Any]]:
    """Uploads of `file`, one after the other."""
    return await visit.again(lambda: upload(visit, file, rate), every=0)


async def upload(visit: Visit, file: Path, rate: str) -> tuple[int, str, Any]:
    """An upload: curl's and HTTP's status, and what the application made of it."""
    visit.here()
    done = await curl(*SIGNED, "--limit-rate", rate, "-T", str(file), f"{visit.url}sink")
    status, _, body = done.answer
    return done.status, status, json.loads(body) if status == "200" else body


async def downloads(visit: Visit, size: int, rate: str) -> list[tuple[int, str]]:
    """Downloads of so many bytes, one after the other."""
    return await visit.again(lambda: download(visit, size, rate), every=0)


async def download(visit: Visit, size: int, rate: str) -> tuple[int, str]:
    """A download of so many bytes: curl's status, and the body's sha256."""
    visit.here()
    process = await begun("--limit-rate", rate, f"{visit.url}bytes?size={size}")
    assert process.stdout is not None
    digest = hashlib.sha256()
    while part := await process.stdout.read(2**20):
        digest.update(part)
    return await process.wait(), digest.hexdigest()


async def trailers(visit: Visit, *options: str) -> list[str]:
    """The trailer of a body, each time it came; empty if it did not."""

    async def once() -> str:
        done = await curl(*options, "-D", "-", "-o", "/dev/null", f"{visit.url}trailers")
        found = re.search(r"^x-sum: (\w+)", done.out.decode(), re.IGNORECASE | re.MULTILINE)
        return found[1] if found else ""

    return await visit.again(once)


async def forgeries(visit: Visit) -> list[dict[str, str]]:
    """The headers that the application gets from one who forges them, names in small letters."""
    headers = [part for name, value in FORGED.items() for part in ("-H", f"{name}: {value}")]

    async def once() -> dict[str, str]:
        done = await curl("--interface", PEER, *headers, f"{visit.url}headers")
        return {name.lower(): value for name, value in json.loads(done.out)}

    return await visit.again(once)


async def bursts(visit: Visit) -> list[str]:
    """Bursts of h2load over cleartext HTTP/2; empty if all of one was answered."""

    async def once() -> str:
        process = await asyncio.create_subprocess_exec(
            *(tool("h2load"), "-n100", "-c2", "-m10", f"{visit.url}headers"), stdout=asyncio.subprocess.PIPE
        )
        return read_h2load((await process.communicate())[0].decode()).detail

    return await visit.again(once) if shutil.which("h2load") else []
