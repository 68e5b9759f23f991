"""The server's side of one HTTP/1.1 connection, by hand: for test applications that must decide about every byte.

Bodies are read in parts, so that memory does not grow with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

PART = 65536
"""Bytes of a body that are held at once."""

Fields = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Request:
    """The head of one request; `raw` as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: Fields
    raw: bytes

    def get(self, name: str) -> str:
        """The value of the header `name`, both in small letters; empty if there is none."""
        return next((value for key, value in self.headers if key.lower() == name), "").lower()

    def seconds(self, name: str) -> float | None:
        """A time that the query gives."""
        return float(self.query[name]) if name in self.query else None

    @classmethod
    def parse(cls, head: bytes) -> Request:
        """The request whose head is `head`."""
        line, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        url = urlsplit(target)
        return cls(method, url.path, dict(parse_qsl(url.query)), [_field(each) for each in lines if each], head)


class Connection:
    """One connection. `sign`: headers that every answer has."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sign: Fields) -> None:
        self.reader, self.writer = reader, writer
        self._sign = sign

    async def request(self) -> Request:
        """The head of the next request. Raises IncompleteReadError when none comes any more."""
        return Request.parse(await self.reader.readuntil(b"\r\n\r\n"))

    async def body(self, request: Request, trailers: Fields) -> AsyncIterator[bytes]:
        """The body of `request` in parts; what follows it is added to `trailers`."""
        if request.get("expect") == "100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" not in request.get("transfer-encoding"):
            async for part in self._exactly(int(request.get("content-length") or 0)):
                yield part
            return
        while size := int((await self.reader.readline()).partition(b";")[0], 16):
            async for part in self._exactly(size):
                yield part
            await self.reader.readline()
        while line := (await self.reader.readline()).strip():
            trailers.append(_field(line.decode()))

    async def _exactly(self, size: int) -> AsyncIterator[bytes]:
        while size:
            part = await self.reader.read(min(size, PART))
            if not part:
                raise ConnectionResetError("the body has not come whole")
            size -= len(part)
            yield part

    def answer(self, status: str, body: bytes, *headers: tuple[str, str]) -> None:
        """A whole answer."""
        self.head(status, ("Content-Length", str(len(body))), *headers)
        self.writer.write(body)

    def head(self, status: str, *headers: tuple[str, str]) -> None:
        """Begin an answer."""
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in (*self._sign, *headers)), "", ""]
        self.writer.write("\r\n".join(lines).encode())

    def chunk(self, data: bytes) -> None:
        """A part of a chunked body."""
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    def last_chunk(self, *trailers: tuple[str, str]) -> None:
        """The end of a chunked body, and what follows it."""
        self.writer.write(b"0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in trailers).encode() + b"\r\n")


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.strip()
