"""How a manifest begins: the text that `segue init` writes."""

from __future__ import annotations

import pwd
import re
import textwrap
from pathlib import Path

from segue.manifest.project import Project, look
from segue.manifest.values import valid_service

_PLAIN = re.compile(r"[A-Za-z./][^\n\r\t]*")
_WORDS = ("true", "false", "null")

_TEXT = """\
# How Segue deploys this service without a pause. `segue check` says whether it can be done as it stands.
# Only `service` and `run` are required; what is commented out shows further settings.

service: {service}{gap}# the name by which every command knows it

replicas: 2                     # how many instances serve; from 2 on, the end of one is nobody's loss

route:
  listen: 127.0.0.1:8080        # where users connect; 0.0.0.0:8080 lets everybody in

run:
  process:                      # instances are processes on this machine
    source: .                   # each version is a copy of this folder (.gitignore and .segueignore apply)
{build}
{hint}
    command: {command}
{env_file}
{user}

{health}

# smoke:                        # what every new instance must pass before any user reaches it
#   - http: {{path: /, expect: 200}}

strategy: rolling               # a batch at a time; or blue_green (one switch), canary (a growing share), in_place
"""


def suggest(folder: Path, *, as_root: bool = False) -> str:
    """The text of a commented manifest for the application in `folder`; it loads. `as_root`: names a user."""
    folder = folder.absolute()
    project = look(folder)
    service = valid_service(folder.name) or "service"
    return _TEXT.format(
        service=service,
        gap=" " * max(1, 23 - len(service)),
        build=_build(project),
        hint=_comment(f"{project.seen}: {project.hint}.", indent=4),
        command=scalar(project.command),
        env_file=_env_file(folder),
        user=_user(folder, as_root),
        health=_health(project),
    )


def scalar(text: str) -> str:
    """`text` as it stands in YAML: in quotes where it would be something else without."""
    plain = _PLAIN.fullmatch(text) and not re.search(r":(\s|$)|\s#|\s$", text) and text.lower() not in _WORDS
    return text if plain else "'" + text.replace("'", "''") + "'"


def _comment(text: str, indent: int) -> str:
    margin = " " * indent + "# "
    return textwrap.fill(text, 116, initial_indent=margin, subsequent_indent=margin, break_long_words=False)


def _build(project: Project) -> str:
    if project.build is None:
        return "    # build: make               # once per version, in the copy, before anything is touched"
    return f"    # once per version, in the copy, before anything is touched\n    build: {scalar(project.build)}"


def _env_file(folder: Path) -> str:
    if (folder / ".env").is_file():
        return "    env_file: .env              # NAME=value lines; what `env` sets wins"
    return "    # env: {LOG_LEVEL: info, DATABASE_URL: !env DATABASE_URL}   # !env: from where you deploy"


def _user(folder: Path, as_root: bool) -> str:
    if not as_root:
        return "    # user: www-data            # who instances run as; Segue as root demands that you say so"
    owner = _owner(folder)
    advice = "; one of its own is safer" if owner == "root" else ""
    return f"    user: {owner:<21} # who instances run as: the owner of this folder{advice}"


def _owner(folder: Path) -> str:
    try:
        return pwd.getpwuid(folder.stat().st_uid).pw_name
    except (OSError, KeyError):
        return "root"


def _health(project: Project) -> str:
    if project.health is None:
        return "# health: {path: /healthz}      # without it: ready as soon as it accepts a connection"
    return f"health:\n  path: {project.health:<23} # ready when a GET of this is answered with 200-399"
