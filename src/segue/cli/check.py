"""`segue check`: whether the manifest can be deployed on this machine. Changes nothing, needs no control plane."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from segue.cli import findings
from segue.cli.context import Context
from segue.cli.deploy import read_manifest
from segue.cli.findings import Finding
from segue.cli.reach import reach
from segue.errors import Usage
from segue.manifest.load import Loaded, ManifestError
from segue.platforms.spawn import PATH

_PLACEHOLDER = re.compile(r"\{(port|socket|version|service|instance|url)\}")
_SHELL_WORDS = frozenset("|&;<>()$`\\\"'*?[]#~=%!{}")


def check(context: Context) -> int:
    """Print what was looked at; returns 2 if anything is wrong."""
    return 0 if findings.tell(context, _findings(context), well="All is well. Next: segue plan") else Usage.exit


def _findings(context: Context) -> Iterator[Finding]:
    try:
        loaded = read_manifest(context)
    except ManifestError as exc:
        do = exc.next if exc.next and exc.next != "segue check" else ""
        for error in (exc, *exc.others):
            yield Finding("the manifest", False, error.message, do)
        return
    except Usage as exc:
        yield Finding("the manifest", False, exc.message)
        return
    yield Finding("the manifest", detail=f"{loaded.path}, service {loaded.manifest.service}")
    yield _environment(loaded)
    yield from _authorizations(loaded)
    yield from _source(loaded)
    yield from _commands(loaded)
    yield from reach(context, loaded)


def _environment(loaded: Loaded) -> Finding:
    try:
        names = loaded.environment(os.environ)
    except Usage as exc:
        return Finding("the environment", False, exc.message, "set it, or correct the manifest")
    return Finding("the environment", detail=", ".join(sorted(names)) or "nothing is set")


def _authorizations(loaded: Loaded) -> Iterator[Finding]:
    """The variables that sources of evidence take a header from, where they are missing."""
    asked = [source.prometheus or source.url for source in loaded.manifest.evidence]
    names = {one.authorization for one in asked if one and one.authorization}
    with suppress(Usage):  # what is wrong with the environment was said
        for name in sorted(names - set(loaded.environment(os.environ))):
            problem = f"the variable {name} is not in the service's environment"
            yield Finding("the evidence", False, problem, "set it in run.process.env or env_file")


def _source(loaded: Loaded) -> Iterator[Finding]:
    try:
        source = loaded.copied()
    except ManifestError as exc:
        yield Finding("the source", False, exc.message, "correct run.process.source")
        return
    if source is None:
        yield Finding(
            "the source",
            None,
            "none is named, so all versions share the files in this folder",
            "set run.process.source",
        )
        return
    yield Finding("the source", detail=str(source.resolve()))
    for name in loaded.manifest.run.process.shared:
        there = (source / name).exists()
        yield Finding(f"the shared folder {name}", there or None, "" if there else "it is not there yet")


def _commands(loaded: Loaded) -> Iterator[Finding]:
    """Every command that the manifest names; what a build makes can only be looked for after it."""
    manifest, process = loaded.manifest, loaded.manifest.run.process
    folder = loaded.folder / (process.source or ".")
    if process.build:
        yield _shell("the build", process.build, folder, built=False)
    yield _command(process.command, folder, built=process.build is not None)
    built = process.build is not None
    if manifest.health.command:
        yield _shell("the health command", manifest.health.command, folder, built=built)
    for smoke in manifest.smoke:
        if smoke.command:
            yield _shell("the smoke test", smoke.command, folder, built=built)
    for hook in ("before", "on_rollback", "after"):
        if command := getattr(manifest.hooks, hook):
            yield _shell(f"the {hook} hook", command, folder, built=built)
    for source in manifest.evidence:
        if source.command:
            yield _shell("the evidence", source.command.run, folder, built=built)


def _command(command: str, folder: Path, *, built: bool) -> Finding:
    return _program("the command", _PLACEHOLDER.sub("0", shlex.split(command)[0]), folder, built=built)


def _shell(what: str, command: str, folder: Path, *, built: bool) -> Finding:
    """A command that a shell carries out: only a plain first word can be looked for."""
    words = command.split()
    if not words or _SHELL_WORDS.intersection(words[0]):
        return Finding(what, detail=f"`{command}`, for the shell")
    return _program(what, words[0], folder, built=built)


def _program(what: str, name: str, folder: Path, *, built: bool) -> Finding:
    found = _find(name, folder)
    if found is not None:
        return Finding(what, detail=str(found))
    where = f"in {folder.resolve()}" if "/" in name else f"in {PATH}"
    if (folder / name).is_file() and "/" in name:
        return Finding(what, False, f"{name} {where} is not executable", f"chmod +x {folder / name}")
    if built and "/" in name:
        return Finding(what, None, f"{name} is not {where}; the build may make it")
    return Finding(what, False, f"{name} is not {where}", "correct the command, or install it")


def _find(name: str, folder: Path) -> Path | None:
    if "/" in name:
        path = folder / name
        return path.resolve() if path.is_file() and os.access(path, os.X_OK) else None
    found = shutil.which(name, path=PATH)
    return Path(found) if found else None
