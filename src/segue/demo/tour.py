"""`segue demo`: plays the acts under load, tells after each what users saw, and gives the account at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from segue.demo import account
from segue.demo.account import Played
from segue.demo.acts import ACTS, LAUNCH, NEW, OLD, Act
from segue.demo.stage import RATE, WIDTH, Stage, stage
from segue.testing.apps import NotInstalled, httpbin
from segue.testing.load import Probe
from segue.testing.tally import Tally

SETTLED = 100
"""So many more requests are waited for before and after each act."""


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
    with stage(screen) as at:
        return _play(at)


def _play(at: Stage) -> int:
    at.say(f"The shop is httpbin under gunicorn, 2 instances, in {at.folder}")
    if not _launch(at):
        return 1
    at.say(f"\nFrom here on, users: 64 connections, {RATE:g} requests a second, from a process of their own.")
    users = at.load()
    try:
        users.more(SETTLED)
        played: list[Played] = []
        for number, act in enumerate(ACTS, 2):
            played.append(_perform(at, users, played[-1].after if played else Tally(), number, act))
        whole = users.finish()
    finally:
        users.kill()
    at.say(f"\n{' The account ':─^{WIDTH}}")
    for line in (*account.table(played, whole), "", *account.books(played)):
        at.say(line)
    return _verdict(at, played, whole.lost_count)


def _launch(at: Stage) -> bool:
    _title(at, 1, LAUNCH)
    assert LAUNCH.build is not None
    at.put(LAUNCH.build)
    ended = at.show(*LAUNCH.command)
    if ended.exit or at.serving() != LAUNCH.serves:
        at.say("The first launch failed; the tour ends here.")
        return False
    return True


def _perform(at: Stage, users: Probe, before: Tally, number: int, act: Act) -> Played:
    _title(at, number, act)
    if act.build is not None:
        at.put(act.build)
    ended = at.show(*act.command)
    serving, after = at.serving(), users.more(SETTLED)
    played = Played(act, ended.exit, serving, ended.seconds, before, after, at.ask("report"))
    at.say(account.users_saw(played.seen))
    for fault in played.faults:
        at.say(f"NOT AS EXPECTED: {fault}")
    return played


def _title(at: Stage, number: int, act: Act) -> None:
    at.say(f"\n{f'── {number}. {act.title} ({act.strategy}) ':─<{WIDTH}}")


def _verdict(at: Stage, played: Sequence[Played], lost: int) -> int:
    faults = sum(bool(one.faults) for one in played)
    if faults or lost:
        at.say(f"\n{faults} of {len(played)} acts did not end as expected; {lost} requests were lost.")
        return 1
    at.say("\nEvery act ended as it must, and no request was lost.")
    return 0
