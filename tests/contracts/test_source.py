"""Prometheus, commands, addresses, and the fake, keep the contract of the source port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from segue.core.release import Revision
from segue.core.sources import About, Answer, Metric, Nothing, Question, Word
from segue.core.verdict import Verdict
from segue.ports import Source
from segue.testing.clock import VirtualClock
from segue.testing.contracts.source import TIMEOUT, Says, SourceContract, Stand
from segue.testing.fake_sources import FakeSources
from segue.testing.prometheus import Metrics
from segue.testing.site import free_port
from segue.wiring import source

T = TypeVar("T")

EVERY = timedelta(minutes=1)


def about(folder: Path) -> About:
    told = {"SEGUE_TO": "v2"}
    return About(
        "shop", "r1", Revision("v2.1"), Revision("v1.1"), folder, {"PATH": "/usr/bin:/bin"}, None, told, folder / "of"
    )


class Real(Stand):
    """What is asked over a real server, or as a real process."""

    def __init__(self, folder: Path, metrics: Metrics) -> None:
        self._folder, self._metrics = folder, metrics

    @property
    def about(self) -> About:
        return about(self._folder)

    def run(self, story: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(story)

    def _url(self, says: Says) -> str:
        """An address behind which there is that."""
        self._metrics.hangs.clear()
        if says is Says.LATE:
            self._metrics.hangs.set()
        return f"http://127.0.0.1:{free_port()}" if says is Says.NOBODY else self._metrics.url


class ByPrometheus(Real):
    def source(self, says: Says) -> Source:
        query = f'{says.name}{{version="{{version}}"}}'
        self._metrics.values |= {
            'WELL{version="v2"}': [1.0],
            'WELL{version="v1"}': [1.0],
            'ILL{version="v2"}': [9.0],
            'ILL{version="v1"}': [1.0],
        }
        return source(Metric(self._url(says), query, EVERY, TIMEOUT, worse="higher"))


class ByAddress(Real):
    def source(self, says: Says) -> Source:
        url = f"{self._url(says)}/{says.name}"
        self._metrics.says = self._said
        return source(Question(url=url, every=EVERY, timeout=TIMEOUT))

    def _said(self, path: str, query: object) -> tuple[int, bytes]:
        verdict = {"/WELL": "pass", "/ILL": "fail"}.get(path)
        return (200, json.dumps({"verdict": verdict}).encode()) if verdict else (404, b"<html>")


class ByCommand(Real):
    def source(self, says: Says) -> Source:
        command = {
            Says.WELL: "true",
            Says.ILL: "echo it is ill; false",
            Says.NONSENSE: "exit 7",
            Says.NOBODY: "./nobody-is-here",
            Says.LATE: "sleep 60",
        }[says]
        return source(Question(command=command, every=EVERY, timeout=TIMEOUT))


class Fake(Stand):
    """The fake, in virtual time."""

    def __init__(self, folder: Path) -> None:
        self._clock, self._folder = VirtualClock(), folder
        self._sources = FakeSources(self._clock)

    @property
    def about(self) -> About:
        return about(self._folder)

    def source(self, says: Says) -> Source:
        answers: dict[Says, Answer] = {Says.ILL: Word(Verdict.FAIL), Says.NONSENSE: Nothing("it is no number")}
        if says is not Says.NOBODY:
            answer = answers.get(says, Word(Verdict.PASS))
            self._sources.order(says.name, lambda _: answer, seconds=60.0 if says is Says.LATE else 0.0)
        return self._sources(Question(command=says.name, every=EVERY, timeout=TIMEOUT))

    def run(self, story: Coroutine[Any, Any, T]) -> T:
        return self._clock.run(story)


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    with Metrics() as found:
        yield found


class TestPrometheus(SourceContract):
    @pytest.fixture
    def stand(self, tmp_path: Path, metrics: Metrics) -> Stand:
        return ByPrometheus(tmp_path, metrics)


class TestAddress(SourceContract):
    @pytest.fixture
    def stand(self, tmp_path: Path, metrics: Metrics) -> Stand:
        return ByAddress(tmp_path, metrics)


class TestCommand(SourceContract):
    @pytest.fixture
    def stand(self, tmp_path: Path, metrics: Metrics) -> Stand:
        return ByCommand(tmp_path, metrics)


class TestFake(SourceContract):
    @pytest.fixture
    def stand(self, tmp_path: Path) -> Stand:
        return Fake(tmp_path)
