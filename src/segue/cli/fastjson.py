"""Reading JSON without the module `json`, which imports `re` and `enum`: a quarter of what `segue status` may take.

The scanner is the same one, in C; only the door to it is another. An interpreter without it takes the usual door.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Options:
    """What `json.loads` uses unless it is told otherwise."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


try:
    from _json import make_scanner

    _scan: Any = make_scanner(_Options)  # type: ignore[arg-type]  # typeshed asks for what it returns
except ImportError:
    _scan = None


def loads(text: bytes) -> Any:
    """The value in `text`, UTF-8. Raises ValueError where there is none."""
    if _scan is None:
        import json

        return json.loads(text)
    whole = text.decode().strip(" \t\r\n")
    try:
        value, end = _scan(whole, 0)
    except StopIteration:
        raise ValueError("this is not JSON") from None
    if end != len(whole):
        raise ValueError("there is more than one value")
    return value
