"""The account of a rollout, once for all forms of it: a title, facts, tables, notes. Pure.

Rule: nothing is worded for one form only. `as_text`, `as_markdown` and `segue.cli.page` print the same account.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from segue.cli import text
from segue.cli.status import local, way
from segue.cli.text import paint, plain, words

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """A heading with rows under it; the first row is the heading of the columns. `lines` are quoted text."""

    title: str
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Account:
    """Everything that a report says."""

    title: str
    good: bool
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    notes: Sequence[str]


def account(document: Document) -> Account:
    """The account in `document`, the report that the control plane wrote."""
    outcome = document.get("outcome") or "under way"
    return Account(
        title=f"{document['service']}: {way(document)}, {words(document.get('strategy') or '')}, "
        f"{words(outcome).replace('_', ' ')}",
        good=outcome == "promoted",
        facts=tuple(_facts(document)),
        sections=tuple(section for section in _sections(document) if section.rows or section.lines),
        notes=tuple(map(plain, document.get("notes") or [])),
    )


def _facts(document: Document) -> Iterator[tuple[str, str]]:
    yield "Rollout", str(document["rollout"])
    if document.get("started"):
        yield "Started", local(document["started"])
    if document.get("seconds") is not None:
        yield "Decided after", text.seconds(document["seconds"])
    if document.get("basis"):
        yield "Basis", str(document["basis"])
    if document.get("reason"):
        yield "Reason", plain(str(document["reason"]))
    if document.get("experiment"):
        yield "It has shown", plain(" ".join(document["experiment"]["words"]))
    if document.get("switch_ms") is not None:
        yield "A switch took", f"{_milliseconds(document['switch_ms'])}, until the router had confirmed it"
    if document.get("rollback_ms") is not None:
        yield "The way back took", _milliseconds(document["rollback_ms"])


def _sections(document: Document) -> Iterator[Section]:
    yield Section("Requests", tuple(_requests(document.get("requests") or {})))
    yield Section("Goodbyes", tuple(_farewells(document.get("farewells") or {})))
    yield Section("Experiment", tuple(_experiment(document.get("experiment") or {})))
    yield Section("Latency", tuple(_latency(document.get("latency_ms") or {})))
    yield Section("Judgements", tuple(_judgements(document.get("judgements") or [])))
    yield Section("Steps", tuple(_steps(document.get("steps") or [], document["started"])))
    yield Section("The instance's last lines", lines=tuple(map(plain, document.get("log") or [])))


def _requests(requests: Document) -> Iterator[tuple[str, str]]:
    if not requests:
        return
    yield "what became of them", "requests"
    for name, number in (requests.get("answered_by") or {}).items():
        yield f"answered by {name}", _number(number)
    failed = requests.get("failed_by") or {}
    for name, number in failed.items() if isinstance(failed, Mapping) else ():
        yield f"failed by {name}", _number(number)
    for key in ("shielded", "hedged", "cut", "unserved", "uncounted"):
        if requests.get(key):
            yield key, _number(requests[key])
    yield "all", _number(requests.get("total", 0))
    if "balanced" in requests:
        yield "the books balance", "yes" if requests["balanced"] else f"no: {_unbalanced(requests)}"


def _unbalanced(requests: Document) -> str:
    """Why the books do not balance: the parts may still sum to the whole where the router lost count."""
    if requests.get("uncounted"):
        return "what became of some is not known"
    return "the router began to count anew"


def _farewells(farewells: Document) -> Iterator[tuple[str, ...]]:
    """What was open when instances were told to end, and what became of it."""
    instances = farewells.get("instances") or []
    if not instances:
        return
    kinds = [kind for kind in _PARTED if kind in ("open", "goodbye", "cut") or farewells[kind]]
    yield "instance", *(_PARTED[kind] for kind in kinds), ""
    for one in instances:
        killed = "killed after its grace" if one["killed"] else ""
        yield str(one["instance"]), *(_number(one[kind]) for kind in kinds), killed
    if len(instances) > 1:
        yield "all", *(_number(farewells[kind]) for kind in kinds), ""


_PARTED = {
    "open": "open at the signal",
    "goodbye": "said goodbye to",
    "cut": "cut",
    "repeated": "repeated elsewhere",
    "unclear": "not known",
}


def _experiment(experiment: Document) -> Iterator[tuple[str, ...]]:
    if not experiment:
        return
    yield "version", "users", f"reached {plain(experiment['goal'])}", "rate"
    for name in (experiment["from"], experiment["to"]):
        rate = experiment["rates"][name]
        users, reached = (_number(experiment[what][name]) for what in ("users", "reached"))
        yield name, users, reached, "" if rate is None else f"{rate:.2%}"


def _latency(latency: Document) -> Iterator[tuple[str, ...]]:
    if not any(value is not None for quantiles in latency.values() for value in quantiles.values()):
        return
    yield "version", "p50", "p90", "p99"
    for name, quantiles in latency.items():
        yield name, *(_milliseconds(quantiles.get(quantile)) for quantile in ("p50", "p90", "p99"))


def _judgements(judgements: Sequence[Any]) -> Iterator[tuple[str, ...]]:
    if not judgements:
        return
    yield "verdict", "basis", "why"
    for one in judgements:
        yield str(one["verdict"]), str(one["basis"]), plain(one["reason"])


def _steps(steps: Sequence[Document], start: str) -> Iterator[tuple[str, ...]]:
    if not steps:
        return
    yield "step", "after", "outcome", "verdict"
    for one in steps:
        began = text.seconds((_moment(one["began"]) - _moment(start)).total_seconds())
        verdict = one.get("verdict") or ""
        said = verdict.get("verdict", "") if isinstance(verdict, Mapping) else verdict
        yield plain(str(one["step"])), began, str(one.get("outcome") or "under way"), str(said)


def _moment(iso: str) -> datetime:
    return datetime.fromisoformat(iso)


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g} ms" if value < 1000 else text.seconds(value / 1000)


def as_text(document: Document, *, on: bool = False) -> str:
    """The account for a terminal."""
    told = account(document)
    lines = [
        paint(f"{'✓' if told.good else '✗'} {told.title}" if document.get("outcome") else told.title, "bold", on)
    ]
    width = max(len(name) for name, _ in told.facts)
    lines += (f"  {paint(f'{name:<{width}}', 'dim', on)}  {value}" for name, value in told.facts)
    for section in told.sections:
        lines += ["", paint(section.title, "bold", on)]
        if section.rows:
            lines += (f"  {line}" for line in text.table(section.rows, on=on).splitlines())
        lines += (f"  | {line}" for line in section.lines)
    if told.notes:
        lines += ["", *(f"Note: {note}" for note in told.notes)]
    return "\n".join(lines)


def as_markdown(document: Document) -> str:
    """The account as Markdown; nothing in it can become markup."""
    told = account(document)
    lines = [f"# {_escaped(told.title)}", ""]
    lines += (f"* **{_escaped(name)}**: {_escaped(value)}" for name, value in told.facts)
    for section in told.sections:
        lines += ["", f"## {_escaped(section.title)}", ""]
        if section.rows:
            head, *rows = section.rows
            lines += [_row(head), _row(["---"] * len(head), raw=True), *map(_row, rows)]
        lines += (f"    {line}" for line in section.lines)
    if told.notes:
        lines += ["", *(f"> {_escaped(note)}" for note in told.notes)]
    return "\n".join(lines)


def _row(cells: Sequence[str], *, raw: bool = False) -> str:
    return "| " + " | ".join(cell if raw else _escaped(cell) for cell in cells) + " |"


def _escaped(value: str) -> str:
    marks = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]{}|#!"})
    return plain(value).translate(marks).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
