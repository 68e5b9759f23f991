"""What is wrong with a manifest, in words: the schema's refusals as flaws with places and suggestions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from segue.manifest import outline, values
from segue.manifest.document import Document, Flaw, Path
from segue.manifest.meant import listed
from segue.manifest.strategy import LATER
from segue.manifest.values import Wrong


def key_of(path: Path) -> str:
    """`path` as a dotted name, such as ``smoke[0].http.path``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def explain(error: ValidationError, document: Document) -> Iterator[Flaw]:
    """A flaw for each refusal. A key that is missing where another is unknown is taken for a slip of the pen."""
    refusals = [(_path(refusal["loc"]), refusal) for refusal in error.errors(include_url=False)]
    slips = {path[:-1] for path, refusal in refusals if refusal["type"] == "extra_forbidden"}
    for path, refusal in refusals:
        match refusal["type"]:
            case "extra_forbidden":
                yield _unknown(path, document)
            case "missing":
                if path[:-1] not in slips:
                    yield _missing(path, document)
            case _:
                yield _wrong(path, refusal, document)


def _path(loc: tuple[int | str, ...]) -> Path:
    return tuple(part for part in loc if part != "[key]")


def _missing(path: Path, document: Document) -> Flaw:
    place = document.key_place(path[:-1])
    return Flaw(path, place, f"`{key_of(path)}` is missing", outline.expected_at(path))


def _wrong(path: Path, refusal: Any, document: Document) -> Flaw:
    cause = refusal.get("ctx", {}).get("error")
    if not isinstance(cause, Wrong):
        cause = _misshapen(refusal)
    exact = (*path, *cause.at)
    wanted = cause.expected or outline.expected_at(exact)
    if document.lacks(exact):
        return Flaw(exact, document.key_place(exact[:-1]), cause.problem, wanted, cause.nearest, not cause.part)
    blamed = document.existing(exact)
    place = document.keys.get(blamed) if refusal["loc"][-1:] == ("[key]",) else document.values.get(blamed)
    return Flaw(blamed, place, cause.problem, wanted, cause.nearest, not cause.part)


def _misshapen(refusal: Any) -> Wrong:
    """A value of the wrong shape: pydantic's own refusals of what is no mapping or no list."""
    given = refusal["input"]
    if refusal["type"] == "tuple_type":
        return Wrong(
            f"{values.shown(given)} is not a list", nearest=listed(given) if isinstance(given, (str, int)) else None
        )
    return Wrong(f"{values.shown(given)} is not a mapping")


def _unknown(path: Path, document: Document) -> Flaw:
    *inside, key = path
    section = key_of(tuple(inside))
    place = document.keys.get(path)
    known = outline.keys_at(tuple(inside))
    wanted = f"one of {', '.join(known)}" if len(known) > 1 else f"`{known[0]}`"
    if _listed(key_of(path)) in LATER:
        return Flaw(path, place, f"`{key_of(path)}` is not in this version of Segue yet", wanted)
    where = f" in `{section}`" if section else ""
    near = values.nearest(str(key), known)
    slip = near is not None and (near.startswith(str(key)) or str(key).startswith(near))
    elsewhere = [] if slip else _elsewhere(str(key), section)
    if elsewhere:
        places = " or ".join(f"`{name}`" for name in elsewhere)
        later = "" if elsewhere[0] not in LATER else ", which is not in this version of Segue yet"
        problem = f"unknown key `{key}`{where}: it belongs at {places}{later}"
        return Flaw(path, place, problem, wanted, elsewhere[0])
    return Flaw(path, place, f"unknown key `{key}`{where}", wanted, near)


def _elsewhere(key: str, section: str) -> list[str]:
    """Where a key of this name is known, as near to `section` as it can be."""
    names = [name.removesuffix("[]") for name in (*outline.sections(), *outline.leaves())]
    known = [name for name in names if name.split(".")[-1] == key]
    below = [name for name in known if name.startswith(_listed(f"{section}."))]
    return below or known or [name for name in LATER if name.split(".")[-1] == key]


def _listed(name: str) -> str:
    """`name` as the schema has it: the entries of a list are all alike."""
    return re.sub(r"\[\d+\]", "[]", name)
