"""Commands, without a shell and for one: what of them nobody would fill in or carry out.

Refused is what was surely meant otherwise. Braces and dollars that may be the program's own stay as they are.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from segue.manifest.values import Wrong, nearest, text

PLACEHOLDERS = ("port", "socket", "version", "service", "instance")
"""What is filled in, in braces."""

_SURE = 0.7
"""How alike a word in braces has to be to a placeholder to be no word of the program's: `print` is not, `prot` is."""
_BRACES = re.compile(r"(?<![$%{(\\])\{([a-z]+)\}(?!\})")
_QUOTED = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_ALIKE = 0.6
"""The same within quotes in a line for a shell, where the placeholder is `url`: `ulr` is meant, `user` is not."""
_WORD = re.compile(r"""(?:[^ \t\r\n'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+""", re.DOTALL)
_SCRIPT_FOLLOWS = re.compile(r"-[a-z]*c")
_OPERATOR = re.compile(r"\|\|?|&&?|;|<|\d?>>?(?:&\d|/.*)?", re.ASCII)
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=.*", re.ASCII | re.DOTALL)
_VARIABLE = re.compile(r"""("?)\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})\1""", re.ASCII)
_NO_SHELL, _SHELL = "no shell runs the command", "`sh -c '…'` around all of it"


def program(value: object) -> str:
    """A program and its arguments, in words as a shell would read them, and with nothing in it that needs one."""
    line = text(value)
    try:
        words = shlex.split(line)
    except ValueError as exc:
        raise Wrong(f"it cannot be split into words: {str(exc).lower()}") from exc
    _without_shell(_WORD.findall(line))
    for word in words:
        _filled_in(word)
    return line


def script(value: object, known: Sequence[str] = ()) -> str:
    """A line for a shell, in which `known` are filled in. What stands in braces without quotes is for no program."""
    line = text(value)
    bare = _BRACES.findall(_QUOTED.sub("", line))
    meant = [name for name in _BRACES.findall(line) if name in bare or nearest(name, known, _ALIKE)]
    for name in meant:
        if name in known:
            continue
        if known:
            raise unknown(name, known)
        raise Wrong(f"`{{{name}}}` is not filled in here", expected="a variable such as `$NAME`", part=True)
    return line


def unknown(word: str, known: Sequence[str]) -> Wrong:
    """What is said of ``{word}`` where only `known` are filled in."""
    near = nearest(word, known)
    listed = " ".join(f"{{{name}}}" for name in known)
    return Wrong(f"`{{{word}}}` is unknown", expected=f"one of {listed}", nearest=near and f"{{{near}}}", part=True)


def _without_shell(words: Sequence[str]) -> None:
    """Raise Wrong if a word, as it is written, is for a shell. What follows ``-c`` is a script."""
    for before, word in zip(("", *words), words, strict=False):
        if _SCRIPT_FOLLOWS.fullmatch(before):
            continue
        if _OPERATOR.fullmatch(word):
            raise Wrong(f"`{word}` is for a shell, and {_NO_SHELL}", expected=_SHELL)
        if not before and (match := _ASSIGNMENT.fullmatch(word)):
            expected = f"`{match[1]}` in `run.process.env`, or {_SHELL}"
            raise Wrong(f"`{match[1]}=…` before the program is for a shell, and {_NO_SHELL}", expected=expected)
        if match := _VARIABLE.fullmatch(word):
            port = "{port}" if "PORT" in match.groups() else None
            problem = f"`{word}` is for a shell, and {_NO_SHELL}"
            raise Wrong(problem, expected=_SHELL, nearest=port, part=True)


def _filled_in(word: str) -> None:
    """Raise Wrong for a name in braces that was meant as a placeholder and is none."""
    for name in _BRACES.findall(word):
        meant = word == f"{{{name}}}" or nearest(name, PLACEHOLDERS, _SURE)
        if name not in PLACEHOLDERS and meant:
            raise unknown(name, PLACEHOLDERS)
