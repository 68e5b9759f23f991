"""A plan as text: the steps with what is true after each, what it takes, and what its judgements could say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from segue.cli import text
from segue.cli.text import plain, words
from segue.core.quantities import about, count, duration, rate


def overview(service: str, document: Mapping[str, Any], *, on: bool) -> str:
    """The plan that `document` is, as the control plane answered it."""
    way = f"{document['from'] or 'nothing'} → {document['to']}"
    lines = [f"{text.paint(service, 'bold', on)}  {way}  {words(document['strategy'])}", ""]
    lines += [_steps(document, on), "", _costs(document), *_judgements(document, on)]
    lines += (f"Note: {plain(note)}" for note in document.get("notes") or [])
    return "\n".join(lines)


def _steps(document: Mapping[str, Any], on: bool) -> str:
    rows = [("", "STEP", "INSTANCES AFTER IT", "TRAFFIC AFTER IT")]
    styles: list[tuple[str | None, ...]] = []
    for number, step in enumerate(document["steps"], 1):
        counts = ", ".join(f"{revision}: {count}" for revision, count in step["counts"].items())
        shares = ", ".join(f"{revision} {text.share(share)}" for revision, share in step["shares"].items())
        rows.append((str(number), step["step"], counts or "none", shares or "to nobody"))
        late = number > document.get("decided_after", len(document["steps"]))
        styles.append(("dim", "dim" if late else None, None, None))
    return text.table(rows, styles, on)


def _costs(document: Mapping[str, Any]) -> str:
    proofs = [one for one in document.get("judgements") or [] if one["waits_for"] == "proof"]
    unknown = any("until it is proven" in step["step"] for step in document["steps"]) and not proofs
    least = "at least" if unknown or any(one["possible"] is None for one in proofs) else "about"
    return (
        f"Decided after step {document['decided_after']}. "
        f"At most {count(document['peak'], 'instance')} ({document['extra']} more than usual, "
        f"{document['instance_minutes']:.3g} instance-minutes of it), {least} {text.seconds(document['seconds'])}."
    )


def _judgements(document: Mapping[str, Any], on: bool) -> Iterator[str]:
    """What traffic there is, what each judgement can say with it, and what is done where it can say nothing."""
    judgements, traffic = document.get("judgements"), document.get("traffic")
    if not judgements or not traffic:
        return
    yield f"\nTraffic: {plain(traffic['text'])}. What each judgement sees, and how soon:\n"
    rows = [("STEP", "SHARE", "VERDICT", *(found["harm"].upper() for found in judgements[0]["finds"]))]
    for one in judgements:
        cells = (_found(found) for found in one["finds"])
        rows.append((str(one["step"]), text.share(one["share"]), _verdict(one), *cells))
    yield text.table(rows, [("dim", *(None for _ in rows[0][1:]))] * (len(rows) - 1), on) + "\n"
    yield from (f"Step {one['step']}, {plain(one['text'])}." for one in judgements if one["text"])


def _verdict(one: Mapping[str, Any]) -> str:
    """What a judgement waits for, and what that takes."""
    if one["waits_for"] == "silence":
        return f"no alarm for {duration(one['most'])}"
    if one["needs"] is None:
        return "cannot come"
    if one["possible"]:
        took = max(one["least"], one["needs_seconds"])
        return f"in {duration(took)}, {about(one['needs']):,} requests"
    return f"{about(one['needs']):,} requests: from {rate(one['needs_rate'])}/s on"


def _found(found: Mapping[str, Any]) -> str:
    if found["in_time"]:
        return duration(found["seconds"])
    if found["from_rate"] is not None:
        return f"from {rate(found['from_rate'])}/s on"
    return "not so soon" if found["ever"] else "never"
