"""Metrics, commands and addresses as evidence, for real: Envoy, instances, users, and a server that is asked."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from segue.testing.load import Probe
from segue.testing.prometheus import Metrics
from segue.testing.site import Shop
from segue.testing.trial import until

SECRET = "Bearer of-bad-news"
QUERY = 'sum(rate(orders_failed{version="{version}"}[1s]))'
CANARY = {
    "canary": {"steps": ["50%", "100%"], "judge": {"least": "1s", "most": "2m"}, "holdback": "0%", "keep": "0s"}
}
ROLLING = {"rolling": {"batch": 2, "surge": 2, "first_judge": "2s", "judge": "1s"}}


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    with Metrics() as found:
        yield found


@pytest.fixture
def users(shop: Shop) -> Iterator[Callable[[], Probe]]:
    """Starts users of the shop, who end with the test at the latest."""
    probes: list[Probe] = []

    def start() -> Probe:
        probes.append(Probe(shop.url, connections=16, rate=200))
        return probes[-1]

    yield start
    for probe in probes:
        probe.kill()


def write(shop: Shop, *evidence: Any, strategy: Any = ROLLING, **settings: Any) -> None:
    """The manifest with `evidence`; answer times of a busy machine are not what is tested."""
    lenient = {
        "alarm": {"latency": "1000%"},
        "promote": {"first": {"latency": "2000%"}, "then": {"latency": "2000%"}},
    }
    env = {"METRICS_AUTH": SECRET}
    shop.write(env=env, strategy=strategy, judge=lenient, evidence=list(evidence), stop={"grace": "1s"}, **settings)


def noisy(times: float, seed: int) -> Callable[[], list[float]]:
    rng = random.Random(seed)
    return lambda: [times * rng.lognormvariate(0, 0.1)]


@pytest.mark.slow
def test_a_version_whose_metric_is_twice_as_bad_is_taken_back_and_a_healthy_one_promoted(
    shop: Shop, metrics: Metrics, users: Callable[[], Probe]
) -> None:
    for version, times in (("v1", 1.0), ("v2", 2.0), ("v3", 1.0)):
        metrics.values[QUERY.replace("{version}", version)] = noisy(times, ord(version[1]))
    told = {"url": metrics.url, "query": QUERY, "worse": "higher", "authorization": "METRICS_AUTH", "every": "1s"}
    write(shop, {"prometheus": {**told, "per": "version"}}, strategy=CANARY)
    shop.deploy("v1")
    probe = users()
    probe.more(50)
    refused = shop.deploy("v2", expect=1).stdout
    said = (
        r"Reason: `sum\(rate\(orders_failed\{version=\"\{version\}\"\}\[1s\]\)\)` is [\d.]+ on v2, [\d.]+ on v1; "
        r"higher by more than 10 % in 12 of 12 comparisons: chance makes such a difference in fewer than one of "
    )
    assert re.search(said, refused), refused
    assert shop.report()["basis"] == "evidence"
    assert shop.status()["stable"] == "v1"
    shop.deploy("v3")
    assert shop.report()["basis"] == "evidence"
    seen = probe.finish()
    assert (seen.lost, set(seen.by_status)) == ((), {200})
    assert {headers["Authorization"] for headers in metrics.headers} == {SECRET}
    assert not written(shop, SECRET)


def written(shop: Shop, secret: str) -> list[str]:
    """The files of the home in which `secret` stands, but for the one that is for it."""
    home = shop.segue.home
    files = (path for path in home.rglob("*") if path.is_file() and "environment" not in path.name)
    return [str(path) for path in files if secret.encode() in path.read_bytes()]


@pytest.mark.slow
def test_a_metric_outside_of_its_bounds_takes_the_version_back(
    shop: Shop, metrics: Metrics, users: Callable[[], Probe]
) -> None:
    metrics.values = {'queue{version="v2"}': [12.5]}
    bound = {"url": metrics.url, "query": 'queue{version="{version}"}', "max": 10, "every": "200ms"}
    write(shop, {"prometheus": bound}, strategy={"rolling": {"batch": 2, "surge": 2, "first_judge": "30s"}})
    shop.deploy("v1")
    probe = users()
    probe.more(50)
    refused = shop.deploy("v2", expect=1).stdout
    assert 'Reason: `queue{version="{version}"}` is 12.5 on v2, at most 10 is allowed; 3 times in a row' in refused
    seen = probe.finish()
    assert (seen.lost, set(seen.by_status)) == ((), {200})


def test_a_command_that_says_fail_takes_the_version_back_with_what_it_printed(shop: Shop) -> None:
    ask = 'echo "$SEGUE_SERVICE: $SEGUE_FROM to $SEGUE_TO"; echo "3 orders lost"; test "$SEGUE_TO" != v2'
    write(shop, {"command": ask})
    shop.deploy("v1")
    refused = shop.deploy("v2", expect=1).stdout
    assert "says that v2 fails: 3 orders lost" in refused
    assert "shop: v1 to v2" in refused


def test_where_evidence_is_required_and_does_not_come_a_person_is_asked(shop: Shop, metrics: Metrics) -> None:
    metrics.says = lambda path, query: (503, b"")
    write(shop, {"url": {"get": f"{metrics.url}/ask/{{version}}?token=x", "every": "1s"}})
    shop.deploy("v1")
    held = shop.deploy("v2", "--require-evidence", expect=6).stdout
    assert f"`{metrics.url}/ask/{{version}}`: it was answered with status 503; evidence is required" in held
    assert metrics.asked[0] == "/ask/v2?token=x"
    metrics.says = lambda path, query: (200, json.dumps({"verdict": "fail", "reason": "v2 loses orders"}).encode())
    until(lambda: shop.status()["rollout"] is None)  # a version that is held is watched
    assert "says that v2 fails: v2 loses orders" in shop.report()["reason"]
