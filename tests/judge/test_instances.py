"""Which instance is to blame: named where one fails far more than the others, and hardly ever where all are alike."""

from __future__ import annotations

from math import comb
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.judge.instances import LEVEL, to_blame, upper_tail


def test_one_that_fails_is_named_with_its_numbers_and_those_of_the_others() -> None:
    found = to_blame({"shop-v2.1-1": (41, 0), "shop-v2.1-2": (39, 37), "shop-v2.1-3": (40, 1), "shop-v2.1-4": (0, 0)})
    assert found == "it is shop-v2.1-2: 37 of 39 attempts on it failed (94.87 %), 1 of 81 on the 2 others (1.23 %)"


@pytest.mark.parametrize(
    "samples",
    [
        {},
        {"one": (100, 90)},
        {"one": (100, 90), "two": (0, 0)},
        {"one": (100, 50), "two": (100, 52), "three": (100, 49)},
        {"one": (10, 1), "two": (10, 0)},
        {"one": (100, 0), "two": (100, 0)},
        {"one": (100, 100), "two": (100, 100)},
    ],
)
def test_where_none_stands_out_nobody_is_named(samples: dict[str, tuple[int, int]]) -> None:
    assert to_blame(samples) is None


def test_of_instances_that_are_alike_one_is_named_in_less_than_the_promised_part() -> None:
    rng = Random(11)
    named = 0
    for _ in range(2000):
        rate, number = rng.choice((0.001, 0.01, 0.1, 0.5)), rng.randint(2, 10)
        alike = {
            f"i{n}": (size, sum(rng.random() < rate for _ in range(size))) for n in range(number) for size in [60]
        }
        named += to_blame(alike) is not None
    assert named <= 2000 * LEVEL * 4  # 2 are expected at most, and 8 would be a chance of one in a thousand


@given(st.integers(1, 60), st.data(), st.floats(0.001, 0.999))
def test_the_tail_is_the_binomial_one(n: int, data: st.DataObject, p: float) -> None:
    k = data.draw(st.integers(0, n))
    exact = sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
    assert upper_tail(k, n, p) == pytest.approx(exact, rel=1e-6) if k > n * p else upper_tail(k, n, p) >= exact - 1e-9
