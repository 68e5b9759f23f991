"""`segue explain`: why a rollout went as it went, and what other settings of `judge` would have changed."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segue.cli import text
from segue.cli.context import Context, quote
from segue.cli.past import latest
from segue.cli.text import paint, plain, words

Document = Mapping[str, Any]

MARKS = {"pass": ("✓", "green"), "fail": ("✗", "red"), "undecided": ("–", "yellow")}
KINDS = {"alarm": ("✗", "red"), "turned_back": ("✗", "red"), "held": ("?", "yellow"), "now": ("▸", "cyan")}
WIDEST = 120


def explain(context: Context, rollout: str | None = None, replay: Sequence[str] = ()) -> int:
    """Print why a rollout went as it went; without an id the service's latest one."""
    path = f"/v1/rollouts/{quote(rollout or latest(context, 'explain'))}/explain"
    query = "&".join(f"replay={quote(one)}" for one in replay)
    document = context.ask("GET", f"{path}?{query}" if query else path, timeout=120)
    if context.json:
        context.print(document)
    else:
        lines = _replayed(document) if document["replay"] else _explained(document)
        print("\n".join(_wrapped(lines)))
    return 0


def _title(document: Document) -> str:
    from segue.cli.status import way

    outcome = words(document.get("outcome") or "under way").replace("_", " ")
    name = ", ".join(filter(None, (way(document), words(document.get("strategy") or ""), outcome)))
    title = f"{document['service']}: {name}  ({document['rollout']})"
    return paint(title, "bold", text.colourful(sys.stdout))


# Why it went so


def _explained(document: Document) -> Iterator[tuple[int, str]]:
    """Lines, each with the column from which on it is continued."""
    yield 0, _title(document)
    yield 0, plain(document["because"])
    yield 0, ""
    decisions = document["decisions"]
    times = [text.seconds(max(one["after"], 0.0)) for one in decisions]
    width = max(map(len, times), default=0)
    for time, one in zip(times, decisions, strict=True):
        mark = _mark(one)
        yield width + 6, f"  {time:>{width}}  {mark} {plain(one['text'])}"
        for why in one["why"]:
            yield width + 6, f"  {'':>{width}}    {plain(why)}"
    yield 0, ""
    yield 0, plain(document["users"])


def _mark(one: Document) -> str:
    verdict = one["verdict"]
    mark, colour = KINDS.get(one["what"]) or (MARKS[verdict["verdict"]] if verdict else ("·", "dim"))
    return paint(mark, colour, text.colourful(sys.stdout))


# What would have been otherwise


def _replayed(document: Document) -> Iterator[tuple[int, str]]:
    replay = document["replay"]
    given = ", ".join(f"{one['key']} {one['now']} (it was {one['was']})" for one in replay["settings"])
    yield 0, _title(document)
    yield 0, f"Judged again with {plain(given)}:"
    yield 0, ""
    for step in replay["steps"]:
        yield 2, f"  {plain(step['step'].rstrip(','))}"
        yield 13, f"    was      {_word(step['was'])}"
        yield 13, f"    would be {'the same' if step['now'] == step['was'] else _word(step['now'])}"
    yield 0, ""
    for said in replay["said"]:
        yield 0, plain(said)
    if replay["different"]:
        yield 0, replay["note"]
    if replay["flaws"]:
        yield 0, "What was written down is not whole: with the settings that it had, the judge would not come to"
        yield 0, "what was decided then. Trust the rest as little:"
        yield from ((2, f"  {plain(flaw)}") for flaw in replay["flaws"])


def _word(word: Document) -> str:
    mark, colour = MARKS.get(word["decided"], ("?", "yellow"))
    when = f" after {text.seconds(word['after'])}" if word["after"] is not None else ""
    said = {"fail": "alarm", "hold": "a person is asked", "rollback": "taken back"}.get(
        word["decided"], word["decided"]
    )
    return f"{paint(mark, colour, text.colourful(sys.stdout))} {said}{when}: {plain(word['reason'])}"


def _wrapped(lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    """Lines as a terminal shows them well; whole ones for pipes."""
    width = min(shutil.get_terminal_size().columns, WIDEST) if sys.stdout.isatty() else 0
    for indent, line in lines:
        if width and len(line) > width:
            yield from textwrap.wrap(
                line,
                width,
                subsequent_indent=" " * min(indent, width // 2),
                drop_whitespace=True,
                break_on_hyphens=False,
            )
        else:
            yield line
