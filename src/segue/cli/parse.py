"""The full parser: click, built from the grammar. It only parses; carrying out is for `segue.cli.main`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from segue import __version__
from segue.cli.grammar import CHANGE, COMMANDS, COMMON, DEPLOY, LOOK, MACHINE, Argument, Command, Option
from segue.errors import Usage

if TYPE_CHECKING:
    from segue.cli.grammar import Kind

Parsed = tuple[str, dict[str, Any]]


def parse(arguments: Sequence[str]) -> Parsed | None:
    """The command and its values; None when help was asked for and given. Raises Usage."""
    try:
        parsed = group().main(
            list(arguments), prog_name="segue", standalone_mode=False, complete_var="_SEGUE_COMPLETE"
        )
    except click.UsageError as exc:
        raise _below_nothing(exc) or Usage(_sentence(exc), next=_help_for(exc)) from exc
    except click.Abort:
        raise KeyboardInterrupt from None
    return parsed if isinstance(parsed, tuple) else None


def group() -> click.Group:
    """The whole command line as click knows it."""
    whole = _Sections(
        "segue",
        params=[_option(option) for option in COMMON],
        help="Deploy new versions of a service while users keep using it.",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        invoke_without_command=True,
        callback=_nothing,
    )
    click.version_option(__version__, prog_name="segue", message="%(prog)s %(version)s")(whole)
    for name, command in COMMANDS.items():
        whole.add_command(_command(name, command))
    return whole


class _Sections(click.Group):
    """A group whose help lists the commands by what they are for, and whose errors name the nearest command."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in (DEPLOY, LOOK, CHANGE, MACHINE):
            with formatter.section(section):
                formatter.write_dl([(n, c.help) for n, c in COMMANDS.items() if c.section == section])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            near = get_close_matches(args[0], COMMANDS, n=1)
            raise click.UsageError(f"No such command '{args[0]}'.{_perhaps(near)}", ctx)
        return super().resolve_command(ctx, args)


def _nothing(**_: object) -> None:
    """Before a command nothing is done; without one the help is shown."""
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _command(name: str, command: Command) -> click.Command:
    params: list[click.Parameter] = [_option(option) for option in command.options]
    if command.argument:
        params.append(_argument(command.argument))

    @click.pass_context
    def parsed(context: click.Context, /, **values: Any) -> Parsed:
        before = context.parent.params if context.parent else {}
        return name, {key: before.get(key, value) if _left_out(value) else value for key, value in values.items()}

    return click.Command(name, params=params, help=command.help, callback=parsed)


def _left_out(value: object) -> bool:
    """Whether it is what click gives for an option that is not there: an empty text was written by somebody."""
    return value is None or value is False


def _option(option: Option) -> click.Option:
    if option.kind == "flag":
        return click.Option([option.name, *option.names], is_flag=True, help=option.help)
    return click.Option(
        [option.name, *option.names],
        type=_type(option.kind),
        metavar=option.metavar or None,
        help=option.help,
        multiple=option.kind == "texts",
    )


def _argument(argument: Argument) -> click.Argument:
    kind = _type(argument.kind, zero=argument.zero)
    return click.Argument([argument.name], type=kind, required=argument.required)


def _type(kind: Kind, *, zero: tuple[str, str] = ("", "")) -> click.ParamType[Any]:
    match kind:
        case tuple():
            return click.Choice(kind)
        case range():
            return Whole(kind, zero)
        case "seconds":
            return Seconds()
        case "version":
            return Version()
        case _:
            return click.STRING


class Seconds(click.ParamType[float]):
    """A duration as in the manifest: ``500ms``, ``30s``, ``10m``, ``24h``; a bare number is seconds."""

    name = "time"
    _units = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # noqa: RUF012

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """`value` in seconds."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", str(value).strip())
        if not found:
            self.fail(f"{value!r} is not a time such as 30s, 10m or 24h.", param, ctx)
        return float(found[1]) * self._units[found[2]]


class Whole(click.ParamType[int]):
    """A number of `numbers`. Raises Usage. `zero`: why 0 is none of them, and the command for who says it."""

    name = "number"

    def __init__(self, numbers: range, zero: tuple[str, str]) -> None:
        self._numbers = numbers
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """`value` as a number."""
        said = re.fullmatch(r"[0-9]{1,9}", str(value))
        number = int(said[0]) if said else None
        if number in self._numbers:
            return int(value)
        raise self.wrong(param, ctx, *(self._zero if number == 0 else ()))

    def wrong(self, param: click.Parameter | None, ctx: click.Context | None, why: str = "", next: str = "") -> Usage:
        """What is said of a value that is no such number."""
        name = param.opts[0] if isinstance(param, click.Option) else param.human_readable_name if param else "it"
        least, most = self._numbers[0], self._numbers[-1]
        command = f"{ctx.command_path} --help" if ctx else "segue --help"
        return Usage(f"{name} is a whole number from {least:,} to {most:,}{why and f': {why}'}", next=next or command)


class Version(click.ParamType[str]):
    """The name that a version is to have. Raises Usage, with the nearest name that it may have."""

    name = "version"
    pattern = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")
    """As the API has it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value`, if a version may be called so."""
        if self.pattern.fullmatch(value):
            return str(value)
        command, name = ctx.command_path if ctx else "segue deploy", self._nearest(value)
        raise Usage(
            f"--version is {f'{value!r}, which is no name' if value else 'empty'}: a version's name has letters, "
            "digits and . _ + -, begins with a letter or a digit, and is at most 80 long.",
            next=f"{command} --version {name}" if name else command,
        )

    def _nearest(self, value: str) -> str:
        return re.sub(r"[^A-Za-z0-9._+-]+", "-", value).lstrip("._+-")[:80].rstrip("-")


def _below_nothing(error: click.UsageError) -> Usage | None:
    """Where a number is wanted click takes one below 0 for an option that it does not know."""
    if isinstance(error, click.NoSuchOption) and error.ctx and re.fullmatch(r"-[0-9]", error.option_name):
        for param in error.ctx.command.params:
            if isinstance(param, click.Argument) and isinstance(param.type, Whole):
                return param.type.wrong(param, error.ctx)
    return None


def _sentence(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption):
        known = [name for param in error.ctx.command.params for name in param.opts] if error.ctx else []
        near = get_close_matches(error.option_name, known, n=1, cutoff=0.5)
        return f"No such option '{error.option_name}'.{_perhaps(near)}"
    message = error.format_message()
    if isinstance(error, click.BadParameter) and isinstance(error.param, click.Option | click.Argument):
        message += _nearest_choice(error.param, message)
    return message


def _nearest_choice(param: click.Parameter, message: str) -> str:
    found = re.search(r": '([^']*)' is not one of", message)
    if not found or not isinstance(param.type, click.Choice):
        return ""
    return _perhaps(get_close_matches(found[1], [str(choice) for choice in param.type.choices], n=1, cutoff=0.4))


def _perhaps(near: Sequence[str]) -> str:
    return f" Did you mean '{near[0]}'?" if near else ""


def _help_for(error: click.UsageError) -> str:
    return f"{error.ctx.command_path if error.ctx else 'segue'} --help"
