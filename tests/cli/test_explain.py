"""`segue explain`: what it asks for, and how what it is told is printed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segue.errors import Usage
from segue.manifest.overrides import JUDGE, overrides

from .canned import Failure, Plane
from .conftest import Process, Segue, screen

REASON = "37 of 3,102 attempts on v2 failed (1.19 %), 3 of 2,987 on v1 (0.10 %): chance makes such a difference …"
VERDICT = {"verdict": "fail", "basis": "evidence", "reason": REASON, "numbers": {"ln_e": 9.3}}


def decision(after: float, what: str, text: str, *why: str, verdict: Any = None) -> dict[str, Any]:
    return {"at": "", "after": after, "what": what, "text": text, "why": list(why), "verdict": verdict}


def document(**changes: Any) -> dict[str, Any]:
    """What the control plane says of a canary that was taken back."""
    return {
        "rollout": "r1",
        "service": "shop",
        "kind": "deploy",
        "strategy": "canary",
        "from": "v1",
        "to": "v2",
        "outcome": "rolled_back",
        "because": f"v2 was taken back on evidence: {REASON}",
        "decisions": [
            decision(0.001, "asked", "ana asked for v2 in place of v1, canary"),
            decision(12.31, "alarm", f"alarm: {REASON}", "An alarm takes a difference …", verdict=VERDICT),
            decision(12.4, "decided", "rolled back: v1 serves as before"),
        ],
        "users": "Of 40,123 requests of users none failed.",
        "replay": None,
        **changes,
    }


REPLAY = {
    "settings": [{"key": "judge.alarm.errors", "was": "0.02%", "now": "50%"}],
    "different": True,
    "said": ["v2 would not have been taken back after 12.3 s. …"],
    "note": "A replay changes only what the judge would have said: the traffic is as it was.",
    "steps": [
        {
            "number": 4,
            "step": "Step 4, judge for 30 s to 30 min, until it is proven,",
            "began": 1.0,
            "was": {"decided": "fail", "after": 12.3, "basis": "evidence", "reason": REASON},
            "now": {"decided": "undecided", "after": None, "basis": "evidence", "reason": "not enough evidence yet"},
        },
        {
            "number": 6,
            "step": "Step 6, judge for 30 s,",
            "began": 9.0,
            "was": {"decided": "pass", "after": 40.0, "basis": "evidence", "reason": "it is good"},
            "now": {"decided": "pass", "after": 40.0, "basis": "evidence", "reason": "it is good"},
        },
    ],
    "flaws": [],
}


def test_a_rollout_is_explained_in_a_sentence_and_in_its_order(segue: Segue, plane: Plane) -> None:
    plane.on("GET", "/v1/rollouts/r1/explain", document())
    assert segue("explain", "r1").out == (
        "shop: v1 → v2, canary, rolled back  (r1)\n"
        f"v2 was taken back on evidence: {REASON}\n"
        "\n"
        "    1 ms  · ana asked for v2 in place of v1, canary\n"
        f"  12.3 s  ✗ alarm: {REASON}\n"
        "            An alarm takes a difference …\n"
        "  12.4 s  · rolled back: v1 serves as before\n"
        "\n"
        "Of 40,123 requests of users none failed.\n"
    )


def test_without_an_id_the_latest_rollout_of_the_service_is_explained(segue: Segue, plane: Plane) -> None:
    plane.on("GET", "/v1/rollouts", {"rollouts": [{"rollout": "r1"}]})
    plane.on("GET", "/v1/rollouts/r1/explain", document())
    assert json.loads(segue("explain", "-s", "shop", "--json").out) == document()
    plane.on("GET", "/v1/rollouts", {"rollouts": []})
    said = segue("explain", "-s", "shop")
    assert (said.status, said.err) == (
        4,
        "Error: shop has had no rollout yet: there is nothing to explain.\nNext:  segue deploy\n",
    )


def test_a_replay_shows_what_was_and_what_would_have_been(segue: Segue, plane: Plane) -> None:
    plane.on("GET", "/v1/rollouts/r1/explain", document(replay=REPLAY))
    said = segue("explain", "r1", "--replay", "judge.alarm.errors=50%", "--replay", "judge.settle=0s")
    assert plane.requests[-1].query == {"replay": ["judge.alarm.errors=50%", "judge.settle=0s"]}
    assert said.out == (
        "shop: v1 → v2, canary, rolled back  (r1)\n"
        "Judged again with judge.alarm.errors 50% (it was 0.02%):\n"
        "\n"
        "  Step 4, judge for 30 s to 30 min, until it is proven\n"
        f"    was      ✗ alarm after 12.3 s: {REASON}\n"
        "    would be – undecided: not enough evidence yet\n"
        "  Step 6, judge for 30 s\n"
        "    was      ✓ pass after 40.0 s: it is good\n"
        "    would be the same\n"
        "\n"
        "v2 would not have been taken back after 12.3 s. …\n"
        "A replay changes only what the judge would have said: the traffic is as it was.\n"
    )


def test_a_record_that_is_not_whole_is_not_told_as_if_it_were(segue: Segue, plane: Plane) -> None:
    plane.on("GET", "/v1/rollouts/r1/explain", document(replay={**REPLAY, "flaws": ["step 4: …"]}))
    said = segue("explain", "r1", "--replay", "judge.alarm.errors=50%")
    assert "What was written down is not whole" in said.out and "  step 4: …" in said.out


def test_on_a_terminal_long_lines_are_folded_and_nothing_in_them_is_obeyed(process: Process, plane: Plane) -> None:
    plane.on("GET", "/v1/rollouts/r1/explain", document(because=f"\x1b[2Jevil {REASON}"))
    out, status = screen(process, "explain", "r1", NO_COLOR="1")
    assert status == 0 and "\x1b[2J" not in out
    assert max(map(len, out.splitlines())) <= 100
    assert "\n            An alarm takes" in out.replace("\r", "")


def test_what_the_control_plane_refuses_is_told(segue: Segue, plane: Plane) -> None:
    error = {"code": "usage", "exit": 2, "message": "--replay: there is no setting `x`", "next": "segue explain"}
    plane.on("GET", "/v1/rollouts/r1/explain", Failure(400, error))
    said = segue("explain", "r1", "--replay", "x=1")
    assert (said.status, said.err.splitlines()[0]) == (2, "Error: --replay: there is no setting `x`.")


# The settings that are named


def test_settings_are_read_as_in_a_manifest() -> None:
    given = ["judge.alarm.errors=0.5%", "judge.alarm.ratio = 2", "judge.settle=1m", "judge.undecided=continue"]
    found = overrides([*given, "judge.promote.first.latency=1/4"])
    assert found.pop("judge.settle").total_seconds() == 60
    assert found == {
        "judge.alarm.errors": 0.005,
        "judge.alarm.ratio": 2.0,
        "judge.undecided": "continue",
        "judge.promote.first.latency": 0.25,
    }


def test_every_setting_of_the_section_can_be_named() -> None:
    assert len(JUDGE) == 14
    values = {"ratio": "2", "settle": "1s", "low_traffic": "hold", "undecided": "hold"}
    assert set(overrides([f"{key}={values.get(key.split('.')[-1], '3%')}" for key in JUDGE])) == set(JUDGE)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "judge.alarm.error=1%",
            "there is no setting `judge.alarm.error` to judge by; did you mean `judge.alarm.errors`?",
        ),
        ("alarm.errors=1%", "did you mean `judge.alarm.errors`?"),
        ("nonsense", f"Known are {', '.join(JUDGE)}."),
        ("judge.alarm=1%", "Known are judge.false_alarm, "),
        ("replicas=3", "there is no setting `replicas` to judge by"),
        ("", "there is no setting `` to judge by"),
        ("judge.alarm.errors", "--replay judge.alarm.errors: it has no value; expected judge.alarm.errors=VALUE"),
        ("judge.alarm.errors=", "it has no value"),
        ("judge.alarm.errors=2", "the number 2 is not a share; expected a share"),
        ("judge.alarm.errors=2", "did you mean `judge.alarm.errors=2%`?"),
        ("judge.alarm.errors=100%", "expected a share such as 10%, 0.5% or 1/3, less than 100%"),
        ("judge.alarm.ratio=a: b", "expected a number from 1 to 1000"),
        ("judge.undecided=no", "expected continue, hold or rollback"),
        ("judge.settle=[", "is not a duration"),
    ],
)
def test_what_is_no_setting_or_no_value_is_refused_with_what_there_is(given: str, said: str) -> None:
    with pytest.raises(Usage) as refused:
        overrides([given])
    assert said in refused.value.message
    assert refused.value.exit == 2 and refused.value.next
