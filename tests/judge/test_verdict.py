"""Verdicts are values: they can be compared, and kept as JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.core.verdict import Basis, Judgement, Verdict, decode, encode

numbers = st.dictionaries(
    st.text(), st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.booleans(), st.none())
)


@given(st.builds(Judgement, st.sampled_from(Verdict), st.sampled_from(Basis), st.text(), numbers))
def test_a_judgement_survives_the_journal(judgement: Judgement) -> None:
    assert decode(json.loads(json.dumps(encode(judgement)))) == judgement


@pytest.mark.parametrize("verdict", Verdict)
def test_only_a_fail_is_an_alarm(verdict: Verdict) -> None:
    assert Judgement(verdict, Basis.HEALTH, "because").alarm is (verdict is Verdict.FAIL)


def test_the_words_are_those_of_the_interface() -> None:
    assert [v.value for v in Verdict] == ["pass", "fail", "undecided"]
    assert [b.value for b in Basis] == ["evidence", "health", "person"]


def test_an_unknown_verdict_is_refused() -> None:
    document = encode(Judgement(Verdict.PASS, Basis.PERSON, "somebody said so"))
    with pytest.raises(ValueError, match="maybe"):
        decode(document | {"verdict": "maybe"})


def test_the_numbers_of_a_judgement_cannot_be_changed() -> None:
    given_numbers: dict[str, int] = {"attempts": 1}
    judgement = Judgement(Verdict.PASS, Basis.EVIDENCE, "fine", given_numbers)
    given_numbers["attempts"] = 2
    assert judgement.numbers == {"attempts": 1}
    with pytest.raises(TypeError):
        judgement.numbers["attempts"] = 3  # type: ignore[index]
