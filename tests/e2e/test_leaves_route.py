"""Settings of the manifest about where users reach a service, by the real Envoy: changing one changes what they get.

All services of this file live in one home.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from homes import Service, a_home
from loads import connects, eventually

from segue.testing.load import Probe
from segue.testing.site import Segue

Load = Callable[..., Probe]


@pytest.fixture(scope="module")
def home() -> Iterator[Segue]:
    with a_home() as segue:
        yield segue


def get(service: Service, path: str = "", host: str | None = None) -> httpx.Response:
    """What a user gets."""
    return httpx.get(service.url + path, headers={"host": host} if host else {}, timeout=20)


@pytest.mark.leaf("service", "replicas")
def test_services_are_told_apart_by_their_names_and_have_their_replicas(home: Segue) -> None:
    one, two = Service(home, "one"), Service(home, "two")
    one.write(replicas=1)
    one.deploy("v1")
    two.write(replicas=3)
    two.deploy("v1")
    assert (one.status()["stable"], two.status()["stable"]) == ("v1", "v1")
    assert [i["id"] for i in one.status()["versions"]["v1"]["instances"]] == ["one-v1.1-1"]
    assert {i["state"] for i in two.status()["versions"]["v1"]["instances"]} == {"ready"}
    assert len({i["pid"] for i in two.status()["versions"]["v1"]["instances"]}) == 3
    home("down", "-s", "two")
    assert get(one).status_code == 200
    assert not connects(two.port)


@pytest.mark.leaf("route.listen")
def test_users_connect_where_the_service_listens(home: Segue) -> None:
    service, other = Service(home, "moving"), Service(home, "moved")
    service.write()
    service.deploy("v1")
    assert get(service).text == "hello from v1\n"
    service.write(route={"listen": f"127.0.0.1:{other.port}"})
    service.deploy("v2")
    assert eventually(lambda: connects(other.port) and get(other).text) == "hello from v2\n"
    eventually(lambda: not connects(service.port))


@pytest.mark.leaf("route.hosts", "route.path")
def test_services_on_one_listener_are_told_apart_by_host_and_path(home: Segue) -> None:
    shop, admin, tea = (Service(home, name) for name in ("host-shop", "host-admin", "host-tea"))
    listen = {"listen": f"127.0.0.1:{shop.port}"}
    shop.write(route={**listen, "hosts": ["shop.test", "*.shop.test"]})
    shop.deploy("shop")
    admin.write(route={**listen, "hosts": ["shop.test"], "path": "/admin"})
    admin.deploy("admin")
    tea.write(route={**listen, "hosts": ["tea.test"]})
    tea.deploy("tea")

    def answers(host: str, path: str = "") -> str:
        return get(shop, path, host).headers.get("x-version", "nobody")

    assert [answers(host) for host in ("shop.test", "www.shop.test", "tea.test", "else.test")] == [
        *("shop", "shop", "tea"),
        "nobody",
    ]
    assert [answers("shop.test", path) for path in ("admin", "admin/x", "administrator")] == [
        "admin",
        "admin",
        "shop",
    ]
    assert answers("tea.test", "admin") == "tea"
    tea.write(route={**listen, "hosts": ["tea.test", "else.test"], "path": "/only"})
    tea.deploy("tea2")
    eventually(lambda: answers("else.test", "only") == "tea2")
    assert answers("tea.test") == "nobody"


def test_a_version_on_trial_is_reached_only_where_the_old_one_is_and_a_new_place_comes_with_it(
    home: Segue, load: Load
) -> None:
    service = Service(home, "replaced")
    old, new = ({"listen": f"127.0.0.1:{service.port}", "path": path} for path in ("/old", "/new"))
    service.write(route=old)
    service.deploy("v1")
    users = load(f"{service.url}old", rate=200)
    users.more(20)
    half = {"canary": {"steps": ["50%", "100%"], "judge": {"least": "60s", "most": "10m"}, "keep": "0s"}}
    service.write(route=new, strategy=half)
    deploy = home.start("deploy", "--version", "v2", cwd=service.folder)
    users.until(lambda tally: tally.by_version.get("v2", 0) > 20)
    assert {get(service, "new").status_code for _ in range(50)} == {404}
    assert users.finish().lost == ()
    service.ask("/v1/services/replaced/promote", "POST", {"full": True})
    said, _ = deploy.communicate(timeout=60)
    assert deploy.returncode == 0, said
    assert eventually(lambda: get(service, "new").headers.get("x-version")) == "v2"
    assert get(service, "old").status_code == 404


@pytest.mark.leaf("route.timeout")
def test_an_answer_may_take_as_long_as_timeout_says(home: Segue) -> None:
    service = Service(home, "slow")
    service.write(route={"listen": f"127.0.0.1:{service.port}", "timeout": "500ms"})
    service.deploy("v1")
    assert get(service, "slow?1.5").status_code == 504
    service.write()
    service.deploy("v2")
    eventually(lambda: get(service, "slow?1.5").status_code == 200)


@pytest.mark.leaf("route.shield")
@pytest.mark.parametrize("shield", [True, False])
def test_what_a_version_on_trial_fails_is_answered_by_the_old_one_only_with_the_shield(
    shield: bool, home: Segue, load: Load
) -> None:
    service = Service(home, f"shield-{shield}".lower())
    route = {"listen": f"127.0.0.1:{service.port}", "shield": shield}
    judged = {"blue_green": {"judge": "20s", "keep": "0s"}}
    service.write(route=route)
    service.deploy("v1")
    users = load(service.url, rate=200)
    users.more(20)
    service.write(route=route, strategy=judged, env={"APP_BROKEN": "500"})
    service.deploy("v2", expect=1)
    users.more(20)
    tally = users.finish()
    requests = service.report()["requests"]
    assert requests["balanced"]
    if shield:
        assert (tally.lost_count, requests["failed_by"]) == (0, {})
        assert requests["shielded"] > 0
    else:
        assert tally.lost_count == tally.by_status[500] > 0
        assert requests["shielded"] == 0
        assert requests["failed_by"]["v2"] > 0
