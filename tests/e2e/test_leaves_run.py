"""Settings of the manifest about what runs, with real processes: changing one changes what runs.

All services of this file live in one home.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from homes import Service, a_home

from segue.testing import app
from segue.testing.site import Segue, as_user


@pytest.fixture(scope="module")
def home() -> Iterator[Segue]:
    with a_home() as segue:
        yield segue


def files(service: Service) -> dict[str, Any]:
    """`run.process`: the files in the folder that an instance runs in are what users get."""
    serve = f"{sys.executable} -I -m http.server {{port}} --bind 127.0.0.1"
    service.folder.chmod(0o755)
    return {"command": serve, **as_user()}


def get(service: Service, path: str = "") -> str:
    """What a user gets."""
    answer = httpx.get(service.url + path, timeout=20)
    return answer.text.strip() if answer.status_code == 200 else str(answer.status_code)


def pid(service: Service) -> int:
    """The process of the only instance of the version that serves; the one before may still be leaving."""
    found = service.status()
    (instance,) = found["versions"][found["stable"]]["instances"]
    return int(instance["pid"])


@pytest.mark.leaf("run.process.command", "run.process.env")
def test_the_command_is_run_with_the_environment_that_is_given(home: Segue) -> None:
    service = Service(home, "command")
    serve = f"{sys.executable} -I -S {app.__file__}"
    service.write(process={"command": f"{serve} {{port}}"}, env={"APP_VERSION": "by-environment"})
    service.deploy("v1")
    assert get(service) == "hello from by-environment"
    service.write(process={"command": f"{serve} {{port}}"}, env={"APP_VERSION": "by-another"})
    service.deploy("v2")
    assert get(service) == "hello from by-another"
    service.write(process={"command": f"{serve} {{port}} {{service}}-{{version}}-{{instance}}"})
    service.deploy("v3")
    assert get(service) == "hello from command-v3-command-v3.1-1"
    assert psutil.Process(pid(service)).environ().keys() == {"PATH", "HOME", "LANG", "PORT"}


@pytest.mark.leaf("run.process.source")
@pytest.mark.parametrize("source", [True, False])
def test_with_source_a_version_keeps_its_files_while_those_in_the_folder_change(source: bool, home: Segue) -> None:
    service = Service(home, f"source-{source}".lower())
    file = service.folder / "page"
    file.write_text("first")
    process = files(service)
    if source:
        process["source"] = "."
    service.write(process=process, health={"path": "/page"})
    service.deploy("v1")
    file.write_text("second")
    assert get(service, "page") == ("first" if source else "second")
    service.deploy("v2")
    assert get(service, "page") == "second"


@pytest.mark.leaf("run.process.shared")
def test_a_shared_folder_is_that_of_all_versions_and_another_is_each_versions_own(home: Segue) -> None:
    service = Service(home, "shared")
    for name in ("uploads", "cache"):
        (service.folder / name).mkdir()
        (service.folder / name / "page").write_text("as it came")
    service.write(process={**files(service), "source": ".", "shared": ["uploads"]}, health={"path": "/uploads/page"})
    service.deploy("v1")
    folder = Path(psutil.Process(pid(service)).cwd())
    for name in ("uploads", "cache"):
        (folder / name / "page").write_text("written by v1")
    service.deploy("v2")
    assert Path(psutil.Process(pid(service)).cwd()) != folder
    assert get(service, "uploads/page") == "written by v1"
    assert get(service, "cache/page") == "as it came"


@pytest.mark.leaf("run.process.build")
def test_a_build_is_run_once_in_the_versions_copy_before_anything_is_started(home: Segue) -> None:
    service = Service(home, "build")
    process = {**files(service), "source": "."}
    service.write(process=process, health={"path": "/segue.yaml"})
    service.deploy("v1")
    assert get(service, "built") == "404"
    service.write(process={**process, "build": "echo built >> built"}, replicas=2, health={"path": "/built"})
    service.deploy("v2")
    assert get(service, "built") == "built"
    assert not (service.folder / "built").exists()


@pytest.mark.leaf("run.process.user")
def test_an_instance_is_the_user_that_is_named(home: Segue) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may run instances as another user")
    service = Service(home, "user")
    command = f"/usr/bin/env python3 -I -S {app.__file__} {{port}}"
    for version, user in (("v1", "nobody"), ("v2", "root")):
        service.write(process={"command": command, "user": user, "source": "."})
        home.home.parent.chmod(0o711)
        service.deploy(version)
        assert psutil.Process(pid(service)).username() == user
