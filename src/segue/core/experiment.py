"""An experiment's people: who takes part, what they are to reach, and what is seen of them."""

from __future__ import annotations

from dataclasses import dataclass

from segue.core.release import Revision


@dataclass(frozen=True, slots=True)
class Visit:
    """What is counted of one request of somebody who takes part: how it was answered, and who he is.

    `version`: the one that the user is given, whoever has answered. `user`: by what he is known, as it was sent.
    `shown`: whether the answer has the header that the goal names.
    """

    version: Revision
    user: str
    path: str
    status: int
    shown: bool = False
