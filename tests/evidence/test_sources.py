"""Prometheus, commands and addresses as they are asked: real servers, real processes, and whatever can go wrong."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from segue.core.release import Revision
from segue.core.sources import About, Metric, Nothing, Question, Values, Word
from segue.core.verdict import Verdict
from segue.evidence.address import AskAddress
from segue.evidence.command import AskCommand
from segue.evidence.prometheus import Prometheus
from segue.platforms.hooks import run_command
from segue.testing.prometheus import Metrics, data, vector
from segue.testing.site import free_port

QUERY = 'failed{version="{version}"}'
NEW, OLD = 'failed{version="v2"}', 'failed{version="v1"}'
SECRET = "Bearer of-bad-news"


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    with Metrics({NEW: [3.5], OLD: [1.25]}) as found:
        yield found


@pytest.fixture
def about(tmp_path: Path) -> About:
    return About(
        "shop",
        "20300101-000000-abc",
        Revision("v2.1"),
        Revision("v1.1"),
        folder=tmp_path,
        environment={"METRICS_AUTH": SECRET, "GREETING": "hello"},
        told={"SEGUE_TO": "v2"},
        outputs=tmp_path / "evidence",
    )


def a_metric(url: str, query: str = QUERY, **changes: object) -> Metric:
    wanted = {"url": url, "query": query, "every": timedelta(minutes=1), "worse": "higher", **changes}
    return Metric(**wanted)  # type: ignore[arg-type]


# Prometheus


async def test_a_metric_is_asked_of_both_versions(metrics: Metrics, about: About) -> None:
    assert await Prometheus(a_metric(metrics.url)).ask(about) == Values(3.5, 1.25)
    assert await Prometheus(a_metric(f"{metrics.url}/")).ask(about) == Values(3.5, 1.25)
    assert len(metrics.asked) == 4


async def test_bounds_are_asked_of_the_new_version_alone(metrics: Metrics, about: About) -> None:
    assert await Prometheus(a_metric(metrics.url, worse=None, most=3)).ask(about) == Values(3.5)
    assert len(metrics.asked) == 1


async def test_a_scalar_is_a_number_too(metrics: Metrics, about: About) -> None:
    metrics.says = lambda path, query: (200, data("scalar", [1700000000.0, "0.5"]))
    assert await Prometheus(a_metric(metrics.url)).ask(about) == Values(0.5, 0.5)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (vector(), "there is no series of v2"),
        (vector(1, 2, 3), "3 series of v2 where there must be one: sum() them, or take the max()"),
        (vector("NaN"), "of v2 it is +nan, which is no number to compare"),
        (vector("+Inf"), "of v2 it is +inf, which is no number to compare"),
        (data("matrix", []), "it comes to a matrix and not to a number"),
        (data("string", [0, "x"]), "it comes to a string and not to a number"),
        (b"<html>", "it was answered with status 200, and not as Prometheus answers"),
        (b"[]", "it was answered with status 200, and not as Prometheus answers"),
        (b'{"status": "success"}', "it was answered with status 200, and not as Prometheus answers"),
        (data("vector", [{}]), "it was answered with status 200, and not as Prometheus answers"),
        (b"x" * (1 << 20) + b"x", "the answer is longer than 1024 KB"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
async def test_what_is_no_number_is_no_answer(metrics: Metrics, about: About, body: bytes, why: str) -> None:
    metrics.says = lambda path, query: (200, body)
    assert await Prometheus(a_metric(metrics.url)).ask(about) == Nothing(why)


async def test_a_version_without_a_series_is_named(metrics: Metrics, about: About) -> None:
    del metrics.values[OLD]
    assert await Prometheus(a_metric(metrics.url)).ask(about) == Nothing("there is no series of v1")


async def test_what_prometheus_refuses_is_said_in_its_words(metrics: Metrics, about: About) -> None:
    said = await Prometheus(a_metric(metrics.url, "sum(failed")).ask(about)
    assert said == Nothing("Prometheus refused it: 1:5: parse error: unclosed left parenthesis")


async def test_one_that_nobody_listens_for_cannot_be_reached(about: About) -> None:
    port = free_port()
    said = await Prometheus(a_metric(f"http://127.0.0.1:{port}/prometheus")).ask(about)
    assert said == Nothing(f"127.0.0.1:{port} cannot be reached")


async def test_one_that_hangs_is_given_up(metrics: Metrics, about: About) -> None:
    metrics.hangs.set()
    said = await Prometheus(a_metric(metrics.url, timeout=timedelta(milliseconds=50))).ask(about)
    assert said == Nothing("no answer within 0.05 s")


async def test_one_that_hangs_up_has_not_answered(about: About) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        said = await Prometheus(a_metric(f"http://127.0.0.1:{port}")).ask(about)
    assert said == Nothing(f"127.0.0.1:{port} gave no whole answer in HTTP")


async def test_a_secret_is_sent_from_the_environment_of_the_version_and_shown_nowhere(
    metrics: Metrics, about: About
) -> None:
    metric = a_metric(metrics.url, authorization="METRICS_AUTH")
    assert await Prometheus(metric).ask(about) == Values(3.5, 1.25)
    assert {headers["Authorization"] for headers in metrics.headers} == {SECRET}
    assert SECRET not in f"{metric!r} {about!r}"
    said = await Prometheus(replace(metric, authorization="NOBODY")).ask(about)
    assert said == Nothing("the variable NOBODY is not set in the version's environment")


async def test_proxies_and_passwords_of_the_machine_are_not_used(
    metrics: Metrics, about: About, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ana password hush")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert await Prometheus(a_metric(metrics.url)).ask(about) == Values(3.5, 1.25)
    assert not any("Authorization" in headers for headers in metrics.headers)


# Commands


async def asked(about: About, command: str, seconds: float = 10) -> Word | Nothing:
    question = Question(command, timeout=timedelta(seconds=seconds))
    return await AskCommand(question, run_command).ask(about)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("exit 0", Word(Verdict.PASS)),
        ("echo looking; echo fine", Word(Verdict.PASS, ("fine",))),
        ("echo looking; echo; echo ' 3 orders lost ' >&2; exit 1", Word(Verdict.FAIL, ("looking", "3 orders lost"))),
        ("echo too early; exit 2", Word(Verdict.UNDECIDED, ("too early",))),
        ("exit 3", Nothing("it exited with 3")),
        ("echo oh; exit 3", Nothing("it exited with 3: oh")),
        ("kill -9 $$", Nothing("it exited with -9")),
        ("seq 50; exit 1", Word(Verdict.FAIL, tuple(map(str, range(31, 51))))),
    ],
)
async def test_the_exit_status_of_a_command_is_its_word(about: About, command: str, says: Word | Nothing) -> None:
    assert await asked(about, command) == says


async def test_a_command_that_is_not_there_says_nothing(about: About) -> None:
    said = await asked(about, "./ask.sh")
    assert isinstance(said, Nothing) and said.why.startswith("it exited with 127: sh: ")


async def test_a_command_without_its_folder_says_nothing(about: About) -> None:
    said = await asked(replace(about, folder=about.folder / "gone"), "exit 0")
    assert isinstance(said, Nothing)


async def test_a_command_that_takes_too_long_is_ended(about: About) -> None:
    assert await asked(about, "sleep 60 & echo $! > child; wait", 0.5) == Nothing("not done within 0.5 s")
    child = int((about.folder / "child").read_text())
    with pytest.raises(ProcessLookupError):
        while True:  # it was told to end
            os.kill(child, 0)
            await asyncio.sleep(0.01)


async def test_a_command_runs_in_the_folder_and_environment_of_the_version_and_is_told_of_the_rollout(
    about: About,
) -> None:
    said = await asked(about, "echo $GREETING $SEGUE_TO $(basename $PWD); exit 1")
    assert said == Word(Verdict.FAIL, (f"hello v2 {about.folder.name}",))


async def test_its_output_is_kept_and_only_the_last_one(about: About) -> None:
    await asked(about, "echo one")
    await asked(about, "echo one")
    assert [file.read_text() for file in about.outputs.iterdir()] == ["one\n"]


# Addresses


def says(verdict: object, reason: object = None) -> bytes:
    return json.dumps({"verdict": verdict, "reason": reason}).encode()


@pytest.mark.parametrize(
    ("status", "body", "word"),
    [
        (200, b"", Word(Verdict.PASS)),
        (204, b"", Word(Verdict.PASS)),
        (200, b"not JSON", Word(Verdict.PASS)),
        (200, b'{"other": 1}', Word(Verdict.PASS)),
        (202, b"", Word(Verdict.UNDECIDED)),
        (409, b"", Word(Verdict.FAIL)),
        (200, says("fail", "3 orders lost"), Word(Verdict.FAIL, ("3 orders lost",))),
        (404, says("fail"), Word(Verdict.FAIL)),
        (409, says("undecided", "wait"), Word(Verdict.UNDECIDED, ("wait",))),
        (200, says("pass", 5), Word(Verdict.PASS)),
        (200, says("bad"), Nothing("its verdict is neither of pass, fail, undecided: bad")),
        (200, says([1]), Nothing("its verdict is neither of pass, fail, undecided: [1]")),
        (500, says("fail"), Nothing("it was answered with status 500")),
        (404, b"", Nothing("it was answered with status 404")),
        (302, b"", Nothing("it was answered with status 302")),
    ],
)
async def test_the_json_or_the_status_of_an_address_is_its_word(
    metrics: Metrics, about: About, status: int, body: bytes, word: Word | Nothing
) -> None:
    metrics.says = lambda path, query: (status, b"" if status == 204 else body)
    assert await AskAddress(Question(url=f"{metrics.url}/ask")).ask(about) == word


async def test_an_address_is_filled_in_and_has_its_secret_beside_it(metrics: Metrics, about: About) -> None:
    metrics.says = lambda path, query: (200, says("fail", f"{path} {query}"))
    question = Question(url=metrics.url + "/{service}/{version}?r={revision}", authorization="METRICS_AUTH")
    said = await AskAddress(question).ask(replace(about, new=Revision("v2+a.1")))
    assert said == Word(Verdict.FAIL, ("/shop/v2%2Ba {'r': 'v2+a.1'}",))
    assert metrics.headers[0]["Authorization"] == SECRET
    assert question.name == f"`{metrics.url}/{{service}}/{{version}}`"


async def test_an_address_that_hangs_or_is_not_there_says_nothing(metrics: Metrics, about: About) -> None:
    metrics.hangs.set()
    hanging = Question(url=metrics.url, timeout=timedelta(milliseconds=50))
    assert await AskAddress(hanging).ask(about) == Nothing("no answer within 0.05 s")
    port = free_port()
    gone = Question(url=f"http://127.0.0.1:{port}/?token=hush")
    assert await AskAddress(gone).ask(about) == Nothing(f"127.0.0.1:{port} cannot be reached")


# The real Prometheus


@pytest.fixture
def real(tmp_path: Path, metrics: Metrics) -> Iterator[str]:
    """A Prometheus of its own that scrapes `metrics`."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("there is no prometheus on this machine")
    page = b'failed{version="v1"} 1\nfailed{version="v2"} 4\nmany{version="v2",i="a"} 1\nmany{version="v2",i="b"} 2\n'
    metrics.says = lambda path, query: (200, page)
    target = metrics.url.removeprefix("http://")
    (tmp_path / "prometheus.yml").write_text(
        f"scrape_configs: [{{job_name: shop, scrape_interval: 1s, static_configs: [{{targets: ['{target}']}}]}}]"
    )
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            _until_scraped(url)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _until_scraped(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/api/v1/query?query=count(failed)", timeout=5) as reply:
                if json.load(reply)["data"]["result"]:
                    return
        except (TimeoutError, OSError):
            pass
        time.sleep(0.1)
    raise TimeoutError("it has scraped nothing")


@pytest.mark.slow
async def test_a_real_prometheus_answers_as_the_tests_do(real: str, about: About) -> None:
    assert await Prometheus(a_metric(real)).ask(about) == Values(4.0, 1.0)
    assert await Prometheus(a_metric(real, "scalar(" + QUERY + ")")).ask(about) == Values(4.0, 1.0)
    many = await Prometheus(a_metric(real, 'many{version="{version}"}')).ask(about)
    assert many == Nothing("2 series of v2 where there must be one: sum() them, or take the max()")
    summed = await Prometheus(a_metric(real, 'sum(many{version="{version}"}) or vector(0)')).ask(about)
    assert summed == Values(3.0, 0.0)
    assert await Prometheus(a_metric(real, 'no{v="{version}"}')).ask(about) == Nothing("there is no series of v2")
    nan = await Prometheus(a_metric(real, QUERY + " * 0 / 0")).ask(about)
    assert nan == Nothing("of v2 it is +nan, which is no number to compare")
    ranged = await Prometheus(a_metric(real, QUERY + "[1m]")).ask(about)
    assert ranged == Nothing("it comes to a matrix and not to a number")
    wrong = await Prometheus(a_metric(real, "sum(")).ask(about)
    assert isinstance(wrong, Nothing) and wrong.why.startswith("Prometheus refused it: ")
