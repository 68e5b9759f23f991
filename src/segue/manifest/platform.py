"""The section `run`: where instances run, and as what."""

from __future__ import annotations

import pwd
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, ValidationInfo, model_validator

from segue.manifest import values
from segue.manifest.kinds import Command, File, InnerFolder, Kind, Many, Program, Section, Text, Variable
from segue.manifest.values import Wrong


class FromEnv(Section):
    """``!env NAME``: the value stays where it is until the service is deployed."""

    from_env: Text


def _env_value(value: object) -> str | FromEnv:
    match value:
        case str() if "\0" in value:
            raise Wrong("the text has a NUL character in it")
        case str() | FromEnv():
            return value
        case {"from_env": str(name), **rest} if not rest:
            return FromEnv(from_env=values.text(name))
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
    raise Wrong(f"{values.shown(value)} cannot stand in an environment")


EnvValue = Annotated[str | FromEnv, Kind(_env_value, "text, a number, true, false or !env NAME")]


def _user(value: object) -> str:
    """The name of a user; one who is told by number is suggested by name."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise Wrong(f"{values.shown(value)} is not a user's name", nearest=_name_of(value))
    return values.text(value)


def _name_of(number: int) -> str | None:
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        return None


User = Annotated[str, Kind(_user, "the name of a user")]


class Process(Section):
    """Instances are processes on this machine."""

    command: Program
    source: File | None = None
    shared: Annotated[tuple[InnerFolder, ...], Many("a list of folders")] = ()
    build: Command | None = None
    env: Annotated[Mapping[Variable, EnvValue], Many("a mapping of names to values")] = Field({}, repr=False)
    env_file: File | None = None
    user: User | None = None

    @model_validator(mode="after")
    def _possible(self, info: ValidationInfo) -> Self:
        for key in ("shared", "build"):
            if getattr(self, key) and self.source is None:
                problem = f"`{key}` needs `source`: without it no version has a folder of its own"
                raise Wrong(problem, expected="`source: .` beside it", at=(key,))
        if info.context and info.context.get("as_root"):
            _demand_user(self.user)
        return self


def _demand_user(name: str | None) -> None:
    """Raise Wrong unless a user of this machine is named."""
    if name is None:
        raise Wrong(
            "as root each service names `user:`",
            expected="the name of a user (`user: root` is allowed, but say so)",
            at=("user",),
        )
    try:
        pwd.getpwnam(name)
    except KeyError:
        alike = values.nearest(name, [user.pw_name for user in pwd.getpwall()])
        raise Wrong(f"the user `{name}` is unknown on this machine", nearest=alike, at=("user",)) from None


class Platform(Section):
    """Where the service runs: exactly one platform."""

    process: Process
