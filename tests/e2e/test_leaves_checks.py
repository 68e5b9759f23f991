"""Settings of the manifest about health, smoke tests, stopping and hooks, with real processes.

Each test deploys good and bad values by turns: what one refuses the other promotes. All services of this file live
in one home. What is about long times stands in ``tests/engine/test_leaves_in_time.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from homes import Service, a_home

from segue.testing.site import Segue

SICK = {"APP_UNHEALTHY": "yes"}
SOON = {"deadline": "2s"}
"""How long an instance is waited for that never becomes healthy."""


@pytest.fixture(scope="module")
def home() -> Iterator[Segue]:
    with a_home() as segue:
        yield segue


def deploys(service: Service, *, ends: int, **settings: Any) -> str:
    """What `segue deploy` says of the next version, with `settings`; it must exit with `ends`."""
    service.versions += 1
    version = f"v{service.versions}"
    service.write(**settings)
    return service.deploy(version, expect=ends).stdout


@pytest.mark.leaf("health.path", "health.expect")
def test_an_instance_is_healthy_if_the_path_is_answered_as_expected(home: Segue) -> None:
    service = Service(home, "path")
    said = deploys(service, ends=1, env=SICK, health={"path": "/healthz", **SOON})
    assert "GET /healthz answered 503, not 200-399" in said
    deploys(service, ends=0, env=SICK, health={"path": "/", **SOON})
    deploys(service, ends=0, env=SICK, health={"path": "/healthz", "expect": "503"})
    said = deploys(service, ends=1, health={"path": "/healthz", "expect": "503-504", **SOON})
    assert "GET /healthz answered 200, not 503-504" in said


@pytest.mark.leaf("health.timeout")
def test_a_health_check_that_takes_longer_than_its_timeout_has_failed(home: Segue) -> None:
    service = Service(home, "timeout")
    said = deploys(service, ends=1, health={"path": "/slow?0.5", "timeout": "200ms", **SOON})
    assert "no answer to the health check within 0.2 s" in said
    deploys(service, ends=0, health={"path": "/slow?0.5", "timeout": "5s"})


@pytest.mark.leaf("health.command")
def test_an_instance_is_healthy_if_the_command_exits_with_0(home: Segue) -> None:
    service = Service(home, "by-command")
    (service.folder / "ok").touch()
    check = "test -e ok && echo {url} > asking && mv asking asked"
    deploys(service, ends=0, health={"command": check})
    (address,) = (i["address"] for i in service.status()["versions"]["v1"]["instances"])
    assert (service.folder / "asked").read_text() == f"http://{address}\n"
    said = deploys(service, ends=1, health={"command": "test -e nothing", **SOON})
    assert "the health command exited with 1" in said


@pytest.mark.leaf("smoke[].http.path", "smoke[].http.expect", "smoke[].http.contains")
def test_a_smoke_test_asks_for_a_path_and_expects_a_status_and_a_text(home: Segue) -> None:
    service = Service(home, "smoke")
    sick = {"env": SICK, "health": {"path": "/"}}

    def smoke(ends: int, **test: str) -> str:
        return deploys(service, ends=ends, smoke=[{"http": {"path": "/healthz", **test}}], **sick)

    assert "GET /healthz answered 503, not 200-399" in smoke(1)
    smoke(0, path="/")
    smoke(0, expect="503")
    assert "does not contain 'hello'" in smoke(1, expect="503", contains="hello")
    smoke(0, expect="503", contains="health")


@pytest.mark.leaf("smoke[].command")
def test_a_smoke_command_is_given_the_instances_address_and_decides_by_its_status(home: Segue) -> None:
    service = Service(home, "smoke-command")
    deploys(service, ends=0, smoke=[{"command": "echo {url} > asked"}])
    (address,) = (i["address"] for i in service.status()["versions"]["v1"]["instances"])
    assert (service.folder / "asked").read_text() == f"http://{address}\n"
    said = deploys(service, ends=1, smoke=[{"command": "echo no tea; exit 5"}])
    assert "exited with 5: no tea" in said


@pytest.mark.leaf("stop.signal")
@pytest.mark.parametrize(("signal", "detail"), [("TERM", "killed after the grace"), ("INT", None)])
def test_an_instance_is_asked_to_end_by_the_signal(signal: str, detail: str | None, home: Segue) -> None:
    service = Service(home, f"signal-{signal}".lower())
    deploys(service, ends=0, env={"APP_ON_TERM": "ignore"}, stop={"signal": signal, "grace": "2s"})
    deploys(service, ends=0, env={})
    stopped = service.told(lambda event: event.get("state") == "stopped")
    assert (stopped["instance"], stopped["detail"]) == (f"{service.name}-v1.1-1", detail)


@pytest.mark.leaf("hooks.before", "hooks.on_rollback")
def test_hooks_run_before_anything_is_started_and_on_the_way_back(home: Segue) -> None:
    service = Service(home, "hooks")
    note = 'echo "$SEGUE_HOOK $SEGUE_FROM $SEGUE_TO $GREETING" >> notes'
    hooks = {"before": note, "on_rollback": note}
    env = {"GREETING": "hello"}
    deploys(service, ends=0, env=env)
    assert not (service.folder / "notes").exists()
    deploys(service, ends=0, env=env, hooks=hooks)
    deploys(service, ends=1, env=env, hooks=hooks, smoke=[{"command": "echo smoke >> notes; exit 1"}])
    notes = (service.folder / "notes").read_text().splitlines()
    assert notes == ["before v1 v2 hello", "before v2 v3 hello", "smoke", "on_rollback v2 v3 hello"]
