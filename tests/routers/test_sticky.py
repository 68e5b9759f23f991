"""A user stays on one version while the shares grow one way: by a cookie, by a header, whatever else is there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from math import sqrt
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.core.traffic import RoutingTable, ServiceTable, Sticky
from segue.evidence.envoy import EnvoyEvidence
from segue.routers.envoy import sticky
from segue.routers.envoy.config import documents
from segue.routers.envoy.router import EnvoyRouter

from .world import HALF, V1, V2, V3, Answer, Process, World, Wrk, ask, service, table, until, version

LADDER = [Fraction(share, 100) for share in (10, 30, 95, 100)]
HEADER = Sticky("X-User-Id")
ID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"

User = str
"""What a user sends with every request."""


def split(
    listen: str, old: Process, new: Process, share: Fraction, by: Sticky | None = None, **more: Any
) -> ServiceTable:
    """The new version on trial with this share."""
    sides = version(V1, 1 - share, old), version(V2, share, new)
    return replace(service(listen, *sides, trial=V2, **more), sticky=by or Sticky())


async def put(router: EnvoyRouter, *services: ServiceTable) -> None:
    """Have this in force on every worker."""
    await router.apply(table(*services))
    await router.settled()


async def each(items: Iterable[Any], ask: Callable[[Any], Awaitable[Any]], workers: int = 16) -> list[Any]:
    """What `ask` gives for each of `items`, some at the same time."""
    found, left = [], iter(items)

    async def work() -> None:
        for item in left:
            found.append(await ask(item))

    await asyncio.gather(*(work() for _ in range(workers)))
    return found


async def on_new(listen: str, users: Iterable[User]) -> set[User]:
    """Those who are on the new version."""

    async def where(user: User) -> tuple[User, str]:
        return user, (await ask(listen, headers=user)).body

    return {user for user, body in await each(users, where) if body == "new"}


async def known(listen: str, count: int) -> dict[User, str]:
    """So many users who have been here before, and where they were."""

    async def first(_: int) -> tuple[User, str]:
        answer = await ask(listen)
        (cookie,) = answer.cookies
        return f"cookie: {cookie.partition(';')[0]}\r\n", answer.body

    return dict(await each(range(count), first))


def fits(part: int, share: Fraction, whole: int) -> bool:
    """Whether `part` of `whole` users are `share` of them, within four standard errors."""
    return abs(part - whole * share) <= 4 * sqrt(whole * share * (1 - share))


SIZES = [1_000, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]


@pytest.mark.parametrize("count", SIZES)
async def test_each_larger_share_has_the_users_of_the_smaller_one_and_as_many_as_it_says_by_cookie(
    router: EnvoyRouter, listen: str, old: Process, new: Process, count: int
) -> None:
    await put(router, split(listen, old, new, LADDER[0]))
    users = await known(listen, count)
    assert len(users) == count
    before = {user for user, body in users.items() if body == "new"}
    for share in LADDER:
        await put(router, split(listen, old, new, share))
        now = await on_new(listen, users)
        assert before <= now and fits(len(now), share, count), (share, len(now), len(before - now))
        assert share != LADDER[0] or now == before, "a user is where the first visit was"
        before = now


@pytest.mark.parametrize("count", SIZES)
async def test_each_larger_share_has_the_users_of_the_smaller_one_and_as_many_as_it_says_by_header(
    router: EnvoyRouter, listen: str, old: Process, new: Process, count: int
) -> None:
    users, before = {f"x-user-id: u{number}\r\n" for number in range(count)}, set[User]()
    for share in LADDER:
        await put(router, split(listen, old, new, share, HEADER))
        now = await on_new(listen, users)
        assert before <= now and fits(len(now), share, count), (share, len(now), len(before - now))
        before = now


@given(st.integers(0, sticky.NUMBERS - 1), st.fractions(0, 1))
def test_a_number_is_below_a_limit_exactly_if_it_is_less(number: int, limit: Fraction) -> None:
    threshold = round(limit * sticky.NUMBERS)
    for each in {number, max(threshold - 1, 0), threshold % sticky.NUMBERS}:
        assert bool(re.fullmatch(sticky.below(limit), f"{each:05x}")) == (each < threshold)


def test_where_there_is_nothing_to_choose_nobody_is_told_to_stay() -> None:
    for sides in [version(V1, 1), version(V2, 0)], [version(V1, 0), version(V2, 1)], [version(V1, 0)]:
        plain = service("127.0.0.1:80", *sides, trial=V2)
        for by in Sticky(), HEADER:
            assert documents(replace(plain, sticky=by)) == documents(plain)
    no_trial = service("127.0.0.1:80", version(V1, HALF), version(V2, HALF))
    assert documents(replace(no_trial, sticky=Sticky())) == documents(no_trial)


async def test_three_versions_keep_their_users(router: EnvoyRouter, world: World, listen: str) -> None:
    ends = {revision: await world.backend(revision) for revision in (V1, V2, V3)}
    shares = {V1: Fraction(1, 2), V2: Fraction(1, 5), V3: Fraction(3, 10)}
    sides = [version(revision, share, ends[revision]) for revision, share in shares.items()]
    await put(router, replace(service(listen, *sides, trial=V2), sticky=Sticky()))
    users = await known(listen, 500)
    for revision, share in shares.items():
        assert fits(list(users.values()).count(revision), share, 500)
    for user, body in islice(users.items(), 50):
        assert (await ask(listen, headers=user)).body == body


async def test_the_cookie_names_its_service_and_is_for_its_path_and_no_script(
    router: EnvoyRouter, listen: str, old: Process, new: Process
) -> None:
    for path, shown in ("/", "/"), ("/two", "/two"), ("/three/", "/three"):
        await put(router, split(listen, old, new, HALF, path=path))
        (cookie,) = (await ask(listen, path)).cookies
        assert re.fullmatch(rf"segue-shop={ID}; path={shown}; max-age=86400; httponly; samesite=lax", cookie)


async def test_who_has_a_cookie_gets_no_other_and_who_has_junk_gets_one(
    router: EnvoyRouter, listen: str, old: Process, new: Process
) -> None:
    await put(router, split(listen, old, new, HALF))
    users = await known(listen, 20)
    for user, body in users.items():
        cookie = user.split(" ")[1].strip()
        for sent in cookie, f"a=b; {cookie}; z=1", f"segue-shop2=x;{cookie}", f"xsegue-shop=1; {cookie}":
            answer = await ask(listen, headers=f"Cookie: {sent}\r\n")
            assert (answer.body, answer.cookies) == (body, []), sent
    valid = cookie.partition("=")[2]
    for junk in (
        "segue-shop=",
        "segue-shop=hello",
        f"segue-shop=x{valid}",
        f"segue-shop={valid}0",
        f"xsegue-shop={valid}",
    ):
        assert len((await ask(listen, headers=f"Cookie: {junk}\r\n")).cookies) == 1, junk


async def test_nobody_chooses_a_version_by_an_identity_of_a_request(
    router: EnvoyRouter, listen: str, old: Process, new: Process
) -> None:
    await put(router, split(listen, old, new, Fraction(1, 100)))
    forged = "x-request-id: 00000000-0000-4000-8000-000000000000\r\n"
    answers = [await ask(listen, headers=forged) for _ in range(40)]
    assert sum(answer.body == "new" for answer in answers) < 10
    assert not any("00000000-0000" in cookie for answer in answers for cookie in answer.cookies)


@pytest.mark.parametrize("by", [Sticky(), HEADER])
async def test_all_methods_of_a_user_go_to_the_same_version(
    router: EnvoyRouter, listen: str, old: Process, new: Process, by: Sticky
) -> None:
    await put(router, split(listen, old, new, HALF, by))
    users = await known(listen, 40) if by.header is None else [f"X-USER-ID: {n}\r\n" for n in range(40)]
    reads = await on_new(listen, users)
    assert 5 < len(reads) < 35
    for user in users:
        for method in "POST", "DELETE", "OPTIONS":
            assert (await ask(listen, method=method, headers=user)).body == ("new" if user in reads else "old")


@pytest.mark.parametrize("by", [Sticky(), HEADER])
async def test_a_user_of_the_new_version_gets_the_old_ones_answer_when_it_fails_and_stays_its_user(
    router: EnvoyRouter, listen: str, old: Process, new: Process, by: Sticky
) -> None:
    await put(router, split(listen, old, new, HALF, by))
    users = list(await known(listen, 40)) if by.header is None else [f"x-user-id: {n}\r\n" for n in range(40)]
    mine = (await on_new(listen, users)).pop()
    for mode in "500", "reset", "hang":
        await new.mode(mode)
        answer = await ask(listen, headers=mine)
        assert (answer, answer.cookies) == (Answer(200, "old"), [])
    await new.mode("500")
    assert await ask(listen, method="POST", headers=mine) == Answer(500, "new"), "it may have been executed"
    await new.mode("ok")
    assert await ask(listen, headers=mine) == Answer(200, "new")


async def test_who_sends_no_header_is_on_the_old_version(
    router: EnvoyRouter, listen: str, old: Process, new: Process
) -> None:
    await put(router, split(listen, old, new, Fraction(99, 100), HEADER))
    for nobody in "", "x-user-id:\r\n", "x-user: 7\r\n":
        assert {(await ask(listen, headers=nobody)).body for _ in range(20)} == {"old"}


async def test_another_rollout_has_other_users_first_by_header(
    router: EnvoyRouter, world: World, listen: str, old: Process, new: Process
) -> None:
    users = [f"x-user-id: {number}\r\n" for number in range(200)]
    await put(router, split(listen, old, new, HALF, HEADER))
    first = await on_new(listen, users)
    sides = version(V1, HALF, old), version(V3, HALF, new)
    await put(router, replace(service(listen, *sides, trial=V3), sticky=HEADER))
    assert 60 < len(first ^ await on_new(listen, users)) < 140


@pytest.mark.parametrize("by", [Sticky(), HEADER])
async def test_other_services_on_the_same_host_go_on_as_they_were(
    router: EnvoyRouter, world: World, listen: str, old: Process, new: Process, by: Sticky
) -> None:
    longer, shorter = await world.backend("longer"), await world.backend("shorter")
    others = [
        service(listen, version(V1, 1, longer), name="longer", path="/shop/in"),
        service(listen, version(V1, 1, shorter), name="shorter", path="/"),
        service(listen, version(V1, 1, shorter), name="other", path="/shop", hosts=("other.example",)),
    ]
    await put(router, split(listen, old, new, HALF, by, path="/shop"), *others)
    found = set()
    for user in [f"x-user-id: {number}\r\n" for number in range(20)]:
        for target in "/shop", "/shop/", "/shop?a", "/shop/x/in", "/shop/inn":
            found.add((await ask(listen, target, headers=user)).body)
        for target, host, name in [
            ("/shop/in", "x", "longer"),
            ("/shop/in?y", "x", "longer"),
            ("/shop/in/z", "x", "longer"),
            ("/", "x", "shorter"),
            ("/shops", "x", "shorter"),
            ("/x?/shop", "x", "shorter"),
            ("/shop", "other.example", "shorter"),
        ]:
            answer = await ask(listen, target, host=host, headers=user)
            assert (answer.body, answer.cookies) == (name, []), target
    assert found == {"old", "new"}


async def test_two_services_on_one_host_know_their_users_each_in_its_own_way(
    router: EnvoyRouter, world: World, listen: str, old: Process, new: Process
) -> None:
    ways = {"/a": HEADER, "/b": Sticky("X-Account"), "/c": Sticky(), "/d": Sticky()}
    await put(router, *(split(listen, old, new, HALF, by, path=p, name=p[1:]) for p, by in ways.items()))
    everybody = [f"x-user-id: {n}\r\nx-account: {n}\r\n" for n in range(100)]
    jars = [await ask(listen, "/c"), await ask(listen, "/d")]
    cookies = "; ".join(cookie.partition(";")[0] for answer in jars for cookie in answer.cookies)
    assert re.fullmatch(rf"segue-c={ID}; segue-d={ID}", cookies)
    stays = {"/c": jars[0].body, "/d": jars[1].body}
    found: dict[str, list[str]] = {"/a": [], "/b": []}
    for user in everybody:
        for path, bodies in found.items():
            bodies.append((await ask(listen, path, headers=user)).body)
        for path, body in stays.items():
            assert (await ask(listen, path, headers=f"{user}cookie: {cookies}\r\n")).body == body
    assert found["/a"] != found["/b"]
    for path, bodies in found.items():
        assert fits(bodies.count("new"), HALF, 100)
        assert [(await ask(listen, path, headers=user)).body for user in everybody] == bodies


async def test_a_user_stays_over_http2_as_well(router: EnvoyRouter, listen: str, old: Process, new: Process) -> None:
    await put(router, split(listen, old, new, HALF))
    async with httpx.AsyncClient(http1=False, http2=True, base_url=f"http://{listen}") as client:
        for user, body in (await known(listen, 20)).items():
            cookie = user.split(" ")[1].strip()
            crumbs = [("cookie", "a=b"), ("cookie", cookie), ("cookie", "z=1")]
            answer = await client.get("/", headers=crumbs)
            assert (answer.http_version, answer.text) == ("HTTP/2", body)
            assert "set-cookie" not in answer.headers


RANDOM = """
request = function()
  local id = string.format("%08x-0000-4000-8000-%012x", math.random(0, 2147483647), math.random(0, 2147483647))
  return wrk.format("GET", "/", {["x-user-id"] = id, ["cookie"] = "segue-shop=" .. id})
end
"""


@pytest.mark.parametrize("by", [Sticky(), HEADER])
@pytest.mark.parametrize("mode", ["ok", "500"])
async def test_no_request_is_lost_while_the_shares_of_sticky_users_move(
    router: EnvoyRouter, listen: str, old: Process, new: Process, by: Sticky, mode: str, tmp_path: Path
) -> None:
    await new.mode(mode)
    (tmp_path / "wrk.lua").write_text(RANDOM)
    shares = [Fraction(0), *LADDER]
    ways: list[RoutingTable] = [table(split(listen, old, new, share, by)) for share in [*shares, *reversed(shares)]]
    evidence = EnvoyEvidence(router)
    await router.apply(ways[0])

    async def there_and_back() -> bool:
        for way in ways:
            await router.apply(way)
        return (await evidence.sample("shop"))[V2].attempts > 100

    async with Wrk(listen) as strangers, Wrk(listen, script=tmp_path / "wrk.lua") as users:
        await until(lambda: many(evidence), "the load")
        for _ in range(10):
            await there_and_back()
        await until(there_and_back, "a load on the new version")
        loads = [await strangers.stop(), await users.stop()]
    assert [load.errors for load in loads] == [0, 0], [load.text for load in loads]
    samples, books = await evidence.sample("shop"), await evidence.books("shop")
    assert samples[V2].attempts > 100 and (samples[V2].failures > 100) is (mode == "500")
    assert books.total == sum(books.answered.values()) + books.shielded + books.cut


async def many(evidence: EnvoyEvidence) -> bool:
    return (await evidence.sample("shop"))[V1].attempts > 200


async def test_a_header_that_nobody_asked_for_is_none_of_the_routers_business(
    router: EnvoyRouter, listen: str, old: Process, new: Process
) -> None:
    plain = split(listen, old, new, HALF)
    await put(router, replace(plain, sticky=None))
    bodies = {(await ask(listen, headers="x-user-id: 7\r\ncookie: segue-shop=7\r\n")).body for _ in range(40)}
    assert bodies == {"old", "new"}
