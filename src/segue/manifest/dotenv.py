"""Files of environment variables: ``NAME=value`` a line, ``export`` before it, quotes around it, comments.

In double quotes ``\\n``, ``\\"``, ``\\\\`` and ``\\$`` are what they are in a shell. Nothing is substituted.
"""

from __future__ import annotations

import re

from segue.manifest.values import Wrong

_LINE = re.compile(r"(?:export\s+)?([^\s=]+)\s*=\s*(.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_QUOTED = re.compile(r"""(?:"((?:[^"\\]|\\.)*)"|'([^']*)')\s*(?:#.*)?""")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


class BadLine(Wrong):
    """The line `line`, counted from 1, is not an assignment."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem, expected="NAME=value")
        self.line = line


def parse(text: str) -> dict[str, str]:
    """The variables that `text` sets; the last one wins. Raises BadLine, whose message shows no value."""
    found = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            name, value = _assignment(number, line.strip())
            found[name] = value
    return found


def _assignment(number: int, line: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise BadLine(number, "the line has no `=`")
    name, value = match[1], match[2]
    if not _NAME.fullmatch(name):
        raise BadLine(number, "the name before `=` is not a variable's")
    if "\0" in value:
        raise BadLine(number, f"the value of `{name}` has a NUL character in it")
    if not value.startswith(('"', "'")):
        return name, re.sub(r"(?:^|\s+)#.*", "", value)
    quoted = _QUOTED.fullmatch(value)
    if quoted is None:
        raise BadLine(number, f"the quotes around the value of `{name}` do not close at its end")
    if quoted[2] is not None:
        return name, quoted[2]
    return name, re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), quoted[1])
