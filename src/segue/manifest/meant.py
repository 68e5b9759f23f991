"""What was perhaps meant by a value: it is suggested only where the manifest could say so, and does not already."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from segue.manifest.document import Flaw, Path, Unreadable, read

_TRIED, _ROUNDS = 100, 4
"""How many suggestions are tried, and how often: one that is refused may be refused with a better one."""


def vetted(flaws: Iterable[Flaw], data: Any, refused: Callable[[Any], list[Flaw]]) -> Iterator[Flaw]:
    """`flaws` of `data`, without the suggestions that would be refused. `refused`: the flaws of other data."""
    flaws = list(flaws)
    meant = [(flaw.path, flaw.nearest) for flaw in flaws if flaw.instead and flaw.nearest][:_TRIED]
    taken = _taken(_readable(meant), data, refused) if meant else {}
    for flaw in flaws:
        yield replace(flaw, nearest=taken.get(flaw.path)) if flaw.instead else flaw


def written(text: str) -> str | None:
    """`text` as YAML: in quotes if it would be no value or other text without them; None if it cannot stand there."""
    for form in (text, json.dumps(text, ensure_ascii=False)):
        with suppress(Unreadable):
            found = read(form)
            says = not isinstance(found.data, str) or found.data == text or form.startswith(('"', "'"))
            if says and not found.flaws:
                return form
    return None


def listed(value: str | int) -> str:
    """The list of nothing but `value`, as YAML."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        bare = read(f"[{text}]").data == [value]
    except Unreadable:
        bare = False
    return f"[{text if bare else json.dumps(text, ensure_ascii=False)}]"


def _taken(meant: Mapping[Path, str], data: Any, refused: Callable[[Any], list[Flaw]]) -> Mapping[Path, str]:
    """Those of `meant`, or what they are refused in favour of, that `data` could have in its places."""
    for _ in range(_ROUNDS):
        trial = data
        for path, text in meant.items():
            trial = _put(trial, path, read(text).data)
        flaws = refused(trial)
        better = []
        for path, text in meant.items():
            said = next((flaw for flaw in flaws if flaw.path[: len(path)] == path), None)
            if said is None and not _same(_at(data, path), read(text).data):
                better.append((path, text))
            elif said is not None and said.path == path and said.instead and said.nearest:
                better.append((path, said.nearest))
        before, meant = meant, _readable(better)
        if before == meant:
            break
    else:
        return {path: text for path, text in meant.items() if before[path] == text}
    return meant


def _readable(meant: Iterable[tuple[Path, str]]) -> Mapping[Path, str]:
    return {path: form for path, text in meant if (form := written(text)) is not None}


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _at(data: Any, path: Path) -> Any:
    for part in path:
        match data:
            case dict() if part in data:
                data = data[part]
            case list() if isinstance(part, int) and part < len(data):
                data = data[part]
    return data


def _put(data: Any, path: Path, value: Any) -> Any:
    """`data` with `value` at `path`, or at as much of it as there is."""
    if not path:
        return value
    first, rest = path[0], path[1:]
    match data:
        case dict():
            return {**data, first: _put(data.get(first), rest, value)}
        case list() if isinstance(first, int) and first < len(data):
            return [*data[:first], _put(data[first], rest, value), *data[first + 1 :]]
    return value
