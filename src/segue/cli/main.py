"""The entrance: parse, carry out, exit.

`segue status` and `segue rollback` are parsed here, from the same definition that click reads, because click
alone takes longer to import than they may take. Whatever this parser does not know it leaves to click.
"""

from __future__ import annotations

import os
import sys

from segue.cli.grammar import COMMANDS, QUICK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns the exit status. Errors are told, in JSON where JSON was asked for."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _print_anything()
    try:
        status = _main(arguments)
        sys.stdout.flush()
        return status
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (`tell` raises what nobody foresaw)
        from segue.cli.trouble import tell

        return tell(error, as_json="--json" in arguments)


def _main(arguments: list[str]) -> int:
    parsed = quick(arguments)
    if parsed is None:
        from segue.cli.parse import parse

        parsed = parse(arguments)
    return carry_out(*parsed) if parsed else 0


def quick(arguments: Sequence[str]) -> tuple[str, dict[str, object]] | None:
    """The command and its values, if every word is understood without click."""
    if not arguments or arguments[0] not in QUICK or "_SEGUE_COMPLETE" in os.environ:
        return None
    options = COMMANDS[arguments[0]].options
    known = {name: option for option in options for name in option.names}
    values: dict[str, object] = {option.name: False if option.kind == "flag" else None for option in options}
    words = iter(arguments[1:])
    for word in words:
        name, equals, value = word.partition("=")
        option = known.get(name)
        if option is None or option.kind not in ("flag", "text") or (equals and option.kind == "flag"):
            return None
        if option.kind == "text" and not equals:
            value = next(words, "-")
            if value.startswith("-"):
                return None
        if equals and not name.startswith("--"):
            return None
        values[option.name] = value if option.kind == "text" else True
    return arguments[0], values


def carry_out(name: str, values: Mapping[str, object]) -> int:
    """Call the function of the command `name`; returns the exit status. Raises SegueError."""
    from importlib import import_module

    from segue.cli.context import Context

    rest = dict(values)
    common = {key: rest.pop(key) for key in ("service", "directory", "file", "json")}
    function = getattr(import_module(f"segue.cli.{COMMANDS[name].module}"), name)
    context = Context(**common)  # type: ignore[arg-type]
    if name != "init":  # it writes the manifest that is named
        context.insist()
    status: int = function(context, **rest)
    return status


def _print_anything() -> None:
    """A terminal that knows no arrows shows question marks instead of a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


if __name__ == "__main__":
    sys.exit(main())
