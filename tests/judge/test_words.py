"""The words of an explanation say what is known, and where that ends."""

from __future__ import annotations

from datetime import timedelta
from math import log
from typing import Any

import pytest

from segue.core import quantities
from segue.judge import words
from segue.judge.settings import Settings
from segue.judge.words import Compared, Names, Word

V2 = Names("v2", "v1")
COUNTS = {"new_attempts": 3102, "new_failures": 37, "old_attempts": 2987, "old_failures": 3}


def behind(verdict: str, basis: str, reason: str = "", *, proof: bool = False, **numbers: Any) -> list[str]:
    document = {"verdict": verdict, "basis": basis, "reason": reason, "numbers": numbers}
    return list(words.behind(document, proof, Settings(), V2))


def test_behind_an_alarm_stand_the_margin_and_how_often_chance_makes_one() -> None:
    reason = "37 of 3,102 attempts on v2 failed (1.19 %), 3 of 2,987 on v1 (0.10 %): chance makes such a difference …"
    assert behind("fail", "evidence", reason, ln_e=9.3, **COUNTS) == [
        "An alarm takes a difference beyond judge.alarm (1.1 times as many failures and 0.02 % of all attempts more, "
        "9 % slower) that chance makes in at most one of 100 rollouts (judge.false_alarm 1 %)."
    ]


def test_the_counts_of_the_whole_rollout_are_told_where_the_reason_has_others() -> None:
    told = behind("fail", "evidence", "12 of 300 attempts on v2 failed (4.00 %) in the last 9 s", ln_e=5.0, **COUNTS)
    assert told[-1] == (
        "In the whole rollout until then: 37 of 3,102 attempts on v2 failed (1.19 %), 3 of 2,987 on v1 (0.10 %)."
    )


def test_silence_is_not_called_a_proof() -> None:
    silence = behind("pass", "evidence", ln_e=-1.0, **COUNTS)
    assert silence[0].startswith("This is silence, no proof")
    proof = behind("pass", "evidence", proof=True, ln_e=-1.0, **COUNTS)
    assert "taken for proven in at most 5 % of steps" in proof[0]
    assert silence[1] == proof[1] == "Nothing speaks against v2 beyond chance."


def test_what_speaks_against_a_version_is_told_beside_what_an_alarm_takes() -> None:
    told = behind("pass", "evidence", ln_e=log(37), **COUNTS)
    assert told[1] == "What speaks against v2 chance makes in up to one of 37 rollouts; an alarm takes one of 100."


def test_where_nobody_could_compare_nothing_is_said_of_evidence() -> None:
    assert behind("pass", "health", "No user request reached v2", ln_e=0.0, new_attempts=0, new_failures=0) == [
        "This rests on health and checks alone: too few requests came to compare the versions."
    ]


def test_behind_a_person_s_word_stands_nothing() -> None:
    assert behind("pass", "person", "ana let it pass") == []


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"failed": 27}, "No statistics are in this: a version that fails 20 requests in a row"),
        ({"instance": "shop-v2.1-1", "lines": 83}, "Log lines have a part of judge.false_alarm (1 %)"),
        ({"ln_e": 6.0}, "Metrics that are compared have a part of judge.false_alarm (1 %)"),
        ({"ln_e": None}, "No statistics are in this: a source that was asked said so."),
    ],
)
def test_other_alarms_are_not_explained_by_the_comparison_of_requests(numbers: Any, sentence: str) -> None:
    (told,) = behind("fail", "evidence", **numbers)
    assert told.startswith(sentence)


def test_what_is_allowed_where_nothing_is_beside_the_version_is_not_the_margin() -> None:
    reason = (
        "100 of 200 attempts on v2 failed (50.00 %), 0 of 90 on v1 before it (0.00 %); up to 1.30 % are allowed then"
    )
    assert "judge.alarm" not in behind("fail", "evidence", reason, ln_e=6.0, **COUNTS)[0]


@pytest.mark.parametrize(
    ("number", "told"), [(1.0, "1"), (99.99, "99"), (100, "100"), (3712.5, "3,700"), (1e12, "1,000,000")]
)
def test_one_of_so_many_is_rounded_down(number: float, told: str) -> None:
    assert words.one_of(number) == f"one of {told}"


def test_what_users_had_is_not_said_to_be_whole_where_it_is_not() -> None:
    requests = {"total": 5000, "failed_by": {"v2": 2}, "cut": 0, "unserved": 1, "shielded": 37, "balanced": True}
    assert words.users(requests) == (
        "Of 5,000 requests of users 2 failed, 1 found no instance; "
        "37 were answered by another version than they were given to."
    )
    assert "the account is not whole" in words.users({**requests, "balanced": False})
    assert words.users({**requests, "total": 0}) == "No user asked for anything meanwhile."


@pytest.mark.parametrize(
    ("question", "judged", "setting"),
    [
        ("approve more than 10% for v2.1", False, "approve: manual"),
        ("10 %: 14 requests, a verdict needs about 200", True, "judge.low_traffic"),
        ("0 of 900 …; not proven within 40 s", True, "judge.undecided"),
        ("No user request reached v2; evidence is required", True, "--require-evidence"),
    ],
)
def test_a_question_is_explained_by_the_setting_that_asked_it(question: str, judged: bool, setting: str) -> None:
    assert setting in words.because(question, judged)


# What other settings would have changed

ALARM = Word("fail", "it was worse", 12.3, "evidence")
PASSED = Word("pass", "it was good", 20.0, "evidence")
OPEN = Word("undecided", "not enough evidence yet")


def step(was: Word, now: Word) -> Compared:
    return Compared("Step 4, judge,", 2.0, was, now, 300.0)


@pytest.mark.parametrize(
    ("was", "now", "steps", "said"),
    [
        (None, None, [step(PASSED, PASSED)], []),
        (ALARM, ALARM, [step(ALARM, ALARM)], []),
        (
            ALARM,
            None,
            [step(ALARM, OPEN)],
            [
                "v2 would not have been taken back after 12.3 s. The record of its traffic ends there: "
                "what would have come of it is not known."
            ],
        ),
        (
            None,
            ALARM,
            [step(PASSED, ALARM), Compared("Step 6, judge,", 30.0, PASSED, OPEN)],
            [
                "v2 would have been taken back after 12.3 s: it was worse. What came after that "
                "would not have come so."
            ],
        ),
        (
            ALARM,
            Word("fail", "it was bad", 5.0, "evidence"),
            [],
            ["v2 would have been taken back after 5.0 s and not after 12.3 s: it was bad."],
        ),
        (
            None,
            None,
            [step(PASSED, Word("pass", "it was fine", 9.0, "evidence"))],
            ["Step 4, judge, would have been passed after 7.0 s, and not after 18.0 s: it was fine."],
        ),
        (
            None,
            None,
            [step(PASSED, OPEN)],
            [
                "Step 4, judge, would not have been passed then, but gone on waiting, 5 min at most: not enough "
                "evidence yet. What would have come of that is not known."
            ],
        ),
        (
            None,
            None,
            [step(PASSED, Word("hold", "a verdict needs more", 20.0))],
            ["Step 4, judge, would have asked a person after 18.0 s: a verdict needs more."],
        ),
    ],
)
def test_differences_are_told_as_far_as_the_record_goes(
    was: Word | None, now: Word | None, steps: list[Compared], said: list[str]
) -> None:
    assert words.differences("v2", was, now, steps) == said


@pytest.mark.parametrize(
    ("key", "setting", "told"),
    [
        ("judge.alarm.errors", 0.0002, "0.02%"),
        ("judge.alarm.ratio", 1.1, "1.1"),
        ("judge.settle", timedelta(seconds=90), "90s"),
        ("judge.undecided", "hold", "hold"),
    ],
)
def test_settings_are_written_as_in_a_manifest(key: str, setting: Any, told: str) -> None:
    assert words.value(key, setting) == told


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0, "0.0 s"), (59.96, "1 min"), (200, "3 min 20 s"), (86400, "24 h")]
)
def test_times_are_written_as_people_do(seconds: float, told: str) -> None:
    assert quantities.clock(seconds) == told
