"""The documentation says what is there: commands, flags, settings, routes, links, manifests.

Rule: a page is compared with the code it is about, in both directions, never with a second list.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import click
import pytest

from segue.api.app import make
from segue.cli.grammar import COMMON
from segue.cli.parse import group
from segue.engine.control import ControlPlane
from segue.manifest.load import load
from segue.manifest.outline import leaves

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
REFERENCE = ROOT / "docs" / "reference"

EVERYWHERE = {"--help", "-h", *(name for option in COMMON for name in option.names)}
"""Flags that stand once, in the section about all commands."""

_FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FLAG = re.compile(r"(?<![\w-])--?[a-z][\w-]*")
_ROUTE = re.compile(r"`(GET|POST|PUT|DELETE) (/[^`\s?]*)`")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(text: str) -> str:
    """The page without its code blocks."""
    return _FENCE.sub("", text)


def blocks(page: Path, *kinds: str) -> Iterator[str]:
    """The page's code blocks of these kinds."""
    return (text for kind, text in _FENCE.findall(page.read_text("utf-8")) if kind in kinds)


def sections(text: str) -> dict[str, str]:
    """What stands under each heading, down to the next one of any level."""
    parts = re.split(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands() -> dict[str, click.Command]:
    """The real commands."""
    return dict(group().commands)


def flags(command: click.Command) -> set[str]:
    """The flags that a command knows."""
    return {name for param in command.params if isinstance(param, click.Option) for name in param.opts}


# The command line


def test_every_command_has_its_section_and_every_section_its_command() -> None:
    told = {head.removeprefix("segue ") for head in sections(cli_page()) if head.startswith("segue ")}
    assert told == set(commands())


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_flag_of_a_command_is_in_its_table_and_no_other(name: str) -> None:
    told = first_cells(sections(cli_page())[f"segue {name}"])
    assert told == flags(commands()[name]) - own_of_all(name)


def test_the_flags_of_all_commands_are_in_one_table() -> None:
    told = first_cells(sections(cli_page())["Options of all commands"])
    assert told == flags(group()) | {"--help", "-h", "--version"}


def test_every_exit_status_is_explained() -> None:
    told = set(re.findall(r"^\| (\d+) \|", sections(cli_page())["Exit status"], re.MULTILINE))
    assert told == {"0", "1", "2", "3", "4", "5", "6", "7", "130", "141"}


def cli_page() -> str:
    return (REFERENCE / "cli.md").read_text("utf-8")


def first_cells(section: str) -> set[str]:
    """The flags in the first column of the section's tables."""
    rows = re.findall(r"^\| (`-.*?) \|", section.replace("\\|", "/"), re.MULTILINE)
    return {flag for row in rows for flag in re.findall(r"`(--?[a-z][\w-]*)", row, re.IGNORECASE)}


def own_of_all(name: str) -> set[str]:
    """The flags of all commands that do not mean something else to the command `name`."""
    changed = {"logs": {"-f"}}.get(name, set())
    return EVERYWHERE - changed


# The manifest


def test_every_setting_is_in_a_table_of_the_manifest_page_and_every_row_is_a_setting() -> None:
    page = (REFERENCE / "manifest.md").read_text("utf-8")
    told = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert sorted(told) == sorted(leaves())


def test_the_manifest_page_names_every_strategy_that_the_command_line_takes() -> None:
    kinds = [option.type for option in commands()["deploy"].params if option.name == "strategy"]
    page = (REFERENCE / "manifest.md").read_text("utf-8")
    assert [name for name in cast(click.Choice[str], kinds[0]).choices if f"`{name}`" not in page] == []


@every_page
def test_the_manifests_in_a_page_load(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "somewhere")
    for number, text in enumerate(blocks(page, "yaml")):
        if re.search(r"^service:", text, re.MULTILINE):
            path = tmp_path / f"{number}.yaml"
            path.write_text(text, "utf-8")
            assert load(path, as_root=False).manifest.service


# The API


def test_every_route_is_in_the_page_and_the_page_has_no_other() -> None:
    page = (REFERENCE / "api.md").read_text("utf-8")
    assert set(_ROUTE.findall(page)) == set(routes())


def test_every_key_of_a_deployment_is_in_the_page() -> None:
    app = make(cast(ControlPlane, None), lambda everything: None)
    document: dict[str, Any] = app.openapi()["components"]["schemas"]["Deploy"]["properties"]
    section = sections((REFERENCE / "api.md").read_text("utf-8"))["A deployment"]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(document)


def routes() -> Iterator[tuple[str, str]]:
    """The routes of the real application."""
    for route in make(cast(ControlPlane, None), lambda everything: None).routes:
        path, methods = getattr(route, "path", ""), getattr(route, "methods", None) or set()
        yield from ((method, path) for method in methods - {"HEAD"})


# Links and examples


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    broken = [link for link in _LINK.findall(prose(page.read_text("utf-8"))) if not leads_somewhere(page, link)]
    assert broken == []


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether a link from `page` has a target in the repository; other sites are taken at their word."""
    if re.match(r"[a-z]+:", link):
        return True
    path, _, anchor = unquote(link).partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


def anchors(page: Path) -> set[str]:
    """The anchors that headings of a page are given by common renderers of Markdown."""
    heads = re.findall(r"^#+ (.+)$", prose(page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, todo = set[Path](), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        found = (unquote(link).partition("#")[0] for link in _LINK.findall(prose(page.read_text("utf-8"))))
        todo += [(page.parent / link).resolve() for link in found if link and not re.match(r"[a-z]+:", link)]
    written = {page for page in PAGES if "measured" not in page.parts}
    assert sorted(written - seen) == []


@every_page
def test_the_commands_in_shell_examples_exist(page: Path) -> None:
    wrong = [line for line in shell_lines(page) if not is_real(line)]
    assert wrong == []


def shell_lines(page: Path) -> Iterator[str]:
    """The lines of the page's examples that call segue or make: after a prompt, or in a script."""
    for text in blocks(page, "console"):
        yield from (line[2:] for line in text.splitlines() if re.match(r"\$ (segue|make)\b", line))
    for text in blocks(page, "sh"):
        yield from (line for line in text.splitlines() if re.match(r"(segue|make)\b", line))


def is_real(line: str) -> bool:
    """Whether a line calls a command that is there, with flags that it knows."""
    words = shlex.split(re.split(r"\s(?:\|\||>>|\||&|;)", line)[0])
    if words[0] == "make":
        targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        return all("=" in word or word in targets for word in words[1:])
    command = commands().get(words[1])
    return command is not None and {flag for word in words[2:] for flag in _FLAG.findall(word)[:1]} <= flags(
        command
    ) | {"--help"}


def test_what_the_documentation_quotes_of_the_next_command_is_a_command() -> None:
    named = {
        (page.name, found)
        for page in PAGES
        for found in re.findall(r"`segue ([a-z]+)\b", prose(page.read_text("utf-8")))
        if page.name != "CHANGELOG.md"
    }
    assert sorted(pair for pair in named if pair[1] not in commands()) == []


def test_files_that_belong_to_nobody_else_are_not_named() -> None:
    """A path of the machine where something was written down helps nobody who reads it."""
    tracked = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
    pages = [ROOT / name for name in tracked.stdout.splitlines()] or PAGES
    strange = re.compile(r"(?<![\w.~$}])/(?:work|root|tmp/[\w.-]+)/\S*")
    found = [(page.name, hit) for page in pages if page.exists() for hit in strange.findall(page.read_text("utf-8"))]
    assert found == []


def test_the_picture_is_legible_in_light_and_dark_and_says_what_it_shows() -> None:
    picture = (ROOT / "docs" / "overview.svg").read_text("utf-8")
    assert "prefers-color-scheme: dark" in picture
    assert "<title" in picture and "<desc" in picture
