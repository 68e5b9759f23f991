"""An address that says whether the new version is well, by JSON or by its status.

``{"verdict": "pass" | "fail" | "undecided", "reason": "…"}`` says it with any status below 500. Without JSON 2xx is
pass, 202 (accepted, not done) undecided, and 409 (conflict) fail. Nothing else says anything: a wrong address, a
gateway or a login page must not take a version back, and must not pass it either.
"""

from __future__ import annotations

import json
from typing import Any

from segue.core.sources import About, Nothing, Question, Word, filled, shortened
from segue.core.verdict import Verdict
from segue.evidence.command import LONGEST
from segue.evidence.web import Reply, Unanswered, get


class AskAddress:
    """Asks the address of `question`."""

    def __init__(self, question: Question) -> None:
        assert question.url is not None
        self._question, self._url = question, question.url

    async def ask(self, about: About) -> Word | Nothing:
        """What it says now."""
        url = filled(self._url, about.service, about.new, quoted=True)
        try:
            return word(await get(url, about, self._question.timeout, authorization=self._question.authorization))
        except Unanswered as exc:
            return Nothing(str(exc))


def word(reply: Reply) -> Word:
    """What an answer says. Raises Unanswered where it says nothing."""
    said = _document(reply)
    if said is not None and reply.status < 500:
        if said["verdict"] not in list(Verdict):
            raise Unanswered(f"its verdict is neither of {', '.join(Verdict)}: {shortened(str(said['verdict']), 40)}")
        reason = said.get("reason")
        return Word(
            Verdict(said["verdict"]), (shortened(reason, LONGEST),) if isinstance(reason, str) and reason else ()
        )
    if reply.status == 202:
        return Word(Verdict.UNDECIDED)
    if reply.status == 409:
        return Word(Verdict.FAIL)
    if 200 <= reply.status < 300:
        return Word(Verdict.PASS)
    raise Unanswered(f"it was answered with status {reply.status}")


def _document(reply: Reply) -> dict[str, Any] | None:
    """The JSON object with a verdict in it that an answer is, if it is one."""
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "verdict" in found else None
