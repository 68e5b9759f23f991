"""The schema seen from outside: its sections, its leaves, and what belongs at a path."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from segue.manifest.document import Path
from segue.manifest.kinds import Kind, Many, Section
from segue.manifest.schema import Manifest


def sections() -> dict[str, type[Section]]:
    """Every part of the manifest by its dotted name; the whole is ````, entries of a list end with ``[]``."""
    return {"": Manifest, **{name: part for name, part in _walk("", Manifest) if part is not None}}


def leaves() -> list[str]:
    """The dotted names of all settings, such as ``health.every`` and ``smoke[].http.path``."""
    return [name for name, part in _walk("", Manifest) if part is None]


def _walk(prefix: str, section: type[Section]) -> Iterator[tuple[str, type[Section] | None]]:
    """The parts and, with None, the leaves below `section`, in their order."""
    for key, field in section.model_fields.items():
        part, many = _part(field.annotation)
        name = f"{prefix}{key}{'[]' if many else ''}"
        yield name, part
        if part is not None:
            yield from _walk(f"{name}.", part)


def _part(annotation: Any) -> tuple[type[Section] | None, bool]:
    """The section that a field holds, if it holds one, and whether it holds many."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    if get_origin(annotation) in (Union, UnionType):
        return next((found for one in get_args(annotation) if (found := _part(one))[0]), (None, False))
    if get_origin(annotation) is tuple:
        part, _ = _part(get_args(annotation)[0])
        return part, part is not None
    return None, False


def keys_at(path: Path) -> list[str]:
    """The keys that the section at `path` knows; none if there is no section."""
    section, _ = _part(_bare(_annotation_at(path)))
    return list(section.model_fields) if section else []


def expected_at(path: Path) -> str | None:
    """What belongs at `path`, in words; None if nothing does."""
    return _words(_annotation_at(path))


def _annotation_at(path: Path) -> Any:
    """The type of what belongs at `path`; None if nothing does. Entries of lists and mappings are all alike."""
    annotation: Any = Manifest
    for part in path:
        annotation = _bare(annotation)
        if isinstance(annotation, type) and issubclass(annotation, Section):
            field = annotation.model_fields.get(str(part))
            annotation = field and Annotated[(field.annotation, *field.metadata, None)]
        else:
            kinds = [kind for kind in get_args(annotation) if kind is not Ellipsis]
            annotation = kinds[-1] if kinds else None
    return annotation


def _bare(annotation: Any) -> Any:
    """`annotation` without notes and without the None that stands for left out."""
    while True:
        if get_origin(annotation) is Annotated or get_origin(annotation) in (Union, UnionType):
            annotation = get_args(annotation)[0]
        else:
            return annotation


def _words(annotation: Any) -> str | None:
    while annotation is not None:
        notes = getattr(annotation, "__metadata__", ())
        said = next((note.expected for note in notes if isinstance(note, (Kind, Many))), None)
        if said:
            return str(said)
        inner = get_args(annotation)[:1] if notes or get_origin(annotation) in (Union, UnionType) else ()
        if not inner:
            break
        annotation = inner[0]
    section, _ = _part(annotation)
    return f"a mapping ({', '.join(section.model_fields)})" if section else None
