"""Which strategy fits a change: values in, advice with its reasons out. Nothing is looked at from here.

Rule 1: what the change calls for is decided first, what there is room for second; where the two disagree the
advice says what is given up, and what it would take not to give it up.
Rule 2: a small change goes the cheap way (rolling), a large one the way that is gone back in one switch
(blue/green), and what is to be proven goes where it is proven (canary; an experiment for a comparison by a goal).
Rule 3: what is not known is said. A change that cannot be measured counts as a large one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from segue.core import grounds
from segue.core.situation import Change, Situation, Size, Way


@dataclass(frozen=True, slots=True)
class Advice:
    """The strategy to take, why, what is given up by it (None: nothing), and what speaks against each other one."""

    strategy: str
    reasons: tuple[str, ...]
    trade_off: str | None
    against: Mapping[str, str]


def advise(change: Change | None, why_unknown: str, situation: Situation, ways: Mapping[str, Way]) -> Advice:
    """The advice. `change` of None: what differs cannot be known, for `why_unknown`. `ways`: by strategy."""
    wanted = tuple(_wanted(change, situation, ways))
    fitting = [name for name in wanted if name in ways and ways[name].obstacle(situation) is None]
    chosen = fitting[0] if fitting else _cheapest(ways)
    given_up = chosen != wanted[0] or not fitting
    return Advice(
        chosen,
        tuple(grounds.reasons(change, why_unknown, situation, ways)),
        grounds.trade_off(wanted[0], chosen, situation, ways) if given_up else None,
        {name: grounds.against(ways[name], situation, ways[chosen]) for name in ways if name != chosen},
    )


def _wanted(change: Change | None, situation: Situation, ways: Mapping[str, Way]) -> Iterator[str]:
    """The strategies, the one that suits the change most first."""
    if situation.experiment:
        yield "experiment"
    if situation.experiment or situation.validate:
        yield "canary"
    yield from _by_size(change, situation, ways)
    yield from ("rolling", "blue_green", "canary", "in_place")


def _by_size(change: Change | None, situation: Situation, ways: Mapping[str, Way]) -> Iterator[str]:
    if situation.serving == 0:
        return
    size = change.size if change else Size.UNKNOWN
    risky = change is not None and (change.dependencies or size is Size.MEDIUM)
    if size in (Size.LARGE, Size.UNKNOWN) or (change and change.migrations) or situation.lasting:
        yield "blue_green"
    elif risky and _proves(ways):
        yield "canary"
    elif change and change.dependencies:
        yield "blue_green"


def _proves(ways: Mapping[str, Way]) -> bool:
    return "canary" in ways and ways["canary"].verdict is True


def _cheapest(ways: Mapping[str, Way]) -> str:
    """The strategy that needs least, where there is room for none."""
    return min(ways, key=lambda name: (ways[name].problem is not None, ways[name].extra, ways[name].minutes))
