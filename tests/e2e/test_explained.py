"""Rollouts under real load are explained with the numbers that Envoy counted, and judged again otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from segue.testing.load import Probe
from segue.testing.site import Shop
from segue.testing.trial import has_share, until

CANARY = {"canary": {"steps": ["50%", "100%"], "judge": {"least": "2s", "most": "60s"}, "keep": "0s"}}

Load = Callable[..., Probe]


def write(shop: Shop, failing: float = 0.0, **settings: Any) -> None:
    """A version that fails this part of its requests."""
    env = {"APP_BROKEN": "500", "APP_BROKEN_SHARE": str(failing)} if failing else {}
    shop.write(env=env, strategy=CANARY, **settings)


def explained(shop: Shop, *options: str) -> Any:
    return shop.segue.json("explain", *options, cwd=shop.folder)


def taken_back(shop: Shop, load: Load, usual: float, failing: float) -> None:
    """v2 fails more often than v1 did, and is taken back for it."""
    write(shop, usual)
    shop.deploy("v1")
    load(shop.url, connections=16, rate=500).more(200)
    write(shop, failing)
    shop.deploy("v2", "--reason", "a better cart", expect=1)


def the_alarm(document: Any) -> Any:
    (alarm,) = [one for one in document["decisions"] if one["what"] == "alarm"]
    return alarm


@pytest.mark.slow
def test_what_was_taken_back_is_explained_with_the_report_s_numbers_and_judged_again(shop: Shop, load: Load) -> None:
    taken_back(shop, load, usual=0.01, failing=0.3)
    report, document = shop.report(), explained(shop)
    alarm = the_alarm(document)
    assert [alarm["verdict"]] == report["judgements"]
    assert alarm["text"] == f"alarm: {report['reason']}" and "attempts on v2 failed" in report["reason"]
    numbers = alarm["verdict"]["numbers"]
    assert f"{numbers['new_failures']:,} of {numbers['new_attempts']:,} attempts on v2" in " ".join(
        [alarm["text"], *alarm["why"]]
    )
    whats = [one["what"] for one in document["decisions"]]
    assert whats == ["asked", "checked", "shift", "alarm", "shift", "decided"]

    other = explained(shop, "--replay", "judge.alarm.errors=50%")["replay"]
    assert other["flaws"] == [], "with its own settings the judge comes to what was decided"
    assert other["was"]["reason"] == report["reason"] and other["now"] is None
    assert other["said"][0].startswith("v2 would not have been taken back after")

    wrong = shop.segue("explain", "--replay", "judge.alarm.error=1%", cwd=shop.folder, expect=2)
    assert "did you mean `judge.alarm.errors`?" in wrong.stderr and "judge.undecided" in wrong.stderr


def test_a_version_that_is_worse_on_one_path_only_is_taken_back_and_the_path_is_named(shop: Shop, load: Load) -> None:
    write(shop)
    shop.deploy("v1")
    for path, rate in (("", 200), ("cart/7", 100), ("cart/8", 100), ("checkout", 50)):
        load(f"{shop.url}{path}", connections=8, rate=rate).more(50)
    env = {"APP_BROKEN": "500", "APP_BROKEN_SHARE": "0.25", "APP_BROKEN_PATH": "/checkout", "APP_START_DELAY": "2"}
    shop.write(env=env, strategy=CANARY)
    shop.deploy("v2", expect=1)
    alarm = the_alarm(explained(shop))
    assert alarm["verdict"]["numbers"]["worse"] == "/checkout"
    assert any(sentence.startswith("Only /checkout got worse: ") for sentence in alarm["why"])
    other = explained(shop, "--replay", "judge.alarm.errors=90%")["replay"]
    assert (other["flaws"], other["now"]) == ([], None)


@pytest.mark.slow
def test_what_was_promoted_without_a_request_is_explained_by_health(shop: Shop) -> None:
    write(shop)
    shop.deploy("v1")
    write(shop, smoke=[{"http": {"path": "/"}}])
    shop.deploy("v2")
    document = explained(shop)
    assert document["because"].startswith("v2 was promoted on health and checks alone, without a proof: ")
    assert "No user asked for anything meanwhile." in document["users"]
    first = next(one for one in document["decisions"] if one["what"] == "judged")
    assert "going on by health alone, `judge.low_traffic`" in first["text"]
    other = explained(shop, "--replay", "judge.low_traffic=hold")["replay"]
    assert other["flaws"] == [] and "would have asked a person" in other["said"][0]


@pytest.mark.slow
@pytest.mark.parametrize(("usual", "failing"), [(0.001, 0.01), (0.01, 0.05), (0.01, 0.1), (0.001, 0.5), (0.0, 1.0)])
def test_however_bad_it_is_it_is_explained_and_judged_again_as_it_was(
    shop: Shop, load: Load, usual: float, failing: float
) -> None:
    taken_back(shop, load, usual, failing)
    report, document = shop.report(), explained(shop)
    assert the_alarm(document)["verdict"] == report["judgements"][-1]
    other = explained(shop, "--replay", "judge.false_alarm=1%")["replay"]
    assert (other["flaws"], other["different"]) == ([], False)


@pytest.mark.slow
def test_while_it_runs_and_after_a_crash_of_the_control_plane_it_is_explained(shop: Shop, load: Load) -> None:
    write(shop)
    shop.deploy("v1")
    load(shop.url, connections=16, rate=300).more(200)
    write(shop, 0.0, judge={"low_traffic": "hold", "undecided": "hold"})
    deploy = shop.segue.start("deploy", "--version", "v2", cwd=shop.folder)
    try:
        until(lambda: has_share(shop, "v2"))
        document = explained(shop)
        assert document["outcome"] is None and document["decisions"][-1]["what"] == "now"
        shop.segue("shutdown", cwd=shop.folder)
        shop.segue("wait", cwd=shop.folder)
    finally:
        deploy.communicate()
    document = explained(shop, "--replay", "judge.false_alarm=1%")
    assert document["outcome"] == "promoted" and document["replay"]["flaws"] == []
    assert "the control plane was restarted and goes on" in [one["text"] for one in document["decisions"]]
