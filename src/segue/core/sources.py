"""What a version on trial is judged by besides its requests: metrics, and commands and addresses that are asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

from segue.core.release import Revision
from segue.core.verdict import Verdict

PLACEHOLDERS = ("version", "service", "revision")
"""What is filled in where it stands in braces; braces around anything else are PromQL's own, and stay."""

Way = Literal["higher", "lower"]
Scale = Literal["share", "version"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A query that Prometheus at `url` is asked.

    `worse`: which way a value is worse than the old version's, by more than `margin`; else `least` and `most` bound
    the new version's own. `per`: whether a value grows with a version's share of the traffic; None: it is not known.
    `authorization`: the variable in the version's environment that holds the header of that name.
    """

    url: str
    query: str
    every: timedelta
    timeout: timedelta = timedelta(seconds=10)
    worse: Way | None = None
    margin: float = 0.1
    per: Scale | None = None
    least: float | None = None
    most: float | None = None
    authorization: str | None = None

    @property
    def name(self) -> str:
        """How it is called in sentences."""
        return f"`{shortened(self.query)}`"


@dataclass(frozen=True, slots=True)
class Question:
    """A command or a `url` that says whether the new version is well. `authorization` as a metric's."""

    command: str | None = None
    url: str | None = None
    every: timedelta = timedelta(seconds=15)
    timeout: timedelta = timedelta(seconds=10)
    authorization: str | None = None

    @property
    def name(self) -> str:
        """How it is called in sentences: an address without its query."""
        return f"`{shortened(self.command or (self.url or '').partition('?')[0])}`"


Asked = Metric | Question


@dataclass(frozen=True, slots=True)
class About:
    """Whom a source is asked about, and with what: `folder`, `environment` and `user` are the new version's.

    `old` is None where there is none. `told`: variables that say which rollout it is.
    `outputs`: where commands leave what they print.
    """

    service: str
    rollout: str
    new: Revision
    old: Revision | None
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    user: str | None = None
    told: Mapping[str, str] = field(default_factory=dict)
    outputs: Path = Path()


@dataclass(frozen=True, slots=True)
class Values:
    """What a metric is of both versions at one moment, finite numbers; `old` of None: it was not asked for."""

    new: float
    old: float | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """What a command or an address says, and its last lines."""

    verdict: Verdict
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Nothing:
    """It has not answered, or nothing that can be used: why. This is no word against anybody."""

    why: str


Answer = Values | Word | Nothing


def filled(text: str, service: str, revision: Revision, *, quoted: bool = False) -> str:
    """`text` with its placeholders filled in; `quoted`: as they may stand in a path or in a query of an address."""
    names = {"version": revision.rpartition(".")[0], "service": service, "revision": revision}

    def fill(match: re.Match[str]) -> str:
        found = names[match[1]]
        return found.replace("+", "%2B") if quoted else found

    return re.sub(rf"(?<!\$)\{{({'|'.join(PLACEHOLDERS)})\}}", fill, text)


def shortened(text: str, most: int = 80) -> str:
    """`text` on one line, of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
