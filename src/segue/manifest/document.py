"""A manifest's text as plain data, with the place of every key and value. Knows YAML, and nothing of the schema.

`!env NAME` becomes ``{"from_env": NAME}``; it and plain scalars kept as they are written are allowed only
in the mapping at ENVIRONMENT. What cannot be read at all is raised as Unreadable; what can be left out is
left out and noted as a flaw, so that one reading finds as much as possible.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, StringMark, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

Path = tuple[str | int, ...]
"""The keys and the positions in lists that lead to a value."""

ENVIRONMENT: Path = ("run", "process", "env")

_CORE = "tag:yaml.org,2002:"
_DEEPEST, _LARGEST, _LONGEST_NUMBER = 30, 5_000, 40


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in a text, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something that is wrong with a manifest. Without a place: it was not read from a text.

    `nearest` is what was perhaps meant; `instead`: it would stand there in place of the value.
    """

    path: Path
    place: Place | None
    problem: str
    expected: str | None = None
    nearest: str | None = None
    instead: bool = False


class Unreadable(Exception):
    """The text is not one YAML document of a sensible size."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.problem)
        self.flaw = flaw


@dataclass(frozen=True, slots=True)
class Document:
    """What stands in a text: the data, the places of keys and values, and the extent of every scalar."""

    data: Any = None
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    extents: dict[Path, tuple[int, int]] = field(default_factory=dict)
    flaws: list[Flaw] = field(default_factory=list)

    def existing(self, path: Path) -> Path:
        """`path` as far as it stands in the text."""
        while path and self.values and path not in self.values:
            path = path[:-1]
        return path

    def lacks(self, path: Path) -> bool:
        """Whether `path` could stand in a mapping of the text, and does not."""
        above = path[:-1]
        return path not in self.values and above in self.values and above not in self.extents

    def key_place(self, path: Path) -> Place | None:
        """The place of the key whose value is at `path`, for something that this value does not have."""
        path = self.existing(path)
        return self.keys.get(path) or self.values.get(path)


def read(text: str) -> Document:
    """The document in `text`; its data is None if there is none. Raises Unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)  # YAML allows it, and it is nothing to print
            node = YAML(typ="safe", pure=True).compose(text.removeprefix("\ufeff"))
    except MarkedYAMLError as exc:
        raise Unreadable(_syntax(exc, text)) from exc
    except RecursionError as exc:
        raise Unreadable(Flaw((), Place(1, 1), "it is nested too deeply")) from exc
    except (YAMLError, ValueError, OverflowError) as exc:  # characters that no text may have
        raise Unreadable(Flaw((), Place(1, 1), "it has characters in it that YAML does not allow")) from exc
    reader = _Reader()
    data = None if node is None else reader.value(node, ())
    return Document(data, reader.keys, reader.values, reader.extents, reader.flaws)


def _syntax(error: MarkedYAMLError, text: str) -> Flaw:
    mark = error.problem_mark or error.context_mark
    place = _place(mark) if mark else Place(1, 1)
    lines = text.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return Flaw((), place, "a tab in the indentation", expected="spaces")
    if "another document" in (error.problem or ""):
        return Flaw((), place, "a second document begins", expected="one manifest a file")
    return Flaw((), place, f"it is not YAML: {' '.join((error.problem or str(error)).split())}")


def _place(mark: StringMark) -> Place:
    return Place(mark.line + 1, mark.column + 1)


class _Reader:
    """Turns nodes into data. An alias counts each time it is used, so that a small text cannot become a huge one."""

    def __init__(self) -> None:
        self.keys: dict[Path, Place] = {}
        self.values: dict[Path, Place] = {}
        self.extents: dict[Path, tuple[int, int]] = {}
        self.flaws: list[Flaw] = []
        self._left = _LARGEST

    def value(self, node: Node, path: Path) -> Any:
        self._limit(node, len(path))
        self.values[path] = _place(node.start_mark)
        match node:
            case MappingNode():
                return self._mapping(node, path) if self._plain(node, path, "map") else {}
            case SequenceNode():
                return self._sequence(node, path) if self._plain(node, path, "seq") else []
        return self._scalar(node, path)

    def _limit(self, node: Node, depth: int) -> None:
        self._left -= 1
        if depth > _DEEPEST or self._left < 0:
            problem = "it is nested too deeply" if depth > _DEEPEST else f"it has more than {_LARGEST} values"
            raise Unreadable(Flaw((), _place(node.start_mark), problem))

    def _plain(self, node: Node, path: Path, kind: str) -> bool:
        tag = str(node.tag)
        if tag in (f"{_CORE}{kind}", "!"):
            return True
        self._unknown_tag(tag, path)
        return False

    def _unknown_tag(self, tag: str, path: Path) -> None:
        short = tag.replace(_CORE, "!!")
        problem, where = f"unknown tag `{short}`", "a value without a tag (`!env NAME` in `run.process.env`)"
        if tag == "!env":
            problem, where = "`!env` takes one name and stands only in `run.process.env`", "a value without a tag"
        self.flaws.append(Flaw(path, self.values[path], problem, where))

    def _sequence(self, node: SequenceNode, path: Path) -> list[Any]:
        found = []
        for number, entry in enumerate(node.value):
            at = (*path, number)
            if _empty(entry):
                self._no_value(entry, at)
            found.append(None if _empty(entry) else self.value(entry, at))
        return found

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, entry in self._pairs(node, path):
            key = str(key_node.value)
            at = (*path, key)
            if at in self.keys:
                first = self.keys[at]
                problem = f"`{key}` stands here twice, first on line {first.line}"
                self.flaws.append(Flaw(at, _place(key_node.start_mark), problem, "each key once"))
                continue
            self.keys[at] = _place(key_node.start_mark)
            if _empty(entry):
                self._no_value(entry, at)
            else:
                found[key] = self.value(entry, at)
        return found

    def _pairs(self, node: MappingNode, path: Path, depth: int = 0) -> Iterator[tuple[ScalarNode, Node]]:
        """Keys and values, then those merged in by ``<<`` whose keys are not there yet."""
        self._limit(node, depth)
        merged: list[Node] = []
        own: set[str] = set()
        for key, entry in node.value:
            if not isinstance(key, ScalarNode):
                self.flaws.append(Flaw(path, _place(key.start_mark), "a key is not text", "text and a colon"))
            elif str(key.tag) == f"{_CORE}merge":
                merged += entry.value if isinstance(entry, SequenceNode) else [entry]
            else:
                own.add(str(key.value))
                yield key, entry
        for source in merged:
            if not isinstance(source, MappingNode):
                self.flaws.append(
                    Flaw(path, _place(source.start_mark), "`<<` merges mappings only", "an alias of a mapping")
                )
                continue
            for key, entry in self._pairs(source, path, depth + 1):
                if str(key.value) not in own:
                    own.add(str(key.value))
                    yield key, entry

    def _no_value(self, node: Node, path: Path) -> None:
        """An implicit null has no place of its own: the key has one."""
        place = _place(node.start_mark)
        if node.value == "":
            place = self.keys.get(path, place)
        self.values[path] = place
        self.flaws.append(Flaw(path, place, "it has no value: give one, or leave the key out"))

    def _scalar(self, node: Node, path: Path) -> Any:
        self.extents[path] = (node.start_mark.index, node.end_mark.index)
        tag, written = str(node.tag), str(node.value)
        in_environment = path[:-1] == ENVIRONMENT
        if tag == "!env" and in_environment and written.strip():
            return {"from_env": written.strip()}
        if not tag.startswith(_CORE) and tag != "!":
            self._unknown_tag(tag, path)
            return written
        return written if in_environment else self._resolved(tag.removeprefix(_CORE), written, path)

    def _resolved(self, kind: str, written: str, path: Path) -> Any:
        if len(written) > _LONGEST_NUMBER or kind in ("str", "!", "timestamp", "merge", "value"):
            return written
        digits = written.replace("_", "")
        try:
            match kind:
                case "bool":
                    return {"true": True, "false": False}[written.lower()]
                case "int":
                    return int(digits, 0) if digits.lstrip("+-")[:2].lower() in ("0x", "0o", "0b") else int(digits)
                case "float":
                    return float(digits.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except (ValueError, KeyError):
            pass
        self._unknown_tag(f"{_CORE}{kind}", path)
        return written


def _empty(node: Node) -> bool:
    return isinstance(node, ScalarNode) and str(node.tag) == f"{_CORE}null"
