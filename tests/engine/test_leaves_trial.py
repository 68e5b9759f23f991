"""Settings of the manifest that are about versions on trial, on virtual time: changing one changes what happens.

Every test deploys a manifest twice or more, with one setting changed, and says what each does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from segue.api.bodies import Deploy, order
from segue.core.release import Experiment, Goal, Who
from segue.core.traffic import InstanceId, Sticky
from segue.core.version import Version, WarmUp
from segue.engine.control import ControlPlane
from segue.engine.health import warm
from segue.engine.orders import Answer, Asker, Order
from segue.engine.records import RolloutRecord
from segue.testing.calls import Began
from segue.testing.plane import Lab, an_order, ended, status
from segue.testing.site import as_user

CANARY = {"steps": ["50%", "100%"], "judge": {"least": "5s", "most": "10m"}, "holdback": "0%", "keep": "0s"}


@pytest.fixture
def lab(room: Path) -> Lab:
    return Lab(room)


def ordered(version: str, **settings: Any) -> Order:
    """The order that a manifest with `settings` is; the fakes answer its health."""
    manifest = {
        "service": "shop",
        "replicas": 2,
        "run": {"process": {"command": "serve {version}", **as_user()}},
        "health": {"command": "health {url}"},
        "strategy": {"rolling": {"first_judge": "0s", "judge": "0s"}},
        **settings,
    }
    return order("shop", Deploy(manifest=manifest, folder="/nowhere", version=version))


async def begun(plane: ControlPlane, version: str, **settings: Any) -> str:
    """The id of the rollout of a manifest with `settings`, once it is accepted."""
    answer = await plane.deploy(ordered(version, **settings), Asker())
    assert answer.rollout
    return answer.rollout


def on_trial(
    lab: Lab,
    scene: Callable[[ControlPlane, RolloutRecord], Awaitable[None]],
    *,
    canary: Mapping[str, Any] | None = None,
    rate: float = 100,
    failing: Mapping[str, float] | None = None,
    slower: float = 1.0,
    until: Callable[[RolloutRecord], bool] = lambda rollout: rollout.ended is not None,
    **settings: Any,
) -> None:
    """Play `scene` with the rollout of v2 as a canary once `until` holds of it."""

    async def whole(plane: ControlPlane) -> None:
        first = await plane.deploy(ordered("v1"), Asker())
        await ended(plane, first)
        lab.world.evidence.flow("shop", rate=rate, failing=failing)
        lab.world.evidence.slower["v2.1"] = slower
        id = await begun(plane, "v2", **{"strategy": {"canary": {**CANARY, **(canary or {})}}, **settings})
        while (found := plane.journal.rollout(id)) is None or not until(found):
            await asyncio.sleep(0.5)
        await scene(plane, found)

    lab.run(whole)


def asked_or_ended(rollout: RolloutRecord) -> bool:
    return rollout.person.asked is not None or rollout.ended is not None


def judgements(plane: ControlPlane, rollout: RolloutRecord) -> list[float]:
    """How many seconds each judgement took."""
    steps = [e.body for e in plane.journal.events(0, rollout=rollout.id) if e.event == "ended"]
    return [step["seconds"] for step in steps if step["text"].startswith("judge") and step["seconds"] is not None]


def shares(plane: ControlPlane, rollout: RolloutRecord) -> list[float]:
    """The shares that v2 was given in turn."""
    events = plane.journal.events(0, rollout=rollout.id)
    return [event.body["shares"].get("v2.1", 0) for event in events if event.event == "traffic"]


def seconds_of_first(lab: Lab, **settings: Any) -> float:
    """How long the first judgement of a canary took."""
    found: list[float] = []

    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        assert rollout.outcome == "promoted", rollout.reason
        found.append(judgements(plane, rollout)[0])

    on_trial(lab, scene, **settings)
    return found[0]


def outcome(lab: Lab, **settings: Any) -> str | None:
    """How a canary ended."""
    found: list[str | None] = []

    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        found.append(rollout.outcome)

    on_trial(lab, scene, **settings)
    return found[0]


# strategy


@pytest.mark.leaf("strategy.canary.steps", "strategy.canary.holdback")
@pytest.mark.parametrize(
    ("steps", "holdback", "given"),
    [
        (["10%", "100%"], "0%", [0.1, 1.0]),
        (["10%", "1/2", "100%"], "0%", [0.1, 0.5, 1.0]),
        (["10%", "100%"], "20%", [0.1, 0.8, 1.0]),
    ],
)
def test_a_canary_climbs_its_steps_and_leaves_the_holdback(
    lab: Lab, steps: list[str], holdback: str, given: list[float]
) -> None:
    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        assert shares(plane, rollout) == given

    on_trial(lab, scene, canary={"steps": steps, "holdback": holdback})


@pytest.mark.leaf("strategy.canary.judge.least")
@pytest.mark.parametrize("least", [5, 90])
def test_no_step_of_a_canary_is_proven_before_least(lab: Lab, least: int) -> None:
    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        assert least <= judgements(plane, rollout)[0] < least + 30

    on_trial(lab, scene, canary={"judge": {"least": f"{least}s", "most": "10m"}})


@pytest.mark.leaf("strategy.canary.judge.most")
@pytest.mark.parametrize(("most", "word"), [("6s", "a verdict needs about"), ("10m", "shown to")])
def test_a_proof_that_cannot_come_within_most_is_not_waited_for(lab: Lab, most: str, word: str) -> None:
    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        step = next(step for step in plane.journal.steps(rollout.id) if step.verdict)
        assert step.verdict and word in step.verdict["reason"]

    on_trial(lab, scene, canary={"judge": {"least": "5s", "most": most}}, rate=20)


@pytest.mark.leaf("strategy.canary.approve", "strategy.blue_green.approve")
@pytest.mark.parametrize("strategy", ["canary", "blue_green"])
@pytest.mark.parametrize("approve", ["auto", "manual"])
def test_a_person_is_asked_where_approval_is_manual(lab: Lab, strategy: str, approve: str) -> None:
    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        assert (rollout.person.asked is not None) == (approve == "manual")

    how = {"canary": {**CANARY, "approve": approve}} if strategy == "canary" else {"blue_green": {"approve": approve}}
    on_trial(lab, scene, strategy=how, until=asked_or_ended)


@pytest.mark.leaf("strategy.canary.sticky")
@pytest.mark.parametrize(
    ("sticky", "told"), [("none", None), ("cookie", Sticky()), ("header:X-User-Id", Sticky("X-User-Id"))]
)
def test_the_router_is_told_by_what_users_are_known(lab: Lab, sticky: str, told: Sticky | None) -> None:
    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        tables = [table.services["shop"] for _, table in lab.world.router.history if "shop" in table.services]
        assert {table.sticky for table in tables if table.trial == "v2.1"} == {told}
        assert tables[-1].sticky is None, "nobody is on trial any more"

    on_trial(lab, scene, canary={"sticky": sticky})


@pytest.mark.leaf("strategy.canary.capacity")
@pytest.mark.parametrize(("capacity", "instances"), [("proportional", 1), ("full", 2)])
def test_a_canary_has_the_instances_for_its_share_or_for_everything(lab: Lab, capacity: str, instances: int) -> None:
    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        assert rollout.plan[0].count == instances  # type: ignore[union-attr]

    on_trial(lab, scene, canary={"capacity": capacity})


@pytest.mark.leaf("strategy.canary.keep")
@pytest.mark.parametrize("keep", [0, 120])
def test_after_a_canary_the_old_version_stays_warm_for_keep(lab: Lab, keep: int) -> None:
    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        decided, keeper = lab.clock.monotonic(), plane.services["shop"].keeper
        await keeper.bell.until(lambda: all(member.revision == "v2.1" for member in keeper.fleet.members))
        assert keep - 3 <= lab.clock.monotonic() - decided <= keep + 6

    on_trial(lab, scene, canary={"keep": f"{keep}s"})


EXPERIMENT = {"goal": {"path": "/thanks"}, "keep": "0s"}
WHO = {"header": "X-Country", "in": ["KR", "JP"]}


@pytest.mark.leaf(
    "strategy.experiment.share",
    "strategy.experiment.sticky",
    "strategy.experiment.who.header",
    "strategy.experiment.who.in",
    "strategy.experiment.goal.path",
    "strategy.experiment.goal.status",
    "strategy.experiment.goal.header",
)
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, Experiment(Goal("/thanks"), keep=timedelta(0))),
        ({"share": "1/4"}, Experiment(Goal("/thanks"), Fraction(1, 4), keep=timedelta(0))),
        ({"sticky": "header:X-User"}, Experiment(Goal("/thanks"), sticky="header:X-User", keep=timedelta(0))),
        ({"who": WHO}, Experiment(Goal("/thanks"), who=Who("X-Country", ("KR", "JP")), keep=timedelta(0))),
        ({"goal": {"status": 201}}, Experiment(Goal(None, (201, 201)), keep=timedelta(0))),
        ({"goal": {"path": "/a", "header": "X-A"}}, Experiment(Goal("/a", None, "X-A"), keep=timedelta(0))),
    ],
    ids=str,
)
def test_the_router_is_told_who_takes_part_and_what_the_goal_is(
    lab: Lab, settings: Mapping[str, Any], told: Experiment
) -> None:
    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        table = lab.world.router.table.services["shop"]
        assert table.experiment == told
        assert table.sticky == Sticky("X-User" if "sticky" in settings else None)
        assert {b.revision: b.share for b in table.backends} == {"v1.1": 1 - told.share, "v2.1": told.share}

    on_trial(lab, scene, strategy={"experiment": {**EXPERIMENT, **settings}}, until=asked_or_ended)


@pytest.mark.leaf("strategy.experiment.most")
@pytest.mark.parametrize("most", [60, 300])
def test_an_experiment_is_waited_for_so_long_and_then_gone_back_from(lab: Lab, most: int) -> None:
    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        asked = lab.clock.monotonic()
        done = await ended(plane, Answer(rollout.id, ""))
        assert done.outcome == "rolled_back" and most - 2 <= lab.clock.monotonic() - asked <= most + 5

    on_trial(lab, scene, strategy={"experiment": {**EXPERIMENT, "most": f"{most}s"}}, until=asked_or_ended)


@pytest.mark.leaf("strategy.experiment.keep")
@pytest.mark.parametrize("keep", [0, 120])
def test_after_an_experiment_the_old_version_stays_warm_for_keep(lab: Lab, keep: int) -> None:
    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        await plane.services["shop"].promote(Asker())
        keeper = plane.services["shop"].keeper
        while not (found := plane.journal.rollout(rollout.id)) or not found.decided:
            await asyncio.sleep(0.25)
        decided = lab.clock.monotonic()
        await keeper.bell.until(lambda: all(member.revision == "v2.1" for member in keeper.fleet.members))
        assert keep - 3 <= lab.clock.monotonic() - decided <= keep + 6

    on_trial(lab, scene, strategy={"experiment": {**EXPERIMENT, "keep": f"{keep}s"}}, until=asked_or_ended)


@pytest.mark.leaf("strategy.blue_green.preview")
@pytest.mark.parametrize(("preview", "secret"), [(None, False), ("127.0.0.1:8081", False), ("0.0.0.0:8081", True)])
def test_the_new_version_can_be_looked_at_before_the_switch_elsewhere_with_a_token(
    lab: Lab, preview: str | None, secret: bool
) -> None:
    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        found = lab.world.router.table.services["shop"].preview
        assert (found and found.listen) == preview
        assert bool(found and found.token) == secret
        if found and found.token:
            assert found.token == (plane.home / "preview.token").read_text().strip()
            assert (plane.home / "preview.token").stat().st_mode & 0o777 == 0o600
            assert found.token not in (plane.home / "journal" / "journal.db").read_bytes().decode(errors="replace")
        await plane.services["shop"].promote(Asker())
        while lab.world.router.shares("shop").get("v2.1") != 1:  # type: ignore[call-overload]
            await asyncio.sleep(0.5)
        await ended(plane, await plane.services["shop"].rollback(None, Asker()))
        assert lab.world.router.table.services["shop"].preview is None

    how = {"approve": "manual", **({"preview": preview} if preview else {})}
    on_trial(lab, scene, strategy={"blue_green": how}, until=asked_or_ended)


@pytest.mark.leaf("hooks.after")
@pytest.mark.parametrize("after", [None, "contract"])
def test_the_after_hook_runs_when_keep_is_over(lab: Lab, after: str | None) -> None:
    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        await asyncio.sleep(90)
        assert sum(call == Began("contract") for call in lab.world.record.calls) == (after is not None)

    settings = {"hooks": {"after": after}} if after else {}
    on_trial(lab, scene, canary={"keep": "1m"}, **settings)


# judge


@pytest.mark.leaf("judge.false_alarm")
@pytest.mark.parametrize(("false_alarm", "ends"), [("1%", "rolled_back"), ("0.0001%", "promoted")])
def test_an_alarm_takes_the_more_the_rarer_a_false_one_may_be(lab: Lab, false_alarm: str, ends: str) -> None:
    short = {"steps": ["50%", "100%"], "judge": {"least": "25s", "most": "25s"}}
    found = outcome(
        lab,
        canary=short,
        failing={"v1.1": 0.01, "v2.1": 0.05},
        judge={"false_alarm": false_alarm, "undecided": "continue"},
        rate=80,
    )
    assert found == ends


@pytest.mark.leaf("judge.alarm.ratio", "judge.alarm.errors", "judge.alarm.latency")
@pytest.mark.parametrize(
    ("alarm", "failing", "slower"),
    [
        ({"ratio": 6}, {"v1.1": 0.02, "v2.1": 0.08}, 1.0),
        ({"errors": "10%"}, {"v1.1": 0.02, "v2.1": 0.08}, 1.0),
        ({"latency": "60%"}, {}, 1.5),
    ],
    ids=["ratio", "errors", "latency"],
)
def test_what_the_alarm_tolerates_is_not_held_against_a_version(
    lab: Lab, room: Path, alarm: dict[str, Any], failing: dict[str, float], slower: float
) -> None:
    settings = {"failing": failing, "slower": slower}
    assert outcome(lab, judge={"undecided": "continue"}, **settings) == "rolled_back"
    other = Lab(room / "other")
    assert outcome(other, judge={"alarm": alarm, "undecided": "continue"}, **settings) == "promoted"


WIDE = {"ratio": 9, "errors": "9%", "latency": "900%"}
"""Margins that are soon shown to be kept: what is proven later is what is narrower."""


@pytest.mark.leaf("judge.promote.doubt", "judge.promote.first.ratio", "judge.promote.first.errors")
@pytest.mark.leaf("judge.promote.first.latency")
@pytest.mark.parametrize(
    ("harder", "failing"),
    [
        ({"doubt": "0.01%", "first": WIDE}, {}),
        ({"first": {**WIDE, "ratio": 1.2, "errors": "0.1%"}}, {"v1.1": 0.05, "v2.1": 0.05}),
        ({"first": {**WIDE, "errors": "0.1%"}}, {}),
        ({"first": {**WIDE, "latency": "15%"}}, {}),
    ],
    ids=["doubt", "ratio", "errors", "latency"],
)
def test_the_first_proof_takes_the_longer_the_less_it_lets_pass(
    lab: Lab, room: Path, harder: dict[str, Any], failing: dict[str, float]
) -> None:
    usual = seconds_of_first(lab, failing=failing, rate=40, judge={"promote": {"first": WIDE}})
    assert seconds_of_first(Lab(room / "harder"), failing=failing, rate=40, judge={"promote": harder}) > usual + 1


@pytest.mark.leaf("judge.promote.then.ratio", "judge.promote.then.errors", "judge.promote.then.latency")
@pytest.mark.parametrize(
    ("harder", "failing"),
    [
        ({"ratio": 1.2, "errors": "0.1%"}, {"v1.1": 0.05, "v2.1": 0.05}),
        ({"errors": "0.1%"}, {}),
        ({"latency": "15%"}, {}),
    ],
    ids=["ratio", "errors", "latency"],
)
def test_the_later_proofs_take_the_longer_the_less_they_let_pass(
    room: Path, harder: dict[str, Any], failing: dict[str, float]
) -> None:
    times: list[list[float]] = []

    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        times.append(judgements(plane, rollout))

    for name, then in (("wide", WIDE), ("harder", {**WIDE, **harder})):
        judge = {"promote": {"first": WIDE, "then": then}}
        canary = {"steps": ["40%", "50%", "100%"]}
        on_trial(Lab(room / name), scene, canary=canary, rate=40, failing=failing, judge=judge)
    assert times[1][0] == times[0][0]
    assert times[1][1] > times[0][1] + 1


@pytest.mark.leaf("judge.settle")
@pytest.mark.parametrize(("settle", "ends"), [("0s", "rolled_back"), ("20m", "promoted")])
def test_the_latency_of_instances_that_settle_does_not_count(lab: Lab, settle: str, ends: str) -> None:
    found = outcome(lab, slower=3.0, judge={"settle": settle, "low_traffic": "continue", "undecided": "continue"})
    assert found == ends


@pytest.mark.leaf("judge.low_traffic")
@pytest.mark.parametrize(("course", "ends"), [("continue", "promoted"), ("rollback", "rolled_back"), ("hold", None)])
def test_with_too_little_traffic_is_done_what_low_traffic_says(lab: Lab, course: str, ends: str | None) -> None:
    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        assert rollout.outcome == ends
        if ends is None:
            assert status(plane)["services"][0]["state"] == "holding"

    on_trial(lab, scene, rate=0.1, judge={"low_traffic": course}, until=asked_or_ended)


@pytest.mark.leaf("judge.undecided")
@pytest.mark.parametrize(("course", "ends"), [("continue", "promoted"), ("rollback", "rolled_back"), ("hold", None)])
def test_where_nothing_is_proven_is_done_what_undecided_says(lab: Lab, course: str, ends: str | None) -> None:
    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        assert rollout.outcome == ends

    on_trial(
        lab,
        scene,
        canary={"judge": {"least": "5s", "most": "60s"}},
        failing={"v1.1": 0.02, "v2.1": 0.034},
        judge={
            "false_alarm": "0.0001%",
            "promote": {"first": {"ratio": 1.4, "errors": "0.5%"}},
            "undecided": course,
        },
        rate=300,
        until=asked_or_ended,
    )


@pytest.mark.leaf("evidence[].logs.match")
@pytest.mark.parametrize(("match", "ends"), [("ERROR|Traceback", "rolled_back"), ("panic", "promoted")])
def test_lines_that_match_speak_against_the_version_that_writes_them(lab: Lab, match: str, ends: str) -> None:
    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        for _ in range(20):
            lab.world.platform.write(InstanceId("shop-v2.1-1"), "Traceback (most recent call last)")
            await asyncio.sleep(1)
        while (found := plane.journal.rollout(rollout.id)) is None or found.ended is None:
            await asyncio.sleep(1)
        assert found.outcome == ends

    shifted = {"least": "30s", "most": "10m"}
    on_trial(
        lab,
        scene,
        canary={"judge": shifted},
        evidence=[{"logs": {"match": match}}],
        until=lambda rollout: "v2.1" in lab.world.router.shares("shop"),
    )


@pytest.mark.leaf("approve_within")
@pytest.mark.parametrize("within", [60, 600])
def test_a_question_that_nobody_answers_in_time_rolls_back(lab: Lab, within: int) -> None:
    async def scene(plane: ControlPlane, rollout: RolloutRecord) -> None:
        assert (rollout.outcome, rollout.exit) == ("rolled_back", 1)
        assert within <= (rollout.decided - rollout.started).total_seconds() < within + 20  # type: ignore[operator]

    how = {"blue_green": {"approve": "manual"}}
    on_trial(lab, scene, strategy=how, approve_within=f"{within}s")


# warm_up


@pytest.mark.leaf("warm_up.requests", "warm_up.paths")
@pytest.mark.parametrize(
    ("warm_up", "seen"),
    [
        (None, {}),
        ({"requests": 3}, {"/": 3}),
        ({"requests": 5, "paths": ["/", "/search?q=1"]}, {"/": 3, "/search?q=1": 2}),
    ],
)
async def test_a_new_instance_answers_its_warm_up_requests(
    warm_up: dict[str, Any] | None, seen: dict[str, int]
) -> None:
    asked: Counter[str] = Counter()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked[(await reader.readuntil(b"\r\n\r\n")).split()[1].decode()] += 1
        writer.write(b"HTTP/1.1 500 Not yet\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    wanted = ordered("v1", **({"warm_up": warm_up} if warm_up else {}))
    version = replace(_version(), warm_up=wanted.warm_up)
    async with server:
        await warm(version, f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert asked == seen


async def test_warm_up_does_not_wait_for_an_application_that_keeps_its_connections() -> None:
    asked: Counter[str] = Counter()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                asked[(await reader.readuntil(b"\r\n\r\n")).split()[1].decode()] += 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    patient = replace(an_order().health, timeout=timedelta(hours=1))
    version = replace(_version(), warm_up=WarmUp(3, ("/",)), health=patient)
    async with server:
        await warm(version, f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert asked == {"/": 3}


def _version() -> Version:
    from segue.core.release import Revision

    return Version("shop", Revision("v1.1"), "", Path("/nowhere"), "serve", health=an_order().health)


def test_a_minute_is_kept_for_what_comes_after() -> None:
    assert ordered("v2", strategy={"canary": {"keep": "1m"}}, hooks={"after": "x"}).strategy.keep == timedelta(
        minutes=1
    )
