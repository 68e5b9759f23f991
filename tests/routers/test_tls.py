"""TLS towards users, by real handshakes: who is shown which certificate, and that nobody's connection suffers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from segue.core.traffic import Certificate, Route, ServiceTable, Tls
from segue.errors import RouterRefused
from segue.routers.envoy.router import EnvoyRouter
from segue.routers.envoy.static import start_static
from segue.testing import certificates

from .world import V1, Process, World, ask, closed, port, secured, service, table, until, version


@dataclass
class Connection:
    """A user's connection with TLS that stays open. `shown`: the name on the certificate; `spoken`: by ALPN."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    shown: str
    spoken: str | None

    async def get(self, path: str = "/", host: str = "a.test") -> str:
        """The answer's body."""
        self.writer.write(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r")[0])
        return (await self.reader.readexactly(length)).decode()


@asynccontextmanager
async def connected(listen: str, name: str | None, *alpn: str) -> AsyncIterator[Connection]:
    """A connection that asks for `name`. Raises OSError where there is no agreement on TLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(alpn or ["http/1.1"])
    host, _, number = listen.rpartition(":")
    reader, writer = await asyncio.open_connection(
        host, int(number), ssl=context, server_hostname=name, ssl_handshake_timeout=5
    )
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    found = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    [subject] = found.subject
    try:
        yield Connection(reader, writer, str(subject.value), tls.selected_alpn_protocol())
    finally:
        writer.close()


async def shown(listen: str, name: str | None) -> str:
    """The name on the certificate that a user is shown who asks for `name`; empty: there is no agreement."""
    try:
        async with connected(listen, name) as connection:
            return connection.shown
    except (OSError, asyncio.IncompleteReadError):
        return ""


def with_tls(
    listen: str,
    name: str,
    hosts: tuple[str, ...],
    files: tuple[Path, Path],
    backend: Process,
    redirect: str | None = None,
    **route: object,
) -> ServiceTable:
    """A service that shows what `files` hold."""
    plain = service(listen, version(V1, 1, backend), name=name, hosts=hosts, **route)
    return secured(plain, files, redirect)


async def test_each_host_is_shown_its_own_certificate_and_is_answered_by_its_service(
    router: EnvoyRouter, world: World, listen: str, tmp_path: Path
) -> None:
    a, b = await world.backend("a"), await world.backend("b")
    for_a = certificates.write(tmp_path, "cert-a", ["a.test", "*.a.test"])
    for_b = certificates.write(tmp_path, "cert-b", ["b.test"])
    one = with_tls(listen, "one", ("a.test", "*.a.test"), for_a, a)
    await router.apply(table(one))
    async with connected(listen, "a.test", "h2", "http/1.1") as early:
        assert (early.shown, early.spoken) == ("cert-a", "h2")
    async with connected(listen, "a.test") as early:
        assert await early.get() == "a"
        await router.apply(table(one, with_tls(listen, "two", ("b.test",), for_b, b)))
        await until(lambda: _is(listen, "b.test", "cert-b"))
        assert await shown(listen, "www.a.test") == "cert-a"
        assert await shown(listen, "c.test") == "" == await shown(listen, None)
        async with connected(listen, "b.test") as other:
            assert await other.get(host="b.test") == "b"
            assert await early.get() == "a"
            await router.apply(table(one))
            assert await early.get() == "a"
        await until(lambda: _is(listen, "b.test", ""))


async def _is(listen: str, name: str | None, expected: str) -> bool:
    return await shown(listen, name) == expected


async def test_who_asks_for_no_name_is_shown_the_certificate_of_any_host(
    router: EnvoyRouter, world: World, listen: str, tmp_path: Path
) -> None:
    files = certificates.write(tmp_path, "any", ["127.0.0.1"])
    await router.apply(table(with_tls(listen, "one", ("*",), files, await world.backend("a"))))
    assert await shown(listen, None) == await shown(listen, "else.test") == "any"


async def test_a_renewed_certificate_is_shown_to_the_next_user_and_drops_no_connection(
    router: EnvoyRouter, world: World, listen: str, tmp_path: Path
) -> None:
    backend = await world.backend("a")
    before = with_tls(listen, "one", ("a.test",), certificates.write(tmp_path, "before", ["a.test"]), backend)
    after = with_tls(listen, "one", ("a.test",), certificates.write(tmp_path, "after", ["a.test"]), backend)
    await router.apply(table(before))
    async with connected(listen, "a.test") as early:
        for turn in (after, before, after):
            await router.apply(table(turn))
            assert await early.get() == "a"
        await until(lambda: _is(listen, "a.test", "after"))
        assert await early.get() == "a"


async def test_users_without_tls_are_told_to_come_with_it(
    router: EnvoyRouter, world: World, listen: str, tmp_path: Path
) -> None:
    files, away = certificates.write(tmp_path, "a", ["a.test"]), f"127.0.0.1:{port()}"
    secure = with_tls(listen, "one", ("a.test",), files, await world.backend("a"), path="/shop", redirect=away)
    plain = service(away, version(V1, 1, await world.backend("plain")), name="acme", path="/.well-known")
    await router.apply(table(secure, plain))
    there = listen.rpartition(":")[2]
    answer = await ask(away, "/shop/cart?x=1", host="a.test", method="POST", body=b"x")
    assert (answer.status, f"location: https://a.test:{there}/shop/cart?x=1\r" in answer.head) == (308, True)
    assert (await ask(away, "/else", host="a.test")).status == 404
    assert (await ask(away, "/.well-known/x", host="else.test")).body == "plain"
    at_the_wrong_door = await ask(listen, "/shop", host=f"a.test:{there}")
    assert (at_the_wrong_door.status, f"location: https://a.test:{there}/shop\r" in at_the_wrong_door.head) == (
        308,
        True,
    )
    await router.apply(table(plain))
    await until(lambda: closed(listen))
    assert (await ask(away, "/shop", host="a.test")).status == 404


async def test_what_cannot_be_is_refused_and_changes_nothing(
    router: EnvoyRouter, world: World, listen: str, tmp_path: Path
) -> None:
    backend = await world.backend("a")
    files, others = (certificates.write(tmp_path, name, ["a.test"]) for name in ("good", "other"))
    good = with_tls(listen, "one", ("a.test",), files, backend)
    await router.apply(table(good))
    elsewhere = f"127.0.0.1:{port()}"
    broken = Certificate("-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n", "no key")
    bad = ServiceTable(
        "two", Route(elsewhere, ("b.test",), tls=Tls("c", "k")), (version(V1, 1, backend),), certificate=broken
    )
    without = ServiceTable("two", Route(elsewhere, tls=Tls("c", "k")), (version(V1, 1, backend),))
    for wrong in (
        bad,
        without,
        service(listen, version(V1, 1, backend), name="two", path="/two"),
        with_tls(listen, "two", ("a.test",), others, backend, path="/two"),
    ):
        with pytest.raises(RouterRefused):
            await router.apply(table(good, wrong))
        assert await shown(listen, "a.test") == "good"
        assert await closed(elsewhere)


async def test_the_last_table_serves_with_its_certificates_while_nobody_can_be_asked(
    world: World, listen: str, tmp_path: Path
) -> None:
    folder = tmp_path / "router"
    router = EnvoyRouter(folder, concurrency=2, drain=2)
    await router.start()
    backend = await world.backend("a")
    pairs = [certificates.write(tmp_path, name, [f"{name}.test"]) for name in ("a", "b")]
    both = [
        with_tls(listen, name, (f"{name}.test",), files, backend) for name, files in zip("ab", pairs, strict=True)
    ]
    await router.apply(table(*both))
    await router.settled()
    await router.shutdown()
    assert start_static(folder)
    successor = EnvoyRouter(folder, concurrency=2, drain=2)
    try:
        await until(lambda: _is(listen, "b.test", "b"))
        assert (folder / "envoy-static.json").stat().st_mode & 0o077 == 0
        async with connected(listen, "a.test") as connection:
            assert (connection.shown, await connection.get()) == ("a", "a")
        await successor.start()
        await successor.apply(table(*both))
        await until(lambda: _is(listen, "a.test", "a"))
    finally:
        await successor.shutdown()
