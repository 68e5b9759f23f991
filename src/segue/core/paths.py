"""The paths that are told apart: the few that much of a service's traffic is for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction

MOST = 6
"""So many paths are looked at by themselves at most: Envoy keeps what it counted of each for ever."""
LEAST = Fraction(1, 20)
"""The part of the requests that a path has which is worth it."""
DEEPEST = 4
"""Segments of a path that are looked at: what names one thing of many comes late."""
OTHERS = ""
"""What the requests for none of the paths are called."""

_USUAL = re.compile(r"[A-Za-z0-9._~+-]+")
_LONGEST, _LONGEST_WITH_DIGITS = 40, 11


def busiest(paths: Iterable[str], most: int = MOST, least: Fraction = LEAST) -> tuple[str, ...]:
    """The paths that have `least` of `paths` each, those below them that have so much themselves not counted.

    A path is what it says and all below it: where ``/users/1``, ``/users/2`` and so on have little each, it is
    ``/users``. At most so many, the busiest ones; the deepest come first, so that the first that fits is the nearest.
    Last `OTHERS`, if they have enough together. None where one path has next to everything: nothing is apart.
    """
    found = Counter(_known(path) for path in paths)
    total, kept = found.total(), Counter[str]()
    for depth in range(DEEPEST, 0, -1):
        for path in [path for path in found if path.count("/") == depth]:
            count = found.pop(path)
            if count >= least * total:
                kept[path] = count
            else:
                found[path.rpartition("/")[0]] += count
    kept = Counter(dict(kept.most_common(most)))
    others = kept.total() <= (1 - least) * total
    if len(kept) + others < 2:
        return ()
    return (*sorted(kept, key=lambda path: (-path.count("/"), path)), *([OTHERS] if others else []))


def _known(path: str) -> str:
    """The beginning of `path` that may be told to others: its first segments, of usual words."""
    return "".join(f"/{segment}" for segment in _segments(path))


def _segments(path: str) -> Iterator[str]:
    for segment in path.split("/")[1 : DEEPEST + 1]:
        if not _is_word(segment):
            return
        yield segment


def _is_word(segment: str) -> bool:
    """Whether it may be shown to people and told to the router: it looks like no number, name or token of anybody."""
    digits = any(letter.isdigit() for letter in segment)
    most = _LONGEST_WITH_DIGITS if digits else _LONGEST
    return bool(_USUAL.fullmatch(segment)) and len(segment) <= most and not segment.isdigit()
