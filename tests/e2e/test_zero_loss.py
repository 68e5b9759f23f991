"""No request is lost because of a deployment, and the twins: with the drain taken away, requests are lost.

Each run is small: 64 connections, a few thousand requests. The full size is in ``bench/loss.py``.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from segue.testing.apps import NotInstalled, httpbin_source
from segue.testing.load import H2load, Probe, tools_missing
from segue.testing.site import Segue, Shop
from segue.testing.tally import Tally

Load = Callable[..., Probe]
QUICK: dict[str, Any] = {
    "rolling": {"rolling": {"first_judge": "500ms", "judge": "300ms"}},
    "in_place": {"in_place": {"first_judge": "500ms", "judge": "300ms"}},
    "blue_green": {"blue_green": {"judge": "500ms", "keep": "5m"}},
}
BUSY = {"APP_DELAY": "0.01"}
"""Every answer takes a while, so that all 64 connections have a request under way at every moment."""

CARELESS = {"APP_DELAY": "0.6", "APP_ON_TERM": "drop"}
"""It takes so long over each answer that some are under way whenever it is told to stop, also on a busy machine."""


def all_was_well(tally: Tally, *versions: str, least: int = 300) -> None:
    """Nothing was lost, and each of `versions` answered at least `least` requests."""
    assert tally.lost == ()
    assert tally.total == tally.by_status[200]
    assert set(tally.by_version) == set(versions)
    for version in versions:
        assert tally.by_version[version] >= least


@pytest.mark.parametrize("strategy", list(QUICK))
def test_no_request_is_lost_by(strategy: str, shop: Shop, load: Load) -> None:
    shop.write(env=BUSY, replicas=3, strategy=QUICK[strategy])
    shop.deploy("v1")
    probe = load(shop.url)
    probe.more(1000)
    shop.deploy("v2")
    after = probe.more(1000)
    tally = probe.finish()
    all_was_well(tally, "v1", "v2")
    assert set(tally.since(after).by_version) <= {"v2"}
    assert shop.report()["requests"]["balanced"]


def test_no_request_is_lost_by_going_back_during_keep(shop: Shop, load: Load) -> None:
    shop.write(env=BUSY, strategy=QUICK["blue_green"])
    shop.deploy("v1")
    shop.deploy("v2")
    probe = load(shop.url)
    probe.more(1000)
    shop.segue("rollback", cwd=shop.folder)
    probe.more(1000)
    all_was_well(probe.finish(), "v1", "v2")
    assert shop.status()["stable"] == "v1"


def test_no_request_is_lost_by_scaling_and_restarting(shop: Shop, load: Load) -> None:
    shop.write(env=BUSY, strategy=QUICK["rolling"])
    shop.deploy("v1")
    probe = load(shop.url)
    probe.more(500)
    shop.segue("scale", "4", cwd=shop.folder)
    shop.segue("scale", "1", cwd=shop.folder)
    shop.segue("restart", cwd=shop.folder)
    probe.more(500)
    all_was_well(probe.finish(), "v1")


def test_a_post_is_executed_once_and_answered_whatever_happens(shop: Shop, load: Load) -> None:
    posts = shop.folder / "posts"
    shop.write(env={**BUSY, "APP_POSTS": str(posts)}, strategy=QUICK["rolling"])
    shop.deploy("v1")
    probe = load(shop.url, "--method", "POST", "--body", "a pound of tea")
    probe.more(500)
    shop.deploy("v2")
    probe.more(500)
    tally = probe.finish()
    all_was_well(tally, "v1", "v2")
    executed = posts.read_text().split()
    assert len(executed) == len(set(executed)) == tally.total


def test_no_request_is_lost_over_http2(shop: Shop) -> None:
    if "h2load" in tools_missing():
        pytest.skip("h2load is not installed: scripts/test-tools")
    shop.write(env=BUSY, strategy=QUICK["rolling"])
    shop.deploy("v1")
    clients = H2load(shop.url, connections=8, streams=8)
    shop.deploy("v2")
    outcome = clients.stop()
    assert outcome.requests >= 1000
    assert outcome.lost == 0, outcome.detail


@pytest.mark.parametrize(
    "strategy", ["blue_green", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rolling", "in_place"))]
)
def test_httpbin_under_gunicorn_loses_nothing_by(strategy: str, shop: Shop, load: Load) -> None:
    old, new = "0.10.2", "0.10.4"
    serve = {"source": ".", "command": "./serve {port}"}
    shop.write(process=serve, strategy=QUICK[strategy], health={"path": "/status/200", "every": "200ms"})
    _release(shop, old)
    shop.deploy(old)
    probe = load(shop.url + "get")
    probe.more(300)
    _release(shop, new)
    shop.deploy(new)
    probe.more(300)
    all_was_well(probe.finish(), old, new, least=100)


def _release(shop: Shop, version: str) -> None:
    try:
        httpbin_source(shop.folder, version)
    except NotInstalled as missing:
        pytest.skip(f"httpbin cannot be installed here: {missing}")


def test_an_answer_that_takes_longer_than_the_shield_waits_survives_the_end_of_the_trial(shop: Shop) -> None:
    shop.write(strategy=QUICK["rolling"], replicas=1)
    shop.deploy("v1")
    deploy = shop.segue.start("deploy", "--version", "v2", "--json", cwd=shop.folder)
    assert deploy.stdout is not None
    events = (json.loads(line) for line in deploy.stdout)
    next(event for event in events if event.get("shares") == {"v2.1": 1.0})
    try:
        with urllib.request.urlopen(shop.url + "slow?2.5") as answer:  # begun on trial, ended after the old version
            assert answer.read() == b"hello from v2\n"
    finally:
        deploy.communicate()


# The twins: the same runs, with what protects the requests taken away. One that loses nothing is blind.


@pytest.mark.parametrize(
    ("on_term", "stop"),
    [
        ("drop", {"drain": "0s"}),
        pytest.param("ignore", {"drain": "0s", "grace": "0s"}, marks=pytest.mark.slow),
    ],
)
def test_without_draining_an_application_that_drops_what_it_does_or_is_killed_loses_requests(
    on_term: str, stop: dict[str, str], shop: Shop, load: Load
) -> None:
    shop.write(env={**CARELESS, "APP_ON_TERM": on_term}, stop=stop, strategy=QUICK["rolling"])
    shop.deploy("v1")
    probe = load(shop.url, "--method", "POST", "--body", "x")  # a GET that was dropped would be repeated
    probe.more(100)
    shop.deploy("v2")
    probe.more(100)
    assert probe.finish().lost_count > 0


def test_with_draining_the_same_application_loses_nothing(shop: Shop, load: Load) -> None:
    shop.write(env=CARELESS, strategy=QUICK["rolling"])
    shop.deploy("v1")
    probe = load(shop.url, "--method", "POST", "--body", "x")  # a GET that was dropped would be repeated
    probe.more(100)
    shop.deploy("v2")
    probe.more(100)
    all_was_well(probe.finish(), "v1", "v2", least=64)


def test_killing_the_application_and_envoy_from_outside_is_seen(segue: Segue, shop: Shop, load: Load) -> None:
    shop.write(env=BUSY)
    shop.deploy("v1")
    probe = load(shop.url)
    probe.more(500)
    segue("shutdown", "--all")
    probe.until(lambda tally: tally.lost_count > 0)
