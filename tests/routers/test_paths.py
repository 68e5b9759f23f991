"""Paths that are told apart: how their requests are routed, and what is written to find them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from segue.core.traffic import Backend, Sticky
from segue.evidence.envoy import EnvoyEvidence
from segue.routers.envoy.names import RouteName
from segue.routers.envoy.router import EnvoyRouter
from segue.routers.envoy.routes import routes

from .world import HALF, V1, V2, Process, ask, service, table, until, version


@pytest.mark.parametrize("name", ["shop:v2.1:safe", "shop:v2.1:safe+0", "shop:v2.1:aside-read+12", "a:b:c:all+3"])
def test_a_route_s_name_is_read_as_it_was_written(name: str) -> None:
    assert str(RouteName.parse(name)) == name


def test_of_each_kind_the_paths_come_first_and_nothing_else_is_different() -> None:
    sides = [Backend(V1, HALF, ()), Backend(V2, HALF, ())]
    made = service("127.0.0.1:1", *sides, trial=V2, path="/shop")
    plain = routes(made).everybody
    found = routes(replace(made, paths=("/shop/cart/big", "/shop/cart"))).everybody
    assert len(found) == 3 * len(plain)
    for number, route in enumerate(plain):
        big, cart, rest = found[3 * number : 3 * number + 3]
        assert rest == route
        for place, (path, apart) in enumerate((("/shop/cart/big", big), ("/shop/cart", cart))):
            assert apart["name"] == f"{route['name']}+{place}"
            assert apart["match"] == {**route["match"], "path_separated_prefix": path}
            assert {**apart, "name": None, "match": None} == {**route, "name": None, "match": None}


async def test_a_path_is_shielded_as_all_are_and_stays_with_its_users(
    router: EnvoyRouter, listen: str, old: Process, new: Process
) -> None:
    sides = service(listen, version(V1, HALF, old), version(V2, HALF, new), trial=V2)
    await router.apply(table(replace(sides, paths=("/cart",), sticky=Sticky())))
    await router.settled()
    await new.mode("500")
    answers = [await ask(listen, "/cart/7") for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    evidence = EnvoyEvidence(router)

    async def counted() -> bool:
        samples = await evidence.sample("shop")
        return sum(sample.parts["/cart"].attempts for sample in samples.values() if sample.parts) == 20

    await until(counted, "the attempts for /cart")
    sample = (await evidence.sample("shop"))[V2]
    assert sample.parts["/cart"].failures == sample.failures == sample.attempts > 0
    books = await evidence.books("shop")
    assert (books.total, books.shielded) == (20, sample.failures)


async def test_paths_are_written_while_they_are_learned_and_nothing_stays(
    router: EnvoyRouter, listen: str, old: Process, new: Process, tmp_path: Path
) -> None:
    file = tmp_path / "router" / "visits.log"
    sides = service(listen, version(V1, 1, old), version(V2, 0, new), trial=V2)
    await router.apply(table(replace(sides, learning=True)))
    await router.settled()
    await ask(listen, "/cart/7?password=hunter2", headers="cookie: session=hunter2\r\n")
    evidence = EnvoyEvidence(router)

    async def told() -> bool:
        return list(await evidence.paths("shop")) == ["/cart/7"]

    await until(told, "the path")
    assert "hunter2" not in file.read_text()
    await ask(listen, "/late")
    await router.apply(table(replace(sides, paths=("/cart",))))
    assert file.read_text() == ""
    await until(lambda: _has(file, "/late"), "the line that Envoy still had")
    await router.tend()
    assert file.read_text() == ""

    await router.apply(table(replace(sides, learning=True, trial=V1)))
    await router.settled()
    await ask(listen, "/again")

    async def told_again() -> bool:
        return list(await evidence.paths("shop")) == ["/again"]

    await until(told_again, "the path of the next rollout, from the file's beginning")


async def _has(file: Path, text: str) -> bool:
    return text in file.read_text()
