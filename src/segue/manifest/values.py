"""The kinds of value that a manifest holds: what is accepted, and how it is written back as text.

Each function takes what stands in the document, returns the value, and raises Wrong when it cannot be one.
What was returned is accepted again. Standard library only: commands that must start fast may import this.
"""

from __future__ import annotations

import ipaddress
import re
import signal as signals
from collections.abc import Iterable, Sequence
from datetime import timedelta
from difflib import get_close_matches
from fractions import Fraction

SIGNALS = ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH", "ALRM", "ABRT")
"""The signals that may ask an instance to stop. KILL is not among them: `stop.grace: 0s` kills."""

_UNITS = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d)", re.ASCII)
_LONGEST = timedelta(days=3650)
_LOOKS_OTHERWISE = re.compile(r"[+-]?\d[\d_]{,30}(?:\.\d{,9})?|true|false", re.ASCII | re.IGNORECASE)
"""Text that would be something else without its quotes."""
_SERVICE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_URL_PATH = re.compile(r"/[!-~]*")
_SERVICE_LINE = re.compile(r"""^service:[ \t]+(["']?)([a-z0-9-]+)\1[ \t]*(?:#.*)?$""", re.MULTILINE)
_YES, _NO = ("yes", "on", "y", "1"), ("no", "off", "n", "0")


class Wrong(ValueError):
    """A value that cannot be: the problem, what was expected instead, and what was perhaps meant.

    `at` leads from the place where this was found to the place that is to blame; `part`: only a part was meant.
    """

    def __init__(
        self,
        problem: str,
        *,
        expected: str | None = None,
        nearest: str | None = None,
        at: tuple[str | int, ...] = (),
        part: bool = False,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.expected = expected
        self.nearest = nearest
        self.at = at
        self.part = part


def nearest(word: str, known: Iterable[str], alike: float = 0.6) -> str | None:
    """The one of `known` that looks most like `word`; None if none looks `alike`."""
    return next(iter(get_close_matches(word.lower(), known, n=1, cutoff=alike)), None)


def shown(value: object) -> str:
    """`value` in the words of a message: scalars as they are written, the rest by their kind."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"`{str(value).lower()}`"
        case str() if _LOOKS_OTHERWISE.fullmatch(value):
            return f"the text `'{value}'`"
        case str():
            return f"`{value if len(value) <= 60 else value[:57] + '…'}`"
        case int() | float():
            return f"the number {value}" if len(repr(value)) <= 40 else "a huge number"
        case dict():
            return "a mapping"
    return "a list"


def text(value: object) -> str:
    """Text that is not empty."""
    if not isinstance(value, str):
        quoted = (
            None if isinstance(value, (dict, list)) or value is None else f'"{shown(value).split()[-1].strip("`")}"'
        )
        raise Wrong(f"{shown(value)} is not text", nearest=quoted)
    if not value.strip():
        raise Wrong("the text is empty")
    if "\0" in value:
        raise Wrong("the text has a NUL character in it")
    return value


def flag(value: object) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    word = str(value).lower() if isinstance(value, (str, int)) else ""
    meant = "true" if word in ("true", *_YES) else "false" if word in ("false", *_NO) else None
    raise Wrong(f"{shown(value)} is neither true nor false", nearest=meant)


def whole(value: object, least: int, most: int = 10_000) -> int:
    """A whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int):
        meant = value if isinstance(value, str) and re.fullmatch(r"\d{1,4}", value, re.ASCII) else None
        raise Wrong(f"{shown(value)} is not a whole number", nearest=meant)
    if not least <= value <= most:
        size = "small" if value < least else "large"
        raise Wrong(f"{shown(value)} is too {size}", nearest=str(max(least, min(value, most))))
    return value


def count(value: object) -> int:
    """A number of something of which there is at least one."""
    return whole(value, least=1)


def number(value: object) -> int:
    """A number of something of which there may be none."""
    return whole(value, least=0)


def duration(value: object) -> timedelta:
    """A span of time: a number and a unit, such as ``500ms``; exact to the microsecond."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise Wrong(f"{shown(value)} has no unit", nearest=f"{value}s" if 0 <= value < 1e6 else None)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Wrong(f"{shown(value)} is not a duration", nearest=_meant(value))
    microseconds = Fraction(match[1]) * _UNITS[match[2]]
    if microseconds.denominator != 1:
        raise Wrong(f"{shown(value)} is finer than a microsecond")
    if microseconds > _LONGEST / timedelta(microseconds=1):
        raise Wrong(f"{shown(value)} is longer than ten years")
    return timedelta(microseconds=int(microseconds))


def _meant(value: object) -> str | None:
    """The duration that was probably meant by one with a space or a longer unit, as in ``30 sec``."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*([a-z]*)\s*", value.lower(), re.ASCII) if isinstance(value, str) else None
    if match is None:
        return None
    if match[2].startswith(("ms", "mil")):
        return f"{match[1]}ms"
    return f"{match[1]}{(match[2] or 's')[0]}" if (match[2] or "s")[0] in _UNITS else None


def some_time(value: object) -> timedelta:
    """A span of time longer than nothing."""
    span = duration(value)
    if not span:
        raise Wrong("it has to be longer than 0s")
    return span


def duration_text(span: timedelta) -> str:
    """`span` as `duration` reads it, in the largest unit that leaves no fraction: ``90s``, ``10m``."""
    microseconds = span // timedelta(microseconds=1)
    if not microseconds:
        return "0s"
    for unit, size in reversed(_UNITS.items()):
        if microseconds % size == 0:
            return f"{microseconds // size}{unit}"
    return f"{microseconds // 1000}.{microseconds % 1000:03}".rstrip("0") + "ms"


def statuses(value: object) -> tuple[int, int]:
    """An inclusive range of HTTP statuses: ``200`` or ``200-399``."""
    if isinstance(value, tuple) and len(value) == 2:
        low, high = value
    else:
        match = re.fullmatch(r"(\d{3})(?:\s*-\s*(\d{3}))?", str(value), re.ASCII)
        if match is None or isinstance(value, (list, dict)):
            meant = re.fullmatch(r"([1-5])xx", value.lower()) if isinstance(value, str) else None
            raise Wrong(f"{shown(value)} is not a status", nearest=meant and f"{meant[1]}00-{meant[1]}99")
        low, high = int(match[1]), int(match[2] or match[1])
    if low > high:
        raise Wrong(f"{low} is larger than {high}", nearest=f"{high}-{low}")
    if low < 100 or high > 599:
        raise Wrong(f"{shown(value)} is not a status of HTTP")
    return low, high


def statuses_text(value: tuple[int, int]) -> str:
    """A range of statuses as `statuses` reads it."""
    low, high = value
    return str(low) if low == high else f"{low}-{high}"


def listen(value: object) -> str:
    """Where users connect, ``host:port``; the host is an IP address (IPv6 in brackets) or a name."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536:
        raise Wrong(f"{shown(value)} has no host", nearest=f"127.0.0.1:{value}")
    host, colon, port = text(value).rpartition(":")
    if not colon or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or not 0 < int(port) < 65536:
        meant = f"{value}:8080" if not colon and _is_host(text(value)) else None
        raise Wrong(f"{shown(value)} has no port from 1 to 65535", nearest=meant)
    if not host:
        raise Wrong(f"{shown(value)} has no host", nearest=f"127.0.0.1:{port}")
    if not _is_host(host):
        raise Wrong(f"`{host}` is not a host", nearest=f"[{host}]:{port}" if _is_host(f"[{host}]") else None)
    return f"{host}:{int(port)}"


def _is_host(host: str) -> bool:
    bracketed = host.startswith("[") and host.endswith("]")
    digits = host[1:-1] if bracketed else host
    try:
        return ipaddress.ip_address(digits).version == (6 if bracketed else 4)
    except ValueError:
        return bool(_HOST_NAME.fullmatch(host.lower())) and not re.fullmatch(r"[\d.]+", host)


def host_pattern(value: object) -> str:
    """A host that users ask for: a name, an address, ``*.name`` for all below a name, or ``*`` for any."""
    host = text(value).lower()
    if host == "*" or _is_host(host.removeprefix("*.")):
        return host
    name = re.sub(r"^[a-z]+://|[:/].*$", "", host)
    raise Wrong(f"{shown(value)} is not a host", nearest=name if name != host and _is_host(name) else None)


def url_path(value: object) -> str:
    """What a request asks for: begins with ``/`` and may have a query."""
    path = text(value)
    if not path.startswith("/"):
        raise Wrong(f"{shown(value)} does not begin with /", nearest=f"/{path}" if "://" not in path else None)
    if not _URL_PATH.fullmatch(path) or "#" in path:
        raise Wrong(f"{shown(value)} has a character in it that a path cannot have")
    return path


def route_path(value: object) -> str:
    """The beginning of the paths that belong to a service; without a query."""
    path = url_path(value)
    if "?" in path:
        raise Wrong(f"{shown(value)} has a query", nearest=path.partition("?")[0])
    return path


def service_name(value: object) -> str:
    """The name of a service: at most 40 small letters, digits and inner dashes."""
    name = text(value)
    if not _SERVICE.fullmatch(name):
        raise Wrong(f"{shown(value)} is not a service's name", nearest=valid_service(name))
    return name


def valid_service(name: str) -> str | None:
    """`name` made a valid name of a service; None if nothing is left of it."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].rstrip("-") or None


def signal(value: object) -> str:
    """One of SIGNALS, with or without SIG; returned without."""
    if isinstance(value, int) and not isinstance(value, bool):
        named = {int(s): s.name.removeprefix("SIG") for s in signals.Signals}.get(value)
        raise Wrong(f"{shown(value)} is not a signal's name", nearest=named if named in SIGNALS else None)
    name = text(value).removeprefix("SIG")
    if name not in SIGNALS:
        raise Wrong(f"{shown(value)} is not a signal to stop by", nearest=_alike(name, SIGNALS))
    return name


def _alike(name: str, known: Sequence[str]) -> str | None:
    by_small = {one.lower(): one for one in known}
    found = nearest(name.lower().removeprefix("sig"), by_small)
    return by_small[found] if found else None


def inner_folder(value: object) -> str:
    """A folder inside a version's own; never a way out of it."""
    path = text(value)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts:
        raise Wrong(f"{shown(value)} leads out of the version's folder, to which it is relative")
    if not parts:
        raise Wrong(f"{shown(value)} is the version's folder itself")
    return "/".join(parts)


def variable(value: object) -> str:
    """The name of an environment variable that a manifest may set."""
    name = text(value)
    if not _VARIABLE.fullmatch(name):
        raise Wrong(f"{shown(value)} is not a variable's name", expected="letters, digits and underscores")
    if name == "PORT":
        raise Wrong("`PORT` is given by Segue: every instance has its own", expected="another name")
    return name


def service_in(manifest: str) -> str | None:
    """The service that a manifest's text names, read without a YAML parser; None if it is not plainly there."""
    match = _SERVICE_LINE.search(manifest)
    return match[2] if match and _SERVICE.fullmatch(match[2]) else None
