"""`segue demo`: plays the acts under load, tells after each what users saw, and gives the account at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from segue.demo import account
from segue.demo.account import Played
from segue.demo.acts import SCENES, Act, Scene
from segue.demo.builds import NEW, OLD
from segue.demo.stage import RATE, WIDTH, Stage, place
from segue.testing.apps import NotInstalled, httpbin
from segue.testing.load import Probe
from segue.testing.tally import Tally

SETTLED = 100
"""So many more requests are waited for before and after each act."""


@dataclass(slots=True)
class Tour:
    """What has been played so far. `wholes`: everything that the users of each scene saw."""

    played: list[Played] = field(default_factory=list)
    wholes: list[Tally] = field(default_factory=list)
    number: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Play the tour; 0 when every act ended as it must and no request was lost."""
    screen = sys.stdout
    screen.write(f"Installing httpbin {OLD} and {NEW} with gunicorn (once, some 30 MB) …\n")
    screen.flush()
    try:
        for version in (OLD, NEW):
            httpbin(version)
    except NotInstalled as missing:
        sys.stderr.write(f"The tour needs httpbin from PyPI: {missing}\n")
        return 1
    with place() as folder:
        return _play(folder, screen)


def _play(folder: Path, screen: TextIO) -> int:
    tour = Tour()
    for scene in SCENES:
        at = Stage(folder, screen, scene)
        if not _open(at, tour, scene):
            return 1
        users = at.load()
        try:
            _under_load(at, tour, users)
        finally:
            users.kill()
        at.clear()
    return _account(at, tour)


def _open(at: Stage, tour: Tour, scene: Scene) -> bool:
    at.say(f"\n{scene.tells}.\nIts folder: {at.folder}")
    _title(at, tour, scene.launch)
    _put(at, scene.launch)
    ended = at.show(*scene.launch.command)
    if ended.exit or at.serving() != scene.launch.serves:
        at.say("The first launch failed; the tour ends here.")
        return False
    at.say(f"\nUsers from here on: 64 connections, {RATE:g} requests a second, a process of their own.")
    return True


def _under_load(at: Stage, tour: Tour, users: Probe) -> None:
    users.more(SETTLED)
    before = Tally()
    for act in at.scene.acts:
        tour.played.append(_perform(at, tour, users, before, act))
        before = tour.played[-1].after
    tour.wholes.append(users.finish())


def _perform(at: Stage, tour: Tour, users: Probe, before: Tally, act: Act) -> Played:
    _title(at, tour, act)
    _put(at, act)
    ended = at.show(*act.command)
    serving, after = at.serving(), users.more(SETTLED)
    played = Played(tour.number, act, ended.exit, serving, ended.seconds, before, after, at.ask("report"))
    for line in account.users_saw(played, at.scene.replicas):
        at.say(line, hang=7)
    for fault in played.faults:
        at.say(f"NOT AS EXPECTED: {fault}")
    return played


def _put(at: Stage, act: Act) -> None:
    if act.build is not None:
        act.build.put(at.folder)


def _title(at: Stage, tour: Tour, act: Act) -> None:
    tour.number += 1
    at.say(f"\n{f'── {tour.number}. {act.how}: {act.title} ':─<{WIDTH}}")


def _account(at: Stage, tour: Tour) -> int:
    at.say(f"\n{' The account ':─^{WIDTH}}")
    for line in (*account.table(tour.played, tour.wholes), "", *account.books(tour.played), ""):
        at.say(line)
    for line in account.reasons(tour.played):
        at.say(line, hang=4)
    faults, lost = sum(bool(one.faults) for one in tour.played), account.lost(tour.wholes)
    if faults or lost:
        at.say(f"\n{faults} of {len(tour.played)} acts did not end as expected; {lost} requests were lost.")
        for whole in tour.wholes:
            at.say("\n".join(f"  {one.at:%H:%M:%S}  {one.kind}: {one.detail}" for one in whole.lost), hang=4)
        return 1
    at.say("\nEvery act ended as it must, and no request was lost.")
    return 0
