"""A release says what may be used on the way, and refuses what cannot be gone."""

from __future__ import annotations

from fractions import Fraction

import pytest
from promises import KEEP, given_room, release, releases, strength

from segue.core.release import BlueGreen, InPlace, Return, Rolling


def test_the_room_is_what_the_strategy_s_words_say() -> None:
    assert all(r.room == given_room(r) for r in releases(4))
    assert release(Rolling(surge=3), 4, 6).room == 9
    assert release(Rolling(keep=KEEP), 4, 6).room == 10
    assert release(InPlace(), 4, 4).room == 4
    assert release(BlueGreen(), 4, 6).room == 10
    assert release(BlueGreen(), 4, None).room == 4


def test_only_in_place_does_without_a_part_of_the_strength() -> None:
    assert release(InPlace(batch=2), 6, 6).slack == Fraction(1, 3)
    assert release(InPlace(batch=2), 6, None).slack == 0
    assert all(r.slack == 1 - strength(r) for r in releases(4))


def test_in_place_cannot_change_the_size() -> None:
    with pytest.raises(ValueError, match="scale before or after"):
        release(InPlace(), 3, 4)
    with pytest.raises(ValueError, match="scale before or after"):
        release(Return(InPlace()), 3, 4)


@pytest.mark.parametrize("batch", [3, 4])
def test_in_place_cannot_take_everything_out(batch: int) -> None:
    with pytest.raises(ValueError, match=f"more than {batch} instances"):
        release(InPlace(batch=batch), 3, 3)


def test_a_first_launch_in_place_needs_no_batch() -> None:
    assert release(InPlace(), 1, None).room == 1


@pytest.mark.parametrize("how", [Rolling(batch=0), Rolling(surge=0), InPlace(batch=0), Return(Rolling(batch=-1))])
def test_batch_and_surge_are_at_least_one(how: Rolling | InPlace | Return) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        release(how, 3, 3)


@pytest.mark.parametrize(("new", "old"), [(0, 3), (3, 0), (0, None)])
def test_a_version_has_at_least_one_instance(new: int, old: int | None) -> None:
    with pytest.raises(ValueError, match=r"the size of v\d\.1 must be at least 1"):
        release(Rolling(), new, old)


def test_only_what_is_promoted_by_a_deploy_leaves_something_to_keep() -> None:
    assert Rolling(keep=KEEP).keep == BlueGreen(keep=KEEP).keep == KEEP
    assert not InPlace().keep and not Return(BlueGreen(keep=KEEP)).keep
