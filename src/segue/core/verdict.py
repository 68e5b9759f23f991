"""What a judgement says, on what basis, and with which numbers: every decision is explained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

Number = int | float | str | bool | None


class Verdict(StrEnum):
    """Whether the new version may go on."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


class Basis(StrEnum):
    """What a verdict rests on: numbers of real requests, health and checks alone, or a person's word."""

    EVIDENCE = "evidence"
    HEALTH = "health"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and why. `reason` is a sentence with the numbers in it; `numbers` are the same for machines."""

    verdict: Verdict
    basis: Basis
    reason: str
    numbers: Mapping[str, Number] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", MappingProxyType(dict(self.numbers)))

    @property
    def alarm(self) -> bool:
        """Whether the new version is to be taken back."""
        return self.verdict is Verdict.FAIL


def encode(judgement: Judgement) -> dict[str, Any]:
    """`judgement` as JSON; `decode` reads it back."""
    return {
        "verdict": judgement.verdict.value,
        "basis": judgement.basis.value,
        "reason": judgement.reason,
        "numbers": dict(judgement.numbers),
    }


def decode(document: Mapping[str, Any]) -> Judgement:
    """The judgement that `encode` wrote as `document`. Raises ValueError for a verdict or basis unknown here."""
    return Judgement(
        verdict=Verdict(document["verdict"]),
        basis=Basis(document["basis"]),
        reason=document["reason"],
        numbers=document["numbers"],
    )
