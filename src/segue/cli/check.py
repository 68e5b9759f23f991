"""`segue check`: whether the manifest can be deployed on this machine. Changes nothing, needs no control plane."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segue.cli import findings
from segue.cli.client import Absent, Broken
from segue.cli.context import Context
from segue.cli.deploy import read_manifest
from segue.cli.findings import Finding
from segue.errors import SegueError, Usage
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
        for error in (exc, *exc.others):
            yield Finding("the manifest", False, error.message)
        return
    except Usage as exc:
        yield Finding("the manifest", False, exc.message)
        return
    yield Finding("the manifest", detail=f"{loaded.path}, service {loaded.manifest.service}")
    yield _environment(loaded)
    yield from _source(loaded)
    yield from _commands(loaded)
    yield _port(context, loaded)
    yield from _preview(context, loaded)


def _environment(loaded: Loaded) -> Finding:
    try:
        names = loaded.environment(os.environ)
    except Usage as exc:
        return Finding("the environment", False, exc.message, "set it, or correct the manifest")
    return Finding("the environment", detail=", ".join(sorted(names)) or "nothing is set")


def _source(loaded: Loaded) -> Iterator[Finding]:
    process = loaded.manifest.run.process
    if process.source is None:
        yield Finding(
            "the source",
            None,
            "none is named, so all versions share the files in this folder",
            "set run.process.source",
        )
        return
    source = loaded.folder / process.source
    if not source.is_dir():
        yield Finding("the source", False, f"{source} is not a folder", "correct run.process.source")
        return
    yield Finding("the source", detail=str(source.resolve()))
    for name in process.shared:
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


def _port(context: Context, loaded: Loaded) -> Finding:
    listen = loaded.manifest.route.listen
    what = f"the address {listen}"
    error = refusal(listen)
    if error is None:
        return Finding(what, detail="it is free")
    if listen in _ours(context):
        return Finding(what, detail="it is served by this Segue")
    if error.errno == errno.EADDRINUSE:
        return Finding(what, False, "another program listens there", "stop it, or choose another route.listen")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Finding(what, False, "this user may not listen there", "choose a port from 1024 on, or run as root")
    return Finding(what, False, str(error.strerror or error), "correct route.listen")


def _preview(context: Context, loaded: Loaded) -> Iterator[Finding]:
    """The preview's address. During a rollout it is in use: by the preview."""
    listen = getattr(loaded.manifest.rollout(), "preview", None)
    if listen is None:
        return
    what, error = f"the preview's address {listen}", refusal(listen)
    if error is None:
        yield Finding(what, detail="it is free")
    elif error.errno == errno.EADDRINUSE and _rolls_out(context, loaded.manifest.service):
        yield Finding(what, None, "something listens there, perhaps the preview of the rollout that runs")
    else:
        yield Finding(what, False, str(error.strerror or error).lower(), "choose another strategy.blue_green.preview")


def refusal(listen: str) -> OSError | None:
    """Why nothing can be bound to `listen`; None: it is free."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        return exc
    return None


def _ours(context: Context) -> set[str]:
    """Where the services of this home are served now."""
    return {service["route"]["listen"] for service in _services(context)}


def _rolls_out(context: Context, name: str) -> bool:
    return any(service["service"] == name and service["rollout"] for service in _services(context))


def _services(context: Context) -> list[dict[str, Any]]:
    """The services of this home; none if no control plane runs."""
    try:
        return list(context.client.ask("GET", "/v1/services", timeout=5)["services"])
    except (Absent, Broken, SegueError):
        return []
