"""`segue advise` on repositories as people have them: what is advised, and the sentence that must be in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segue.api.bodies import Deploy, order
from segue.cli import capacity
from segue.cli.change import NotKnown, changed
from segue.core.release import Side
from segue.core.traffic import Sample
from segue.engine.plans import outline
from segue.engine.usual import Usual

from .canned import Failure, Plane, Request
from .conftest import Segue

MANIFEST = """\
service: shop
replicas: 3
run:
  process: {command: python3 app.py, user: root, env: {TOKEN: !env TOKEN}}
"""
LINES = [f"def page_{number}(): return {number}\n" for number in range(100)]

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")


class Repository:
    """A git repository with a service in it, as it was when v1 was deployed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "--quiet", "--initial-branch=main")
        self.write("segue.yaml", MANIFEST)
        self.write("app.py", "".join(LINES))
        self.write("requirements.txt", "flask==3.0.0\ngunicorn==22.0\n")
        self.write("README.md", "The shop.\n")
        self.write("tests/test_app.py", "def test_a_page(): ...\n")
        self.serving = self.commit("v1")

    def git(self, *arguments: str) -> str:
        names = {
            f"GIT_{who}_{what}": "ana@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        command = ["git", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env={**os.environ, **names, **alone}, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def write(self, name: str, content: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def commit(self, message: str) -> str:
        """The name that a version of it has."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "--short", "HEAD")

    def rewritten(self) -> None:
        for number in range(40):
            self.write(f"shop/part_{number}.py", "".join(LINES[:30]))
        self.commit("everything anew")


@pytest.fixture
def repository(folder: Path) -> Repository:
    return Repository(folder)


Serves = Callable[..., None]


@pytest.fixture
def serves(plane: Plane, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Serves:
    """Let the control plane say that three instances serve, with so much traffic and memory to spare."""

    def say(rate: float = 0, open: int = 0, free: float = 100, label: str | None = None) -> None:
        ready = {"pid": os.getpid(), "state": "ready"}
        version = {"revision": f"{label or repository.serving}.1", "size": 3, "instances": [ready] * 3}
        shop = {
            "service": "shop",
            "stable": label or repository.serving,
            "versions": {label or repository.serving: version},
        }
        plane.on("GET", "/v1/services", {"services": [shop]})
        usual = Usual(Sample(int(rate * 600)), 600.0, open, requests=int(rate * 600))
        plane.on("POST", "/v1/services/shop/plan", lambda request: planned(request, version["revision"], usual))
        each = capacity._memory_of(os.getpid())
        assert each is not None
        monkeypatch.setattr(capacity, "free_memory", lambda: int(free * each) + each // 2)

    return say


def planned(request: Request, old: Any, usual: Usual) -> Any:
    """The plan that a control plane answers with."""
    wanted = order("shop", Deploy(**request.body))
    told = float(request.query["traffic"][0]) if "traffic" in request.query else None
    return outline(wanted, 2, Side(old, 3), replace(usual, told=told))


def advice(segue: Segue, *arguments: str) -> Any:
    """What is advised, as JSON."""
    said = segue("advise", "--json", *arguments)
    assert said.status == 0, said.err
    return json.loads(said.out)


def strategies(found: Any) -> dict[str, Any]:
    return {one["strategy"]: one for one in found["strategies"]}


# Six repositories


def test_a_typo_goes_the_cheap_way(segue: Segue, repository: Repository, serves: Serves) -> None:
    serves(rate=50)
    repository.write("app.py", "".join([*LINES[:-1], "def page_99(): return 'ninety-nine'\n"]))
    repository.write("README.md", "The shop, mended.\n")
    repository.commit("a typo")
    found = advice(segue)
    assert (found["strategy"], found["trade_off"]) == ("rolling", None)
    since = repository.serving
    sentence = f"The change is small: 1 file, 2 lines since {since}, besides 1 file of tests and documentation."
    assert sentence in found["reasons"]
    assert strategies(found)["blue_green"]["against"] == (
        "32 instance-minutes more; everybody meets the new version at once"
    )


@pytest.mark.parametrize(("rate", "strategy"), [(50, "canary"), (0.1, "blue_green")])
def test_a_dependency_is_proven_where_there_is_traffic_and_else_gone_back_from_in_one_switch(
    segue: Segue, repository: Repository, serves: Serves, rate: float, strategy: str
) -> None:
    serves(rate=rate)
    repository.write("requirements.txt", "flask==3.1.0\ngunicorn==22.0\n")
    repository.commit("flask 3.1")
    found = advice(segue)
    assert found["strategy"] == strategy
    assert "requirements.txt: dependencies change, which is more code than the lines show." in found["reasons"]


def test_a_rewrite_is_switched_to_and_back_at_once(segue: Segue, repository: Repository, serves: Serves) -> None:
    serves(rate=50)
    repository.rewritten()
    found = advice(segue)
    assert (found["strategy"], found["trade_off"]) == ("blue_green", None)
    assert f"The change is large: 40 files, 1,200 lines since {repository.serving}." in found["reasons"]
    assert found["next"] == "segue plan --strategy blue_green"


def test_a_migration_is_expanded_first_and_contracted_last(
    segue: Segue, repository: Repository, serves: Serves
) -> None:
    serves(rate=50)
    repository.write("db/migrations/0002_names.py", "add_column('first')\n")
    repository.write("segue.yaml", MANIFEST + "hooks: {before: ./expand.sh}\n")
    repository.commit("first and last names")
    found = advice(segue)
    assert found["strategy"] == "blue_green"
    assert (
        "db/migrations/0002_names.py: a migration. Until the old version is gone both use the same data, by every "
        "strategy: expand in `hooks.before` (there is one), contract in `hooks.after` (there is none yet)."
    ) in found["reasons"]


def test_a_rewrite_without_memory_for_a_second_set_is_a_trade(
    segue: Segue, repository: Repository, serves: Serves
) -> None:
    serves(rate=50, free=1)
    repository.rewritten()
    found = advice(segue)
    assert (found["strategy"], found["room"]["instances"]) == ("rolling", 1)
    assert re.fullmatch(
        r"What suits is blue/green, but it needs 3 instances more at a time, and there is memory for 1\. The trade: "
        r"by rolling both versions answer side by side for about \d+ s, and to go back afterwards the old version is "
        r"started again\. For blue/green make room for 2 instances more \(\d+ MiB\), or have 2 instead of 3 "
        r"\(`replicas: 2`\)\.",
        found["trade_off"],
    ), found["trade_off"]


@pytest.mark.parametrize(
    ("traffic", "wish", "strategy", "sentence"),
    [
        ({"rate": 0.5, "open": 40}, (), "blue_green", "Connections live long (40 are open now), and end with their"),
        (
            {"rate": 900},
            ("--validate",),
            "canary",
            "There are 900 requests a second; a canary proves something from 5",
        ),
        ({"rate": 900}, (), "rolling", "There are 900 requests a second"),
    ],
)
def test_a_small_change_goes_by_what_is_asked_of_the_service(
    segue: Segue,
    repository: Repository,
    serves: Serves,
    traffic: Any,
    wish: tuple[str, ...],
    strategy: str,
    sentence: str,
) -> None:
    serves(**traffic)
    repository.write("app.py", "".join(LINES[:-1]))
    found = advice(segue, *wish)
    assert (found["strategy"], found["trade_off"]) == (strategy, None)
    assert any(sentence in reason for reason in found["reasons"]), found["reasons"]


# What else is said


def test_for_people_it_is_reasons_and_a_table(segue: Segue, repository: Repository, serves: Serves) -> None:
    serves(rate=50, free=1)
    repository.rewritten()
    said = segue("advise")
    assert said.status == 0
    lines = said.out.splitlines()
    assert lines[0] == f"shop  {repository.serving} serves"
    assert lines[2] == "Advice: rolling"
    assert "  • There is memory for 1 instance more (" in said.out
    assert "  ! What suits is blue/green, but " in said.out
    assert [line.split()[:3] for line in lines if line.startswith("▸")] == [["▸", "rolling", "4"]]
    assert lines[-1] == "Next: segue plan"


def test_without_a_control_plane_it_goes_by_the_folder(
    segue: Segue, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKEN")
    repository.write("app.py", "".join(LINES[:-1]))
    repository.commit("one page less")
    said = segue("advise", "--since", "HEAD~1", "--traffic", "20")
    assert said.status == 0
    assert said.out.splitlines()[0] == "shop  no control plane runs: by the folder alone"
    assert "Advice: rolling" in said.out
    assert "• The change is small: 1 file, 1 line since HEAD~1." in said.out
    assert "• There are 20 requests a second; a canary proves something from 5 a second on" in said.out
    assert "How much room there is for a second set, is not known" in said.out
    assert said.err == "", "no control plane was started"


def test_without_a_control_plane_nothing_is_assumed_of_what_serves(segue: Segue, repository: Repository) -> None:
    found = advice(segue)
    assert found["strategy"] == "blue_green"
    assert found["change"] is None
    assert found["reasons"][0] == (
        "How large the change is, is not known: which version serves is not known. It is taken for a large one; "
        "`--since COMMIT` says from where to count."
    )


def test_a_strategy_that_cannot_be_taken_says_why(segue: Segue, repository: Repository) -> None:
    repository.write("segue.yaml", MANIFEST.replace("replicas: 3", "replicas: 1"))
    found = strategies(advice(segue))
    assert "in_place takes 1 of 1 instances out at a time" in found["in_place"]["problem"]
    assert "in_place takes 1 of 1 instances out at a time" in segue("advise").out


def test_a_limit_is_kept(segue: Segue, repository: Repository, serves: Serves) -> None:
    serves(rate=50)
    repository.rewritten()
    found = advice(segue, "--most-instances", "4")
    assert found["strategy"] == "rolling"
    assert found["trade_off"].endswith("For blue/green allow 6 instances.")


def test_where_nothing_serves_any_strategy_will_do(segue: Segue, plane: Plane, repository: Repository) -> None:
    plane.on("GET", "/v1/services", {"services": []})
    plane.on("POST", "/v1/services/shop/plan", lambda r: outline(order("shop", Deploy(**r.body)), 1, None))
    found = advice(segue)
    assert any(reason.startswith("Nothing serves yet") for reason in found["reasons"])


def test_a_control_plane_that_refuses_to_plan_is_quoted(
    segue: Segue, plane: Plane, repository: Repository, serves: Serves
) -> None:
    serves()
    error = {"code": "refused", "exit": 4, "message": "the plan is not safe", "next": None}
    plane.on("POST", "/v1/services/shop/plan", Failure(409, error))
    found = advice(segue)
    assert {one["problem"] for one in found["strategies"]} == {"the plan is not safe"}


def test_traffic_that_is_no_number_is_refused(segue: Segue, repository: Repository) -> None:
    for said in ("lots", "-1", "nan", "inf"):
        refused = segue("advise", "--traffic", said)
        assert refused.status == 2
        assert f"--traffic is a number of requests a second such as 20 or 0.5, not {said}." in refused.err


# How the change is read


@pytest.mark.parametrize(
    ("label", "why"),
    [
        (None, "which version serves is not known"),
        ("20260101-120000", "20260101-120000, which serves, is no commit and no tag of this repository"),
        ("abcdef1", "abcdef1, which serves, is no commit and no tag of this repository"),
        ("main", "main, which serves, is no commit and no tag of this repository"),
        ("abcdef1-dirty.0123456", "abcdef1-dirty.0123456 was deployed with changes that were never committed"),
    ],
)
def test_a_version_that_is_no_commit_cannot_be_compared_with(
    repository: Repository, label: str | None, why: str
) -> None:
    with pytest.raises(NotKnown, match=f"^{why}$"):
        changed(repository.folder, label, None, None)


def test_outside_of_git_nothing_is_known(folder: Path) -> None:
    with pytest.raises(NotKnown, match="the folder is in no git repository with a commit"):
        changed(folder, "abcdef1", None, None)


def test_a_tag_is_a_version_too(repository: Repository) -> None:
    repository.git("tag", "v1.0")
    repository.rewritten()
    assert changed(repository.folder, "v1.0", None, None).files == 40


def test_what_is_not_committed_counts_and_what_is_moved_does_not(repository: Repository) -> None:
    repository.git("mv", "app.py", "shop.py")
    repository.write("new.py", "a = 1\nb = 2\n")
    found = changed(repository.folder, repository.serving, None, None)
    assert (found.files, found.lines) == (2, 2)


def test_only_the_service_s_own_folder_counts(repository: Repository) -> None:
    repository.write("other/app.py", "".join(LINES))
    repository.write("examples/own/app.py", "a = 1\n")
    repository.write("examples/own/expand.sh", "true\n")
    repository.commit("two services")
    found = changed(repository.folder / "examples" / "own", repository.serving, None, "./expand.sh")
    assert (found.files, found.lines, found.migrations) == (2, 2, ("expand.sh",))


def test_the_lines_of_a_lock_file_are_nobody_s_work(repository: Repository) -> None:
    repository.write("uv.lock", "x\n" * 5000)
    repository.write("web/package.json", "{}\n")
    found = changed(repository.folder, repository.serving, None, None)
    assert (found.files, found.lines) == (2, 1)
    assert found.dependencies == ("uv.lock", "web/package.json")


@pytest.mark.parametrize(
    ("path", "migrates"),
    [
        ("db/migrate/20260101_names.rb", True),
        ("alembic/versions/1_names.py", True),
        ("schema/V2__names.sql", True),
        ("prisma/schema.prisma", True),
        ("expand.sh", True),
        ("tests/migrations/test_names.py", False),
        ("migrations.py", False),
        ("docs/migrations/names.md", False),
    ],
)
def test_what_a_migration_is(repository: Repository, path: str, migrates: bool) -> None:
    repository.write(path, "…\n")
    found = changed(repository.folder, repository.serving, None, "./expand.sh --now")
    assert (path in found.migrations) == migrates
