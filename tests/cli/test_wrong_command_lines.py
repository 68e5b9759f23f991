"""Wrong usage: status 2, one sentence with the reason, the nearest name, the next command; nothing is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segue.api.bodies import Deploy
from segue.cli.parse import Version

from .canned import Plane
from .conftest import Segue

WRONG = [
    ("deply", "No such command 'deply'. Did you mean 'deploy'?"),
    ("statsu", "No such command 'statsu'. Did you mean 'status'?"),
    ("rolback", "No such command 'rolback'. Did you mean 'rollback'?"),
    ("xyzzy", "No such command 'xyzzy'."),
    ("deploy --versoin v2", "No such option '--versoin'. Did you mean '--version'?"),
    ("deploy --strateg rolling", "No such option '--strateg'. Did you mean '--strategy'?"),
    (
        "deploy --strategy bluegreen",
        "'bluegreen' is not one of 'rolling', 'in_place', 'blue_green', 'canary', 'experiment'. "
        "Did you mean 'blue_green'?",
    ),
    ("deploy --if-busy wiat", "'wiat' is not one of 'refuse', 'wait', 'replace'. Did you mean 'wait'?"),
    ("deploy --wait soon", "'soon' is not a time such as 30s, 10m or 24h."),
    ("deploy --wait 5y", "'5y' is not a time such as 30s, 10m or 24h."),
    ("deploy --version", "Option '--version' requires an argument."),
    ("deploy v2", "Got unexpected extra argument (v2)"),
    ("status --jsno", "No such option '--jsno'. Did you mean '--json'?"),
    ("status extra", "Got unexpected extra argument (extra)"),
    ("status -s", "Option '-s' requires an argument."),
    ("status --json=yes", "Option '--json' does not take a value."),
    ("rollback --too v1", "No such option '--too'. Did you mean '--to'?"),
    ("rollback v1", "Got unexpected extra argument (v1)"),
    ("scale", "Missing argument 'COUNT'."),
    ("scale many", "COUNT is a whole number from 1 to 10,000."),
    ("scale 1.5", "COUNT is a whole number from 1 to 10,000."),
    ("scale 10001", "COUNT is a whole number from 1 to 10,000."),
    ("scale -- -1", "COUNT is a whole number from 1 to 10,000."),
    ("scale -12", "COUNT is a whole number from 1 to 10,000."),
    ("scale -12 --detach", "COUNT is a whole number from 1 to 10,000."),
    ("scale 3 -x", "No such option '-x'."),
    ("history --limit some", "--limit is a whole number from 1 to 1,000."),
    ("history -n 0", "--limit is a whole number from 1 to 1,000."),
    ("logs -n -1", "--lines is a whole number from 0 to 100,000."),
    ("report --htm out.html", "No such option '--htm'. Did you mean '--html'?"),
    ("wait r1 r2", "Got unexpected extra argument (r2)"),
    ("completion tcsh", "'tcsh' is not one of 'bash', 'zsh', 'fish'."),
    ("logs --folow", "No such option '--folow'. Did you mean '--follow'?"),
    ("shutdown --everything", "No such option '--everything'."),
    ("deploy -C .", "segue.yaml: there is no such file."),
    ("deploy -f nowhere.yaml", "There is no manifest at ./nowhere.yaml."),
    ("down --service=", "--service is empty."),
    ("status --directory=", "--directory is empty."),
    ("status -C nowhere", "There is no manifest at nowhere/segue.yaml."),
    ("status -s shop -f nowhere.yaml", "There is no manifest at ./nowhere.yaml."),
    ("watch -C nowhere", "There is no manifest at nowhere/segue.yaml."),
    ("check -f nowhere.yaml", "There is no manifest at ./nowhere.yaml."),
    ("wait r1 -C nowhere", "There is no manifest at nowhere/segue.yaml."),
    ("shutdown -C nowhere", "There is no manifest at nowhere/segue.yaml."),
    ("rollback -C nowhere", "There is no manifest at nowhere/segue.yaml."),
    ("rollback -f nowhere.yaml", "There is no manifest at ./nowhere.yaml."),
    ("init -C nowhere", "There is no folder nowhere."),
    ("--nonsense status", "No such option '--nonsense'."),
]


@pytest.mark.parametrize(("line", "sentence"), WRONG, ids=[line for line, _ in WRONG])
def test_a_wrong_command_line_ends_with_2_and_says_what_was_wrong(
    line: str, sentence: str, segue: Segue, plane: Plane
) -> None:
    said = segue(*line.split())
    assert said.status == 2
    first, *rest = said.err.splitlines()
    assert first.startswith("Error: ")
    assert sentence in first
    assert rest[-1].startswith("Next:  segue ")
    assert said.out == ""
    assert plane.requests == []


@pytest.mark.parametrize("command", ["deploy", "plan"])
@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("bad/name", " --version bad-name"),
        ("of two words", " --version of-two-words"),
        ("../x", " --version x"),
        ("v" * 200, f" --version {'v' * 80}"),
        ("v1\n", " --version v1"),
        ("", ""),
        ("/", ""),
    ],
)
def test_a_name_that_no_version_may_have_is_refused_with_the_nearest_one(
    command: str, name: str, nearest: str, segue: Segue, plane: Plane, shop: Path
) -> None:
    said = segue(command, "--version", name)
    assert (said.status, said.out, plane.requests) == (2, "", [])
    first, last = said.err.splitlines()
    assert "has letters, digits and . _ + -, begins with a letter or a digit, and is at most 80 long." in first
    assert last == f"Next:  segue {command}{nearest}"


def test_who_wants_no_instance_is_told_how_a_service_is_stopped(segue: Segue, plane: Plane, shop: Path) -> None:
    said = segue("scale", "0")
    assert (said.status, plane.requests) == (2, [])
    assert said.err == (
        "Error: COUNT is a whole number from 1 to 10,000: a service has at least one instance.\nNext:  segue down\n"
    )


def test_the_names_of_versions_are_those_that_the_control_plane_takes() -> None:
    (told,) = Deploy.model_fields["version"].metadata
    assert told.pattern == f"^{Version.pattern.pattern}$"


@pytest.mark.parametrize(("line", "sentence"), WRONG, ids=[line for line, _ in WRONG])
def test_with_json_it_is_one_document_on_standard_output(line: str, sentence: str, segue: Segue) -> None:
    said = segue("--json", *line.split())
    error = json.loads(said.out)["error"]
    assert (error["exit"], said.status) == (2, 2)
    assert sentence.rstrip(".") in error["message"]
    assert error["code"] in ("usage", "manifest")
    assert error["next"].startswith("segue ")
    assert said.err == ""


def test_a_report_is_json_or_markdown_but_not_both(segue: Segue, plane: Plane) -> None:
    said = segue("report", "r1", "--json", "--markdown")
    assert said.status == 2
    assert json.loads(said.out)["error"]["message"] == "--markdown and --json exclude each other."
    assert plane.requests == []


def test_a_command_that_needs_a_service_says_which_there_are(segue: Segue, plane: Plane) -> None:
    plane.on("GET", "/v1/services", {"schema": 1, "services": [{"service": "api"}, {"service": "shop"}]})
    said = segue("rollback")
    assert said.status == 2
    assert "api, shop" in said.err


def test_a_command_that_needs_a_service_says_that_there_is_none(segue: Segue, plane: Plane) -> None:
    plane.on("GET", "/v1/services", {"schema": 1, "services": []})
    said = segue("restart")
    assert said.status == 2
    assert "no service yet" in said.err
