"""Verdicts end to end: real canaries through Envoy under real load, beside what the simulation says of them.

Every run has a home of its own, an application whose failures and times are drawn for each request, two independent
clients at a stated rate, and `segue deploy` with the default judge. The simulation is that of `judge.py`: the same
judge at the same rate. A scenario is met if every run of it ends as it must, within twice the simulation's 95th
percentile and 5 s (looks come once a second, and are pooled), and what users and Segue count is in order.

    python bench/verdicts.py [--runs 5] [--rate 400] [--only bursts] [--write]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import common
from judge_bars import shown
from verdicts_expected import RUNS, WARM, Expected, expected
from verdicts_quiet import Said, quiet
from verdicts_runs import POSTS, Run, Scenario, allowed, measure, scenarios

RATE = 400
"""Requests a second: what two cores carry, clients and applications included, with room."""
LITTLE = "little traffic"


@dataclass(frozen=True)
class Result:
    """What came of the runs of a scenario, and what the simulation says of it."""

    scenario: Scenario
    expected: Expected
    runs: Sequence[Run]

    @property
    def flaws(self) -> list[str]:
        """What was not as it must be, in which run."""
        found = [f"run {i}: {flaw}" for i, run in enumerate(self.runs, 1) for flaw in run.flaws(self.expected)]
        if (self.expected.alarms > 0.5) == self.scenario.promoted:
            found.insert(0, f"the simulation itself ends otherwise: {self.expected.alarms:.0%} alarm")
        return found

    def row(self) -> tuple[object, ...]:
        """The scenario in the table."""
        said = self.expected
        ends = {run.ended.replace("_", " ") for run in self.runs}
        seconds = [run.seconds for run in self.runs]
        return (
            self.scenario.name,
            " or ".join(sorted(ends)),
            f"{median(seconds):.1f} / {max(seconds):.1f}",
            f"{shown(said.seconds)} / {shown(said.late)}",
            shown(allowed(said)),
            f"{median(run.attempts for run in self.runs):,.0f}",
            f"{said.attempts:,.0f}",
            f"{median(run.failed('GET') for run in self.runs):,.0f}",
            f"{median(run.failed('POST') for run in self.runs):,.0f}",
            f"{said.failures * POSTS:,.0f}",
            "MISSED" if self.flaws else "met",
        )


HEAD = (
    "scenario",
    "ended",
    "s, median / worst",
    "simulated, median / 95 %",
    "at most",
    "attempts",
    "simulated",
    "failures met by GET",
    "by POST",
    "simulated",
    "",
)


def page(results: Sequence[Result], said: Sequence[Said], rate: float, took: float) -> str:
    """The page in docs/measured."""
    runs = max((len(result.runs) for result in results), default=0)
    facts = common.facts(rate=f"{rate:g} requests a second", runs=f"{runs} of each scenario", took=f"{took:.0f} s")
    flaws = [f"* {result.scenario.name}, {flaw}" for result in results for flaw in result.flaws]
    flaws += [f"* {one.quiet}: {flaw}" for one in said for flaw in one.flaws]
    return PAGE.format(
        right=_met(results),
        few=_met(said),
        facts=common.listed(facts),
        table=common.table(HEAD, (result.row() for result in results)),
        missed="\n".join(flaws) or "Nothing was missed.",
        reasons="\n".join(f"* {result.scenario.name}: {result.runs[0].reason}" for result in results),
        quiet=common.table(("traffic", "exit", "basis", ""), (_quiet_row(one) for one in said)),
        words="\n".join(line for one in said for line in _words(one)),
        warm=WARM,
        simulated=RUNS,
        posts=f"{POSTS:.0%}",
    )


def _met(results: Sequence[Result] | Sequence[Said]) -> str:
    return f"{sum(not result.flaws for result in results)} of {len(results)}"


def _quiet_row(one: Said) -> tuple[object, ...]:
    return str(one.quiet), one.exit, one.finished["basis"] or "", "MISSED" if one.flaws else "met"


def _words(one: Said) -> Iterator[str]:
    """Everything that was said of it."""
    yield f"### {str(one.quiet).capitalize()}\n"
    if one.quiet.left:
        yield f"Taken back by hand after {one.quiet.left:g} s, for it would take an hour.\n"
    yield "```text"
    yield from one.of_plan
    yield from (f"{step}, live: {text}" for step, text in one.judging.items())
    yield one.printed.rstrip()
    yield "```\n"
    yield f"Exit {one.exit}. Last event: `outcome` {one.finished['outcome']}, `reason` “{one.finished['reason']}”."
    verdicts = "; ".join(f"`{basis}`: “{reason}”" for _, basis, reason in one.verdicts())
    yield f"Verdicts in the report: {verdicts or 'none'}. Explained: “{one.because}”.\n"


PAGE = """\
# Verdicts under real load

**{right} scenarios under load and {few} with little traffic are met.** Written by
`make bench-verdicts` (`bench/verdicts.py`).

{facts}

{table}

{missed}

Every run is a canary as it is by default (10 %, 30 %, 95 %, all; judgements of 30 s at least, 30 min at most), after
{warm} s of load on the old version; only where trouble sets in after two minutes a judgement lasts five at least, so
that it is still at 10 %. {posts} of the requests are POSTs; each client keeps its own count. Answers take as long as
in the simulation: log-normal, p50 50 ms, p99 256 ms. In a *burst*, of about 5 s, both versions fail a fifth of their
requests and take five times as long; they come as the simulation draws them, three at least in the first minute.

Seconds are those from the first share to the alarm or the promotion, or from the moment at which trouble sets in;
*at most*: twice the simulation's 95th percentile and 5 s. *Attempts* on the new version, as the judge counted them
until then. *Failures met*: answers of the new version with a 5xx that a client got, from the first share until it was
taken back or given everything; a GET is answered by the old version instead. *Simulated*: {simulated} rollouts at
this rate with the same judge and ladder; of its failures the part that is POSTs.

What was said, in the first run of each:

{reasons}

## Little traffic

{quiet}

Nothing fails. Every instance passes three smoke tests and 50 warm-up requests. Below is what `segue plan` says of the
judgements, the last that the live view says in each step, and what `segue deploy` prints where there is no terminal.

{words}"""


def measured(rate: float, runs: int, only: str) -> Iterator[Result]:
    """The scenarios whose name has `only` in it."""
    for scenario in scenarios(rate):
        if only in scenario.name:
            common.progress(f"{scenario.name} …")
            result = Result(scenario, expected(scenario.world, scenario.least), [*_runs(scenario, runs)])
            common.progress(f"    {'; '.join(result.flaws) or 'met'}")
            yield result


def _runs(scenario: Scenario, runs: int) -> Iterator[Run]:
    for number in range(runs):
        run = measure(scenario, number)
        common.progress(f"    {run.ended} after {run.seconds:.1f} s, {run.attempts:,} attempts: {run.reason}")
        yield run


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything; 0 when nothing was missed."""
    parser = argparse.ArgumentParser(description="Verdicts end to end, beside the simulation's.")
    parser.add_argument("--runs", type=int, default=5, help="of each scenario (default: 5)")
    parser.add_argument("--rate", type=float, default=RATE, help=f"requests a second (default: {RATE})")
    parser.add_argument("--only", default="", help=f"the scenarios whose name has this in it, or {LITTLE!r}")
    parser.add_argument("--write", action="store_true", help="write docs/measured/verdicts.md")
    given = parser.parse_args(argv)
    began = time.monotonic()
    results = list(measured(given.rate, given.runs, given.only))
    said = quiet() if given.only in LITTLE else []
    text = page(results, said, given.rate, time.monotonic() - began)
    sys.stdout.write(text)
    if given.write:
        common.write_page("verdicts", text)
    return int(any(result.flaws for result in results) or any(one.flaws for one in said))


if __name__ == "__main__":
    sys.exit(main())
