"""The kinds of value that sources of evidence are told in: addresses, queries, plain numbers. As `values`.

Each function takes what stands in the document, returns the value, and raises Wrong when it cannot be one.
What was returned is accepted again. An address that has a password in it is refused, and never shown.
"""

from __future__ import annotations

import re
from datetime import timedelta
from math import isfinite
from urllib.parse import SplitResult, urlsplit

from segue.core.sources import PLACEHOLDERS
from segue.manifest.amounts import number_meant
from segue.manifest.commands import unknown
from segue.manifest.values import Wrong, shown, text

_PLACEHOLDER = re.compile(r"(?<!\$)\{([A-Za-z_]\w*)\}")
_STRING = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)""")
_RANGE = re.compile(r"\[\s*((?:\d{1,9}(?:ms|[smhdwy]))+)\s*(?::[^\]]*)?\]")
_SPAN = re.compile(r"(\d+)(ms|[smhdwy])")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
_ELSEWHERE = "`authorization: NAME`, a variable of the service that holds the header"


def address(value: object) -> str:
    """An address that is asked: ``http://`` or ``https://``, a host, and what follows. Placeholders may be in it."""
    said = text(value).strip()
    _known(said)
    parts = _parts(said)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        bare = re.fullmatch(r"[\w.-]+(?::\d{1,5})?(?:/\S*)?", said)
        raise Wrong(f"{shown(said)} is not an address", nearest=f"http://{said}" if bare else None)
    if re.search(r"[^!-~]", said) or parts.fragment:
        raise Wrong(f"{shown(said)} has a part that a server is not sent")
    return said


def base(value: object) -> str:
    """Where a server's API begins: an address without a query."""
    said = address(value)
    bare = said.partition("?")[0]
    api = bare.rstrip("/").removesuffix("/query").removesuffix("/api/v1")
    if bare != said or api != bare.rstrip("/"):
        raise Wrong("it goes on where Segue writes the rest itself", nearest=api)
    return said


def query(value: object) -> str:
    """A query in PromQL, whose placeholders are known."""
    said = text(value)
    _known(said)
    return said


def number(value: object) -> float:
    """A number of any size and sign."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Wrong(f"{shown(value)} is not a number", nearest=number_meant(value))
    try:
        found = float(value)
    except OverflowError:
        found = float("inf")
    if not isfinite(found):
        raise Wrong(f"{shown(value)} is not finite")
    return found


def looks_back(said: str) -> timedelta:
    """Over what time a query in PromQL looks back at most: the longest of its ranges; nothing where it has none."""
    spans = _RANGE.findall(_STRING.sub("", said))
    seconds = (sum(int(number) * _SECONDS[unit] for number, unit in _SPAN.findall(span)) for span in spans)
    return timedelta(seconds=min(max(seconds, default=0.0), 10 * _SECONDS["y"]))


def _parts(said: str) -> SplitResult:
    try:
        parts = urlsplit(said)
        port = parts.port
    except ValueError as exc:
        raise Wrong("it is not an address") from exc
    if parts.username is not None or parts.password is not None:
        raise Wrong("a password does not stand in an address, where everybody sees it", expected=_ELSEWHERE)
    if port == 0:
        raise Wrong(f"{shown(said)} has no port from 1 to 65535")
    return parts


def _known(said: str) -> None:
    """Raise Wrong for a word in braces that is none of PLACEHOLDERS; neither PromQL nor an address has one there."""
    for word in _PLACEHOLDER.findall(said):
        if word not in PLACEHOLDERS:
            raise unknown(word, PLACEHOLDERS)
