"""An advice as it is printed: for people, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from segue.cli import text
from segue.cli.text import words
from segue.core.advise import Advice
from segue.core.quantities import count
from segue.core.situation import Change, Situation, Way


@dataclass(frozen=True, slots=True)
class Advised:
    """An advice with what it was made from. `label`: the version that serves; `alone`: no control plane was asked.

    `next`: the command to type.
    """

    service: str
    label: str | None
    alone: bool
    change: Change | None
    situation: Situation
    ways: Mapping[str, Way]
    advice: Advice
    next: str


def lines(it: Advised, *, on: bool) -> Iterator[str]:
    """The advice for people, in colour if `on`."""
    where = "no control plane runs: by the folder alone" if it.alone else f"{it.label or 'nothing'} serves"
    yield f"{text.paint(it.service, 'bold', on)}  {where}"
    yield f"\nAdvice: {text.paint(words(it.advice.strategy), 'bold', on)}\n"
    yield from (f"  • {text.plain(reason)}" for reason in it.advice.reasons)
    if it.advice.trade_off:
        yield f"  {text.paint('!', 'yellow', on)} {text.plain(it.advice.trade_off)}"
    rows = [("", "STRATEGY", "AT MOST", "MORE INSTANCE-MINUTES", "TIME", "AGAINST IT")]
    rows += [_row(way, it.advice) for way in it.ways.values()]
    yield "\n" + text.table(rows, [("green", None, None, None, None, None)] * len(it.ways), on)
    yield f"\nNext: {it.next}"


def _row(way: Way, advice: Advice) -> tuple[str, str, str, str, str, str]:
    mark, against = ("▸" if way.strategy == advice.strategy else ""), advice.against.get(way.strategy, "")
    if way.problem is not None:
        return mark, words(way.strategy), "–", "–", "–", text.plain(against or way.problem)
    minutes = f"{way.minutes:.2g}" + (f", then {way.kept:.3g}" if way.kept else "")
    least = "at least " if way.verdict is None and way.from_rate else ""
    most, took = count(way.peak, "instance"), least + text.seconds(way.seconds)
    return mark, words(way.strategy), most, minutes, took, text.plain(against)


def document(it: Advised) -> dict[str, Any]:
    """The advice as JSON."""
    situation, room = it.situation, it.situation.room
    return {
        "service": it.service,
        "from": it.label,
        "strategy": it.advice.strategy,
        "reasons": list(it.advice.reasons),
        "trade_off": it.advice.trade_off,
        "change": it.change and {**asdict(it.change), "size": it.change.size.value},
        "traffic": {"per_second": situation.rate, "open": situation.open, "long_lived": situation.lasting},
        "room": {"instances": room.instances, "bytes": room.free, "each": room.each, "busy": situation.busy},
        "strategies": [{**asdict(way), "against": it.advice.against.get(name)} for name, way in it.ways.items()],
        "next": it.next,
    }
