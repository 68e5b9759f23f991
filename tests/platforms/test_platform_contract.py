"""The process platform, and the fake, keep the contract of the platform port."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Coroutine, Iterator
from math import inf
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from segue.core.release import Revision
from segue.core.version import Version
from segue.platforms.process import ProcessPlatform
from segue.testing.clock import VirtualClock
from segue.testing.contracts.platform import Does, PlatformContract, Stand
from segue.testing.fakes import Behaviour, World, a_version

from .apps import ends_what_is_left

T = TypeVar("T")

SERVER = """\
import os, signal, socket, sys
if sys.argv[1] == "IGNORE":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
for line in ("one", "two", "three"):
    print(line, flush=True)
if sys.argv[1] == "END":
    sys.exit(3)
listener = socket.socket()
if sys.argv[1] != "HIDE":
    listener.bind(("127.0.0.1", int(os.environ["PORT"])))
    listener.listen()
signal.pause() if sys.argv[1] != "IGNORE" else [signal.pause() for _ in range(1000)]
"""


class Processes(Stand):
    """Real processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._platform = self.restarted()
        (folder / "server.py").write_text(SERVER)

    @property
    def platform(self) -> ProcessPlatform:
        return self._platform

    def version(self, does: Does) -> Version:
        command = f"{shlex.quote(sys.executable)} -I -S server.py {does.name}"
        return Version(
            service="shop",
            revision=Revision("v1.1"),
            digest="",
            folder=self._folder,
            command="./there-is-no-such-command" if does is Does.NOTHING else command,
        )

    def restarted(self) -> ProcessPlatform:
        return ProcessPlatform(self._folder / "platform")

    def run(self, story: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(story)


class Fakes(Stand):
    """The platform in memory."""

    BEHAVIOURS: ClassVar = {
        Does.SERVE: Behaviour(log=("one", "two", "three")),
        Does.IGNORE: Behaviour(ends=inf),
        Does.END: Behaviour(exits=0.1, status=3),
        Does.HIDE: Behaviour(ready=inf),
        Does.NOTHING: Behaviour(fails="no such command"),
    }

    def __init__(self) -> None:
        self._clock = VirtualClock()
        self._world = World(self._clock)

    @property
    def platform(self) -> Any:
        return self._world.platform

    def version(self, does: Does) -> Version:
        self._world.platform.order("v1.1", self.BEHAVIOURS[does])
        return a_version(revision="v1.1")

    def restarted(self) -> Any:
        return self._world.platform

    def run(self, story: Coroutine[Any, Any, T]) -> T:
        return self._clock.run(story)


class TestProcesses(PlatformContract):
    @pytest.fixture
    def stand(self, tmp_path: Path) -> Iterator[Stand]:
        with ends_what_is_left(tmp_path / "platform"):
            yield Processes(tmp_path)


class TestFakes(PlatformContract):
    @pytest.fixture
    def stand(self) -> Stand:
        return Fakes()
