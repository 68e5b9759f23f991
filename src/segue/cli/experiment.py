"""`segue experiment`: what an A/B experiment has shown until now, and what is to be done."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from segue.cli import text
from segue.cli.context import Context, quote
from segue.cli.text import paint, plain
from segue.errors import Refused

Document = Mapping[str, Any]

SAYS = {"keep": "green", "drop": "red", "no difference yet": "yellow", "do not trust": "red"}
NEWEST = 1000
"""So many of a service's rollouts are looked through for an experiment."""


def experiment(context: Context, rollout: str | None = None) -> int:
    """Print what an experiment has shown; without an id the service's latest one."""
    document = context.ask("GET", f"/v1/rollouts/{quote(rollout or _latest(context))}/experiment")
    if context.json:
        context.print(document)
    else:
        print("\n".join(_lines(document, on=text.colourful(sys.stdout))))
    return 0


def _latest(context: Context) -> str:
    service = context.service()
    rollouts = context.ask("GET", f"/v1/rollouts?service={quote(service)}&limit={NEWEST}")["rollouts"]
    found = next((one for one in rollouts if one["strategy"] == "experiment"), None)
    if found is None:
        raise Refused(f"{service} has had no experiment yet.", next="segue deploy --strategy experiment")
    return str(found["rollout"])


def _lines(document: Document, *, on: bool) -> Iterator[str]:
    outcome = (document["outcome"] or "under way").replace("_", " ")
    title = f"{document['service']}: {document['from']} → {document['to']}, experiment, {outcome}"
    yield f"{paint(title, 'bold', on)}  ({document['rollout']})"
    yield plain(_asked(document))
    yield ""
    yield _table(document, on=on)
    yield ""
    yield paint(document["say"], SAYS[document["say"]], on)
    yield from (plain(sentence) for sentence in document["words"])


def _asked(document: Document) -> str:
    """What was asked for, for how long it has been so, and until when."""
    known = document["sticky"].removeprefix("header:")
    by = "a cookie" if known == "cookie" else f"the header {known}"
    whose = f" who send {who['header']}: {' or '.join(who['in'])}" if (who := document["who"]) else ""
    lasted = f"for {text.seconds(document['seconds'])}" if document["began"] else "not begun"
    until = f", at most until {_local(document['until'])}" if document["until"] else ""
    asked = f"{text.share(document['share'])} of the users{whose}, known by {by}"
    return f"{asked}; {lasted}{until}; goal: {document['goal']}"


def _local(moment: str) -> str:
    from segue.cli.status import local

    return local(moment)


def _table(document: Document, *, on: bool) -> str:
    rows = [("VERSION", "USERS", "REACHED THE GOAL", "RATE")]
    for version in (document["from"], document["to"]):
        rate = document["rates"][version]
        rows.append(
            (
                plain(version),
                f"{document['users'][version]:,}",
                f"{document['reached'][version]:,}",
                f"{rate:.2%}" if rate is not None else "–",
            )
        )
    return text.table(rows, [("bold", None, None, None)] * 2, on)
