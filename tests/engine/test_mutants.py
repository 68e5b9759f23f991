"""The tests of safety see what they are for: with any of the mutants in the code, one of them fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import MUTANTS, Mutant

import segue

SOURCE = Path(segue.__file__).parent
TESTS = Path(__file__).with_name("test_promises.py")


def run(source: Path) -> subprocess.CompletedProcess[str]:
    """The tests of safety over the package in `source`."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", str(TESTS)]
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture
def copy(room: Path) -> Path:
    """A copy of the package that a mutant can be put into."""
    shutil.copytree(SOURCE, room / "segue", ignore=shutil.ignore_patterns("__pycache__"))
    return room


@pytest.mark.slow
def test_the_tests_of_safety_pass_without_a_mutant(copy: Path) -> None:
    done = run(copy)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_has_its_place_in_the_code(mutant: Mutant) -> None:
    stands = (SOURCE / mutant.file).read_text().count(mutant.old)
    assert stands == 1, f"{mutant.file} has changed: the mutant's text stands in it {stands} times"


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(copy: Path, mutant: Mutant) -> None:
    file = copy / "segue" / mutant.file
    file.write_text(file.read_text().replace(mutant.old, mutant.new))
    done = run(copy)
    assert done.returncode == 1, f"nothing fails although {mutant.name}\n{done.stdout[-2000:]}{done.stderr[-500:]}"
