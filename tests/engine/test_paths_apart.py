"""Busy paths are found in a rollout's first seconds, told apart by the router, and named by what was decided."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from segue.api.explaining import explanation
from segue.core.release import Canary
from segue.core.traffic import ServiceTable
from segue.engine.control import ControlPlane
from segue.engine.orders import Asker
from segue.engine.otherwise import otherwise
from segue.engine.replay import past
from segue.testing.gate import Gate
from segue.testing.plane import Lab, an_order, deployed, ended, tidied

CANARY = Canary(steps=(Fraction(1, 2), Fraction(1)), least=timedelta(seconds=10), most=timedelta(minutes=2))
ASKED = {"/": Fraction(1, 2), "/cart": Fraction(4, 10), "/checkout": Fraction(1, 10)}


@pytest.fixture
def lab(room: Path) -> Lab:
    return Lab(room)


async def begun(lab: Lab, plane: ControlPlane, rate: float = 200, strategy: Canary = CANARY, **failing: float) -> str:
    """The id of the rollout of v2, of whose requests the part given fails, by path."""
    await deployed(plane, an_order("v1"))
    by_path = {f"v2.1/{path}": part for path, part in failing.items()}
    lab.world.evidence.flow("shop", rate=rate, failing=by_path, paths=ASKED)
    answer = await plane.deploy(an_order("v2", strategy=strategy), Asker())
    assert answer.rollout
    return answer.rollout


def looks(plane: ControlPlane, id: str) -> list[dict[str, Any]]:
    """What was noted of each look; where paths are told apart they have together what there was in all."""
    found = [entry for entry in plane.journal.polls(id) if entry["what"] == "look"]
    for entry in found:
        for whole, *parts in ([*entry[side][:1], *entry[side][3:]] for side in ("new", "old") if entry[side]):
            of_parts = sum(part[0] for part in parts[0].values()) if parts else whole
            assert abs(of_parts - whole) <= 3, entry  # counts are whole numbers
    return found


def apart(entry: dict[str, Any]) -> bool:
    return any(len(entry[side] or ()) > 3 for side in ("new", "old"))


def routed(lab: Lab) -> ServiceTable:
    return lab.world.router.table.services["shop"]


async def told_apart(lab: Lab) -> None:
    while not routed(lab).paths:
        await asyncio.sleep(0.1)


def test_the_only_path_that_got_worse_is_named_and_a_replay_names_it_too(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        id = await begun(lab, plane, checkout=0.2)
        while (record := plane.journal.rollout(id)) is None or record.ended is None:
            await asyncio.sleep(0.5)
        assert record.outcome == "rolled_back"
        (alarm,) = [one for one in (await explanation(plane, record, ()))["decisions"] if one["what"] == "alarm"]
        assert alarm["verdict"]["numbers"]["worse"] == "/checkout"
        assert any(sentence.startswith("Only /checkout got worse") for sentence in alarm["why"])
        found = past(record, plane.journal.steps(id), plane.journal.events(0, rollout=id), plane.journal.polls(id))
        said = otherwise(found, {"judge.alarm.latency": 0.2})
        assert (said["flaws"], said["was"]["reason"]) == ([], record.reason)

    lab.run(scene)


def test_paths_are_learned_from_two_hundred_requests_and_told_apart_until_the_decision(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        id = await begun(lab, plane)
        while not routed(lab).learning:
            await asyncio.sleep(0.01)
        await told_apart(lab)
        assert (routed(lab).learning, routed(lab).paths) == (False, ("/cart", "/checkout"))
        while (record := plane.journal.rollout(id)) is None or record.ended is None:
            await asyncio.sleep(0.5)
        await tidied(plane)
        assert (record.outcome, routed(lab).learning, routed(lab).paths) == ("promoted", False, ())
        assert any(map(apart, looks(plane, id)))

    lab.run(scene)


def test_after_a_restart_the_same_paths_are_told_apart_and_evidence_is_not_bet_twice(lab: Lab) -> None:
    ids: list[str] = []

    async def half(plane: ControlPlane) -> None:
        ids.append(await begun(lab, plane))
        await told_apart(lab)

    async def after(plane: ControlPlane) -> None:
        assert plane.tables.confirmed["shop"].paths == ("/cart", "/checkout"), "the first table has them"
        while (record := plane.journal.rollout(ids[0])) is None or record.ended is None:
            await asyncio.sleep(0.5)
        assert record.outcome == "promoted"
        assert [entry["what"] for entry in plane.journal.polls(ids[0])].count("paths") == 1
        assert any(map(apart, looks(plane, ids[0])))

    lab.run(half)
    lab.run(after)


def test_where_little_comes_nothing_is_told_apart_and_nothing_waits_for_it(lab: Lab) -> None:
    async def scene(plane: ControlPlane) -> None:
        await deployed(plane, an_order("v1"))
        lab.world.evidence.flow("shop", rate=0.5, paths=ASKED)
        rollout = await ended(plane, await plane.deploy(an_order("v2", strategy=CANARY), Asker()))
        await tidied(plane)
        assert rollout.outcome == "promoted"
        assert "paths" not in [entry["what"] for entry in plane.journal.polls(rollout.id)]
        assert not routed(lab).learning

    lab.run(scene)


def test_who_watches_a_kept_version_does_not_decide_for_the_next_rollout(lab: Lab) -> None:
    keep = replace(CANARY, keep=timedelta(minutes=10))

    async def scene(plane: ControlPlane) -> None:
        await begun(lab, plane, strategy=keep)
        shop = plane.services["shop"]
        while shop.record.stable != "v2.1" or shop.rollout:
            await asyncio.sleep(0.5)
        guard = plane.world.evidence
        held = Gate()
        held.close()
        sample = guard.sample

        async def slow(service: str) -> Any:
            found = await sample(service)
            await held.passed()
            return found

        guard.sample = slow  # type: ignore[method-assign]
        await asyncio.sleep(5)  # the guard's look is under way
        answer = await plane.deploy(an_order("v3", strategy=CANARY), Asker())
        await asyncio.sleep(1)
        held.open()
        rollout = await ended(plane, answer)
        entries = [entry["what"] for entry in plane.journal.polls(rollout.id)]
        assert (rollout.outcome, entries.count("paths")) == ("promoted", 1)

    lab.run(scene)
