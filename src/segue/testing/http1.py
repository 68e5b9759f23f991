"""The reading side of an HTTP/1.1 client, strict enough to see every answer that did not come whole."""

from __future__ import annotations


class Garbled(Exception):
    """What came is not HTTP/1.1."""


class Answer:
    """One answer, fed with bytes as they come. `whole` once nothing is missing."""

    __slots__ = ("_at", "_buffer", "_end", "body_at", "fields", "status", "until_close", "whole")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0  # how far the chunks have been read
        self._end = -1  # where the answer ends, once that is known
        self.body_at = -1
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self.until_close = False
        self.whole = False

    @property
    def begun(self) -> bool:
        """Whether a byte of it has come."""
        return bool(self._buffer)

    @property
    def body(self) -> bytes:
        """The bytes after the header, chunk sizes included where there are any."""
        return bytes(self._buffer[self.body_at :])

    def feed(self, data: bytes) -> bool:
        """Take `data`; whether the answer is whole now. Raises Garbled."""
        self._buffer += data
        if self.body_at < 0 and not self._read_head():
            return False
        if self._end < 0 and not self.until_close:
            self._read_chunks()
        if 0 <= self._end < len(self._buffer):
            raise Garbled("more came than was announced")
        self.whole = self._end == len(self._buffer)
        return self.whole

    def closed(self) -> bool:
        """The server has closed the connection; whether that made the answer whole."""
        self.whole = self.whole or (self.until_close and self.body_at >= 0)
        return self.whole

    @property
    def keeps(self) -> bool:
        """Whether the server lets the connection be used again."""
        return not self.until_close and self.fields.get(b"connection", b"").lower() != b"close"

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[:end])
        if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
            raise Garbled(f"it begins with {head[:40]!r}")
        self.status = int(head[9:12])
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            self.fields[name.lower()] = value.strip()
        self.body_at = self._at = end + 4
        if self.status in (204, 304):
            self._end = self.body_at
        elif b"content-length" in self.fields:
            self._end = self.body_at + int(self.fields[b"content-length"])
        elif self.fields.get(b"transfer-encoding", b"").lower() != b"chunked":
            self.until_close = True
        return True

    def _read_chunks(self) -> None:
        """Step over every chunk that is there whole; `_at` stays at the first that is not."""
        while (eol := self._buffer.find(b"\r\n", self._at)) >= 0:
            try:
                size = int(self._buffer[self._at : eol].partition(b";")[0], 16)
            except ValueError:
                raise Garbled("a chunk without a size") from None
            if size == 0:
                end = self._buffer.find(b"\r\n\r\n", eol)  # trailers, if any, stand before it
                self._end = end + 4 if end >= 0 else -1
                return
            if eol + 2 + size + 2 > len(self._buffer):
                return
            self._at = eol + 2 + size + 2
