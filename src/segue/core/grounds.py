"""The sentences of an advice: why, what is given up, what speaks against the other strategies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from segue.core.quantities import count, duration, minutes, rate, size_of, some
from segue.core.situation import BUSY, Change, Room, Situation, Size, Way

NAMES = {
    "rolling": "rolling",
    "in_place": "in place",
    "blue_green": "blue/green",
    "canary": "a canary",
    "experiment": "an experiment",
}


def reasons(change: Change | None, why_unknown: str, situation: Situation, ways: Mapping[str, Way]) -> Iterator[str]:
    """What the advice rests on, each with its numbers. `why_unknown`: why there is no `change`."""
    if change is None:
        yield (
            f"How large the change is, is not known: {why_unknown}. It is taken for a large one; "
            "`--since COMMIT` says from where to count."
        )
    else:
        yield from _of_change(change, situation)
    yield from _of_situation(situation, ways)
    if situation.experiment:
        yield "It is to be shown by a goal which version is better: that takes users who stay on their version."
    if situation.validate:
        yield "It is to be shown that the new version is no worse: only a canary waits for proof."


def _of_change(change: Change, situation: Situation) -> Iterator[str]:
    yield _how_large(change)
    if change.dependencies:
        yield f"{some(change.dependencies)}: dependencies change, which is more code than the lines show."
    if change.migrations:
        expand = "there is one" if situation.expands else "there is none yet"
        contract = "there is one" if situation.contracts else "there is none yet"
        yield (
            f"{some(change.migrations)}: a migration. Until the old version is gone both use the same data, by every "
            f"strategy: expand in `hooks.before` ({expand}), contract in `hooks.after` ({contract})."
        )


def _how_large(change: Change) -> str:
    beside = f", besides {count(change.others, 'file')} of tests and documentation" if change.others else ""
    if not change.files:
        return f"Nothing that runs has changed since {change.since}{beside}."
    size = {Size.SMALL: "small", Size.LARGE: "large"}.get(change.size, "neither small nor large")
    counted = f"{count(change.files, 'file')}, {count(change.lines, 'line')}"
    return f"The change is {size}: {counted} since {change.since}{beside}."


def _of_situation(situation: Situation, ways: Mapping[str, Way]) -> Iterator[str]:
    if situation.serving == 0:
        yield "Nothing serves yet: the first version is started and gets all of the traffic, by every strategy."
    yield _how_much_room(situation.room)
    if situation.busy is not None and situation.busy > BUSY:
        yield f"The processors are busy ({situation.busy:.0%}): who is served now feels it when instances start."
    if situation.most is not None:
        yield f"There may be {count(situation.most, 'instance')} at a time, as you say."
    yield _how_much_traffic(situation, ways.get("canary"))
    if situation.lasting:
        seen = f" ({situation.open} are open now)" if situation.open else ""
        yield (
            f"Connections live long{seen}, and end with their instance: by blue/green everybody's ends once; by "
            "rolling who comes back may meet an instance that goes next. See `stop.drain` and `stop.spread`."
        )


def _how_much_room(room: Room) -> str:
    if room.instances is None or room.free is None or room.each is None:
        return "How much room there is for a second set, is not known: no instance runs whose memory can be measured."
    sizes = f"{size_of(room.free)} to spare, {size_of(room.each)} each"
    return f"There is memory for {count(room.instances, 'instance')} more ({sizes})."


def _how_much_traffic(situation: Situation, canary: Way | None) -> str:
    needs = canary.from_rate if canary else None
    if situation.rate is None:
        proves = f"; a canary proves something from {rate(needs)} requests a second on" if needs else ""
        return f"How much traffic there is, is not known{proves}."
    told = f"There are {rate(situation.rate)} requests a second" if situation.rate else "No request came lately"
    if canary is None or needs is None:
        return f"{told}."
    comes = "can" if canary.verdict else "cannot"
    return f"{told}; a canary proves something from {rate(needs)} a second on, so a verdict {comes} come."


def against(way: Way, situation: Situation, chosen: Way) -> str:
    """What speaks against a strategy where `chosen` is the one that is advised."""
    if (obstacle := way.obstacle(situation)) is not None:
        return obstacle
    longer, more = way.seconds - chosen.seconds, way.minutes + way.kept - chosen.minutes - chosen.kept
    match way.strategy:
        case "rolling":
            return "both versions answer side by side; going back afterwards starts the old one again"
        case "in_place":
            return "a batch of the instances is missing meanwhile"
        case "blue_green":
            cost = f"{minutes(more)} instance-minutes more; " if more > 0 else ""
            return f"{cost}everybody meets the new version at once"
        case "experiment":
            return "says which version is better by a goal, and ends when a person says so"
    if way.verdict is False:
        return "too little traffic for a verdict"
    if way.verdict is None:
        return "it is not known whether a verdict can come"
    return f"takes {duration(longer)} longer for a proof" if longer > 0 else "both versions answer side by side"


def trade_off(wanted: str, chosen: str, situation: Situation, ways: Mapping[str, Way]) -> str:
    """What is given up where the strategy that suits the change cannot be had, and what it would take to have it."""
    if wanted not in ways:
        return (
            f"What suits is {NAMES[wanted]}: `strategy.experiment` of the manifest names its goal. {_instead(chosen)}"
        )
    obstacle, stopped = ways[wanted].obstacle(situation), ways[chosen].obstacle(situation)
    said = [f"What suits is {NAMES[wanted]}, but {obstacle}."]
    if chosen == wanted or stopped is not None:
        said.append("None of the strategies can be had as it is.")
    else:
        said.append(_given_up(ways[chosen]))
    return " ".join([*said, *_to_have(ways[wanted], situation)])


def _instead(chosen: str) -> str:
    if chosen == "canary":
        return "The trade: a canary, `sticky: cookie`, `approve: manual`, shows that a version is no worse, not more."
    return f"The trade: {NAMES[chosen]} compares nothing by a goal."


def _given_up(way: Way) -> str:
    """What one lives with by this strategy."""
    match way.strategy:
        case "rolling":
            return (
                f"The trade: by rolling both versions answer side by side for about {duration(way.seconds)}, and to "
                "go back afterwards the old version is started again."
            )
        case "in_place":
            return "The trade: in place a batch of the instances is missing meanwhile, and again on a way back."
        case "blue_green":
            return (
                "The trade: by blue/green everybody meets the new version at once, and it is compared only with what "
                "the old one did before; with `approve: manual` a person looks first."
            )
    return f"The trade: {NAMES[way.strategy]} takes about {duration(way.seconds)}."


def _to_have(way: Way, situation: Situation) -> Iterator[str]:
    """What it would take to go this way."""
    room, serving = situation.room.instances, situation.serving or situation.replicas
    if way.problem is not None:
        return
    if situation.most is not None and way.peak > situation.most:
        yield f"For {NAMES[way.strategy]} allow {way.peak} instances."
    elif room is not None and way.extra > room:
        missing, fewer = way.extra - room, (serving + room) // 2
        memory = f" ({size_of(missing * situation.room.each)})" if situation.room.each else ""
        scale = f", or have {fewer} instead of {serving} (`replicas: {fewer}`)" if 0 < fewer < serving else ""
        yield f"For {NAMES[way.strategy]} make room for {count(missing, 'instance')} more{memory}{scale}."
    elif way.from_rate is not None:
        yield f"A verdict can come from {rate(way.from_rate)} requests a second on, or within a longer `most`."
