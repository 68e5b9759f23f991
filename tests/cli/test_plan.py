"""`segue plan` says beforehand what its judgements will be able to say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segue.api.bodies import Deploy, order
from segue.core.release import Revision, Side
from segue.core.traffic import Sample
from segue.engine.plans import outline
from segue.engine.usual import Usual

from .canned import Plane, Request
from .conftest import Said, Segue


@pytest.fixture
def measured(plane: Plane, shop: Path) -> Any:
    """Let two instances of v1 have so many requests a second, of which none fails."""

    def say(rate: float) -> None:
        usual = Usual(Sample(int(rate * 600)), 600.0, 0, requests=int(rate * 600))

        def planned(request: Request) -> Any:
            told = float(request.query["traffic"][0]) if "traffic" in request.query else None
            wanted = order("shop", Deploy(**request.body))
            return outline(wanted, 1, Side(Revision("v1.1"), 2), replace(usual, told=told))

        plane.on("POST", "/v1/services/shop/plan", planned)

    return say


def rows(said: Said) -> list[list[str]]:
    """The table of the judgements: its heading, and the rows under it, in words."""
    lines = said.out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("STEP  SHARE"))
    return [line.split() for line in lines[first : lines.index("", first)]]


def test_at_enough_traffic_each_step_says_how_long_its_verdict_takes(segue: Segue, measured: Any) -> None:
    measured(50)
    said = segue("plan", "--strategy", "canary", "--version", "v2")
    assert "Traffic: 50 requests a second reached v1 in the last 10 min, 0 failed." in said.out
    heading, first, then, rest = rows(said)
    assert " ".join(heading) == "STEP SHARE VERDICT HALF FAIL 5 POINTS MORE FAIL 1 POINT MORE FAIL TWICE AS SLOW"
    assert " ".join(first).startswith("4 10% in 3 min, 910 requests 4 s ")
    assert " ".join(then).startswith("6 30% in 119 s, 1,800 requests 4 s ")
    assert " ".join(rest).startswith("10 95% no alarm for 30 s ")
    assert "`judge.low_traffic`" not in said.out
    assert "about 5 min 35 s." in said.out


def test_at_little_traffic_it_says_what_is_done_instead_and_what_would_be_enough(segue: Segue, measured: Any) -> None:
    measured(0.1)
    said = segue("plan", "--strategy", "canary", "--version", "v2")
    assert " ".join(rows(said)[1]).startswith("4 10% 910 requests: from 5/s on 13 min from 0.4/s on ")
    assert (
        "Step 4, 10 %: 18 requests in 30 min, a verdict needs about 910; going on by health alone, "
        "`judge.low_traffic`.\n"
    ) in said.out
    assert "about 1 min 35 s." in said.out, "it is not waited for"


def test_without_traffic_it_says_from_how_much_on(segue: Segue, measured: Any) -> None:
    measured(0)
    said = segue("plan", "--version", "v2")
    assert "Traffic: no request reached v1 in the last 10 min." in said.out
    first = " ".join(rows(said)[1])
    assert first == "4 50% no alarm for 30 s from 2.7/s on from 15/s on from 77/s on from 6.7/s on"
    assert "Step 4, 50 %: no request in 30 s, too few to judge; health alone." in said.out


def test_what_is_never_compared_is_never_seen(segue: Segue, measured: Any) -> None:
    measured(500)
    said = segue("plan", "--strategy", "blue_green", "--version", "v2")
    assert rows(said)[1][-1] == "never", "its times are compared with nothing"


def test_another_traffic_may_be_thought_of(segue: Segue, measured: Any, plane: Plane) -> None:
    measured(0)
    said = segue("plan", "--strategy", "canary", "--version", "v2", "--traffic", "100/s")
    assert "Traffic: 100 requests a second, as you say." in said.out
    assert plane.asked("POST", "/v1/services/shop/plan")[0].query == {"traffic": ["100.0"]}
    assert segue("plan", "--traffic", "much").status == 2
