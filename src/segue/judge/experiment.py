"""Do more of the new version's users reach the goal? What an A/B experiment shows, for as many looks as one likes.

A user is *given* a version when first seen, the new one with the chance s (`share`), and *reaches* the goal once,
later, or never. The null hypothesis of a ratio ρ is: **with the new version, a user's chance of reaching the goal is,
at every delay, ρ times what it would be with the old one.** Chances and delays may differ from user to user and from
hour to hour. Of somebody who reaches the goal at some moment, where f is the density of doing so then with the old
version,

    P(given the new version | all who reached it before, and theirs) = s·ρf / (s·ρf + (1 − s)·f) = sρ / (sρ + 1 − s)

for users are given versions independently of each other. So those who reached the goal are the coins of `split.py`,
and how many of them are new, how many old is all that the set of ratios is made of. With ρ = 1 nothing is assumed of
anybody: if the version changes nothing, theirs are as the hash gave them, whatever the delays and however many come
together. No time is cut into slots: only the totals until now count. And nothing is capped, unlike in an alarm: a
pause of one instance is one event of many requests, but the coins of users are thrown one by one.

*Not by risk sets.* A logrank test among those who have not reached the goal yet looks sharper, but in the order of
time it is wrong here: it takes all of them as equally near to the goal, and those who were just given a version are
nearer. Where 60 % of users reach the goal at once and nothing differs, it finds a difference in 31 % of experiments
at a doubt of 5 % (`bench/experiment.py`). Nor are k of n users binomial before all of them have had their time.

*The price.* How many users each version was given is used for the estimate only, which is the quotient of the rates.
With a base rate of p the set takes 1 / (1 − p) times the users of one that could use it: no more at 5 %, twice as
many at 50 %. So of two goals the rarer one shows more. The set is widened to hold the estimate: where everybody
reaches the goal it could else miss it.

*What ρ means* where it changes with the delay: a mean over those who reached the goal so far. A version that only
makes users faster looks better at first; what remains of that shrinks as the experiment lasts.

*The split* of all users is tested in the same way, with a doubt of `SPLIT`. If it is wrong nothing else can be
trusted: users of one version are lost, counted twice, or sent elsewhere, and which ones is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, exp, inf, log

from segue.judge.reasons import count, percent
from segue.judge.split import Coins
from segue.judge.words import one_of

SPLIT = 0.001
"""How often, at most, a right split is called wrong."""
_LEANS = log(2)
"""Evidence below which nothing is said of a difference: chance makes as much in half of all experiments."""
_MOST = 10**12


class Say(StrEnum):
    """What is to be done now."""

    KEEP = "keep"
    DROP = "drop"
    NEITHER = "no difference yet"
    DISTRUST = "do not trust"


@dataclass(frozen=True, slots=True)
class Seen:
    """Users seen with each version since the experiment began, and how many of them reached the goal."""

    new: int = 0
    old: int = 0
    reached_new: int = 0
    reached_old: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """What an experiment shows. Pairs are (new, old).

    `rates`: reached / users; None without users. `low`, `high`: the confidence sequence for how many times as often
    the new version's users reach the goal. `estimate`: the quotient of the rates; None if the old one is 0 or none.
    `split_log_e`: the evidence, as a logarithm, against the split that was asked for. `needed`: about how many more
    users, of both versions together, show the difference if it is as estimated; None if it is shown, or if chance
    makes as much in half of all experiments. `detectable`: the smallest ratio above 1 that is expected to be shown
    when `to_come` more users were seen; None if nobody reached the goal, or everybody's reaching it would not do.
    """

    users: tuple[int, int]
    reached: tuple[int, int]
    rates: tuple[float | None, float | None]
    low: float
    high: float
    estimate: float | None
    split_log_e: float
    say: Say
    needed: int | None
    to_come: float
    detectable: float | None


def find(seen: Seen, share: float, *, doubt: float = 0.05, users_to_come: float = 0.0) -> Finding:
    """What was found when the new version was asked to be given to `share` of users.

    `users_to_come`: expected until the end, of both versions; if none, as many again as were seen. In at most `doubt`
    of experiments the true ratio is ever outside of the set. ValueError: a share that is not between 0 and 1, or a
    count that is negative.
    """
    rates = _rate(seen.reached_new, seen.new), _rate(seen.reached_old, seen.old)
    split, goal = Coins(seen.new, seen.old, share), Coins(seen.reached_new, seen.reached_old, share)
    estimate = rates[0] / rates[1] if rates[0] is not None and rates[1] else None
    low, high = goal.ratios(doubt) if None not in rates else (0.0, inf)
    if estimate is not None:
        low, high = min(low, estimate), max(high, estimate)
    say = _say(low, high, split.log_e())
    to_come = users_to_come if users_to_come > 0 else seen.new + seen.old
    return Finding(
        users=(seen.new, seen.old),
        reached=(seen.reached_new, seen.reached_old),
        rates=rates,
        low=low,
        high=high,
        estimate=estimate,
        split_log_e=split.log_e(),
        say=say,
        needed=_needed(seen, goal, doubt) if say is Say.NEITHER and None not in rates else None,
        to_come=to_come,
        detectable=_detectable(seen, to_come, share, doubt),
    )


def _rate(reached: int, users: int) -> float | None:
    return reached / users if users else None


def _say(low: float, high: float, split_log_e: float) -> Say:
    if split_log_e >= -log(SPLIT):
        return Say.DISTRUST
    if low > 1:
        return Say.KEEP
    return Say.DROP if high < 1 else Say.NEITHER


def _needed(seen: Seen, goal: Coins, doubt: float) -> int | None:
    """How many more users, at the rates that were seen, take the evidence against "no difference" to 1/doubt."""
    if not _LEANS <= goal.log_e() < -log(doubt):
        return None
    new, old = goal.share * seen.reached_new / seen.new, (1 - goal.share) * seen.reached_old / seen.old

    def enough(more: float) -> bool:
        return Coins(goal.new + more * new, goal.old + more * old, goal.share).log_e() >= -log(doubt)

    most = 1.0
    while not enough(most):
        most *= 2
        if most > _MOST:
            return None
    return ceil(_least(enough, 0.0, most))


def _detectable(seen: Seen, to_come: float, share: float, doubt: float) -> float | None:
    """The ratio whose expected counts, among all users until then, are evidence of 1/doubt."""
    users = seen.new + seen.old
    reached = seen.reached_new + seen.reached_old
    if not users or not reached:
        return None
    expected = (users + to_come) * reached / users

    def enough(log_ratio: float) -> bool:
        return Coins(expected * share * exp(log_ratio), expected * (1 - share), share).log_e() >= -log(doubt)

    everybody = max(0.0, log(users / reached))
    return exp(_least(enough, 0.0, everybody)) if enough(everybody) else None


def _least(enough: Callable[[float], bool], no: float, yes: float) -> float:
    """The least number that is `enough`, where `no` is not and `yes` is."""
    for _ in range(24):
        middle = (no + yes) / 2
        no, yes = (no, middle) if enough(middle) else (middle, yes)
    return yes


def words(finding: Finding, share: float, new: str, old: str, goal: str, *, over: bool = False) -> list[str]:
    """What was found, in sentences. `goal`: what users reach, such as a path. `over`: nothing is to be done."""
    if not sum(finding.users):
        return ["No user was seen yet."]
    counted = _counted(finding, new, old, goal)
    if finding.say is Say.DISTRUST:
        return [_split(finding, share, new), _DISTRUST, counted]
    return [counted, *_often(finding, new), *(_conclusion(finding) if over else _advice(finding, new, goal))]


_DISTRUST = "Do not trust a comparison: users of one version are lost, counted twice or sent elsewhere."


def _counted(finding: Finding, new: str, old: str, goal: str) -> str:
    (of_new, of_old), (reached_new, reached_old) = finding.users, finding.reached
    if not of_new:
        return f"{_reached(reached_old, of_old, old, goal)}; no user of {new} was seen yet."
    first = _reached(reached_new, of_new, new, goal)
    if not of_old:
        return f"{first}; no user of {old} was seen yet."
    return f"{first}, {count(reached_old)} of {count(of_old)} of {old} ({percent(reached_old, of_old)})."


def _reached(reached: int, users: int, name: str, goal: str) -> str:
    return f"{count(reached)} of {_users(users)} of {name} reached {goal} ({percent(reached, users)})"


def _users(number: int) -> str:
    return f"{count(number)} user{'s' if number != 1 else ''}"


def _split(finding: Finding, share: float, new: str) -> str:
    users = sum(finding.users)
    odds = one_of(exp(min(finding.split_log_e, 20.0)))
    return (
        f"{percent(finding.users[0], users)} of {_users(users)} were given {new}, {share * 100:g} % were asked for: "
        f"chance does that in fewer than {odds} experiments."
    )


def _often(finding: Finding, new: str) -> Iterator[str]:
    """The set and the estimate, unless the set says next to nothing."""
    low, high = finding.low, finding.high if finding.high < _HUGE else inf
    digits = _digits(low, high)
    if low > 0 and high < inf:
        often = f"{_times(low, digits)} to {_times(high, digits)}"
    elif low > 1 or high < 1:
        often = f"at least {_times(low, digits)}" if low > 1 else f"at most {_times(high, digits)}"
    else:
        return
    likely = f", most likely {_times(finding.estimate, digits)} times" if finding.estimate else ""
    yield f"{new}'s users reach it {often} times as often{likely}."


_HUGE = 1000.0
"""Ends above it say nothing."""


def _times(ratio: float, digits: int) -> str:
    return f"{ratio:,.{digits}f}" if ratio < 10 else f"{ratio:,.{max(digits - 1, 0)}f}"


def _digits(low: float, high: float) -> int:
    """So many that the distance of the ends has two digits, and that an end beside 1 is not written as 1."""
    for digits in range(2, 7):
        if high - low >= 10 ** (1 - digits) and all(end == 1 or round(end, digits) != 1 for end in (low, high)):
            return digits
    return 6


def _conclusion(finding: Finding) -> Iterator[str]:
    if finding.say not in (Say.KEEP, Say.DROP):
        yield "No difference was shown."


def _advice(finding: Finding, new: str, goal: str) -> Iterator[str]:
    if finding.say is Say.KEEP:
        yield f"Keep {new}: `segue promote`."
    elif finding.say is Say.DROP:
        yield f"Drop {new}: `segue rollback`."
    elif None in finding.rates:
        yield "There is nothing to compare it with yet."
    elif not sum(finding.reached):
        yield f"No difference can be seen before users reach {goal}."
    elif finding.needed is not None:
        more = f"about {_about(finding.needed)} more users show it"
        yield f"No difference is shown yet; if it is what it looks like, {more}."
    elif finding.detectable is not None:
        ratio = _times(finding.detectable, _digits(1, finding.detectable))
        more = f"About {_about(finding.to_come)} more users would show a difference of {ratio} times."
        yield f"No difference is shown yet. {more}"
    elif sum(finding.reached) > sum(finding.users) / 2:
        yield "No difference is shown yet. A goal that fewer users reach shows one sooner."
    else:
        yield "No difference is shown yet: too few users were seen."


def _about(users: float) -> str:
    """Rounded up to two digits."""
    digit = 10 ** max(len(str(ceil(users))) - 2, 0)
    return f"{ceil(users / digit) * digit:,}"
