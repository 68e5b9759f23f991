"""Paths that are looked at by themselves: they show first what got worse on them alone, and keep the level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import exp, log
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.core.paths import OTHERS
from segue.core.samples import plus
from segue.core.traffic import Sample
from segue.core.verdict import Verdict
from segue.judge.apart import PART
from segue.judge.comparison import Comparison
from segue.judge.gathering import Gathering
from segue.judge.settings import Settings
from segue.judge.words import Names, behind

PATHS = {"/checkout": 10, "/search": 90, OTHERS: 100}
"""Attempts on the new version a second."""
USUAL = {10_000.0: 0.5, 20_000.0: 0.4, 50_000.0: 0.1}
"""How long they take: the part of each bucket."""
HISTORY = Sample(100_000, 100)


def came(attempts: int, failures: int, slower: float = 1.0) -> Sample:
    return Sample(attempts, failures, {edge * slower: round(attempts * part) for edge, part in USUAL.items()})


def whole(parts: Mapping[str, Sample]) -> Sample:
    found = Sample()
    for part in parts.values():
        found = plus(found, part)
    return Sample(found.attempts, found.failures, found.latency_us, parts)


def second(failing: Mapping[str, float], rng: Random, usual: float = 0.001, **slower: float) -> Iterator[Sample]:
    """What came on the new and on the old version, which has as much."""
    for new in (True, False):
        parts = {}
        for path, attempts in PATHS.items():
            rate = failing.get(path, usual) if new else usual
            times = slower.get(path.strip("/"), 1.0) if new else 1.0
            parts[path] = came(attempts, sum(rng.random() < rate for _ in range(attempts)), times)
        yield whole(parts)


def watched(seconds: int, failing: Mapping[str, float], *, apart: bool = True, seed: int = 1, **slower: float) -> int:
    """After how many seconds there was an alarm; `seconds` without one."""
    return judged(seconds, failing, apart=apart, seed=seed, **slower)[1]


def judged(
    seconds: int, failing: Mapping[str, float], *, apart: bool = True, seed: int = 1, **slower: float
) -> tuple[Comparison, int]:
    compared, rng = Comparison(Settings(), HISTORY), Random(seed)
    if apart:
        compared.tell_apart(tuple(PATHS))
    for number in range(1, seconds + 1):
        compared.look(1.0, *second(failing, rng, **slower))
        if compared.alarm:
            return compared, number
    return compared, seconds


def test_what_fails_on_one_path_is_found_sooner_and_the_path_is_named() -> None:
    found, seconds = judged(120, {"/checkout": 0.1})
    said = found.silence("v2", "v1")
    assert said.verdict is Verdict.FAIL and seconds < 60
    assert said.numbers["worse"] == "/checkout"
    assert "/checkout" in said.reason
    sentences = list(behind({**vars_of(said)}, False, Settings(), Names("v2", "v1")))
    assert (
        "Only /checkout got worse: on the others together v2 seems to have less than half of that, if anything."
        in sentences
    )


def vars_of(said: object) -> dict[str, object]:
    return {name: getattr(said, name) for name in ("verdict", "basis", "reason", "numbers")}


def test_what_is_slow_on_one_path_is_found_where_all_together_show_little() -> None:
    slow = {"checkout": 2.0}
    found, seconds = judged(60, {}, **slow)
    reason = found.silence("v2", "v1").reason
    assert reason.startswith("On /checkout p") and "; no other path got worse: chance makes" in reason
    assert watched(60, {}, apart=False, **slow) >= seconds + 5


def test_what_fails_everywhere_is_of_no_path_and_found_as_soon() -> None:
    everywhere = dict.fromkeys(PATHS, 0.02)
    found, seconds = judged(60, everywhere)
    assert "worse" not in found.silence("v2", "v1").numbers
    assert seconds <= watched(60, everywhere, apart=False) + 3


@pytest.mark.parametrize("seed", range(8))
def test_a_healthy_version_is_left_alone(seed: int) -> None:
    assert watched(120, {}, seed=seed) == 120


def test_without_parts_nothing_is_said_of_a_path_and_the_stake_is_lost_at_most() -> None:
    rng, apart, plain = Random(3), Gathering(Settings(), HISTORY), Gathering(Settings(), HISTORY)
    apart.tell_apart(tuple(PATHS))
    for _ in range(30):
        new, old = (Sample(s.attempts, s.failures, s.latency_us) for s in second({}, rng, usual=0.05))
        for one in (apart, plain):
            one.look(1.0, new, old, timed=True)
    assert apart.log_e == pytest.approx(log((1 - PART) * exp(plain.log_e) + PART))


def test_what_was_evident_before_paths_are_told_apart_stays_so() -> None:
    rng, one = Random(4), Gathering(Settings(), HISTORY)
    for _ in range(10):
        one.look(1.0, *second({"/checkout": 0.3}, rng), timed=True)
    before = one.log_e
    one.tell_apart(tuple(PATHS))
    assert one.log_e == pytest.approx(before)
    one.tell_apart(("/other",))
    assert one.apart is not None and one.apart.worst.path in PATHS


@given(st.lists(st.integers(0, 40), min_size=2, max_size=30), st.integers(0, 2**32))
def test_versions_that_do_the_same_give_no_evidence(shares: list[int], seed: int) -> None:
    rng = Random(seed)
    one = Gathering(Settings(), HISTORY)
    one.tell_apart(("/a", OTHERS))
    for attempts in shares:
        parts = {"/a": Sample(attempts, min(attempts, rng.randrange(2))), OTHERS: Sample(20, 0)}
        one.look(1.0, whole(parts), whole(parts), timed=True)
    assert one.apart is not None
    assert one.apart.share <= log(PART) + 1e-9
