"""What a deploy would change: the difference between the commit that serves and the folder as it is now."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from segue.cli.label import git
from segue.core.situation import Change

_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_DIRTY = re.compile(r"-dirty\.[0-9a-f]+$")
_LARGEST = 1 << 20
"""Bytes of an untracked file whose lines are counted."""

LOCKS = frozenset(
    (
        *(
            "package-lock.json",
            "npm-shrinkwrap.json",
            "yarn.lock",
            "pnpm-lock.yaml",
            "bun.lockb",
            "uv.lock",
            "pdm.lock",
        ),
        *(
            "poetry.lock",
            "Pipfile.lock",
            "requirements.lock",
            "Cargo.lock",
            "go.sum",
            "Gemfile.lock",
            "composer.lock",
        ),
        *("mix.lock", "packages.lock.json", "gradle.lockfile"),
    )
)
"""What a tool writes: its lines say nothing."""
DEPENDENCIES = LOCKS | {
    *(
        "package.json",
        "pyproject.toml",
        "setup.py",
        "setup.cfg",
        "Pipfile",
        "environment.yml",
        "Cargo.toml",
        "go.mod",
    ),
    *("Gemfile", "composer.json", "mix.exs", "pom.xml", "build.gradle", "build.gradle.kts", "build.sbt"),
}
_REQUIREMENTS = re.compile(r"(requirements|constraints)[\w.-]*\.(txt|in)")
MIGRATIONS = frozenset(("migrations", "migration", "migrate", "alembic", "flyway", "liquibase", "changelog"))
TESTS = frozenset(("test", "tests", "spec", "specs", "__tests__", "testdata", "docs", "doc", "examples"))
PROSE = frozenset((".md", ".rst", ".adoc"))


class NotKnown(Exception):
    """What changed cannot be found out, for the reason that it says."""


def changed(folder: Path, label: str | None, since: str | None, hook: str | None) -> Change:
    """What differs in `folder` from the version called `label`, or from the commit `since` if one is named.

    What is not committed counts. `hook`: the command of `hooks.before`, which migrates. Raises NotKnown.
    """
    commit = _commit(folder, label, since)
    files = list(_files(folder, commit))
    runs = [(path, lines) for path, lines in files if not _is_other(path)]
    own = {word.removeprefix("./") for word in (hook or "").split()}
    return Change(
        since=since or commit[:7],
        files=len(runs),
        lines=sum(lines for path, lines in runs if path.name not in LOCKS),
        migrations=tuple(str(path) for path, _ in runs if _migrates(path) or str(path) in own),
        dependencies=tuple(str(path) for path, _ in runs if _depends(path)),
        others=len(files) - len(runs),
    )


def _commit(folder: Path, label: str | None, since: str | None) -> str:
    """The commit that is compared with."""
    if git(folder, "rev-parse", "HEAD") is None:
        raise NotKnown("the folder is in no git repository with a commit")
    if since is not None:
        return _resolved(folder, since) or _missing(f"{since} is no commit of this repository")
    if label is None:
        raise NotKnown("which version serves is not known")
    name = _DIRTY.sub("", label)
    if name != label:
        raise NotKnown(f"{label} was deployed with changes that were never committed")
    named = name if _COMMIT.fullmatch(name) else f"refs/tags/{name}"
    return _resolved(folder, named) or _missing(f"{label}, which serves, is no commit and no tag of this repository")


def _missing(why: str) -> str:
    raise NotKnown(why)


def _resolved(folder: Path, name: str) -> str | None:
    found = git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    return found.decode().strip() if found else None


def _files(folder: Path, commit: str) -> Iterator[tuple[PurePosixPath, int]]:
    """Each file that differs, by its path in `folder`, and how many lines of it."""
    options = ("--numstat", "-z", "--find-renames", "--no-ext-diff", "--no-textconv", "--relative")
    found = git(folder, "diff", *options, commit, "--", ".")
    if found is None:
        raise NotKnown(f"git cannot compare with {commit[:7]}")
    yield from _numbers(found.decode(errors="replace").split("\0"))
    untracked = git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", ".") or b""
    for name in untracked.decode(errors="surrogateescape").split("\0"):
        if name:
            yield PurePosixPath(name), _lines(folder / name)


def _numbers(fields: Sequence[str]) -> Iterator[tuple[PurePosixPath, int]]:
    """What `git diff --numstat -z` says: of what was renamed two names follow, of what is binary no lines."""
    rest = iter(fields)
    for field in rest:
        if field.count("\t") != 2:
            continue
        added, removed, name = field.split("\t")
        if not name:
            next(rest, None)
            name = next(rest, "")
        yield PurePosixPath(name), sum(int(number) for number in (added, removed) if number.isdigit())


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n") if path.is_file() and path.stat().st_size <= _LARGEST else 0
    except OSError:
        return 0


# What kind of file it is


def _is_other(path: PurePosixPath) -> bool:
    """Whether it is a test or documentation, which do not run."""
    if _depends(path):
        return False
    return not TESTS.isdisjoint(path.parts[:-1]) or path.suffix in PROSE or path.name.startswith(("test_", "LICENSE"))


def _depends(path: PurePosixPath) -> bool:
    return path.name in DEPENDENCIES or _REQUIREMENTS.fullmatch(path.name) is not None


def _migrates(path: PurePosixPath) -> bool:
    return path.suffix == ".sql" or path.name == "schema.prisma" or not MIGRATIONS.isdisjoint(path.parts[:-1])
