"""Canaries with the default judge, through Envoy and under load: what is broken is taken back, and nothing else.

How soon, and how many failures users meet, is measured by ``bench/verdicts.py``; its application draws what happens
to each request.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from segue.testing.load import Probe
from segue.testing.site import Shop
from segue.testing.tally import Tally
from segue.testing.trial import has_share, until

APP = Path(__file__).parents[2] / "bench" / "verdicts_app.py"
RATE = 300.0
POST = ("--method", "POST", "--body", "a pound of tea")
ALL, HEAVY = ("all", 1.0), ("all", 5.0)

Load = Callable[..., Probe]
Odds = Mapping[str, Any]


def odds(fails: float, times: tuple[str, float] = ALL) -> Odds:
    """How many requests fail, and how long answers take."""
    return {"fails": fails, "times": times}


def write(shop: Shop, usual: Odds, then: Odds | None = None, **settings: Any) -> Path:
    """A version with its odds. The file that is returned, while it exists, makes them `then`."""
    file = shop.folder.parent / "trouble"
    told = {"usual": usual, "then": then or usual, "while": str(file), "seed": "verdicts"}
    command = f"{sys.executable} {APP} {{port}} {{version}} {{instance}}"
    settings = {"strategy": "canary", **settings}
    shop.write(env={"ODDS": json.dumps(told)}, process={"command": command}, **settings)
    return file


def in_use(shop: Shop, load: Load, usual: Odds, then: Odds | None = None) -> tuple[Probe, Probe]:
    """v1 serves those who read and those who write, and is known."""
    write(shop, usual, then)
    shop.deploy("v1")
    readers = load(shop.url, connections=150, rate=RATE / 2)
    writers = load(shop.url, *POST, connections=150, rate=RATE / 2)
    readers.more(1500)
    return readers, writers


def deploy(shop: Shop, *options: str, expect: int = 0) -> str:
    """What the deploy of v2 prints."""
    return shop.segue("deploy", "--version", "v2", *options, cwd=shop.folder, expect=expect, within=400).stdout


def last_event(shop: Shop, expect: int = 0) -> Any:
    """The last event of the deploy of v2."""
    return json.loads(deploy(shop, "--json", expect=expect).splitlines()[-1])


def bases(shop: Shop) -> list[str]:
    """What each judgement of the latest rollout rests on."""
    return [step["verdict"]["basis"] for step in shop.report()["steps"] if step["verdict"]]


def met(tally: Tally) -> int:
    """Failures of v2 that these users met."""
    return tally.by_version.get("v2 failed", 0)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_healthy_canary_that_fails_as_often_as_the_old_one_is_promoted_on_evidence(shop: Shop, load: Load) -> None:
    in_use(shop, load, odds(0.01))
    write(shop, odds(0.01))
    done = last_event(shop)
    assert (done["outcome"], done["basis"]) == ("promoted", "evidence"), done
    assert bases(shop) == ["evidence"] * 3


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    ("usual", "broken", "says"),
    [
        (odds(0.001), odds(0.01), "attempts on v2 failed"),
        (odds(0.01), odds(0.05), "attempts on v2 failed"),
        (odds(0.001), odds(0.5), "attempts on v2 failed"),
        (odds(0.001), odds(0.001, ("mean", 2.0)), r"p99(\.9)? \d+ ms on v2, \d+ ms on v1"),
    ],
    ids=["0.1 to 1 %", "1 to 5 %", "0.1 to 50 %", "p99 x 2, mean unchanged"],
)
def test_a_canary_that_is_worse_is_taken_back_and_who_reads_meets_none_of_its_failures(
    shop: Shop, load: Load, usual: Odds, broken: Odds, says: str
) -> None:
    readers, writers = in_use(shop, load, usual)
    write(shop, broken)
    done = last_event(shop, expect=1)
    assert (done["outcome"], done["basis"]) == ("rolled_back", "evidence")
    assert re.search(says, done["reason"]), done["reason"]
    assert "chance makes such a difference in fewer than one of" in done["reason"]
    seen, written = readers.finish(), writers.finish()
    assert met(seen) == 0 and set(seen.losses) <= {"status"} and set(written.losses) <= {"status"}
    until(lambda: met(written) == shop.report()["requests"]["failed_by"].get("v2", 0), within=20)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_canary_that_breaks_late_is_taken_back(shop: Shop, load: Load) -> None:
    """It has earned its second share by then."""
    in_use(shop, load, odds(0.01))
    trouble = write(shop, odds(0.01), odds(0.1))
    process = shop.segue.start("deploy", "--version", "v2", cwd=shop.folder)
    try:
        until(lambda: has_share(shop, "v2") and shop.status()["versions"]["v2"]["share"] == 0.3, within=300)
        trouble.touch()
    finally:
        process.communicate()
    report = shop.report()
    assert (report["outcome"], report["basis"], report["steps"][3]["verdict"]["verdict"]) == (
        "rolled_back",
        "evidence",
        "pass",
    )


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_bursts_that_hit_both_versions_take_nobody_back(shop: Shop, load: Load) -> None:
    readers, _ = in_use(shop, load, odds(0.002), odds(0.2, HEAVY))
    trouble = write(shop, odds(0.002), odds(0.2, HEAVY))
    process = shop.segue.start("deploy", "--version", "v2", cwd=shop.folder)
    try:
        until(lambda: has_share(shop, "v2"))
        for _ in range(4):
            trouble.touch()
            readers.more(500)
            trouble.unlink()
            readers.more(1000)
    finally:
        trouble.unlink(missing_ok=True)
        process.communicate()
    report = shop.report()
    assert (report["outcome"], report["basis"]) == ("promoted", "evidence"), report["reason"]
    assert report["requests"]["failed_by"]["v2"] + report["requests"]["shielded"] > 100, "there were bursts"


GOING_ON = (
    r"{} requests?, a verdict needs (about [\d,]+|some hundreds); "
    r"going on by health alone, `judge\.low_traffic`"
)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("rate", "judge", "exit", "outcome", "says"),
    [
        (0.0, {}, 0, "promoted", GOING_ON.format("10 %: 0")),
        (0.1, {}, 0, "promoted", GOING_ON.format(r"10 %: \d")),
        (0.1, {"low_traffic": "hold"}, 6, None, r"Held: 10 %: \d requests?, a verdict needs "),
        (0.1, {"low_traffic": "rollback"}, 1, "rolled_back", r"Reason: 10 %: .*; going back, `judge\.low_traffic`"),
    ],
    ids=["0", "0.1", "0.1, hold", "0.1, rollback"],
)
def test_with_hardly_any_traffic_it_is_done_and_said_what_the_contract_says(
    shop: Shop, load: Load, rate: float, judge: Mapping[str, str], exit: int, outcome: str | None, says: str
) -> None:
    checks = {"smoke": [{"http": {"path": "/"}}] * 3, "warm_up": {"requests": 50, "paths": ["/"]}}
    write(shop, odds(0), **checks)
    shop.deploy("v1")
    if rate:
        load(shop.url, connections=1, rate=rate).more(1)
    write(shop, odds(0), judge=judge, **checks)
    said = deploy(shop, expect=exit)
    report = shop.report()
    assert re.search(says, said), said
    assert report["outcome"] == outcome
    if outcome:
        assert report["basis"] == "health" and set(bases(shop)) <= {"health"}
    if outcome == "promoted":
        assert "promoted on 3 smoke tests and 50 warm-up requests" in said
    if not rate:
        assert "Why: No user request reached v2: promoted on 3 smoke tests and 50 warm-up requests" in said
