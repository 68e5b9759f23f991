"""The version store: what identifies a version, what is copied, what is shared, what a crash leaves."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from segue.core.release import Revision
from segue.engine import tree
from segue.engine.versions import VersionStore
from segue.errors import StartFailed, Usage
from segue.platforms.hooks import run_command

V1, V2 = Revision("v1.1"), Revision("v2.1")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    write(folder, "app.py", "print('hello')\n")
    write(folder, "lib/deep/module.py", "x = 1\n")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    return VersionStore(tmp_path / "home" / "versions", run_command)


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


async def prepare(store: VersionStore, source: Path | None, revision: Revision = V1, **options: Any) -> Path:
    folder = source or options.pop("folder")
    return await store.prepare("shop", revision, folder=folder, source=source, **{"environment": {}, **options})


def listed(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        await asyncio.sleep(0.01)


# The digest


async def test_equal_files_and_settings_are_the_same_version(store: VersionStore, source: Path) -> None:
    again = source.parent / "again"
    shutil.copytree(source, again)
    os.utime(again / "app.py", (0, 0))
    digest = await store.digest(source, {"command": "serve", "environment": {"A": "1", "B": "2"}})
    assert digest == await store.digest(again, {"environment": {"B": "2", "A": "1"}, "command": "serve"})
    assert await store.digest(None, {"command": "serve"}) == await store.digest(None, {"command": "serve"})


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: write(folder, "app.py", "print('hallo')\n"),
        lambda folder: write(folder, "new.py", ""),
        lambda folder: (folder / "app.py").unlink(),
        lambda folder: (folder / "app.py").rename(folder / "main.py"),
        lambda folder: (folder / "app.py").chmod(0o755),
        lambda folder: (folder / "link").symlink_to("app.py"),
    ],
    ids=["other content", "a new file", "one file less", "another name", "it can be run", "a link"],
)
async def test_what_a_version_runs_is_part_of_its_identity(
    store: VersionStore, source: Path, change: Callable[[Path], object]
) -> None:
    before = await store.digest(source, {})
    change(source)
    assert await store.digest(source, {}) != before


async def test_the_settings_and_where_a_link_leads_are_part_of_a_versions_identity(
    store: VersionStore, source: Path
) -> None:
    (source / "link").symlink_to("app.py")
    before = await store.digest(source, {"command": "serve"})
    assert await store.digest(source, {"command": "serve --fast"}) != before
    (source / "link").unlink()
    (source / "link").symlink_to("lib")
    assert await store.digest(source, {"command": "serve"}) != before


async def test_what_is_not_copied_is_not_part_of_a_versions_identity(store: VersionStore, source: Path) -> None:
    write(source, ".gitignore", "*.log\n")
    before = await store.digest(source, {})
    write(source, "today.log", "x")
    write(source, ".git/HEAD", "ref: refs/heads/main")
    assert await store.digest(source, {}) == before


async def test_a_source_that_is_missing_is_named(store: VersionStore, tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=r"nowhere: no such file or directory"):
        await store.digest(tmp_path / "nowhere", {})


# The copy


async def test_a_version_runs_in_a_copy_of_its_own(store: VersionStore, source: Path) -> None:
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o755)
    (source / "empty").mkdir()
    (source / "lib" / "link").symlink_to("../app.py")
    told: list[str] = []
    files = await prepare(store, source, on_progress=told.append)
    write(source, "app.py", "changed")
    assert (files / "app.py").read_text() == "print('hello')\n"
    assert (files / "run").stat().st_mode & 0o777 == 0o755
    assert (files / "empty").is_dir()
    assert (files / "lib" / "link").readlink() == Path("../app.py")
    assert listed(files) == {"app.py", "lib/deep/module.py", "lib/link", "run"}
    assert told == ["copying 4 files"]


async def test_the_ignore_files_are_honoured(store: VersionStore, source: Path) -> None:
    """As git does, and `.segueignore` has the last word."""
    write(source, ".gitignore", "*.log\n/dist/\n!kept.log\nnode_modules/\n")
    write(source, ".segueignore", "!/dist/\nnotes.md\n")
    write(source, "lib/.gitignore", "deep/\n!loud.log\n")
    for name in (
        *("a.log", "kept.log", "dist/app.js", "node_modules/x/index.js", "lib/node_modules/y.js", "notes.md"),
        *("lib/quiet.log", "lib/loud.log", "other/dist/z.js", "other/deep/module.py", ".git/HEAD", "lib/.git"),
    ):
        write(source, name, "")
    files = await prepare(store, source)
    assert listed(files) == {
        *("app.py", "kept.log", "dist/app.js", "lib/loud.log", "other/dist/z.js", "other/deep/module.py"),
        *(".gitignore", ".segueignore", "lib/.gitignore"),
    }


@pytest.mark.skipif(shutil.which("git") is None, reason="compares with git")
async def test_what_is_taken_is_what_git_would_take(store: VersionStore, tmp_path: Path) -> None:
    top = tmp_path / "repository"
    source = top / "services" / "shop"
    write(top, ".gitignore", "*.pyc\n/services/shop/secret\nbuild\n**/cache/*\n!**/cache/keep\n")
    write(source, ".gitignore", "# a comment\n\n/local.*\n*.tmp\n!important.tmp\n\\#odd\ntrailing \n")
    for name in (
        *("a.py", "a.pyc", "secret", "sub/secret", "build/x", "sub/build", "cache/x", "cache/keep", "local.py"),
        *("sub/local.py", "x.tmp", "important.tmp", "sub/x.tmp", "#odd", "trailing", "with space", "ä.py"),
    ):
        write(source, name, "")
    git(top, "init", "-q")
    taken = git(source, "ls-files", "-z", "--others", "--exclude-standard").split("\0")
    assert listed(await prepare(store, source)) == set(filter(None, taken))


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return done.stdout


async def test_sockets_and_pipes_that_lie_about_are_left_out(store: VersionStore, source: Path) -> None:
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(source)
        try:
            listener.bind("sock")
        finally:
            os.chdir(before)
        assert listed(await prepare(store, source)) == {"app.py", "lib/deep/module.py"}


@pytest.mark.parametrize("leads", ["/etc/passwd", "../outside", "lib/../../outside", "way-out/etc/passwd"])
async def test_a_link_that_leads_out_of_the_source_is_refused_by_name(
    store: VersionStore, source: Path, tmp_path: Path, leads: str
) -> None:
    write(tmp_path, "outside", "secret")
    write(source, ".segueignore", "/way-out\n")
    (source / "way-out").symlink_to("/")
    (source / "lib" / "escape").symlink_to(leads if leads.startswith("/") else f"../{leads}")
    with pytest.raises(StartFailed, match="lib/escape is a link that leads out of the source") as failure:
        await prepare(store, source)
    assert failure.value.next == "echo /lib/escape >> .segueignore"
    assert not list((tmp_path / "home").rglob("app.py"))


async def test_a_link_to_the_source_itself_by_its_whole_path_is_refused(store: VersionStore, source: Path) -> None:
    """In the copy it would lead to what is not the copy."""
    (source / "main.py").symlink_to(source / "app.py")
    with pytest.raises(StartFailed, match=r"main.py is a link that leads out of the source"):
        await prepare(store, source)


async def test_links_that_go_round_in_a_circle_or_lead_nowhere_are_copied(store: VersionStore, source: Path) -> None:
    (source / "one").symlink_to("two")
    (source / "two").symlink_to("one")
    (source / "later").symlink_to("not-yet-built")
    files = await prepare(store, source)
    assert (files / "one").readlink() == Path("two")
    assert (files / "later").readlink() == Path("not-yet-built")


async def test_the_home_in_the_source_is_not_copied(source: Path) -> None:
    store = VersionStore(source / ".segue" / "versions", run_command)
    first = await prepare(store, source)
    second = await prepare(store, source, V2)
    assert listed(first) == listed(second) == {"app.py", "lib/deep/module.py"}
    assert await store.digest(source, {}) == await store.digest(first, {})


async def test_without_a_source_the_folder_itself_is_used(store: VersionStore, source: Path) -> None:
    assert await prepare(store, None, folder=source, build="echo >> built") == source
    assert await prepare(store, None, folder=source, build="echo >> built") == source
    assert (source / "built").read_text() == "\n"


async def test_a_version_that_is_complete_is_left_as_it_is(store: VersionStore, source: Path) -> None:
    files = await prepare(store, source, build="echo >> built")
    write(source, "app.py", "changed")
    write(files, "made-by-the-application", "")
    assert await prepare(store, source, build="echo >> built") == files
    assert (files / "made-by-the-application").exists()
    assert (files / "app.py").read_text() == "print('hello')\n"
    assert (files / "built").read_text() == "\n"


# Crashes


async def test_a_copy_that_was_cut_short_is_made_anew(
    store: VersionStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("segue.engine.versions.give", killed)  # after the last file, before the rename
        with pytest.raises(SystemExit):
            await prepare(store, source)
    left = store._folder / "shop" / V1
    assert (left / "copying" / "app.py").exists()
    write(left, "copying/half-a-file", "")
    assert listed(await prepare(store, source)) == {"app.py", "lib/deep/module.py"}
    assert not (left / "copying").exists()


CRASH = """
import asyncio, os, sys
from pathlib import Path
from segue.engine import tree, versions
from segue.platforms.hooks import run_command
source, folder, number = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
original, count = tree.copy, 0
def copy(*args):
    global count
    count += 1
    if count == number:
        os._exit(9)
    original(*args)
tree.copy = copy
store = versions.VersionStore(folder, run_command)
asyncio.run(store.prepare("shop", "v1.1", folder=source, source=source, environment={}))
"""


@pytest.mark.parametrize("number", [1, 3])
async def test_a_control_plane_that_is_killed_while_it_copies_leaves_nothing_in_the_way(
    store: VersionStore, source: Path, number: int
) -> None:
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CRASH, str(source), str(store._folder), str(number)
    )
    assert await killed.wait() == 9
    assert (store._folder / "shop" / V1 / "copying").exists()
    assert listed(await prepare(store, source)) == {"app.py", "lib/deep/module.py"}


async def test_a_build_that_runs_on_after_a_crash_is_waited_for(store: VersionStore, source: Path) -> None:
    build = "echo began >> said; while ! test -e go-on; do sleep 0.05; done; echo built > result"
    waiting = asyncio.ensure_future(prepare(store, source, build=build))
    files = store._folder / "shop" / V1 / "files"
    await until(lambda: (files / "said").exists())
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    (files / "go-on").touch()
    after = VersionStore(store._folder, run_command)
    assert await prepare(after, source, build=build) == files
    assert (files / "said").read_text() == "began\n"
    assert (files / "result").read_text() == "built\n"


async def test_a_build_whose_end_nobody_knows_is_done_again_in_a_new_copy(store: VersionStore, source: Path) -> None:
    await prepare(store, source)
    own = store._folder / "shop" / V1
    (own / "complete").unlink()
    write(own, "files/half", "")
    write(own, "build.began", "another-boot 1 1 1.0")  # it began, and the machine went down
    files = await prepare(store, source, build="test ! -e half && echo > built")
    assert listed(files) == {"app.py", "lib/deep/module.py", "built"}


# The build


async def test_the_build_runs_in_the_copy_with_the_versions_environment(store: VersionStore, source: Path) -> None:
    told: list[str] = []
    files = await prepare(
        store,
        source,
        build="echo $GREETING > built; pwd >> built",
        environment={"GREETING": "hi"},
        on_progress=told.append,
    )
    assert (files / "built").read_text() == f"hi\n{files}\n"
    assert not (source / "built").exists()
    assert told == ["copying 2 files", "building: echo $GREETING > built; pwd >> built"]


async def test_a_build_that_fails_shows_the_end_of_what_it_said_and_can_be_tried_again(
    store: VersionStore, source: Path
) -> None:
    with pytest.raises(StartFailed) as failure:
        await prepare(store, source, build="seq 100; echo broken >&2; exit 3")
    assert failure.value.message == ("the build of shop v1.1 ended with status 3: seq 100; echo broken >&2; exit 3")
    assert failure.value.log == (*map(str, range(82, 101)), "broken")
    own = store._folder / "shop" / V1
    assert not (own / "files").exists()
    assert (own / "build.log").read_text().endswith("broken\n")
    assert (await prepare(store, source, build="echo > built") / "built").exists()


async def test_a_build_that_takes_too_long_is_ended(tmp_path: Path, source: Path) -> None:
    store = VersionStore(tmp_path / "versions", run_command, build_timeout=timedelta(milliseconds=300))
    with pytest.raises(StartFailed, match=r"the build of shop v1.1 took too long: sleep 600"):
        await prepare(store, source, build="sleep 600")


# What versions share


async def test_versions_share_a_folder_that_the_first_one_fills(store: VersionStore, source: Path) -> None:
    write(source, ".gitignore", "uploads/\n")
    write(source, "var/uploads/first.png", "1")
    one = await prepare(store, source, shared=["var/uploads/", "cache"])
    write(source, "var/uploads/late.png", "2")
    two = await prepare(store, source, V2, shared=["var/uploads", "./cache"])
    write(two, "var/uploads/second.png", "2")
    write(one, "cache/x", "")
    assert listed(one / "var" / "uploads") == {"first.png", "second.png"}
    assert (two / "cache" / "x").exists()
    assert (one / "var" / "uploads").is_symlink()
    await store.delete("shop", V1)
    assert listed(two / "var" / "uploads") == {"first.png", "second.png"}


@pytest.mark.parametrize("name", ["../elsewhere", "/var/uploads", ".", "a/../.."])
async def test_a_shared_folder_outside_the_source_is_refused(store: VersionStore, source: Path, name: str) -> None:
    with pytest.raises(Usage, match="a shared folder lies in the source"):
        await prepare(store, source, shared=[name])


# Secrets, users, the disk


async def test_the_environment_is_ours_alone_and_goes_with_the_version(store: VersionStore, source: Path) -> None:
    await prepare(store, source)
    store.save_environment("shop", V1, {"PASSWORD": "hunter2"})
    store.save_environment("shop", V1, {"PASSWORD": "hunter3", "ÄÖ": "a\nb"})
    assert store.environment("shop", V1) == {"PASSWORD": "hunter3", "ÄÖ": "a\nb"}
    own = store._folder / "shop" / V1
    [kept] = [file for file in own.rglob("*") if file.is_file() and "hunter" in file.read_text()]
    assert kept.stat().st_mode & 0o777 == 0o600
    for folder in (own, own.parent, store._folder):
        assert folder.stat().st_mode & 0o777 == 0o700
    await store.delete("shop", V1)
    assert not own.exists()
    with pytest.raises(StartFailed, match=r"the environment of shop v1.1: .*no such file"):
        store.environment("shop", V1)
    await store.delete("shop", V1)


async def test_an_environment_that_was_kept_first_survives_the_preparation(store: VersionStore, source: Path) -> None:
    store.save_environment("shop", V1, {"A": "1"})
    await prepare(store, source, build="true")
    assert store.environment("shop", V1) == {"A": "1"}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="segue-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@as_root
async def test_another_user_owns_its_copy_and_what_is_shared_but_not_the_secrets(
    open_folder: Path, source: Path
) -> None:
    home = open_folder / "home"
    home.mkdir(mode=0o700)
    store = VersionStore(home / "versions", run_command)
    store.save_environment("shop", V1, {"PASSWORD": "hunter2"})
    (source / "link").symlink_to("app.py")
    build = "id -un > who; cat app.py link lib/deep/module.py > read; echo > var/up/x; test ! -r ../environment"
    files = await prepare(store, source, user="nobody", shared=["var/up"], build=build)
    nobody = pwd.getpwnam("nobody")
    everything = [files, *files.rglob("*"), (files / "var/up").resolve(), (files / "var/up/x").resolve()]
    assert {(file.lstat().st_uid, file.lstat().st_gid) for file in everything} == {(nobody.pw_uid, nobody.pw_gid)}
    assert (files / "who").read_text() == "nobody\n"
    assert files.stat().st_mode & 0o777 == 0o700
    assert {folder.stat().st_mode & 0o777 for folder in (home, store._folder, files.parent)} == {0o711}
    assert (files.parent / "environment").stat().st_mode & 0o777 == 0o600
    assert (files.parent / "environment").stat().st_uid == 0


@as_root
async def test_a_home_that_the_user_cannot_reach_is_named(open_folder: Path, source: Path) -> None:
    (open_folder / "closed").mkdir(mode=0o700)
    store = VersionStore(open_folder / "closed" / "home" / "versions", run_command)
    with pytest.raises(StartFailed, match=r"nobody may not enter .*/closed, above its files") as failure:
        await prepare(store, source, user="nobody")
    assert failure.value.next == f"chmod o+x {open_folder}/closed"
    assert (open_folder / "closed").stat().st_mode & 0o777 == 0o700


async def test_a_full_disk_is_named_and_gets_its_room_back(
    store: VersionStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(original: Path, entry: tree.Entry, target: Path) -> None:
        (target / "half").write_text("x")
        raise OSError(28, "No space left on device", str(target / "half"))

    monkeypatch.setattr(tree, "copy", full)
    with pytest.raises(StartFailed, match=r"shop v1.1: .*half: no space left on device"):
        await prepare(store, source)
    assert not list(store._folder.rglob("half"))


async def test_a_name_leads_nowhere_else(store: VersionStore, source: Path, tmp_path: Path) -> None:
    for service, revision in (("..", "../../x.1"), ("a/b", "feature/x.1"), (".", "..")):
        files = await store.prepare(service, Revision(revision), folder=source, source=source, environment={})
        assert files.resolve().is_relative_to(store._folder)
        assert len(files.relative_to(store._folder).parts) == 3
    assert not (tmp_path / "x.1").exists()
