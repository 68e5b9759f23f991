"""What users do wrong, or in the middle of something, against a real control plane: what they are told, what happens.

All services of this file live in one home.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from homes import AT_ONCE, Service, a_home
from loads import connects, eventually

from segue.testing.site import Segue

PATIENT = {"rolling": {"first_judge": "10m", "judge": "0s"}}
KEPT = {"blue_green": {"judge": "0s", "keep": "10m"}}


@pytest.fixture(scope="module")
def home() -> Iterator[Segue]:
    with a_home() as segue:
        yield segue


@pytest.fixture(scope="module")
def still(home: Segue) -> Service:
    """A service that v1 serves, for tests that change nothing of it."""
    service = Service(home, "still")
    service.write()
    service.deploy("v1")
    return service


@pytest.fixture
def shop(home: Segue, request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service of the test's own that v1 serves; it is taken down after the test."""
    service = Service(home, f"shop-{abs(hash(request.node.name)) % 10**8}")
    service.write()
    service.deploy("v1")
    yield service
    if service.status()["rollout"]:
        service.ask(f"/v1/services/{service.name}/rollback", "POST", {})
    eventually(lambda: service.status()["rollout"] is None)
    service.ask(f"/v1/services/{service.name}/down?wait=20", "POST", {})


def refused(service: Service, *arguments: str, exit: int = 4) -> str:
    """What `segue` says to `arguments`, which it must refuse without changing anything."""
    before = service.status(), len(service.history())
    said = service.segue(*arguments, cwd=service.folder, expect=exit)
    assert said.stdout == ""
    assert (service.status(), len(service.history())) == before
    return said.stderr


def under_way(service: Service, version: str, *options: str) -> subprocess.Popen[str]:
    """A deploy of `version` that stands in its first judgement, which takes long."""
    service.write(strategy=PATIENT)
    deploy = service.segue.start("deploy", "--version", version, *options, cwd=service.folder)
    eventually(lambda: judging(service, version))
    return deploy


def judging(service: Service, version: str) -> bool:
    """Whether the rollout of `version` is in its judgement."""
    rollout = service.status()["rollout"]
    return rollout is not None and (rollout["to"], rollout["step"]) == (version, 4)


def ended(deploy: subprocess.Popen[str]) -> tuple[int, str]:
    """How a deploy in the background ended, and all it said."""
    said, _ = deploy.communicate(timeout=60)
    return deploy.returncode, said


def serving(service: Service) -> str:
    """What users get."""
    return httpx.get(service.url, timeout=20).text.removeprefix("hello from ").strip()


# Busy


def test_a_deploy_while_another_runs_is_refused_with_4_and_says_what_to_do(shop: Service) -> None:
    deploy = under_way(shop, "v2")
    running = shop.status()["rollout"]["id"]
    said = refused(shop, "deploy", "--version", "v3")
    assert f"busy: rollout {running} (rolling) has not ended" in said
    assert "Next:  segue wait" in said
    for asked in (["scale", "3"], ["down"]):
        assert "busy" in refused(shop, *asked)
    shop.segue("rollback", cwd=shop.folder)
    assert ended(deploy)[0] == 7


def test_a_deploy_that_replaces_takes_the_running_one_back_first(shop: Service) -> None:
    deploy = under_way(shop, "v2")
    shop.write()
    said = shop.deploy("v3", "--if-busy", "replace").stdout
    assert "v1 → v3" in said
    code, first = ended(deploy)
    assert code == 7
    assert "v2 was replaced by a newer deploy; v1 serves as before" in first
    assert serving(shop) == "v3"
    rollouts = [(one["to"], one["outcome"], one["exit"]) for one in shop.history()]
    assert rollouts == [("v3", "promoted", 0), ("v2", "superseded", 7), ("v1", "promoted", 0)]


def test_a_deploy_that_waits_begins_when_the_running_one_has_ended(shop: Service) -> None:
    shop.write(strategy={"rolling": {"first_judge": "3s", "judge": "0s"}})
    first = shop.segue.start("deploy", "--version", "v2", cwd=shop.folder)
    eventually(lambda: judging(shop, "v2"))
    shop.write()
    running = shop.status()["rollout"]["id"]
    said = shop.deploy("v3", "--if-busy", "wait")
    assert "v2 → v3" in said.stdout
    assert said.stderr == f"Waiting for the end of rollout {running} (v1 → v2).\n"
    assert ended(first)[0] == 0
    assert [one["outcome"] for one in shop.history()] == ["promoted"] * 3
    third, second, _ = shop.history()
    assert third["started"] >= second["decided"]


# Names and versions


def test_a_version_that_serves_already_is_nothing_to_do(still: Service) -> None:
    still.write()
    said = still.deploy("v1").stdout
    assert said == f"v1 already serves {still.name}.\n"
    assert len(still.history()) == 1
    last = json.loads(still.deploy("v1", "--json").stdout.splitlines()[-1])
    assert (last["event"], last["outcome"], last["exit"], last["rollout"]) == ("finished", "promoted", 0, None)


def test_a_name_that_other_content_has_is_refused(still: Service) -> None:
    still.write(env={"APP_DELAY": "0.001"})
    said = refused(still, "deploy", "--version", "v1")
    assert "the name v1 is taken by other content" in said.lower()


def test_there_is_nothing_to_go_back_to_after_a_first_launch(still: Service) -> None:
    assert "there is nothing to go back to" in refused(still, "rollback")
    assert "version v7 is not retained" in refused(still, "rollback", "--to", "v7")
    assert "v1 already serves" in refused(still, "rollback", "--to", "v1")


def test_an_unknown_service_is_named_with_those_that_there_are(still: Service) -> None:
    for asked in (["status"], ["rollback"], ["scale", "2"]):
        said = still.segue(*asked, "-s", "nosuch", expect=4)
        assert "no service nosuch" in said.stderr
        assert still.name in said.stderr
    error = json.loads(still.segue("down", "-s", "nosuch", "--json", expect=4).stdout)["error"]
    assert (error["code"], error["exit"], error["next"]) == ("unknown", 4, "segue status")


# Routes


@pytest.mark.parametrize("path", ["/tea", "/tea/"])
def test_what_another_service_is_reached_at_is_refused_and_that_service_named(path: str, shop: Service) -> None:
    first, second = Service(shop.segue, f"{shop.name}-a"), Service(shop.segue, f"{shop.name}-b")
    first.write(route={"listen": f"127.0.0.1:{first.port}", "path": "/tea"})
    first.deploy("v1")
    second.write(route={"listen": f"127.0.0.1:{first.port}", "path": path})
    said = second.deploy("v1", expect=4).stderr
    assert f"{first.name}'s already" in said
    assert f"127.0.0.1:{first.port}" in said
    assert first.status()["state"] == "steady"
    second.write(route={"listen": f"127.0.0.1:{first.port}", "path": "/coffee"})
    second.deploy("v1")


def test_two_first_launches_at_one_place_are_told_apart_before_either_serves(shop: Service) -> None:
    first, second = Service(shop.segue, f"{shop.name}-a"), Service(shop.segue, f"{shop.name}-b")
    first.write(env={"APP_START_DELAY": "3"})
    first.deploy("v1", "--detach")
    second.write(route={"listen": f"127.0.0.1:{first.port}"})
    assert f"{first.name}'s already" in second.deploy("v1", expect=4).stderr
    shop.segue("wait", cwd=first.folder)
    assert serving(first) == "v1"


def test_a_port_that_a_stranger_listens_at_is_refused_and_named(shop: Service) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        shop.write(route={"listen": f"127.0.0.1:{port}"})
        assert str(port) in refused(shop, "deploy", "--version", "v2")
        other = Service(shop.segue, f"{shop.name}-new")
        other.write(route={"listen": f"127.0.0.1:{port}"})
        assert str(port) in other.deploy("v1", expect=4).stderr
    assert serving(shop) == "v1"
    other.deploy("v1")


# Ways out of a deploy


def test_a_rollback_in_the_middle_ends_the_deploy_with_7(shop: Service) -> None:
    deploy = under_way(shop, "v2")
    said = shop.segue("rollback", "--reason", "the basket is empty", cwd=shop.folder)
    assert "Back on v1 (v2 → v1" in said.stdout
    code, told = ended(deploy)
    assert code == 7
    assert "v2 was turned back by hand; v1 serves as before" in told
    assert "the basket is empty" in told
    assert serving(shop) == "v1"
    shop.segue("wait", cwd=shop.folder, expect=7)
    account = shop.history()[0]
    assert (account["outcome"], account["basis"], account["exit"]) == ("rolled_back", "person", 7)
    eventually(lambda: set(shop.status()["versions"]) == {"v1"})


def test_an_interrupted_deploy_goes_on_and_can_be_waited_for(shop: Service) -> None:
    shop.write(strategy={"rolling": {"first_judge": "3s", "judge": "0s"}})
    deploy = shop.segue.start("deploy", "--version", "v2", cwd=shop.folder)
    eventually(lambda: judging(shop, "v2"))
    deploy.send_signal(signal.SIGINT)
    code, said = ended(deploy)
    assert code == 130
    rollout = shop.history()[0]
    assert rollout["decided"] is None, "it goes on"
    assert f"segue wait {rollout['rollout']}" in said
    assert "v2 serves all traffic" in shop.segue("wait", rollout["rollout"], cwd=shop.folder).stdout
    assert serving(shop) == "v2"


def test_a_detached_deploy_can_be_waited_for_and_its_exit_status_is_the_rollouts(shop: Service) -> None:
    shop.write(env={"APP_EXIT": "3"})
    said = shop.deploy("bad", "--detach").stdout
    rollout = shop.history()[0]["rollout"]
    assert said == f"Under way: segue wait {rollout}\n"
    assert "gives up: APP_EXIT is 3" in shop.segue("wait", rollout, expect=1).stdout
    shop.write()
    shop.deploy("v2", "--detach")
    shop.segue("wait", cwd=shop.folder)
    assert serving(shop) == "v2"


def test_waiting_no_longer_than_asked_leaves_the_rollout_alone(shop: Service) -> None:
    shop.write(strategy=PATIENT)
    said = shop.deploy("v2", "--wait", "1s", expect=130)
    assert "not decided within 1 s" in said.stdout + said.stderr
    shop.segue("wait", "--timeout", "100ms", cwd=shop.folder, expect=130)
    assert shop.status()["rollout"]["to"] == "v2"


# Other requests


def test_scaling_up_and_down_starts_and_stops_instances(shop: Service) -> None:
    for count in (3, 1):
        assert f"{count} instance" in shop.segue("scale", str(count), cwd=shop.folder).stdout
        eventually(lambda count=count: states(shop) == {"v1": ["ready"] * count})
    assert "already has 1 instance" in shop.segue("scale", "1", cwd=shop.folder).stdout
    assert "at least one instance" in refused(shop, "scale", "0", exit=2)
    assert [one["kind"] for one in shop.history()] == ["scale", "scale", "deploy"]


def states(service: Service) -> dict[str, list[str]]:
    """The states of the instances, by version."""
    found = service.status()["versions"].items()
    return {version: [i["state"] for i in entry["instances"]] for version, entry in found}


def test_restart_replaces_every_instance_by_one_of_the_same_version(shop: Service) -> None:
    (before,) = shop.status()["versions"]["v1"]["instances"]
    shop.segue("restart", cwd=shop.folder)
    eventually(lambda: len(shop.status()["versions"]) == 1)
    found = shop.status()
    (after,) = found["versions"]["v1"]["instances"]
    assert (found["state"], found["stable"]) == ("steady", "v1")
    assert (found["versions"]["v1"]["revision"], after["state"]) == ("v1.2", "ready")
    assert after["pid"] != before["pid"]


def test_retire_ends_the_keep_and_there_is_none_twice(shop: Service) -> None:
    shop.write(strategy=KEPT)
    shop.deploy("v2")
    found = shop.status()
    assert (found["previous"]["version"], states(shop)["v1"]) == ("v1", ["ready"])
    assert found["previous"]["kept_until"] is not None
    shop.segue("retire", cwd=shop.folder)
    eventually(lambda: set(shop.status()["versions"]) == {"v2"})
    assert shop.status()["previous"]["kept_until"] is None
    assert "no old version" in refused(shop, "retire").lower()


def test_a_deploy_during_keep_ends_keep_and_says_so(shop: Service) -> None:
    shop.write(strategy=KEPT)
    shop.deploy("v2")
    shop.write(strategy=AT_ONCE["rolling"])
    assert "note: v1 is no longer kept" in shop.deploy("v3").stdout
    eventually(lambda: set(shop.status()["versions"]) == {"v3"})


def test_a_service_that_is_down_serves_nobody_until_it_is_deployed_again(shop: Service) -> None:
    said = shop.segue("down", cwd=shop.folder).stdout
    assert f"{shop.name} is stopped" in said
    eventually(lambda: shop.status()["versions"] == {} and not connects(shop.port))
    assert (shop.status()["state"], shop.status()["stable"]) == ("stopped", None)
    for asked in (["scale", "2"], ["restart"]):
        assert "nothing serves" in refused(shop, *asked).lower()
    assert "is not running" in shop.segue("down", cwd=shop.folder).stdout
    shop.deploy("v1")
    assert serving(shop) == "v1"


# Accounts


def test_history_and_report_tell_what_was_done_by_whom_and_why(shop: Service) -> None:
    shop.deploy("v2", "--reason", "spring prices")
    httpx.get(shop.url)
    shop.segue("rollback", "--reason", "too early", cwd=shop.folder)
    back, there, first = shop.segue.json("history", cwd=shop.folder)["rollouts"]
    assert [(one["from"], one["to"], one["kind"]) for one in (first, there, back)] == [
        (None, "v1", "deploy"),
        ("v1", "v2", "deploy"),
        ("v2", "v1", "rollback"),
    ]
    assert [(one["asked"], one["outcome"]) for one in (there, back)] == [
        ("spring prices", "promoted"),
        ("too early", "promoted"),
    ]
    said = shop.segue("history", cwd=shop.folder).stdout
    assert [said.find(one["rollout"]) for one in (back, there, first)] == sorted(
        said.index(one["rollout"]) for one in (back, there, first)
    ), "newest first"
    assert len({one["who"] for one in (first, there, back)}) == 1
    report: Any = shop.segue.json("report", there["rollout"])
    assert {"service", "rollout", "strategy", "from", "to", "outcome", "basis", "reason", "started"} <= set(report)
    assert {"seconds", "requests", "latency_ms", "switch_ms", "rollback_ms", "steps"} <= set(report)
    assert report["requests"]["balanced"]
    assert [step["outcome"] for step in report["steps"]] == ["done"] * len(report["steps"])
    assert report["switch_ms"] > 0
    assert "v1 → v2" in shop.segue("report", there["rollout"]).stdout
    assert "v2 → v1" in shop.segue("report", cwd=shop.folder).stdout
    assert "no rollout nosuch" in shop.segue("report", "nosuch", expect=4).stderr


def test_a_request_that_is_repeated_is_one_rollout(shop: Service) -> None:
    path = f"/v1/services/{shop.name}/restart"
    first = shop.ask(path, "POST", {}, key="the same")
    again = shop.ask(path, "POST", {}, key="the same")
    assert again == first
    shop.segue("wait", first["rollout"])
    assert shop.ask(path, "POST", {}, key="the same") == first, "also when it has ended"
    assert len(shop.history()) == 2
    other = shop.ask(f"{path}?wait=20", "POST", {}, key="another")
    assert other["rollout"] != first["rollout"]
    assert len(shop.history()) == 3
