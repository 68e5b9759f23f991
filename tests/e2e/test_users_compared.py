"""An experiment with real users, each with a browser's cookies, through a crash of the control plane to its end."""

from __future__ import annotations

import os
import signal
from random import Random
from typing import Any

import httpx

from segue.testing.cast import Cast
from segue.testing.site import Shop
from segue.testing.trial import until

AB = {"experiment": {"goal": {"path": "/thanks"}, "most": "1h", "keep": "0s"}}


def visit(shop: Shop, buys: bool) -> str:
    """A user looks at two pages, and perhaps buys; the version that served all of it."""
    with httpx.Client(base_url=shop.url) as browser:
        paths = ["/", "/cart", *(["/thanks?order=1"] if buys else [])]
        served = {browser.get(path).headers["x-version"] for path in paths}
    (version,) = served
    return version


def shown(shop: Shop, users: int, reached: int) -> Any:
    """What is said of the experiment, once so many users were counted, and so many at the goal."""
    found: Any = None

    def all_there() -> bool:
        nonlocal found
        found = shop.segue.json("experiment", cwd=shop.folder)
        return (sum(found["users"].values()), sum(found["reached"].values())) == (users, reached)

    until(all_there)
    return found


def test_users_stay_on_one_version_are_counted_over_a_crash_and_a_person_decides(shop: Shop) -> None:
    shop.write(replicas=2, strategy=AB)
    shop.deploy("v1")
    held = shop.deploy("v2", expect=6)
    assert "is v2.1 better than v1.1?" in held.stdout + held.stderr
    assert "No user was seen yet." in shop.segue("experiment", cwd=shop.folder).stdout
    seen = [(visit(shop, buys=number % 3 == 0), number % 3 == 0) for number in range(30)]
    found = shown(shop, 30, 10)
    assert found["users"] == {name: sum(version == name for version, _ in seen) for name in ("v1", "v2")}
    assert found["reached"] == {name: sum(v == name and bought for v, bought in seen) for name in ("v1", "v2")}

    os.kill(Cast(shop.segue, Random(1)).plane(), signal.SIGKILL)
    seen += [(visit(shop, buys=True), True) for _ in range(10)]
    found = shown(shop, 40, 20)
    assert found["reached"] == {name: sum(v == name and bought for v, bought in seen) for name in ("v1", "v2")}
    said = shop.segue("experiment", cwd=shop.folder).stdout
    assert "of v2 reached /thanks" in said and "50% of the users, known by a cookie" in said

    shop.segue("promote", cwd=shop.folder)
    assert visit(shop, buys=False) == "v2"
    over = shop.segue.json("experiment", cwd=shop.folder)
    assert (over["outcome"], over["users"]) == ("promoted", found["users"])
    assert (shop.segue.home / "envoy" / "visits.log").read_text() == ""
