"""Envoy's admin interface, asked over its Unix socket; nothing is kept open."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from segue.errors import RouterLost

Buckets = Mapping[float, int]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters and gauges by name, and histograms by name: upper edge of a bucket → samples in it."""

    values: Mapping[str, int] = field(default_factory=dict)
    histograms: Mapping[str, Buckets] = field(default_factory=dict)


class Admin:
    """One Envoy's admin interface."""

    def __init__(self, path: str, timeout: float = 5) -> None:
        self._path = path
        self._timeout = timeout

    async def stats(self, pattern: str, *, only: str = "All", used: bool = False) -> Statistics:
        """Every statistic whose name `pattern` is found in; `used`: only those that were ever counted.

        `only`: Counters, Gauges or Histograms. Envoy compares every name it has: fewer are cheaper.
        """
        query = f"/stats?format=json&histogram_buckets=detailed&type={only}&filter={quote(pattern)}"
        query += "&usedonly" if used else ""
        found = json.loads(await self.get(query))["stats"]
        values = {entry["name"]: entry["value"] for entry in found if "value" in entry}
        histograms = (entry["histograms"] for entry in found if "histograms" in entry)
        details = (histogram for entry in histograms for histogram in entry.get("details", []))
        return Statistics(values, {histogram["name"]: _buckets(histogram) for histogram in details})

    async def get(self, target: str) -> bytes:
        """The body of a GET. Raises RouterLost."""
        return await self._ask("GET", target)

    async def post(self, target: str) -> bytes:
        """The body of a POST. Raises RouterLost."""
        return await self._ask("POST", target)

    async def _ask(self, method: str, target: str) -> bytes:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(method, target)
        except (OSError, TimeoutError, EOFError, ValueError) as exc:
            name = Path(self._path).name
            raise RouterLost(f"The router does not answer at {name}: {exc or type(exc).__name__}.") from exc

    async def _exchange(self, method: str, target: str) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self._path, limit=2**20)
        try:
            writer.write(f"{method} {target} HTTP/1.1\r\nHost: segue\r\nConnection: close\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            status = int(head.split(b" ", 2)[1])
            body = await (_chunks(reader) if b"transfer-encoding: chunked" in head else reader.read())
        finally:
            writer.close()
        if status != 200:
            raise ValueError(f"{target} was answered with {status}")
        return body


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    return b"".join(parts)


def _buckets(histogram: Mapping[str, Any]) -> Buckets:
    return {round(b["lower_bound"] + b["width"], 3): b["count"] for b in histogram.get("totals", [])}
