"""What each source beside the router has said so far: an alarm, what a proof still waits for, or why it is silent.

Rule: a source that does not answer is no word against a version, and none for it: that is said, and nothing waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from segue.core.sources import Answer, Asked, Metric, Nothing, Question, Values, Word
from segue.core.verdict import Basis, Judgement, Verdict
from segue.judge import reasons
from segue.judge.metric import IN_A_ROW, Bounded, Worse, readings

NOT_YET = "it has not answered yet"

Shares = tuple[float, float]
"""What the new and the old version had of the traffic."""


class Voice(Protocol):
    """One source, and what it has said."""

    @property
    def alarm(self) -> bool:
        """Whether the new version is to be taken back."""
        ...

    @property
    def log_e(self) -> float | None:
        """The logarithm of the evidence of harm, where there is such a number."""
        ...

    def hear(self, said: Answer, shares: Shares) -> None:
        """What it said, while the versions had these shares."""
        ...

    def reason(self, new: str, old: str) -> str:
        """Why there is an alarm; `new` and `old` are the versions' names."""
        ...

    def waits(self) -> str | None:
        """What a proof still waits for, if for anything."""
        ...

    def missing(self) -> str | None:
        """Why it cannot be taken for consent that there is no alarm, if it cannot."""
        ...

    @property
    def lines(self) -> tuple[str, ...]:
        """What it printed last."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """A metric that is compared: a proof waits for so many comparisons, which take so many seconds."""

    metric: str
    comparisons: int
    seconds: float


class Compared:
    """A metric that is compared with the old version's."""

    lines = ()

    def __init__(self, metric: Metric, false_alarm: float) -> None:
        assert metric.worse is not None
        self._metric = metric
        self._test = Worse(false_alarm, metric.worse, metric.margin, metric.every.total_seconds())
        self._last = Values(0.0)
        self._why = ""

    @property
    def pace(self) -> Pace:
        """What a proof waits for at least."""
        return Pace(self._metric.name, self._test.enough, self._test.enough * self._metric.every.total_seconds())

    @property
    def alarm(self) -> bool:
        """Whether it is worse beyond chance, or was at some time."""
        return self._test.alarm

    @property
    def log_e(self) -> float | None:
        """The logarithm of the evidence."""
        return self._test.log_e

    def hear(self, said: Answer, shares: Shares) -> None:
        """Both values, or why there are none."""
        self._why = said.why if isinstance(said, Nothing) else ""
        if isinstance(said, Values) and said.old is not None and all(shares):
            self._last = said
            self._test.compare(*readings((said.new, said.old), shares, self._metric.per))

    def reason(self, new: str, old: str) -> str:
        """The last values, and how often the comparison said so."""
        test, last = self._test, self._last
        often = f"{self._beyond} in {test.worse} of {test.compared} comparisons"
        values = f"{last.new:g} on {new}, {last.old or 0:g} on {old}"
        return f"{self._metric.name} is {values}; {often}: {reasons.chance(test.log_e)}"

    def waits(self) -> str | None:
        """Comparisons, until an alarm could have come; and that nothing speaks against it now."""
        if self._why:
            return None
        if self._test.amber:
            return (
                f"{self._metric.name} was {self._beyond} in {self._test.worse} of {self._test.compared} comparisons"
            )
        return self._few()

    def missing(self) -> str | None:
        """That it was not compared as often as an alarm takes, and why."""
        few = self._few()
        return few and (f"{self._metric.name}: {self._why}" if self._why else few)

    def _few(self) -> str | None:
        test = self._test
        if test.compared >= test.enough:
            return None
        return f"{self._metric.name} was compared {test.compared} of the {test.enough} times that an alarm takes"

    @property
    def _beyond(self) -> str:
        return f"{self._metric.worse} by more than {self._metric.margin * 100:g} %"


class Within:
    """A metric that has bounds."""

    lines = ()
    log_e = None

    def __init__(self, metric: Metric) -> None:
        self._metric, self._test = metric, Bounded(metric.least, metric.most)
        self._last: float | None = None
        self._why = NOT_YET

    @property
    def alarm(self) -> bool:
        """Whether it was outside too often."""
        return self._test.alarm

    def hear(self, said: Answer, shares: Shares) -> None:
        """A value, or why there is none."""
        self._why = said.why if isinstance(said, Nothing) else ""
        if isinstance(said, Values):
            self._last = said.new
            self._test.look(said.new)

    def reason(self, new: str, old: str) -> str:
        """The last value and the bound that it breaks."""
        return f"{self._outside(new)}; {IN_A_ROW} times in a row"

    def waits(self) -> str | None:
        """The first answer, and one that is not outside."""
        if self._last is None:
            return self.missing() if self._why == NOT_YET else None
        return self._outside("the new version") if self._test.outside else None

    def missing(self) -> str | None:
        """Why there is no value now."""
        return f"{self._metric.name}: {self._why}" if self._why else None

    def _outside(self, new: str) -> str:
        value = self._last or 0.0
        return f"{self._metric.name} is {value:g} on {new}, {self._test.broken(value)}"


class Told:
    """A command or an address that is asked for a verdict."""

    log_e = None

    def __init__(self, question: Question) -> None:
        self._question = question
        self._said: Word | Nothing = Nothing(NOT_YET)
        self._failed: Word | None = None

    @property
    def alarm(self) -> bool:
        """Whether it said fail, once."""
        return self._failed is not None

    @property
    def lines(self) -> tuple[str, ...]:
        """What it printed when it said fail, or last."""
        word = self._failed or self._said
        return word.lines if isinstance(word, Word) else ()

    def hear(self, said: Answer, shares: Shares) -> None:
        """Its word, or why there is none."""
        if not isinstance(said, Values):
            self._said = said
        if isinstance(said, Word) and said.verdict is Verdict.FAIL:
            self._failed = self._failed or said

    def reason(self, new: str, old: str) -> str:
        """That it says fail, with what it printed."""
        return self._sentence(f"says that {new} fails")

    def waits(self) -> str | None:
        """The first answer, and one that is not undecided."""
        undecided = isinstance(self._said, Word) and self._said.verdict is Verdict.UNDECIDED
        unheard = self._said == Nothing(NOT_YET)
        return self.missing() if undecided or unheard else None

    def missing(self) -> str | None:
        """Why it has not said that the version is well."""
        if isinstance(self._said, Nothing):
            return f"{self._question.name}: {self._said.why}"
        return self._sentence("is undecided") if self._said.verdict is Verdict.UNDECIDED else None

    def _sentence(self, says: str) -> str:
        printed = f": {self.lines[-1]}" if self.lines else ""
        return f"{self._question.name} {says}{printed}"


def voice(source: Asked, false_alarm: float) -> Voice:
    """The voice of `source`; `false_alarm` is its own, where it is compared."""
    if isinstance(source, Question):
        return Told(source)
    return Compared(source, false_alarm) if source.worse else Within(source)


class Voices:
    """All sources of one rollout together; `false_alarm` is for those that are compared, all of them."""

    def __init__(self, sources: Sequence[Asked], false_alarm: float) -> None:
        compared = sum(isinstance(source, Metric) and source.worse is not None for source in sources)
        self._voices = [voice(source, false_alarm / max(compared, 1)) for source in sources]
        self._open: set[int] = set()

    @property
    def slowest(self) -> Pace | None:
        """Of the metrics that are compared the one for which a proof waits longest."""
        paces = [one.pace for one in self._voices if isinstance(one, Compared)]
        return max(paces, key=lambda pace: pace.seconds, default=None)

    def split(self) -> None:
        """The split of the traffic has changed, and all but those that are compared are asked about it at once."""
        self._open = {number for number, one in enumerate(self._voices) if not isinstance(one, Compared)}

    @property
    def open(self) -> bool:
        """Whether one has yet to say anything about the present split. It will, within its own time."""
        return bool(self._open)

    def hear(self, number: int, said: Answer, shares: Shares, *, current: bool = True) -> None:
        """What the source with this number said; the versions had these shares. `current`: of the present split."""
        self._voices[number].hear(said, shares)
        if current:
            self._open.discard(number)

    @property
    def alarm(self) -> Voice | None:
        """One that speaks against the new version, if any does."""
        return next((one for one in self._voices if one.alarm), None)

    def fail(self, new: str, old: str) -> Judgement | None:
        """The judgement of the one that raised an alarm; `new` and `old` are the versions' names."""
        if (one := self.alarm) is None:
            return None
        return Judgement(Verdict.FAIL, Basis.EVIDENCE, one.reason(new, old), {"ln_e": one.log_e})

    def silence(self, said: Judgement) -> Judgement:
        """`said`, what the requests say, and beside it who is silent: ``missing`` in its numbers."""
        missing = [why for one in self._voices if (why := one.missing())]
        if not missing or said.alarm:
            return said
        told = "; ".join(missing)
        return replace(said, reason=f"{said.reason}; {told}", numbers={**said.numbers, "missing": told})

    def proof(self, said: Judgement) -> Judgement:
        """`said`, and undecided for as long as one of them is waited for: ``waits`` in its numbers."""
        waits = [why for one in self._voices if (why := one.waits())]
        if not waits or said.alarm:
            return self.silence(said)
        told = "; ".join(waits)
        numbers = {**said.numbers, "waits": told}
        return Judgement(Verdict.UNDECIDED, said.basis, f"{said.reason}; but {told}", numbers)
