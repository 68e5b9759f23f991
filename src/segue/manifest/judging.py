"""The sections that say how a rollout is judged: `judge` and `evidence`."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

from segue.judge import settings
from segue.manifest.kinds import Chance, Course, Duration, Excess, Pattern, Ratio, Rest, Section


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


class Evidence(Section):
    """One more source of evidence beside the router."""

    logs: Logs
