"""What must come of a run of `crash.py`, by who was killed, and what is wrong with what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from crash_blow import MORE, Blow

from segue.testing.cast import Victim, gone
from segue.testing.kills import End, Stage, until


@dataclass(frozen=True)
class Expected:
    """What must be true after a victim was killed, besides what always must: the operation ends as the one that
    nobody disturbed, its end is told once, the state at rest is the same, and nothing is left running.

    `envoy`: whether Envoy is the process that it was. `loses`: requests may be lost, while nobody listens and by no
    answer. `repairs`: an instance more may be started, and restarts are not counted; where it was one of the new
    version the rollout may go back, and everything is as it was before; where no other one served, requests may be
    lost.
    """

    envoy: bool = True
    loses: bool = False
    repairs: bool = False


EXPECTED: Mapping[Victim, Expected] = {
    Victim.PLANE: Expected(),
    Victim.GUARDIAN: Expected(),
    Victim.KEEPERS: Expected(),
    Victim.ENVOY: Expected(envoy=False, loses=True),
    Victim.BOTH: Expected(envoy=False, loses=True),
    Victim.INSTANCE: Expected(repairs=True),
}


def how_it_ended(whole: End, before: Any, blow: Blow, end: End) -> Iterator[str]:
    """What is wrong with how the operation ended, where undisturbed it ends as `whole`; `before`: the status then."""
    expected = EXPECTED[blow.victim]
    may_go_back = expected.repairs and blow.who == "new"
    goes_back = may_go_back and end.exit == 1 != whole.exit
    if not end.running:
        yield "other instances run than the status shows"
    if end.told != 1:
        yield f"its end was told {end.told} times"
    yield from _losses(expected, blow, end)
    if not (end.balanced or expected.loses):
        yield "the books do not balance"
    if goes_back:
        if _calm(end.status) != _calm(before):
            yield f"refused, but not as before: {_difference(_calm(before), _calm(end.status))}"
        return
    for name in ("exit", "status", "starts", "hooks", "steps"):
        was, found = getattr(whole, name), getattr(end, name)
        if expected.repairs and name == "status":
            was, found = _calm(was), _calm(found)
        if expected.repairs and name == "starts" and was <= found <= was + 1:
            continue
        if may_go_back and name == "steps":  # what it was refused for may be the death
            continue
        if was != found:
            yield f"{name}: {_difference(was, found)}"


def _losses(expected: Expected, blow: Blow, end: End) -> Iterator[str]:
    """What is wrong with the requests that were lost."""
    if end.lost > blow.lost and not blow.alone:
        when = " after users were served again" if expected.loses else ""
        yield f"{end.lost - blow.lost} requests lost{when}"
    if expected.loses and blow.failed:
        yield f"{blow.failed} requests failed by an answer or by none in time"


def what_is_left(census: Mapping[str, int], envoy: int, blow: Blow, stage: Stage) -> Iterator[str]:
    """What is wrong with what runs, once there is a guardian again: `census` should, and Envoy was `envoy`."""
    if blow.victim is Victim.GUARDIAN:
        yield from _alone(stage, blow)
    same = EXPECTED[blow.victim].envoy
    try:  # where nobody waited for an answer, the next one may just be starting
        until(lambda: (stage.envoy() == envoy) == same or None, within=10, every=0.1)
    except TimeoutError:
        yield f"Envoy is {'another' if same else 'the same'} process"
    if stage.plane() != stage.answering():
        yield "another control plane answers than the guardian's"
    try:
        until(lambda: stage.census() == census or None, within=20, every=0.5)
    except TimeoutError:
        yield f"left: {_difference(dict(census), stage.census())}"


def _alone(stage: Stage, blow: Blow) -> Iterator[str]:
    """The guardian was killed: the control plane has gone on, and when it dies the next command brings both back."""
    if gone(blow.plane):
        yield "the control plane died without its guardian"
        return
    lost = stage.probe.tally().lost_count if stage.probe else 0
    blow.end(blow.plane)
    stage.bring_back()
    until(stage.at_rest, every=0.1)
    if stage.probe and (more := stage.probe.more(MORE).lost_count - lost):
        yield f"{more} requests lost when both came back"


def _calm(status: Any) -> Any:
    """A status without how often instances were started again."""
    versions = {
        name: {**version, "instances": [(state, problem) for state, _, problem in version["instances"]]}
        for name, version in status["versions"].items()
    }
    return {**status, "versions": versions}


def _difference(was: Any, found: Any) -> str:
    """Both, or of mappings and sequences only what differs."""
    if isinstance(was, dict) and isinstance(found, dict):
        names = [name for name in {**was, **found} if was.get(name) != found.get(name)]
        return ", ".join(f"{name} {_difference(was.get(name), found.get(name))}" for name in names)
    if isinstance(was, tuple) and isinstance(found, tuple):
        missing = [one for one in was if one not in found]
        added = [one for one in found if one not in was]
        return f"without {missing}, with {added}"
    return f"{was} became {found}"
