"""Which paths are worth being looked at by themselves."""

from __future__ import annotations

import pytest

from segue.core.paths import OTHERS, busiest


def asked(**counts: int) -> list[str]:
    """Requests: ``a_b=3`` are three for ``/a/b``."""
    return [f"/{name.replace('_', '/')}" for name, count in counts.items() for _ in range(count)]


def test_what_has_a_twentieth_of_the_requests_is_told_apart() -> None:
    assert busiest([*asked(cart=50, search=45, rare=4), "/"]) == ("/cart", "/search", OTHERS)
    assert busiest(asked(cart=94, search=5, rare=1)) == ("/cart", "/search")
    assert busiest(asked(cart=50, search=50)) == ("/cart", "/search")
    assert busiest([*asked(cart=50), *["/"] * 50]) == ("/cart", OTHERS)


def test_what_lies_below_a_path_is_its_own_or_not_counted_with_it() -> None:
    assert busiest(asked(api_cart=40, api_search=40, api_a=5, api_b=4, api_c=5, other=6)) == (
        "/api/a",
        "/api/c",
        "/api/cart",
        "/api/search",
        "/other",
    )
    assert busiest(asked(api_cart=40, api_a=4, api_b=3, api_c=3, other=50)) == ("/api/cart", "/api", "/other")


def test_things_with_a_number_of_their_own_are_told_by_what_they_are() -> None:
    users, orders = [f"/users/{n}" for n in range(60)], [f"/users/{n}/orders" for n in range(40)]
    assert busiest([*users, *orders, *asked(search=100)]) == ("/search", "/users")


def test_where_one_path_has_everything_there_is_nothing_to_tell_apart() -> None:
    assert busiest([f"/users/{n}" for n in range(100)]) == ()
    assert busiest(["/"] * 100) == ()
    assert busiest([]) == ()


def test_at_most_six_are_the_busiest_ones() -> None:
    many = asked(a=10, b=11, c=12, d=13, e=14, f=15, g=16, h=17, i=18)
    assert busiest(many) == (*("/" + letter for letter in "defghi"), OTHERS)


def test_the_deepest_come_first_so_that_the_first_that_fits_is_the_nearest() -> None:
    assert busiest(asked(a=40, a_b_c=30, a_b=30)) == ("/a/b/c", "/a/b", "/a")


@pytest.mark.parametrize("path", ["/a b", "/ä", '/"', "/<x>", "//x", "/a#", "no path", "", "/%2e", "/a:b", "/@ana"])
def test_of_what_is_no_usual_path_only_the_beginning_is_told(path: str) -> None:
    assert busiest([path] * 10 + ["/x"] * 10) == ("/x", OTHERS)


@pytest.mark.parametrize("whose", ["12345", "eyJhbGciOiJIUzI1NiJ9", "0b5c1b5e-5b0e-4b6e", "a" * 41, "bot1:token"])
def test_what_looks_like_somebody_s_is_not_told_and_what_is_a_word_is(whose: str) -> None:
    assert busiest([f"/reset/{whose}"] * 10 + ["/x"] * 10) == ("/reset", "/x")
    assert busiest(["/api/v2/oauth2/Shop.GetCart"] * 10 + ["/x"] * 10) == ("/api/v2/oauth2/Shop.GetCart", "/x")


def test_no_more_than_four_segments_are_told() -> None:
    assert busiest(["/a/b/c/d/e"] * 10 + ["/x"] * 10) == ("/a/b/c/d", "/x")
