"""The account of a rollout as one HTML page that needs nothing else: no script, no font, no address."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from segue.cli.account import Account, Section, account

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #b3261e; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; border-left: .4rem solid; padding-left: .8rem; }
h1.good { border-color: var(--good); } h1.other { border-color: var(--bad); }
h2 { font-size: 1.1rem; margin-top: 2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.5rem; }
dt { opacity: .7; } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .25rem 1.5rem .25rem 0; }
th { font-weight: 600; } tr { border-bottom: 1px solid var(--line); }
div.wide { overflow-x: auto; } td { font-variant-numeric: tabular-nums; }
pre { background: #8881; padding: 1rem; overflow-x: auto; }
""".strip()


def page(document: dict[str, Any]) -> str:
    """The page. Everything that comes from elsewhere is escaped."""
    told = account(document)
    return "\n".join(_page(told)) + "\n"


def _page(told: Account) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(told.title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>"
    yield f'<h1 class="{"good" if told.good else "other"}">{escape(told.title)}</h1>'
    yield "<dl>"
    yield from (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in told.facts)
    yield "</dl>"
    for section in told.sections:
        yield from _section(section)
    yield from (f"<p><strong>Note:</strong> {escape(note)}</p>" for note in told.notes)
    yield "</body>\n</html>"


def _section(section: Section) -> Iterator[str]:
    yield f"<h2>{escape(section.title)}</h2>"
    if section.rows:
        head, *rows = section.rows
        yield '<div class="wide"><table>'
        yield _row(head, "th")
        yield from (_row(row, "td") for row in rows)
        yield "</table></div>"
    if section.lines:
        yield "<pre>" + escape("\n".join(section.lines)) + "</pre>"


def _row(cells: Any, tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
