"""`examples/migration` as its README tells it, under load: both versions use one database, nothing is lost."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from segue.testing.load import Probe
from segue.testing.site import Segue, as_user, free_port

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "migration"


class People:
    """The folder of the example: `hold` puts a version's files into it, changed are only port, user and waiting."""

    def __init__(self, segue: Segue) -> None:
        self.segue, self.folder, self.port = segue, segue.home.parent / "people", free_port()
        self.database = segue.home / "versions" / "people" / "shared" / "data" / "people.db"
        self.url = f"http://127.0.0.1:{self.port}/"

    def hold(self, version: str) -> None:
        shutil.copytree(EXAMPLE / version, self.folder, dirs_exist_ok=True)
        manifest = self.folder / "segue.yaml"
        user = "".join(f"    {key}: {value}\n" for key, value in as_user().items())
        text = manifest.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        text = text.replace("judge: 10s", "judge: 1s").replace("    source: .\n", f"    source: .\n{user}")
        manifest.write_text(text)

    def __call__(self, *command: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        return self.segue(*command, cwd=self.folder, expect=expect)

    def deploy(self, version: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        self.hold(version)
        return self("deploy", "--version", version, expect=expect)

    def columns(self) -> set[str]:
        return {row[1] for row in self._rows("PRAGMA table_info(people)")}

    def written(self) -> list[tuple[str, str]]:
        return [(first, last) for first, last in self._rows("SELECT first, last FROM people")]

    def _rows(self, query: str) -> Iterator[tuple[str, ...]]:
        with closing(sqlite3.connect(self.database, timeout=10)) as db:
            yield from db.execute(query).fetchall()


@pytest.fixture
def people(segue: Segue) -> People:
    return People(segue)


def test_a_column_is_replaced_by_two_and_no_request_and_no_row_is_lost(
    people: People, load: Callable[..., Probe]
) -> None:
    people.deploy("v1")
    readers = load(people.url, connections=16, rate=50)
    writers = load(people.url, "--method", "POST", "--body", "Ada Lovelace", connections=16, rate=50)

    def goes_on() -> None:
        readers.more(50)
        writers.more(50)

    goes_on()
    people.deploy("v2")
    assert people.columns() == {"id", "name", "first", "last"}
    goes_on()
    assert "Back on v1" in people("rollback").stdout
    goes_on()
    people.deploy("v2")
    goes_on()
    people("retire")
    assert people.columns() == {"id", "first", "last"}
    goes_on()

    read, written = readers.finish(), writers.finish()
    for tally in (read, written):
        assert tally.lost == ()
        assert tally.total == tally.by_status[200]
        assert set(tally.by_version) == {"v1", "v2"}
    assert people.written() == [("Ada", "Lovelace")] * written.total


def test_past_the_contraction_there_is_no_way_back_and_before_it_nothing_new(people: People) -> None:
    people.deploy("v1")
    people.deploy("v2")
    people.hold("v1")
    refused = people("deploy", "--version", "v3", expect=4)
    assert "the after hook of v2 is still to run" in refused.stderr
    people("retire")
    for command in (["rollback"], ["rollback", "--to", "v1"], ["deploy", "--version", "v1"]):
        assert "cannot go back to v1: the after hook of v2 has run" in people(*command, expect=4).stderr
    status = json.loads(people("status", "--json").stdout)["services"][0]
    assert (status["state"], status["stable"]) == ("steady", "v2")
