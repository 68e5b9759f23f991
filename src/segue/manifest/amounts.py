"""The kinds of value that judging and canaries are told in: shares, margins, words, patterns. As `values`.

Each function takes what stands in the document, returns the value, and raises Wrong when it cannot be one.
What was returned is accepted again. A part of a whole is an exact Fraction.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from segue.manifest.values import Wrong, nearest, shown, text

_PERCENT = re.compile(r"(\d{1,5}(?:\.\d{1,6})?)\s?%", re.ASCII)
_RATIO = re.compile(r"(\d{1,6})/([1-9]\d{0,5})", re.ASCII)
_FINEST = 100 * 10**6
"""The denominator of the finest percentage that can be written."""
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_SIZE = re.compile(r"(\d{1,15})([kmg]?)", re.ASCII)
_BYTES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_LARGEST = 1024**4
_ANY_LINES = ("", "a", "0 -")


def part(value: object) -> Fraction:
    """A part of a whole, from nothing up to all of it: ``10%``, ``0.5%`` or ``1/3``; exact."""
    found = _fraction(value)
    if found > 1:
        raise Wrong(
            f"{shown(value) if isinstance(value, str) else part_text(found)} is more than all", nearest="100%"
        )
    return found


def _fraction(value: object) -> Fraction:
    if isinstance(value, Fraction):
        return value
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value)):
        return Fraction(match[1]) / 100
    if isinstance(value, str) and (match := _RATIO.fullmatch(value)):
        return Fraction(int(match[1]), int(match[2]))
    raise Wrong(f"{shown(value)} is not a share", nearest=_percent_meant(value))


def _percent_meant(value: object) -> str | None:
    """The percentage that was probably meant by a number; 1 may be all of it or a hundredth."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100 or value == 1:
        return None
    return f"{value * 100:.6g}%" if value < 1 else f"{value:.6g}%"


def part_text(value: Fraction) -> str:
    """`value` as `part` and `excess` read it: as a percentage if that is exact, else as a ratio."""
    if _FINEST % value.denominator:
        return f"{value.numerator}/{value.denominator}"
    whole, rest = divmod(value.numerator * (_FINEST // value.denominator), 10**6)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".") + "%"


def some_part(value: object) -> Fraction:
    """A part of a whole that is more than nothing."""
    found = part(value)
    if not found:
        raise Wrong("it has to be more than 0%")
    return found


def less_than_all(value: object) -> Fraction:
    """A part of a whole that leaves something."""
    found = part(value)
    if found == 1:
        raise Wrong("it has to be less than 100%")
    return found


def chance(value: object) -> Fraction:
    """A probability that is neither nothing nor certainty."""
    return less_than_all(some_part(value))


def log_share(value: object) -> Fraction:
    """Which part of the requests is written down: ``off``, ``on``, or a share."""
    known = {"off": Fraction(0), "on": Fraction(1), False: Fraction(0), True: Fraction(1)}
    if isinstance(value, (str, bool)) and value in known:
        return known[value]
    try:
        return part(value)
    except Wrong as wrong:
        raise Wrong(f"{shown(value)} is neither off, on nor a share", nearest=wrong.nearest) from wrong


def log_share_text(value: Fraction) -> str:
    """A part as `log_share` reads it."""
    return {Fraction(0): "off", Fraction(1): "on"}.get(value) or part_text(value)


def size(value: object) -> int:
    """A number of bytes, such as ``0``, ``512k``, ``10m`` or ``1g``, in units of 1024."""
    plain = isinstance(value, int) and not isinstance(value, bool)
    match = _SIZE.fullmatch(str(value)) if plain or isinstance(value, str) else None
    if match is None:
        meant = re.fullmatch(r"(\d{1,12})\s*([kmg])i?b", value.lower()) if isinstance(value, str) else None
        raise Wrong(f"{shown(value)} is not a size", nearest=meant and f"{meant[1]}{meant[2]}")
    found = int(match[1]) * _BYTES[match[2]]
    if found > _LARGEST:
        raise Wrong(f"{shown(value)} is too large", nearest=size_text(_LARGEST))
    return found


def size_text(value: int) -> str:
    """A number of bytes as `size` reads it, in the largest unit that leaves nothing over."""
    unit = next((unit for unit in "gmk" if value and value % _BYTES[unit] == 0), "")
    return f"{value // _BYTES[unit]}{unit}"


def excess(value: object) -> Fraction:
    """By how much more than a whole, such as ``9%`` or ``150%``."""
    return _fraction(value)


def number_meant(value: object) -> str | None:
    """The number that was probably meant by text: by ``5%``, or by a number in quotes."""
    match = re.fullmatch(r"(-?\d{1,9}(?:\.\d{1,9})?)(\s?%)?", value, re.ASCII) if isinstance(value, str) else None
    return match and (f"{float(match[1]) / 100:g}" if match[2] else match[1])


def ratio(value: object) -> float:
    """How many times as much; at least once."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Wrong(f"{shown(value)} is not a number", nearest=number_meant(value))
    if not 1 <= value <= 1000:  # nor is it what is no number
        raise Wrong(f"{shown(value)} is not from 1 to 1000", nearest="1000" if value > 1000 else None)
    return float(value)


def word(known: Sequence[str], value: object) -> str:
    """One of the words in `known`."""
    if not isinstance(value, str) or value not in known:
        raise Wrong(f"{shown(value)} is unknown", nearest=nearest(str(value), known))
    return value


def sticky(value: object) -> str:
    """By what a user is known: ``none``, ``cookie``, or ``header:`` and a header's name."""
    if isinstance(value, dict) and len(value) == 1 and isinstance(name := value.get("header"), str):
        raise Wrong("a mapping is not text", nearest=f"header:{name}")
    said = text(value)
    before, colon, name = said.partition(":")
    if said in ("none", "cookie") or (before == "header" and _TOKEN.fullmatch(name)):
        return said
    if before == "header":
        problem = f"`{name}` is not a header's name" if name.strip() else "no header is named"
        raise Wrong(problem, nearest=f"header:{name.strip()}" if _TOKEN.fullmatch(name.strip()) else None)
    raise Wrong(f"{shown(value)} is unknown", nearest=None if colon else nearest(said, ("none", "cookie")))


def known(value: object) -> str:
    """By what a user is known: ``cookie``, or ``header:`` and a header's name."""
    said = sticky(value)
    if said == "none":
        raise Wrong("a user who is not known cannot stay on one version", nearest="cookie")
    return said


def header(value: object) -> str:
    """The name of a header."""
    said = text(value)
    if not _TOKEN.fullmatch(said):
        raise Wrong(
            f"{shown(value)} is not a header's name", nearest=said.strip() if _TOKEN.fullmatch(said.strip()) else None
        )
    return said


def pattern(value: object) -> str:
    """A regular expression that some lines match and others do not."""
    said = text(value)
    try:
        compiled = re.compile(said)
    except re.error as exc:
        where = "" if exc.pos is None else f" at character {exc.pos + 1}"
        raise Wrong(f"it is not a regular expression: {exc.msg}{where}") from exc
    except (OverflowError, RecursionError) as exc:
        raise Wrong("it is not a regular expression: it is too large") from exc
    if all(compiled.search(line) for line in _ANY_LINES):
        raise Wrong("every line matches it")
    return said
