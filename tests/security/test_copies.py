"""What root does with folders in which a version's own user may write: nothing there leads it anywhere else."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from strangers import as_root, open_folder

from segue.accounts import Account
from segue.core.release import Revision
from segue.engine import folders
from segue.engine.versions import VersionStore
from segue.errors import StartFailed
from segue.platforms.hooks import run_command

V1, V2 = Revision("v1.1"), Revision("v2.1")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, with a source and a file of ours that nobody may have."""
    with open_folder() as found:
        (found / "source").mkdir()
        (found / "source" / "app").write_text("x")
        (found / "ours").mkdir(mode=0o700)
        (found / "ours" / "file").write_text("ours")
        yield found


async def prepare(place: Path, revision: Revision, **options: Any) -> Path:
    store = VersionStore(place / "home" / "versions", run_command)
    source = place / "source"
    return await store.prepare("shop", revision, folder=source, source=source, environment={}, **options)


@as_root
async def test_while_a_copy_is_given_away_its_new_owner_cannot_enter_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it could put a link in the place of a folder whose files are about to be given to it."""
    (place / "source" / "deep" / "er").mkdir(parents=True)
    (place / "source" / "deep" / "er" / "file").touch()
    nobody, given = pwd.getpwnam("nobody"), []
    real = os.chown

    def chown(path: Any, *owner: int, **options: Any) -> None:
        given.append(os.fspath(path))
        assert (copying := next(place.rglob("copying"), None)) is None or copying.stat().st_uid == 0
        real(path, *owner, **options)

    monkeypatch.setattr(os, "chown", chown)
    files = await prepare(place, V1, user="nobody")
    assert {file.lstat().st_uid for file in (files, *files.rglob("*"))} == {nobody.pw_uid}
    assert given[-1].endswith("copying") and len(given) == 5


@as_root
def test_a_link_in_what_is_given_away_is_given_and_not_what_it_leads_to(place: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    account = Account("nobody", nobody.pw_uid, nobody.pw_gid, Path("/"))
    (place / "source" / "link").symlink_to(place / "ours")
    (place / "source" / "file").symlink_to(place / "ours" / "file")
    folders.give(place / "source", account)
    assert {(place / "ours").stat().st_uid, (place / "ours" / "file").stat().st_uid} == {0}
    assert (place / "source" / "link").lstat().st_uid == nobody.pw_uid


@as_root
async def test_what_a_versions_user_has_planted_is_removed_and_not_what_it_leads_to(place: Path) -> None:
    store = VersionStore(place / "home" / "versions", run_command)
    files = await prepare(place, V1, user="nobody", shared=["uploads"])
    (files / "lib").symlink_to(place / "ours")
    (files / "app").unlink()
    (files / "app").symlink_to(place / "ours" / "file")
    (files / "uploads" / "out").symlink_to(place / "ours")
    await prepare(place, V2, user="nobody", shared=["uploads"])
    await store.delete("shop", V1)
    assert not files.exists()
    assert (place / "ours" / "file").read_text() == "ours"
    assert (place / "ours" / "file").stat().st_uid == 0


@as_root
@pytest.mark.parametrize("planted", ["nothing", "a link"])
async def test_a_folder_is_not_shared_inside_of_one_that_is_the_users_already(place: Path, planted: str) -> None:
    files = await prepare(place, V1, user="nobody", shared=["var"])
    if planted == "a link":
        (files / "var" / "deep").symlink_to(place / "ours")
    with pytest.raises(StartFailed, match="the shared folder var/deep/up lies in var, which is shared already"):
        await prepare(place, V2, user="nobody", shared=["var/deep/up"])
    assert [file.name for file in (place / "ours").iterdir()] == ["file"]
    assert (place / "ours").stat().st_mode & 0o777 == 0o700


async def test_a_shared_folder_does_not_bring_what_its_links_lead_to(place: Path) -> None:
    (place / "source" / "uploads").mkdir()
    (place / "source" / "uploads" / "link").symlink_to(place / "ours" / "file")
    files = await prepare(place, V1, shared=["uploads"])
    assert (files / "uploads" / "link").is_symlink()
    assert not (files / "uploads").resolve().is_relative_to(place / "source")


@pytest.mark.parametrize("rule", ["!../ours/file", "!/../ours", "!../*", "!**"])
async def test_no_rule_of_an_ignore_file_brings_in_what_is_outside_of_the_source(place: Path, rule: str) -> None:
    (place / "source" / ".segueignore").write_text(f"{rule}\n")
    files = await prepare(place, V1)
    assert {file.name for file in files.rglob("*")} == {"app", ".segueignore"}


async def test_an_ignore_file_that_is_a_link_decides_and_is_not_copied_from_elsewhere(place: Path) -> None:
    """Its rules are read, as git does not; what it leads to stays where it is, and the link out is refused."""
    (place / "source" / ".segueignore").symlink_to(place / "ours" / "file")
    with pytest.raises(StartFailed, match=r"\.segueignore is a link that leads out of the source"):
        await prepare(place, V1)
