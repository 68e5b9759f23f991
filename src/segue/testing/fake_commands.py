"""Hooks, smoke tests, health commands and builds, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from segue.core.version import Version
from segue.engine.clock import Clock
from segue.ports import Ended
from segue.testing.calls import Began, Ran, Record
from segue.testing.fake_platform import FakePlatform


@dataclass(frozen=True, slots=True)
class Script:
    """What a command does: it writes `output` and ends with `status` after `seconds`."""

    status: int = 0
    output: str = ""
    seconds: float = 0.0


class FakeCommands:
    """How commands are run, in memory: as they were ordered, else as `a_version` means its own, else well."""

    def __init__(self, clock: Clock, record: Record, platform: FakePlatform) -> None:
        self._clock, self._record, self._platform = clock, record, platform
        self._orders: dict[str, Script] = {}
        self._begun: dict[Path, tuple[float, Script]] = {}

    def order(self, command: str, script: Script) -> None:
        """What `command` does from now on."""
        self._orders[command] = script

    async def __call__(
        self,
        command: str,
        *,
        folder: Path,
        environment: Mapping[str, str],
        user: str | None,
        timeout: timedelta,
        log: Path,
        status: Path | None = None,
    ) -> Ended:
        """Run `command`; with `status` it is begun once, and another call waits for the same end."""
        async with self._record.during(Ran(command)):
            began, script = self._begin(command, status)
            left = min(script.seconds, timeout.total_seconds()) - (self._clock.monotonic() - began)
            await self._clock.sleep(max(0.0, left))
            if script.output:
                with log.open("a", encoding="utf-8") as file:
                    file.write(script.output + "\n")
            timed_out = script.seconds > timeout.total_seconds()
            return Ended(None if timed_out else script.status, timed_out)

    async def run(self, version: Version, command: str, seconds: float) -> tuple[int, str]:
        """The same as the engine's checks ask for it: exit status and output."""
        async with self._record.during(Ran(command)):
            _, script = self._begin(command, None)
            return script.status, script.output

    def _begin(self, command: str, once: Path | None) -> tuple[float, Script]:
        if once is not None and once in self._begun:
            return self._begun[once]
        self._record.happened(Began(command))
        begun = self._clock.monotonic(), self._orders.get(command) or self._of_version(command)
        if once is not None:
            self._begun[once] = begun
        return begun

    def _of_version(self, command: str) -> Script:
        """What ``health {url}`` and ``smoke {url}`` of `a_version` find."""
        word, _, url = command.partition(" ")
        address = url.removeprefix("http://")
        if word == "health" and not self._platform.healthy(address):
            return Script(1, "not healthy")
        if word == "smoke" and (problem := self._platform.smoke(address)):
            return Script(1, problem)
        return Script()
