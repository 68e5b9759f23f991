"""The parts of the acceptance table that are exact: a long run of heavy traffic, and tests that enumerate."""

from __future__ import annotations

import subprocess
import sys
from math import isfinite

from common import ROOT

from segue.judge.errors import Counts, Ratio
from segue.judge.settings import Settings

Checked = tuple[bool, str]
"""Whether it holds, and what was seen."""


def million() -> Checked:
    """A million seconds at 50,000 requests each, and then half of the new version's fail."""
    alarm, proof = Ratio.alarm(Settings().alarm), Ratio.proof(Settings().then)
    for now in range(1, 1_000_001):
        for test in (alarm, proof):
            test.see(Counts(5, 5000, 45, 45_000), now)
    before = alarm.log_e, proof.log_e
    alarm.see(Counts(2500, 5000, 45, 45_000), 1_000_001)
    ok = all(map(isfinite, (*before, alarm.log_e)))
    return ok, f"ln E {before[0]:.2f}, of the proof {before[1]:,.0f}, after a broken second {alarm.log_e:.2f}"


def tests(words: str) -> Checked:
    """The tests of the judge whose names have these words."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/judge", "-k", words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "no test"
    return done.returncode == 0, last


def counters_of_any_size() -> Checked:
    """Counters of 2⁵³, no attempts, and counts that went back."""
    return tests("any_size or went_back or finite")


def recorded() -> Checked:
    """ln E of recorded strata, to nine digits."""
    return tests("reference")


def expectations() -> Checked:
    """What a stratum is expected to multiply evidence by, exactly."""
    return tests("expected")


def strata_of_nothing() -> Checked:
    """Looks that nothing came in."""
    return tests("without_traffic_is_cut")
