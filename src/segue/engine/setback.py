"""Why a rollout turns back."""

from __future__ import annotations

from dataclasses import dataclass

from segue.core.verdict import Basis, Judgement


@dataclass(eq=False)
class Setback(Exception):
    """Why a rollout turns back. `replaced`: a newer deploy takes its place; `person`: somebody asked for it."""

    reason: str
    log: tuple[str, ...] = ()
    person: bool = False
    replaced: bool = False
    judgement: Judgement | None = None

    @property
    def basis(self) -> Basis:
        """What the turning back rests on."""
        if self.person or self.replaced:
            return Basis.PERSON
        return Basis.EVIDENCE if self.judgement else Basis.HEALTH
