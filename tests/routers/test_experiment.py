"""An experiment: who takes part, who stays where, what is written of them, and what is not."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from segue.core.experiment import Visit
from segue.core.release import Experiment, Goal, Revision, Who
from segue.core.traffic import Backend, Endpoint, InstanceId, Sticky, Traffic
from segue.evidence.envoy import EnvoyEvidence
from segue.routers.envoy.http import MARK
from segue.routers.envoy.router import EnvoyRouter
from segue.routers.envoy.routes import routes

from .world import HALF, V1, V2, Answer, ask, service, table, until

THANKS = Experiment(Goal("/thanks"))
KOREA = Who("X-Country", ("KR", "J.P"))


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
    """``/order`` is answered 201 with a number, ``/missing`` 404."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = head.split(b" ")[1].partition(b"?")[0]
            status = {b"/order": b"201 Created\r\nx-order: 7", b"/missing": b"404 Not Found"}.get(path, b"200 OK")
            writer.write(b"HTTP/1.1 " + status + f"\r\ncontent-length: {len(name)}\r\n\r\n{name}".encode())
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


@pytest.fixture
async def backends() -> AsyncIterator[Sequence[Backend]]:
    """The old version and the new one, each with half of the traffic."""
    servers, found = [], []
    for version, name in ((V1, "old"), (V2, "new")):
        server = await asyncio.start_server(lambda r, w, name=name: _serve(r, w, name), "127.0.0.1", 0)  # type: ignore[misc]
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        end = Endpoint(InstanceId(f"shop-{version}-1"), f"127.0.0.1:{port}", Traffic.READY)
        found.append(Backend(version, HALF, (end,)))
    yield found
    for server in servers:
        server.close()


async def put(
    router: EnvoyRouter, listen: str, backends: Sequence[Backend], experiment: Experiment, **route: Any
) -> None:
    """Have the experiment in force on every worker."""
    _, _, header = experiment.sticky.partition(":")
    made = service(listen, *backends, trial=V2, **route)
    await router.apply(table(replace(made, sticky=Sticky(header or None), experiment=experiment)))
    await router.settled()


class Reader:
    """What is told of the visits, all of it."""

    def __init__(self, router: EnvoyRouter) -> None:
        self._evidence, self.seen = EnvoyEvidence(router), list[Visit]()

    async def visits(self, count: int) -> list[Visit]:
        """All that were told, as soon as there are so many."""

        async def there() -> bool:
            self.seen.extend(await self._evidence.visits("shop"))
            return len(self.seen) >= count

        await until(there, f"{count} visits of {self.seen}")
        return self.seen


def cookie(answer: Answer) -> str:
    """What a browser sends from now on."""
    (told,) = answer.cookies
    return f"cookie: a=1; {told.partition(';')[0]}; b=2\r\n"


def revision(answer: Answer) -> Revision:
    """The version that answered."""
    return {"old": V1, "new": V2}[answer.body]


async def test_a_user_is_written_down_when_drawn_and_when_at_the_goal_and_stays_where_drawn(
    router: EnvoyRouter, listen: str, backends: Sequence[Backend]
) -> None:
    await put(router, listen, backends, THANKS)
    reader, users = Reader(router), {}
    for number in range(20):
        first = await ask(listen, f"/{number}?secret=1")
        users[cookie(first)] = revision(first)
    for sent, where in users.items():
        for path in ("/", "/thanks-not", "/thanks/below", "/x/thanks"):
            again = await ask(listen, path, headers=sent)
            assert revision(again) == where and not again.cookies
    reached = dict(list(users.items())[:5])
    for sent, where in reached.items():
        assert revision(await ask(listen, "/thanks?order=7", headers=sent)) == where
    seen = await reader.visits(25)
    named = {re.search("segue-shop-[0-9a-f]{8}=([0-9a-f-]+);", sent)[1]: where for sent, where in users.items()}  # type: ignore[index]
    assert {visit.user: visit.version for visit in seen} == named
    assert [visit.path for visit in seen[:20]] == [f"/{number}" for number in range(20)]
    assert [THANKS.goal.reached(visit.path, visit.status, shown=visit.shown) for visit in seen] == 20 * [
        False
    ] + 5 * [True]
    assert len(seen) == 25 and set(users.values()) == {V1, V2}


@pytest.mark.parametrize(
    ("goal", "target", "other"),
    [
        (Goal(status=(201, 204)), "/order", "/missing"),
        (Goal(header="X-Order"), "/order", "/"),
        (Goal("/order", (200, 299), "X-Order"), "/order?a=b", "/missing"),
        (Goal(status=(404, 404)), "/missing", "/order"),
    ],
    ids=str,
)
async def test_a_goal_is_an_answer_s_status_or_header_as_well(
    router: EnvoyRouter, listen: str, backends: Sequence[Backend], goal: Goal, target: str, other: str
) -> None:
    await put(router, listen, backends, Experiment(goal))
    reader, sent = Reader(router), cookie(await ask(listen))
    await ask(listen, other, headers=sent)
    await ask(listen, target, headers=sent)
    seen = await reader.visits(2)
    assert [goal.reached(visit.path, visit.status, shown=visit.shown) for visit in seen] == [False, True]
    assert len({visit.user for visit in seen}) == 1


async def test_only_who_is_meant_takes_part_and_the_others_are_no_evidence(
    router: EnvoyRouter, listen: str, backends: Sequence[Backend]
) -> None:
    await put(router, listen, backends, replace(THANKS, who=KOREA))
    evidence, reader = EnvoyEvidence(router), Reader(router)
    for other in ("", "x-country: DE\r\n", "x-country: KRX\r\n", "x-country: JAP\r\n"):
        for _ in range(10):
            answer = await ask(listen, headers=other)
            assert answer.body == "old" and not answer.cookies
    meant = [await ask(listen, headers=f"X-Country: {among}\r\n") for among in 10 * KOREA.among]
    assert {answer.body for answer in meant} == {"old", "new"} and all(answer.cookies for answer in meant)
    assert len(await reader.visits(20)) == 20

    async def counted() -> bool:
        return sum(sample.attempts for sample in (await evidence.sample("shop")).values()) == 20

    await until(counted, "evidence of those alone who take part")
    assert (await evidence.sample("shop"))[V1].attempts == sum(answer.body == "old" for answer in meant)
    books = await evidence.books("shop")
    assert (books.total, sum(books.answered.values())) == (60, 60)


@pytest.mark.parametrize("who", [None, KOREA])
async def test_users_who_are_known_by_a_header_are_told_apart_by_it(
    router: EnvoyRouter, listen: str, backends: Sequence[Backend], who: Who | None
) -> None:
    await put(router, listen, backends, replace(THANKS, sticky="header:X-User", who=who))
    reader, also = Reader(router), "x-country: KR\r\n"
    first = {f"u{n}": (await ask(listen, headers=f"x-user: u{n}\r\n{also}")).body for n in range(30)}
    again = {f"u{n}": (await ask(listen, "/thanks", headers=f"x-user: u{n}\r\n{also}")).body for n in range(30)}
    assert first == again and set(first.values()) == {"old", "new"}
    assert (await ask(listen)).body == "old", "who does not say who he is takes no part"
    if who:
        assert (await ask(listen, headers=f"x-user: {next(iter(first))}\r\n")).body == "old"
    seen = await reader.visits(60)
    assert {visit.user: visit.version for visit in seen} == {u: {"old": V1, "new": V2}[b] for u, b in first.items()}
    assert len(seen) == 60


async def test_each_experiment_draws_its_users_anew_and_the_cookie_lasts_as_long_as_it(
    router: EnvoyRouter, listen: str, backends: Sequence[Backend]
) -> None:
    await put(router, listen, backends, replace(THANKS, most=timedelta(days=3)))
    first = await ask(listen)
    assert "max-age=259200;" in first.cookies[0]
    v3 = Revision("v3.1")
    renamed = [backends[0], replace(backends[1], revision=v3)]
    made = replace(service(listen, *renamed, trial=v3), sticky=Sticky(), experiment=THANKS)
    await router.apply(table(made))
    await router.settled()
    again = await ask(listen, headers=cookie(first))
    assert again.cookies and cookie(again).split("=")[1] != cookie(first).split("=")[1]


async def test_nothing_secret_is_written_and_nothing_stays_when_it_is_over(
    router: EnvoyRouter, listen: str, backends: Sequence[Backend], tmp_path: Path
) -> None:
    file = tmp_path / "router" / "visits.log"
    await put(router, listen, backends, THANKS, access_log=Fraction(1))
    secret = "authorization: Bearer hunter2\r\ncookie: session=hunter2\r\n"
    first = await ask(listen, "/?password=hunter2", headers=secret)
    await ask(listen, "/thanks?password=hunter2", headers=cookie(first))
    await Reader(router).visits(2)
    assert "hunter2" not in file.read_text() and file.stat().st_mode & 0o077 == 0
    assert set(json.loads(file.read_text().splitlines()[0])) == {
        *("service", "status", "version", "trial", "path", "user", "goal")
    }
    access = file.with_name("access.log")
    await until(lambda: _has(access, 2), "the access log beside it")
    await router.apply(table(service(listen, *backends, trial=V2)))
    assert file.read_text() == ""


async def _has(file: Path, lines: int) -> bool:
    return len(file.read_text().splitlines()) == lines


async def test_lines_that_were_rotated_are_read_as_well(
    router: EnvoyRouter, listen: str, backends: Sequence[Backend], tmp_path: Path
) -> None:
    file = tmp_path / "router" / "visits.log"
    await put(router, listen, backends, THANKS)
    reader = Reader(router)
    await ask(listen)
    await reader.visits(1)
    await ask(listen)
    await until(lambda: _has(file, 2), "a second line")
    file.replace(file.with_name("visits.log.1"))
    file.write_text("a line that was cut off\n" + json.dumps({"service": "shop"}) + "\n")
    assert len(await reader.visits(2)) == 2
    assert len(await Reader(router).visits(2)) == 2, "after a restart of ours all is told again"


def test_a_bound_for_bodies_leaves_nobody_uncounted(backends: Sequence[Backend]) -> None:
    made = service("127.0.0.1:1", *backends, trial=V2, max_body=10)
    found = routes(replace(made, sticky=Sticky(), experiment=THANKS)).everybody
    told = [route for route in found if "direct_response" not in route]
    assert told and all(MARK in route["typed_per_filter_config"] for route in told)
