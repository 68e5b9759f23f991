"""Where services are reached, and which two cannot be there together."""

from __future__ import annotations

from typing import Any

import pytest

from segue.core.places import asked_by_name, conflict, overlap, places
from segue.core.traffic import Route, Tls

ONE = Tls("/one.pem", "/one.key")
OTHER = Tls("/other.pem", "/other.key")


def at(listen: str = "127.0.0.1:80", *hosts: str, path: str = "/", tls: Tls | None = None) -> Route:
    return Route(listen, hosts or ("*",), path, tls=tls)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("localhost:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "10.0.0.1:80", True),
        ("[::]:80", "127.0.0.1:80", True),
        ("[::1]:80", "127.0.0.1:80", False),
    ],
)
def test_addresses_overlap_where_a_connection_could_be_meant_for_both(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is expected


CONFLICTS: list[tuple[Route, Route, str | None]] = [
    (at(), at(), "127.0.0.1:80/ is b's already, for the host *"),
    (at(path="/x/"), at(path="/x"), "127.0.0.1:80/x is b's already"),
    (at("127.0.0.1:80", "a.x", "c.x"), at("127.0.0.1:80", "b.x", "c.x"), "for the host c.x"),
    (at(), at(path="/x"), None),
    (at("127.0.0.1:80", "a.x"), at("127.0.0.1:80", "b.x"), None),
    (at("127.0.0.1:80", "a.x"), at("127.0.0.1:80", "*.x"), None),
    (at(), at("127.0.0.1:81"), None),
    (at("0.0.0.0:80", "a.x"), at("127.0.0.1:80", "b.x"), "where b is reached, are one address"),
    (at(tls=ONE), at(path="/x"), "at 127.0.0.1:80 b is reached without TLS"),
    (at(), at(path="/x", tls=ONE), "at 127.0.0.1:80 b is reached with TLS"),
    (at(tls=ONE), at(path="/x", tls=ONE), None),
    (at(tls=ONE), at(path="/x", tls=OTHER), "b shows another certificate for the host *"),
    (at("127.0.0.1:80", "10.0.0.1", tls=ONE), at("127.0.0.1:80", "*", path="/x", tls=OTHER), "another certificate"),
    (at("127.0.0.1:80", "a.x", tls=ONE), at("127.0.0.1:80", "b.x", tls=OTHER), None),
    (at("127.0.0.1:443", tls=Tls("c", "k", "127.0.0.1:80")), at(), "127.0.0.1:80/ is b's already"),
    (at("127.0.0.1:443", tls=Tls("c", "k", "127.0.0.1:80")), at(path="/.well-known"), None),
    (at("127.0.0.1:443", tls=Tls("c", "k", "127.0.0.1:80")), at(tls=ONE), "b is reached with TLS"),
]


@pytest.mark.parametrize(("mine", "theirs", "expected"), CONFLICTS)
def test_two_services_cannot_be_at_one_place(mine: Route, theirs: Route, expected: str | None) -> None:
    found = conflict(mine, theirs, "b")
    assert found is None if expected is None else found is not None and expected in found
    assert (conflict(theirs, mine, "a") is None) is (expected is None)


def test_a_route_takes_its_address_and_the_one_that_it_sends_users_from() -> None:
    listens: dict[str, Any] = {place.listen: place.shows for place in places(at(tls=Tls("c", "k", "127.0.0.1:8000")))}
    assert listens == {"127.0.0.1:80": ("c", "k"), "127.0.0.1:8000": None}
    assert [place.shows for place in places(at())] == [None]


@pytest.mark.parametrize(
    ("host", "name"), [("a.x", "a.x"), ("*.x", "*.x"), ("*", "*"), ("10.0.0.1", "*"), ("[::1]", "*")]
)
def test_an_address_cannot_be_asked_for_by_name(host: str, name: str) -> None:
    assert asked_by_name(host) == name
