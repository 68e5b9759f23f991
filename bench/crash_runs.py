"""The runs of `crash.py`: what is done, who is killed when, and what must come of it.

A run is an operation, a gap between two entries of its journal, and a victim. The gaps are read from the journal of
the same operation that nobody disturbed (`survey`), and what it came to is what every run is held against.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

import common
from crash_blow import Blow
from crash_expected import EXPECTED, how_it_ended, what_is_left

from segue.testing.cast import Victim
from segue.testing.kills import End, Gap, Stage

RATE = 80
"""Requests a second of each stage, over 64 connections; several stages play at a time."""


@dataclass(frozen=True)
class Operation:
    """What a person does. `ready`: what must have been done before. `since`: the first step that is struck, where
    those before it are another operation's as well. `users`: whether anybody is served. `bad`: the version that is
    brought answers 500."""

    name: str
    act: Callable[..., End]
    ready: Callable[[Stage], object] = Stage.at_rest
    since: str = ""
    users: bool = True
    bad: bool = False

    def struck(self, gaps: Sequence[Gap]) -> list[Gap]:
        """The gaps that are tried."""
        begins = (at for at, gap in enumerate(gaps) if gap.name.startswith("between") and self.since in gap.name)
        return list(gaps[next(begins) :] if self.since else gaps)


def _kept(stage: Stage) -> None:
    stage.update(use="blue_green", keep="10m")


def _kept_with_hook(stage: Stage) -> None:
    stage.update(use="blue_green", keep="10m", after=True)


def _sized(stage: Stage, count: int) -> None:
    if len(stage.instances()) != count:
        stage.scale(count=count)


def _serving(stage: Stage) -> None:
    if not stage.instances():
        stage.update()


def _stopped(stage: Stage) -> None:
    if stage.instances():
        stage.down()


STRATEGIES = ("rolling", "in_place", "blue_green", "canary")

OPERATIONS = (
    *(Operation(use, partial(Stage.update, use=use)) for use in STRATEGIES),
    *(Operation(f"{use}, refused", partial(Stage.refused, use=use), since="judge", bad=True) for use in STRATEGIES),
    Operation("held, then promote", Stage.approved, since="hold"),
    Operation("held, then rollback", Stage.withdrawn, since="hold"),
    Operation("rollback in keep", Stage.rollback, ready=_kept),
    Operation("retire", Stage.retire, ready=_kept_with_hook),
    Operation("scale up", partial(Stage.scale, count=3), ready=partial(_sized, count=2)),
    Operation("scale down", partial(Stage.scale, count=2), ready=partial(_sized, count=3)),
    Operation("down", Stage.down, ready=_serving, users=False),
    Operation("first deploy", Stage.update, ready=_stopped, users=False),
)


@dataclass(frozen=True)
class Undisturbed:
    """What an operation comes to, its gaps, and what runs afterwards; `nobody`: and what runs where nobody serves."""

    operation: Operation
    end: End
    gaps: tuple[Gap, ...]
    census: Mapping[str, int]
    nobody: Mapping[str, int]


@dataclass(frozen=True)
class Run:
    """One operation, disturbed once."""

    whole: Undisturbed
    gap: Gap
    victim: Victim

    @property
    def name(self) -> str:
        """By which it is chosen with ``--only``."""
        return f"{self.whole.operation.name}: {self.gap}: {self.victim}"


@dataclass(frozen=True)
class Result:
    """What came of a run. `who`: the killed instance's version, old or new. `without`: seconds that nobody served.
    `aimed`: whether the journal still stood in the gap when the blow had fallen."""

    run: Run
    flaws: tuple[str, ...]
    refused: bool = False
    requests: int = 0
    lost: int = 0
    who: str = ""
    without: float | None = None
    aimed: bool = False

    @property
    def said(self) -> str:
        """The result in a few words."""
        if self.flaws:
            return f"FAILED: {'; '.join(self.flaws)}"
        parts = [self.who and f"{self.who}:", "refused" if self.refused else "same"]
        if self.without is not None:
            parts.append(f"{self.without:.2f} s, {self.lost} lost")
        return " ".join(part for part in parts if part)


SOON = """\
#!/bin/sh
for word; do
    shift
    case $before in
    --drain-time-s) set -- "$@" 3 ;;
    --parent-shutdown-time-s) set -- "$@" 5 ;;
    *) set -- "$@" "$word" ;;
    esac
    before=$word
done
exec {envoy} "$@"
"""
"""An Envoy that gives the one which it replaces five seconds in place of 35: every run would wait for that."""


@contextmanager
def a_stage(*, users: bool) -> Iterator[Stage]:
    """A shop of its own in which a first version serves; `users`: under load."""
    with common.shop() as shop:
        shop.segue.environment["SEGUE_ENVOY"] = str(common.stand_in(shop.segue.home.parent, SOON))
        stage = Stage(shop.segue, shop, Random(), RATE)
        try:
            stage.launch()
            if not users:
                stage.rest()
            yield stage
        finally:
            stage.close()


def survey(operation: Operation) -> Undisturbed:
    """Carry an operation out twice and disturb nobody; RuntimeError if it does not come to the same."""
    with a_stage(users=operation.users) as stage:
        operation.ready(stage)
        first = operation.act(stage)
        operation.ready(stage)
        end = operation.act(stage)
        if end != first or end.lost or not end.running or end.told != 1:
            raise RuntimeError(f"{operation.name} comes to {first}, then to {end}:\n{stage.said}")
        gaps = operation.struck(stage.witness.gaps(end.rollout))
        census = stage.census()
        _stopped(stage)
        common.progress(f"{operation.name}: {len(gaps)} gaps")
        return Undisturbed(operation, end, tuple(gaps), census, stage.census())


def play(runs: Sequence[Run], seed: int, failures: Path) -> list[Result]:
    """Runs of one operation, one after the other."""
    results: list[Result] = []
    while len(results) < len(runs):
        results += _on_one_stage(runs[len(results) :], seed, failures)
    return results


def _on_one_stage(runs: Sequence[Run], seed: int, failures: Path) -> list[Result]:
    """As many of `runs` as a stage lasts: until one of them fails."""
    results: list[Result] = []
    try:
        with a_stage(users=runs[0].whole.operation.users) as stage:
            for run in runs:
                results.append(_one(stage, run, seed, failures))
                common.progress(f"{run.name}: {results[-1].said}")
                if results[-1].flaws:
                    break
    except Exception as wrong:  # noqa: BLE001 (whatever it is, it came of these runs)
        if not results:
            return [Result(runs[0], (f"there was no stage: {wrong}",))]
        if not results[-1].flaws:
            results[-1] = replace(results[-1], flaws=(f"when all was over: {wrong}",))
    return results


def _one(stage: Stage, run: Run, seed: int, failures: Path) -> Result:
    """One run, whatever comes of it; of one that failed the logs are kept in `failures`."""
    blow = Blow(run.gap, run.victim, Random(f"{seed} {run.name}"), bad=run.whole.operation.bad)
    try:
        result = _played(stage, run, blow)
    except Exception as wrong:  # noqa: BLE001 (a run that does not end is a result)
        result = Result(run, (f"{type(wrong).__name__}: {wrong}",), who=blow.who)
    if result.flaws:
        folder = failures / re.sub(r"\W+", "-", run.name)
        folder.mkdir(parents=True, exist_ok=True)
        for file in [*stage.segue.home.glob("*.log"), *stage.segue.home.glob("envoy/*.log")]:
            shutil.copy(file, folder)
        shutil.copytree(stage.segue.home / "journal", folder / "journal", dirs_exist_ok=True)
        (folder / "said").write_text(f"{result.said}\n\n{stage.said}\n")
    return result


def _played(stage: Stage, run: Run, blow: Blow) -> Result:
    operation = run.whole.operation
    operation.ready(stage)
    if operation.users and EXPECTED[run.victim].loses:  # the first losses are kept with their time
        stage.rest()
        stage.load()
    before, envoy = stage.status(), stage.envoy()
    end = operation.act(stage, blow)
    refused = end.exit != run.whole.end.exit
    flaws = [
        *how_it_ended(run.whole.end, before, blow, end),
        *what_is_left(run.whole.nobody if refused and not operation.users else run.whole.census, envoy, blow, stage),
    ]
    who = f"{blow.who}, the only one" if blow.alone else blow.who
    return Result(run, tuple(flaws), refused, end.requests, end.lost, who, blow.without, blow.aimed)
