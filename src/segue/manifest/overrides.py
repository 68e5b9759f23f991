"""Settings of the manifest's `judge` that are given one by one, as ``judge.alarm.errors=0.5%``."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from segue.errors import Usage
from segue.manifest.document import Unreadable, read
from segue.manifest.load import ManifestError, receive
from segue.manifest.outline import leaves
from segue.manifest.values import nearest

JUDGE = tuple(leaf for leaf in leaves() if leaf.startswith("judge."))
"""The names of all settings of `judge`."""
EXAMPLE = "segue explain --replay judge.alarm.errors=0.5%"


def overrides(given: Sequence[str]) -> dict[str, Any]:
    """The values by name, as the judge is given them (a share as a float). Raises Usage, also for no such setting."""
    found = {}
    for one in given:
        key, equals, text = (part.strip() for part in one.partition("="))
        if key not in JUDGE:
            raise Usage(_unknown(key), next=EXAMPLE)
        if not equals or not text:
            raise Usage(f"--replay {key}: it has no value; expected {key}=VALUE", next=EXAMPLE)
        found[key] = _value(key, text)
    return found


def _unknown(key: str) -> str:
    near = nearest(key, JUDGE) or nearest(f"judge.{key}", JUDGE)
    meant = f"; did you mean `{near}`?" if near else "."
    return f"--replay: there is no setting `{key}` to judge by{meant} Known are {', '.join(JUDGE)}."


def _value(key: str, text: str) -> Any:
    """What `text` means as the value of `key`."""
    try:
        value = read(text).data
    except Unreadable:
        value = text
    nested: Any = value
    for name in reversed(key.split(".")):
        nested = {name: nested}
    whole = {"service": "replay", "run": {"process": {"command": "true"}}, **nested}
    try:
        found: Any = receive(whole, as_root=False)
    except ManifestError as exc:
        expected = f"; expected {exc.expected}" if exc.expected else ""
        meant = f"; did you mean `{key}={exc.nearest}`?" if exc.nearest else ""
        raise Usage(f"--replay {key}: {exc.problem}{expected}{meant}", next=EXAMPLE) from exc
    for name in key.split("."):
        found = getattr(found, name)
    return float(found) if isinstance(found, Fraction) else found
