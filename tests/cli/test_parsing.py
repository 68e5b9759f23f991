"""The two parsers are one command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from segue.cli.grammar import COMMANDS
from segue.cli.main import quick
from segue.cli.parse import parse

from .canned import Plane
from .conftest import Segue

QUICK = [
    "status",
    "status --json",
    "status -s shop",
    "status --service=shop --json",
    "status -C /tmp -f other.yaml",
    "rollback",
    "rollback --to v1 --reason because",
    "rollback --reason=a=b -s shop --detach",
]


@pytest.mark.parametrize("line", QUICK)
def test_the_quick_parser_reads_what_click_reads(line: str) -> None:
    assert quick(line.split()) == parse(line.split())
    assert quick(line.split()) is not None


@pytest.mark.parametrize(
    "line", ["status --help", "status -h", "status -sshop", "status --js", "status -s", "rollback x", "deploy", ""]
)
def test_the_quick_parser_leaves_to_click_what_it_does_not_know(line: str) -> None:
    assert quick(line.split()) is None


def test_the_common_options_may_stand_before_the_command() -> None:
    assert parse(["-s", "shop", "--json", "status"]) == parse(["status", "-s", "shop", "--json"])


def test_logs_f_follows_and_its_manifest_has_the_long_name() -> None:
    parsed = parse(["logs", "-f", "--file", "x.yaml"])
    assert parsed is not None
    assert (parsed[1]["follow"], parsed[1]["file"]) == (True, "x.yaml")


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_times_are_written_as_in_the_manifest(text: str, seconds: float) -> None:
    parsed = parse(["deploy", "--wait", text])
    assert parsed is not None
    assert parsed[1]["wait"] == seconds


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_a_function_that_takes_its_options(name: str, segue: Segue) -> None:
    from importlib import import_module
    from inspect import signature

    command = COMMANDS[name]
    said = segue(name, "--help")
    assert said.status == 0
    assert f"Usage: segue {name}" in said.out
    own = {option.name for option in command.options} - {"service", "directory", "file", "json"}
    own |= {command.argument.name} if command.argument else set()
    taken = set(signature(getattr(import_module(f"segue.cli.{command.module}"), name)).parameters)
    assert taken == own | {"context"}


def test_segue_alone_prints_the_commands(segue: Segue) -> None:
    said = segue()
    assert said.status == 0
    assert all(name in said.out for name in COMMANDS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, segue: Segue) -> None:
    said = segue("completion", shell)
    assert said.status == 0
    assert "_SEGUE_COMPLETE" in said.out


def test_a_shell_is_told_the_commands_that_begin_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "segue.cli.main"],
        env={"_SEGUE_COMPLETE": "bash_complete", "COMP_WORDS": "segue dep", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["plain,deploy"]


def test_status_imports_nothing_that_it_cannot_afford(plane: Plane) -> None:
    plane.on("GET", "/v1/services", {"schema": 1, "services": []})
    script = "import sys; from segue.cli.main import main; main(['status']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "segue.cli.status" in loaded
    assert not loaded & {"json", "re", "socket", "typing", "pathlib", "dataclasses", "click", "rich", "pydantic"}
