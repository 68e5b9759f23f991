"""The sections that say how a rollout is judged: `judge` and `evidence`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from fractions import Fraction
from typing import Annotated, Any, Self

from pydantic import model_validator

from segue.core import sources
from segue.judge import settings
from segue.manifest.asking import looks_back
from segue.manifest.kinds import (
    Address,
    Base,
    Chance,
    Command,
    Course,
    Duration,
    Excess,
    Many,
    Pattern,
    Per,
    Query,
    Ratio,
    Real,
    Rest,
    Section,
    SomeTime,
    Variable,
    Worse,
)
from segue.manifest.values import Wrong, duration_text


class Margin(Section):
    """How much worse the new version may be. Each use of it has defaults of its own."""

    ratio: Ratio
    errors: Rest
    latency: Excess

    def core(self) -> settings.Margin:
        """The margin as the judge is given it."""
        return settings.Margin(self.ratio, float(self.errors), float(self.latency))


class Alarm(Margin):
    """The margin of an alarm."""

    ratio: Ratio = 1.1
    errors: Rest = Fraction(2, 10_000)
    latency: Excess = Fraction(9, 100)


class First(Margin):
    """The margin of a canary's first step."""

    ratio: Ratio = 3.0
    errors: Rest = Fraction(2, 100)
    latency: Excess = Fraction(50, 100)


class Then(Margin):
    """The margin of a canary's later steps."""

    ratio: Ratio = 1.5
    errors: Rest = Fraction(5, 1000)
    latency: Excess = Fraction(30, 100)


class Promote(Section):
    """When a new version counts as proven good."""

    doubt: Chance = Fraction(5, 100)
    first: First = First()
    then: Then = Then()


class Judge(Section):
    """What a judgement goes by."""

    false_alarm: Chance = Fraction(1, 100)
    alarm: Alarm = Alarm()
    promote: Promote = Promote()
    settle: Duration = timedelta(seconds=10)
    low_traffic: Course = "continue"
    undecided: Course = "hold"

    def core(self) -> settings.Settings:
        """The part of it that the judge is given."""
        return settings.Settings(
            false_alarm=float(self.false_alarm),
            alarm=self.alarm.core(),
            doubt=float(self.promote.doubt),
            first=self.promote.first.core(),
            then=self.promote.then.core(),
        )


class Logs(Section):
    """Lines that speak against the version that writes more of them."""

    match: Pattern


_OFTEN, _APART = timedelta(seconds=15), timedelta(minutes=1)
"""How often a source is asked, and how much time lies between two comparisons at least, unless it is said."""


class Prometheus(Section):
    """A metric of the new version, compared with the old one's (`worse`), or within bounds."""

    url: Base
    query: Query
    worse: Worse | None = None
    margin: Excess | None = None
    per: Per | None = None
    min: Real | None = None
    max: Real | None = None
    every: SomeTime | None = None
    timeout: SomeTime = timedelta(seconds=10)
    authorization: Variable | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        bounded = self.min is not None or self.max is not None
        if (self.worse is None) != bounded:
            problem = "it is not said what is bad" if not bounded else "`worse` and a bound exclude each other"
            raise Wrong(problem, expected="`worse`, or `min` or `max`", at=("worse",) if bounded else ())
        wrong = self._bounds() if bounded else self._comparison()
        if wrong is not None:
            raise wrong
        return self

    def _bounds(self) -> Wrong | None:
        """What is wrong with bounds, if anything is."""
        for name in ("margin", "per"):
            if getattr(self, name) is not None:
                return Wrong("it belongs to a comparison", expected="`worse` beside it", at=(name,))
        if self.min is not None and self.max is not None and self.min > self.max:
            return Wrong("no value is that small and that large", expected=f"at least {self.min:g}", at=("max",))
        return None

    def _comparison(self) -> Wrong | None:
        """What is wrong with a comparison, if anything is."""
        if "{version}" not in self.query and "{revision}" not in self.query:
            return Wrong(
                "it asks the same of both versions", expected="`{version}` or `{revision}` in it", at=("query",)
            )
        if self.worse == "lower" and self.margin is not None and self.margin >= 1:
            return Wrong("nothing is lower than that", expected="less than 100%", at=("margin",))
        back = looks_back(self.query)
        if self.every is not None and self.every < back:
            return Wrong(
                "comparisons would share what they look at: the query looks back further",
                expected=f"at least {duration_text(back)}",
                nearest=duration_text(back),
                at=("every",),
            )
        return None

    def core(self) -> sources.Metric:
        """The metric as the judge and its adapter are given it."""
        apart = max(_APART, looks_back(self.query)) if self.worse else _OFTEN
        return sources.Metric(
            url=self.url,
            query=self.query,
            every=self.every or apart,
            timeout=self.timeout,
            worse=self.worse,
            margin=0.1 if self.margin is None else float(self.margin),
            per=self.per,
            least=self.min,
            most=self.max,
            authorization=self.authorization,
        )


class AskCommand(Section):
    """A command that says whether the new version is well. A command alone stands for a mapping with that `run`."""

    run: Command
    every: SomeTime = _OFTEN
    timeout: SomeTime = timedelta(seconds=10)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return value if isinstance(value, (Mapping, AskCommand, list)) else {"run": value}

    def core(self) -> sources.Question:
        """The question as its adapter is given it."""
        return sources.Question(command=self.run, every=self.every, timeout=self.timeout)


class AskUrl(Section):
    """An address that says whether the new version is well. One alone stands for a mapping with that `get`."""

    get: Address
    every: SomeTime = _OFTEN
    timeout: SomeTime = timedelta(seconds=10)
    authorization: Variable | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return value if isinstance(value, (Mapping, AskUrl, list)) else {"get": value}

    def core(self) -> sources.Question:
        """The question as its adapter is given it."""
        return sources.Question(
            url=self.get, every=self.every, timeout=self.timeout, authorization=self.authorization
        )


_SOURCES = ("logs", "prometheus", "command", "url")


class Evidence(Section):
    """One more source of evidence beside the router."""

    logs: Logs | None = None
    prometheus: Prometheus | None = None
    command: Annotated[AskCommand | None, Many("a command, or a mapping (run, every, timeout)")] = None
    url: Annotated[AskUrl | None, Many("an address, or a mapping (get, every, timeout, authorization)")] = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        named = [name for name in _SOURCES if getattr(self, name) is not None]
        if not named:
            raise Wrong("no source is named", expected=f"one of {', '.join(_SOURCES)}")
        if len(named) > 1:
            raise Wrong(
                f"an entry is one source, not {' and '.join(named)}", expected="an entry for each", at=(named[1],)
            )
        return self
