"""Reading a manifest. Whatever is wrong with one is a ManifestError with its place in the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from segue.errors import Usage
from segue.manifest import dotenv
from segue.manifest.document import ENVIRONMENT, Document, Flaw, Place, Unreadable, read
from segue.manifest.explain import explain, key_of
from segue.manifest.meant import vetted
from segue.manifest.outline import expected_at
from segue.manifest.platform import FromEnv
from segue.manifest.schema import Manifest

NAME = "segue.yaml"


class ManifestError(Usage):
    """What is wrong with a manifest, where, what was expected, and what was perhaps meant.

    `line` and `column` are counted from 1, None where there is no text; `key` is a dotted name; `others` are
    the further errors in the order of their places.
    """

    code = "manifest"

    def __init__(self, file: str, flaw: Flaw, others: Sequence[Flaw] = (), *, next: str = "segue check") -> None:
        self.file = file
        self.line = flaw.place and flaw.place.line
        self.column = flaw.place and flaw.place.column
        self.key = key_of(flaw.path)
        self.problem = flaw.problem
        self.expected = flaw.expected
        self.nearest = flaw.nearest
        self.others = tuple(ManifestError(file, other) for other in others)
        super().__init__(self._sentence(), next=next)

    def _sentence(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        named = not self.key or self.problem.startswith("unknown key") or f"`{self.key}`" in self.problem
        said = [f"{place}: {self.problem if named else f'{self.key}: {self.problem}'}"]
        said += [f"expected {self.expected}"] if self.expected else []
        said += [f"did you mean `{self.nearest}`?"] if self.nearest else []
        return "; ".join(said) + (f" ({len(self.others)} more)" if self.others else "")

    def document(self) -> dict[str, Any]:
        """The error as ``--json`` and the API show it, with its place and that of each other."""
        names = ("file", "line", "column", "key", "problem", "expected", "nearest")
        fields = {name: getattr(self, name) for name in names}
        return {**super().document(), **fields, "others": [other.document() for other in self.others]}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A manifest as it was read: relative paths in it are relative to `folder`."""

    manifest: Manifest
    folder: Path
    text: str
    path: Path
    source: Document = field(repr=False)

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The service's environment: what `env_file` sets, then `env`, with ``!env NAME`` taken from `environ`.

        Raises ManifestError where the file cannot be read or a variable is not set.
        """
        process = self.manifest.run.process
        found = self._file(process.env_file) if process.env_file else {}
        for name, value in process.env.items():
            if not isinstance(value, FromEnv):
                found[name] = value
            elif value.from_env in environ:
                found[name] = environ[value.from_env]
            else:
                problem = f"`{value.from_env}` is not set in the environment of this command"
                raise self._error((*ENVIRONMENT, name), problem)
        return found

    def copied(self) -> Path | None:
        """The folder that is copied for each version; None if none is. Raises ManifestError where it is no folder."""
        name = self.manifest.run.process.source
        if name is not None and not (self.folder / name).is_dir():
            problem = "is not a folder" if (self.folder / name).exists() else "is not there"
            raise self._error(("run", "process", "source"), f"`{name}` {problem}")
        return None if name is None else self.folder / name

    def redacted(self) -> str:
        """The text with every value in `env` replaced by a reference to its own name."""
        values = {extent: path[-1] for path, extent in self.source.extents.items() if path[:-1] == ENVIRONMENT}
        text = self.text
        for (begin, end), name in sorted(values.items(), reverse=True):
            newline = "\n" if text[begin:end].endswith("\n") else ""
            text = f"{text[:begin]}!env {name}{newline}{text[end:]}"
        return text

    def _file(self, name: str) -> dict[str, str]:
        path = self.folder / name
        try:
            return dotenv.parse(path.read_text("utf-8"))
        except OSError as exc:
            raise self._error(("run", "process", "env_file"), f"`{name}` cannot be read: {_reason(exc)}") from exc
        except UnicodeDecodeError as exc:
            raise self._error(("run", "process", "env_file"), f"`{name}` is not text in UTF-8") from exc
        except dotenv.BadLine as exc:
            flaw = Flaw(("run", "process", "env_file"), Place(exc.line, 1), exc.problem, exc.expected)
            raise ManifestError(str(path), flaw) from exc

    def _error(self, path: tuple[str | int, ...], problem: str) -> ManifestError:
        return ManifestError(str(self.path), Flaw(path, self.source.values.get(path), problem))


def load(path: Path, *, as_root: bool) -> Loaded:
    """The manifest in the file `path`. Raises ManifestError; `as_root` also demands what root must say."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as exc:
        raise ManifestError(str(path), Flaw((), None, "there is no such file"), next="segue init") from exc
    except OSError as exc:
        raise ManifestError(str(path), Flaw((), None, f"it cannot be read: {_reason(exc)}")) from exc
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        column = exc.start - content.rfind(b"\n", 0, exc.start)
        raise ManifestError(str(path), Flaw((), Place(line, column), "it is not UTF-8", "text in UTF-8")) from exc
    return parse(text, path, as_root=as_root)


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def parse(text: str, path: Path = Path(NAME), *, as_root: bool = False) -> Loaded:
    """The manifest in `text`, as if it stood in the file `path`. Raises ManifestError."""
    text = text.removeprefix("\ufeff")
    try:
        source = read(text)
    except Unreadable as exc:
        raise ManifestError(str(path), exc.flaw) from exc
    if source.data is None:
        flaw = Flaw((), Place(1, 1), "the manifest is empty", expected="at least `service` and `run`")
        raise ManifestError(str(path), flaw, next="segue init")
    return Loaded(_validated(source, str(path), as_root), path.parent, text, path, source)


def receive(document: object, *, as_root: bool) -> Manifest:
    """The manifest that `Manifest.document` or `model_dump` wrote as JSON. Raises ManifestError, without a place."""
    return _validated(Document(document), "manifest", as_root)


def _validated(source: Document, file: str, as_root: bool) -> Manifest:
    flaws = list(source.flaws)
    try:
        manifest = Manifest.model_validate(source.data, context={"as_root": as_root})
    except ValidationError as exc:
        noted = {flaw.path[:length] for flaw in flaws for length in range(len(flaw.path) + 1)}
        found = vetted(explain(exc, source), source.data, partial(_refused, source, as_root))
        flaws += [flaw for flaw in found if flaw.path not in noted]  # the rest are consequences
    if not flaws:
        return manifest
    first, *others = sorted(map(_complete, flaws), key=lambda flaw: flaw.place or Place(0, 0))
    raise ManifestError(file, first, others)


def _refused(source: Document, as_root: bool, data: Any) -> list[Flaw]:
    """What would be refused if `data` stood in `source`."""
    try:
        Manifest.model_validate(data, context={"as_root": as_root})
    except ValidationError as exc:
        return list(explain(exc, source))
    return []


def _complete(flaw: Flaw) -> Flaw:
    """`flaw` with what was expected, where the reader of the text could not know it."""
    return replace(flaw, expected=flaw.expected or expected_at(flaw.path))
