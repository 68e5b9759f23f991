"""Numbers as people write them."""

from __future__ import annotations

from collections.abc import Sequence


def some(paths: Sequence[str]) -> str:
    """``a.sql``, ``a.sql and b.sql``, ``a.sql and 4 more``."""
    if len(paths) <= 2:
        return " and ".join(paths)
    return f"{paths[0]} and {len(paths) - 1} more"


def count(number: int, thing: str) -> str:
    """``1 instance``, ``1,200 lines``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def rate(a_second: float) -> str:
    """A rate with two digits that count: ``0.23``, ``4.2``, ``1,250``."""
    return f"{a_second:,.0f}" if a_second >= 10 else f"{a_second:.2g}"


def minutes(number: float) -> str:
    """``0.7``, ``20``."""
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


def duration(seconds: float) -> str:
    """In whole parts: ``36 s``, ``5 min``, ``2 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.0f} h"


def clock(seconds: float) -> str:
    """``12.3 s``, ``3 min 20 s``, ``2 h 5 min``, ``14 days``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    if whole < 2 * 86400:
        return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")
    return f"{whole // 86400} days" + (f" {whole % 86400 // 3600} h" if whole % 86400 // 3600 else "")


def size_of(number: int) -> str:
    """Bytes: ``90 MiB``, ``1.5 GiB``."""
    return f"{number / (1 << 30):.1f} GiB" if number >= 1 << 30 else f"{number / (1 << 20):.0f} MiB"


def about(number: int) -> int:
    """An estimate with two digits that count: 1,782 becomes 1,800."""
    return round(number, 2 - len(str(number)))
