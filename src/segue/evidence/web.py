"""One GET whose answer is evidence. What goes wrong is translated here, and never with the address's query in it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from segue.core.sources import About

LARGEST = 1 << 20
"""Bytes of an answer; a longer one is not what was meant."""


class Unanswered(Exception):
    """There is no answer that can be used: why, in words that may be shown to anybody."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whole."""

    status: int
    body: bytes


async def get(
    url: str,
    about: About,
    timeout: timedelta,
    *,
    query: Mapping[str, str] | None = None,
    authorization: str | None = None,
) -> Reply:
    """The answer to a GET of `url`, to its end within `timeout`. Raises Unanswered.

    `authorization`: the variable of the version's environment whose value is sent as the header of that name. Neither
    proxies nor passwords are taken from the control plane's own environment, and no redirect is followed.
    """
    import httpx  # a fifth of the time that the control plane takes to start, and often not needed

    headers = _headers(about, authorization)
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            async with httpx.AsyncClient(timeout=None, trust_env=False, headers=headers) as client:
                async with client.stream("GET", url, params=query) as reply:
                    return Reply(reply.status_code, await _whole(reply))
    except TimeoutError as exc:
        raise Unanswered(f"no answer within {timeout.total_seconds():g} s") from exc
    except (httpx.ConnectError, OSError) as exc:
        raise Unanswered(f"{_place(url)} cannot be reached") from exc
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as exc:
        raise Unanswered(f"{_place(url)} gave no whole answer in HTTP") from exc


def _place(url: str) -> str:
    """``host:port``, and nothing else of an address."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _headers(about: About, authorization: str | None) -> dict[str, str]:
    if authorization is None:
        return {}
    if authorization not in about.environment:
        raise Unanswered(f"the variable {authorization} is not set in the version's environment")
    return {"Authorization": about.environment[authorization]}


async def _whole(reply: Any) -> bytes:
    body = b""
    async for part in reply.aiter_bytes():
        body += part
        if len(body) > LARGEST:
            raise Unanswered(f"the answer is longer than {LARGEST // 1024} KB")
    return body
