"""Settings of the manifest that are about sources of evidence: changing one changes what happens. On virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from segue.api.bodies import Deploy, order
from segue.core.release import Revision
from segue.core.sources import About, Answer, Nothing, Values, Word
from segue.core.verdict import Verdict
from segue.engine.control import ControlPlane
from segue.engine.orders import Asker, Order
from segue.engine.records import RolloutRecord
from segue.testing.plane import Lab, ended
from segue.testing.prometheus import Metrics
from segue.testing.site import as_user
from segue.wiring import source

QUERY = 'failed{version="{version}"}'
CANARY = {"steps": ["50%", "100%"], "judge": {"least": "5s", "most": "2h"}, "holdback": "0%", "keep": "0s"}


@pytest.fixture
def lab(room: Path) -> Lab:
    return Lab(room)


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    with Metrics() as found:
        yield found


def ordered(version: str, **settings: Any) -> Order:
    """The order that a manifest with `settings` is; the fakes answer its health."""
    manifest = {
        "service": "shop",
        "replicas": 2,
        "run": {"process": {"command": "serve {version}", **as_user()}},
        "health": {"command": "health {url}"},
        "strategy": {"canary": CANARY},
        **settings,
    }
    return order("shop", Deploy(manifest=manifest, folder="/nowhere", version=version))


def on_trial(
    lab: Lab,
    what: str,
    says: Callable[[About], Answer],
    evidence: dict[str, Any],
    *,
    twice: bool = False,
    **settings: Any,
) -> RolloutRecord:
    """The rollout of v2 when it has ended, or, `twice`, when its source `what` was asked twice for what it `says`."""
    lab.world.sources.order(what, says)

    async def whole(plane: ControlPlane) -> RolloutRecord:
        await ended(plane, await plane.deploy(ordered("v1"), Asker()))
        lab.world.evidence.flow("shop", rate=100)
        answer = await plane.deploy(ordered("v2", evidence=[evidence], **settings), Asker())
        assert answer.rollout
        deadline = lab.clock.monotonic() + 900
        while (found := plane.journal.rollout(answer.rollout)) is None or not found.ended:
            if twice and len(lab.world.sources.times(what)) == 2:
                return found or pytest.fail("it is not there")
            assert lab.clock.monotonic() < deadline, f"within a quarter of an hour it has not ended: {found}"
            await asyncio.sleep(0.5)
        return found

    return lab.run(whole)


SOON = {"every": "1s"}
"""Compared as often as the judge looks: a minute would do the same, and take longer."""


def prometheus(**settings: Any) -> dict[str, Any]:
    return {"prometheus": {"url": "http://127.0.0.1:9090", "query": QUERY, **settings}}


def compared(new: float, old: float = 1.0) -> Callable[[About], Answer]:
    return lambda about: Values(new, old)


# What a metric is held against


@pytest.mark.leaf("evidence[].prometheus.worse")
@pytest.mark.parametrize(
    ("value", "way", "ends"), [(2, "higher", "rolled_back"), (2, "lower", "promoted"), (0.5, "lower", "rolled_back")]
)
def test_a_metric_speaks_against_the_version_whose_value_is_worse(
    lab: Lab, value: float, way: str, ends: str
) -> None:
    assert on_trial(lab, QUERY, compared(value), prometheus(worse=way, **SOON)).outcome == ends


@pytest.mark.leaf("evidence[].prometheus.margin")
@pytest.mark.parametrize(("margin", "ends"), [(None, "rolled_back"), ("19%", "rolled_back"), ("20%", "promoted")])
def test_so_much_worse_is_not_held_against_it(lab: Lab, margin: str | None, ends: str) -> None:
    told = {"margin": margin} if margin else {}
    assert on_trial(lab, QUERY, compared(1.2), prometheus(worse="higher", **SOON, **told)).outcome == ends


@pytest.mark.leaf("evidence[].prometheus.per")
@pytest.mark.parametrize(
    ("value", "per", "ends"),
    [
        (0.5, "share", "rolled_back"),  # twice as much for each request: it has a fifth of the traffic
        (0.5, "version", "promoted"),
        (0.5, None, "promoted"),
        (1.5, None, "rolled_back"),
        (0.25, "share", "promoted"),
    ],
)
def test_a_rate_is_compared_by_the_shares(lab: Lab, value: float, per: str | None, ends: str) -> None:
    told = {"per": per} if per else {}
    how = {"canary": {**CANARY, "steps": ["20%", "100%"]}}
    assert (
        on_trial(lab, QUERY, compared(value), prometheus(worse="higher", **SOON, **told), strategy=how).outcome
        == ends
    )


@pytest.mark.leaf("evidence[].prometheus.min", "evidence[].prometheus.max")
@pytest.mark.parametrize(
    ("bounds", "ends"),
    [
        ({"max": 5}, "promoted"),
        ({"max": 4.9}, "rolled_back"),
        ({"min": 5}, "promoted"),
        ({"min": 5.1}, "rolled_back"),
    ],
)
def test_a_value_has_to_keep_within_its_bounds(lab: Lab, bounds: dict[str, float], ends: str) -> None:
    assert on_trial(lab, QUERY, lambda about: Values(5), prometheus(**bounds, **SOON)).outcome == ends


# How often one is asked


def apart(lab: Lab, what: str) -> int:
    """The seconds between two questions."""
    first, second = lab.world.sources.times(what)
    return round(second - first)


@pytest.mark.leaf("evidence[].prometheus.every")
@pytest.mark.parametrize(
    ("query", "every", "seconds"), [(QUERY, None, 60), (QUERY, "20s", 20), (f"rate({QUERY}[3m])", None, 180)]
)
def test_a_metric_is_compared_as_often_as_is_said_or_as_its_range_allows(
    lab: Lab, query: str, every: str | None, seconds: int
) -> None:
    told = {"query": query, "worse": "higher", **({"every": every} if every else {})}
    on_trial(lab, query, compared(1), prometheus(**told), twice=True)
    assert apart(lab, query) == seconds


@pytest.mark.leaf("evidence[].command.every", "evidence[].url.every")
@pytest.mark.parametrize("kind", ["command", "url"])
@pytest.mark.parametrize(("every", "seconds"), [(None, 15), ("40s", 40)])
def test_a_command_and_an_address_are_asked_as_often_as_is_said(
    lab: Lab, kind: str, every: str | None, seconds: int
) -> None:
    what, key = {"command": ("./ask.sh", "run"), "url": ("http://ci/ask", "get")}[kind]
    evidence = {kind: {key: what, **({"every": every} if every else {})}}
    how = {"canary": {**CANARY, "judge": {"least": "2m", "most": "2h"}}}
    on_trial(lab, what, lambda about: Word(Verdict.PASS), evidence, twice=True, strategy=how)
    assert apart(lab, what) == seconds


# What is asked, with real servers and processes


def about(folder: Path, **environment: str) -> About:
    return About("shop", "r1", Revision("v2.1"), Revision("v1.1"), folder, environment, outputs=folder / "evidence")


async def answer(folder: Path, evidence: dict[str, Any], **environment: str) -> Answer:
    """What the adapter of a manifest's entry hears."""
    (asked,) = ordered("v2", evidence=[evidence]).judging.asked
    return await source(asked).ask(about(folder, **environment))


@pytest.mark.leaf("evidence[].prometheus.url", "evidence[].prometheus.query")
async def test_prometheus_is_asked_where_it_is_for_what_is_said(metrics: Metrics, tmp_path: Path) -> None:
    metrics.values = {'a{v="v2.1"}': [3.0], 'a{v="v1.1"}': [1.0], 'b{v="v2.1"}': [4.0], 'b{v="v1.1"}': [2.0]}
    told = {"url": metrics.url, "worse": "higher"}
    assert await answer(tmp_path, prometheus(**{**told, "query": 'a{v="{revision}"}'})) == Values(3, 1)
    assert await answer(tmp_path, prometheus(**{**told, "query": 'b{v="{revision}"}'})) == Values(4, 2)
    nobody = prometheus(**{**told, "query": 'b{v="{revision}"}', "url": "http://127.0.0.1:1"})
    assert await answer(tmp_path, nobody) == Nothing("127.0.0.1:1 cannot be reached")


@pytest.mark.leaf("evidence[].command.run", "evidence[].url.get")
async def test_a_command_and_an_address_are_what_is_said(metrics: Metrics, tmp_path: Path) -> None:
    metrics.says = lambda path, query: (200 if path == "/well" else 409, b"")
    for entry, word in (
        ({"command": "exit 0"}, Verdict.PASS),
        ({"command": {"run": "exit 1"}}, Verdict.FAIL),
        ({"url": f"{metrics.url}/well"}, Verdict.PASS),
        ({"url": {"get": f"{metrics.url}/ill"}}, Verdict.FAIL),
    ):
        assert await answer(tmp_path, entry) == Word(word)


@pytest.mark.leaf("evidence[].prometheus.timeout", "evidence[].command.timeout", "evidence[].url.timeout")
@pytest.mark.parametrize("kind", ["prometheus", "command", "url"])
async def test_a_slow_answer_is_none(metrics: Metrics, tmp_path: Path, kind: str) -> None:
    metrics.values = {QUERY.replace("{version}", "v2"): [1.0]}
    entries = {
        "prometheus": prometheus(url=metrics.url, max=2)["prometheus"],
        "command": {"run": "sleep 0.5"},
        "url": {"get": f"{metrics.url}/api/v1/query?query=x"},
    }
    metrics.hangs.set()
    asyncio.get_running_loop().call_later(0.5, metrics.goes_on.set)
    short, long = (answer(tmp_path, {kind: {**entries[kind], "timeout": t}}) for t in ("100ms", "30s"))
    slow = "not done within 0.1 s" if kind == "command" else "no answer within 0.1 s"
    assert await short == Nothing(slow)
    assert not isinstance(await long, Nothing)


@pytest.mark.leaf("evidence[].prometheus.authorization", "evidence[].url.authorization")
@pytest.mark.parametrize("kind", ["prometheus", "url"])
async def test_the_header_that_is_named_is_sent(metrics: Metrics, tmp_path: Path, kind: str) -> None:
    entries = {"prometheus": prometheus(url=metrics.url, max=2)["prometheus"], "url": {"get": metrics.url}}
    await answer(tmp_path, {kind: entries[kind]}, A="one", B="two")
    for name in "AB":
        await answer(tmp_path, {kind: {**entries[kind], "authorization": name}}, A="one", B="two")
    assert [headers.get("Authorization") for headers in metrics.headers] == [None, "one", "two"]


def test_what_a_manifest_says_of_its_sources_is_what_is_asked() -> None:
    judging = ordered(
        "v2", evidence=[prometheus(worse="higher"), {"command": "./ask.sh"}, {"logs": {"match": "x"}}]
    ).judging
    assert [asked.every for asked in judging.asked] == [timedelta(minutes=1), timedelta(seconds=15)]
    assert [asked.timeout for asked in judging.asked] == [timedelta(seconds=10)] * 2
    assert judging.logs == ("x",)
