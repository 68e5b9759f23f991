"""A preview leads to its version and to nobody else, is no part of the service's account, and disturbs nothing."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from fractions import Fraction

import pytest

from segue.core.release import Revision
from segue.core.traffic import Books, Preview, ServiceTable, Traffic
from segue.errors import RouterRefused
from segue.evidence.envoy import EnvoyEvidence
from segue.routers.envoy.router import EnvoyRouter

from .world import V1, V2, V3, Answer, Process, World, Wrk, ask, asked, closed, port, service, table, until, version

TOKEN = "x-segue-preview: open sesame\r\n"


@pytest.fixture
def place() -> str:
    """Where the preview is."""
    return f"127.0.0.1:{port()}"


def shop(
    listen: str,
    old: Process,
    new: Process,
    place: str,
    *,
    token: str | None = None,
    share: Fraction = Fraction(0),
    state: Traffic = Traffic.READY,
    revision: Revision = V2,
) -> ServiceTable:
    """A service whose new version is at `place`."""
    sides = version(V1, 1 - share, old), version(V2, share, new, state=state)
    return replace(service(listen, *sides, trial=V2), preview=Preview(place, revision, token))


async def test_a_preview_leads_to_its_version_and_users_go_where_they_went(
    router: EnvoyRouter, listen: str, old: Process, new: Process, place: str
) -> None:
    await router.apply(table(shop(listen, old, new, place)))
    for host, target, method in ("x", "/", "GET"), ("a.example", "/x?y", "POST"), ("b.example:80", "/z", "PUT"):
        assert await ask(place, target, host=host, method=method) == Answer(200, "new")
    assert set(await asked(listen, 50)) == {(200, "old")}


async def test_a_preview_with_a_token_answers_those_only_who_send_it(
    router: EnvoyRouter, listen: str, old: Process, new: Process, place: str
) -> None:
    await router.apply(table(shop(listen, old, new, place, token="open sesame")))
    assert await ask(place, headers=TOKEN) == Answer(200, "new")
    for wrong in "", "x-segue-preview: open\r\n", "x-segue-preview: open sesame!\r\n", "x-segue-preview:\r\n":
        answer = await ask(place, headers=wrong)
        assert (answer.status, answer.body) == (403, "Send the preview's token in the header x-segue-preview.\n")
    assert await new.seen() == 1
    await router.apply(table(shop(listen, old, new, place, token="another")))
    await router.settled()
    assert (await ask(place, headers=TOKEN)).status == 403


async def test_an_application_does_not_see_the_token(
    router: EnvoyRouter, world: World, listen: str, old: Process, place: str
) -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        sides = version(V1, 1, old), version(V2, 0, address)
        await router.apply(table(replace(service(listen, *sides), preview=Preview(place, V2, "open sesame"))))
        assert (await ask(place, headers=TOKEN)).status == 200
        await router.apply(table())
    assert heads and b"sesame" not in heads[0]


@pytest.mark.parametrize("state", [Traffic.UNREADY, Traffic.DRAINING])
async def test_a_preview_without_a_ready_instance_is_503_and_not_another_version(
    router: EnvoyRouter, listen: str, old: Process, new: Process, place: str, state: Traffic
) -> None:
    await router.apply(table(shop(listen, old, new, place, state=state)))
    assert {status for status, _ in await asked(place, 30)} == {503}
    await router.apply(table(shop(listen, old, new, place, revision=V3)))
    assert (await ask(place)).status == 503
    await router.apply(table(shop(listen, old, new, place)))
    await router.settled()
    assert await ask(place) == Answer(200, "new")
    assert await old.seen() == 0


async def test_a_preview_shows_failures_as_they_are(
    router: EnvoyRouter, listen: str, old: Process, new: Process, place: str
) -> None:
    await router.apply(table(shop(listen, old, new, place)))
    await new.mode("500")
    assert await ask(place) == Answer(500, "new")
    assert await old.seen() == 0


async def test_what_comes_to_a_preview_is_neither_evidence_nor_in_the_books(
    router: EnvoyRouter, listen: str, old: Process, new: Process, place: str
) -> None:
    evidence = EnvoyEvidence(router)
    await router.apply(table(shop(listen, old, new, place, share=Fraction(1, 2))))
    await new.mode("500")
    await asked(place, 50)
    await new.mode("ok")
    await asked(listen, 50)

    async def complete() -> bool:
        return (await evidence.books("shop")).total == 50

    await until(complete, "50 requests in the books")
    samples, books = await evidence.sample("shop"), await evidence.books("shop")
    assert sum(sample.attempts for sample in samples.values()) == 50
    assert sum(sample.failures for sample in samples.values()) == 0
    assert books == Books(50, answered={revision: samples[revision].attempts for revision in (V1, V2)})
    assert sum(sample.attempts for sample in (await evidence.instances("shop")).values()) == 50


async def test_the_books_balance_where_a_preview_was_before(
    router: EnvoyRouter, listen: str, old: Process, new: Process, place: str
) -> None:
    await router.apply(table(shop(listen, old, new, place)))
    await asked(place, 20)
    await router.apply(table(service(listen, version(V1, 1, old))))
    await router.apply(table(service(place, version(V1, 1, old))))
    await asked(place, 10)
    evidence = EnvoyEvidence(router)

    async def complete() -> bool:
        return await evidence.books("shop") == Books(10, answered={V1: 10})

    await until(complete, "10 requests in the books")


async def test_a_request_to_a_preview_is_in_flight(
    router: EnvoyRouter, listen: str, old: Process, new: Process, place: str
) -> None:
    await router.apply(table(shop(listen, old, new, place)))
    held = asyncio.create_task(ask(place, "/hold"))

    async def seen() -> bool:
        return sum(each.in_flight for each in (await router.observe("shop")).values()) == 1

    await until(seen, "a request in flight")
    await new.holding()
    await new.release()
    assert await held == Answer(200, "new")


async def test_previews_come_and_go_and_no_connection_elsewhere_notices(
    router: EnvoyRouter, listen: str, old: Process, new: Process, place: str
) -> None:
    plain = service(listen, version(V1, 1, old), version(V2, 0, new))
    await router.apply(table(plain))
    reader, writer = await asyncio.open_connection(*listen.split(":"))

    async def again() -> bool:
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        return head.startswith(b"HTTP/1.1 200") and await reader.readexactly(3) == b"old"

    for number in range(5):
        assert await again()
        await router.apply(table(replace(plain, preview=Preview(place, V2, str(number)))))
        assert (await ask(place, headers=f"x-segue-preview: {number}\r\n")).body == "new"
        assert await again()
        await router.apply(table(replace(plain, preview=Preview(place, V1))))
        await router.settled()
        assert (await ask(place)).body == "old"
        await router.apply(table(plain))
        await until(lambda: closed(place), "the end of the preview")
    assert await again()
    writer.close()


async def test_a_preview_may_come_back_at_once_to_where_it_was(
    router: EnvoyRouter, listen: str, old: Process, new: Process, place: str
) -> None:
    plain = service(listen, version(V1, 1, old), version(V2, 0, new))
    await router.apply(table(plain))
    async with Wrk(listen) as wrk:
        for _ in range(30):
            await router.apply(table(replace(plain, preview=Preview(place, V2))))
            assert (await ask(place)).body == "new"
            await router.apply(table(plain))
        load = await wrk.stop()
    assert load.errors == 0, load.text


async def test_a_preview_where_somebody_else_listens_is_refused_and_nothing_changes(
    router: EnvoyRouter, listen: str, old: Process, new: Process
) -> None:
    before = table(service(listen, version(V1, 1, old)))
    await router.apply(before)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        with pytest.raises(RouterRefused, match=f"port {taken}"):
            await router.apply(table(shop(listen, old, new, f"127.0.0.1:{taken}", share=Fraction(1))))
    assert router.table == before
    assert set(await asked(listen, 20)) == {(200, "old")}
    await router.apply(table(shop(listen, old, new, f"127.0.0.1:{taken}")))
    assert await ask(f"127.0.0.1:{taken}") == Answer(200, "new")


async def test_a_preview_where_a_service_or_another_preview_is_reached_is_refused(
    router: EnvoyRouter, listen: str, old: Process, new: Process, place: str
) -> None:
    elsewhere = f"127.0.0.1:{port()}"
    for wrong in (
        [shop(listen, old, new, listen)],
        [service(listen, version(V1, 1, old), name="a"), shop(place, old, new, listen)],
        [shop(listen, old, new, place), replace(shop(elsewhere, old, new, place), service="other")],
    ):
        with pytest.raises(RouterRefused, match=r"preview of \w+ is to be at 127\.0\.0\.1"):
            await router.apply(table(*wrong))
    assert router.table == table()
