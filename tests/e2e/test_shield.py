"""A version on trial that is healthy on ``/healthz`` and broken for its users: nobody of them loses a safe request.

Rule 1: all faults happen one after the other to one service with the shield and to one without it, its twin, under
load all the time. A twin that loses nothing means that the measurement is blind.
Rule 2: what clients counted is compared with Segue's books in every test.
Rule 3: POSTs have numbers, and the applications write down which they executed.
The full size is in ``bench/shield.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from homes import Service, a_home
from loads import eventually

from segue.testing import trial
from segue.testing.load import Probe
from segue.testing.site import Segue
from segue.testing.trial import FAULTS, POSTERS, Fault, Users

NUMBERS = count(2)
HELD = {"canary": {**trial.CANARY["canary"], "steps": ["50%", "100%"]}}
SURE = {"answers 500", "killed -9 at 30 %"}
"""Shown with each change; the others lose as well, and take as long."""
LENIENT = {"alarm": {"ratio": 1000, "errors": "99%", "latency": "1000%"}}


@pytest.fixture(scope="module")
def home() -> Iterator[Segue]:
    with a_home() as segue:
        yield segue


@pytest.fixture(scope="module")
def shop(home: Segue) -> Service:
    """It serves a good version, with the shield up during trials."""
    return launched(home, "shop", shield=True)


@pytest.fixture(scope="module")
def twin(home: Segue) -> Service:
    """The same without the shield."""
    return launched(home, "twin", shield=False)


@pytest.fixture(scope="module")
def quiet(home: Segue) -> Service:
    """As the shop, but nobody is there unless a test brings him."""
    return launched(home, "quiet", shield=True)


def launched(home: Segue, name: str, *, shield: bool) -> Service:
    service = Service(home, name)
    trial.write(service, "v1", None, shield=shield, replicas=2)
    service.deploy("v1")
    return service


@pytest.fixture(scope="module")
def users(shop: Service) -> Iterator[Users]:
    users = Users(shop, rate=300)
    yield users
    users.kill()


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_no_safe_request_is_lost_and_no_post_executed_twice_by_a_version_that(
    fault: Fault, shop: Service, users: Users
) -> None:
    version = f"v{next(NUMBERS)}"
    trial.write(shop, version, fault, replicas=2)
    users.more(20)
    found = trial.run(shop, version, fault, users)
    assert trial.safe_losses(found.seen) == []
    assert found.flaws == []
    assert (found.exit, found.report["outcome"]) == (1, "rolled_back")
    assert set(found.seen["HTTP/1.1"].by_version) | set(found.seen["HTTP/2"].by_version) <= {"v1", version}
    if fault.sets_in is None:
        assert found.requests["shielded"] > 0
        assert version not in found.seen["HTTP/1.1"].by_version
    if fault.name == "refuses":  # at most what was under way at the door when it was shut; the rest never came in
        assert found.seen["POST"].lost_count <= POSTERS
    executed, answered = users.executions()
    assert trial.more_than_once(executed) == []
    assert answered <= set(executed)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=[] if fault.name in SURE else pytest.mark.slow)
        for fault in FAULTS
        if not fault.harmless
    ],
    ids=str,
)
def test_without_the_shield_requests_are_lost_by_a_version_that(fault: Fault, twin: Service) -> None:
    version = f"v{next(NUMBERS)}"
    trial.write(twin, version, fault, shield=False, replicas=2)
    users = Users(twin, rate=300, posts=0, timeout=2)
    try:
        users.more(20)
        lost = trial.lossy(twin, version, fault, users)
    finally:
        users.kill()
    assert trial.safe_losses(lost) != []
    assert eventually(lambda: ended(twin))["requests"]["balanced"]


def test_the_books_have_every_request_of_a_trial_once(quiet: Service) -> None:
    """The load begins and ends while the version has its share, so that both sides count the same requests."""
    version = f"v{next(NUMBERS)}"
    some = Fault("answers 500 now and then", {"APP_BROKEN": "500", "APP_BROKEN_SHARE": "0.3"})
    trial.write(quiet, version, some, replicas=2, strategy=HELD, judge=LENIENT)
    deploy = quiet.segue.start("deploy", "--version", version, cwd=quiet.folder)
    try:
        eventually(lambda: trial.has_share(quiet, version))
        users = Users(quiet, rate=300)
        try:
            users.more(300)
            seen = users.finish()
        finally:
            users.kill()
        quiet.segue("rollback", cwd=quiet.folder, expect=None)  # what speaks is what users saw
    finally:
        deploy.communicate()
    books = eventually(lambda: ended(quiet))["requests"]
    safe = [tally for name, tally in seen.items() if name != "POST"]
    assert trial.safe_losses(seen) == []
    assert books["balanced"]
    assert books["total"] == sum(tally.total for tally in seen.values())
    by = sum((Counter(tally.by_version) for tally in seen.values()), Counter[str]())
    assert books["answered_by"].get(version, 0) + books["failed_by"].get(version, 0) == by[version]
    assert books["answered_by"]["v1"] + books["shielded"] == by["v1"]
    assert books["failed_by"].get(version, 0) == seen["POST"].lost_count
    assert books["shielded"] > 0
    assert sum(tally.total for tally in safe) == sum(tally.by_status[200] for tally in safe)


@pytest.mark.parametrize("shield", [True, False])
def test_a_right_answer_that_takes_three_seconds_is_not_cut_and_not_asked_for_three_times(
    shield: bool, quiet: Service, twin: Service
) -> None:
    service, version = (quiet if shield else twin), f"v{next(NUMBERS)}"
    trial.write(service, version, None, shield=shield, replicas=2, strategy=HELD)
    deploy = service.segue.start("deploy", "--version", version, cwd=service.folder)
    try:
        eventually(lambda: trial.has_share(service, version))
        probe = Probe(service.url + "slow?3", "--name", f"{version}-", connections=64)
        try:
            probe.until(lambda tally: tally.total >= 64)
            tally = probe.finish()
        finally:
            probe.kill()
        service.segue("rollback", cwd=service.folder, expect=None)  # what speaks is what users saw
    finally:
        deploy.communicate()
    assert tally.lost == ()
    assert tally.percentile(0.01) >= 2900
    assert tally.by_version["v1"] + tally.by_version[version] == tally.total
    times = trial.seen(service, f"{version}-")
    assert len(times) == tally.total
    assert set(times.values()) == ({1, 2} if shield else {1})  # what the version on trial is slow with goes to both
    assert eventually(lambda: ended(service))["requests"]["balanced"]


def ended(service: Service) -> Any:
    """The report of the latest rollout once it has ended."""
    return service.report() if service.status()["rollout"] is None else None


@pytest.mark.parametrize("shield", [True, False])
def test_a_version_that_hangs_is_taken_back_though_its_users_give_up(
    shield: bool, quiet: Service, twin: Service
) -> None:
    """A POST is not repeated, shield or not, and nobody waits for its end: what was left unanswered speaks, too."""
    service, version = (quiet if shield else twin), f"v{next(NUMBERS)}"
    hangs = next(fault for fault in FAULTS if fault.name == "hangs")
    trial.write(service, version, hangs, shield=shield, replicas=2)
    probe = Probe(service.url, "--method", "POST", "--timeout", "1", connections=64, rate=100)
    try:
        probe.more(50)
        refused = service.deploy(version, expect=1)
    finally:
        probe.kill()
    assert f"{version} failed each of its last" in refused.stdout
    assert eventually(lambda: ended(service))["requests"]["balanced"]
