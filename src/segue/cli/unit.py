"""The systemd unit that keeps a control plane running: its text, where it lies, what systemd does with it.

Run as ``python -m segue.cli.unit`` it is what the unit does after each end of its control plane: as the guardian
does, it looks whether Envoy has died as well, since users come first.

Rule 1: only the control plane ends with the unit. Envoy and the instances are in its cgroup, and go on.
Rule 2: the unit is no sandbox, for every instance would be in it. Least of all has it mounts of its own: what
outlives a restart of the unit would see other files than the control plane that finds it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segue.errors import Unreachable
from segue.guardian import keep_traffic

NAME = "segue.service"
BOOTED = Path("/run/systemd/system")
"""It is there where systemd runs the machine."""
MACHINE = Path("/etc/systemd/system")

_WRITTEN = "# Written by `segue install`, which writes it anew. What is to stay: `systemctl edit segue`."
_HOME = re.compile(r'^Environment="SEGUE_HOME=(.*)"$', re.MULTILINE)
_RESTING = ("inactive", "failed")

_TEXT = """\
{written}
[Unit]
Description=Segue, the control plane of {home}
{machine}\
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart="{python}" -P -m segue.cli.main serve
ExecStopPost=-"{python}" -P -m segue.cli.unit
{environment}\
{user}\
# Only the control plane ends with the unit: Envoy and the instances go on, and the next one finds them.
KillMode=process
TimeoutStopSec=20s
# 0: it was told to end. 2, 3: starting it again does not help, another one has this home.
Restart=always
RestartSec=500ms
RestartPreventExitStatus=0 2 3
# All instances are in this unit: one that takes too much memory is not the end of the others, nor is their number.
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=65536:524288

[Install]
WantedBy={target}.target
"""
_MACHINE = """\
Wants=network-online.target
After=network-online.target
RequiresMountsFor="{home}" "{python}"
"""
_USER = """\
User={user}
# Ports below 1024, without root.
AmbientCapabilities=CAP_NET_BIND_SERVICE
"""


def compose(home: str, *, of_user: bool, user: str | None, environment: Mapping[str, str]) -> str:
    """The unit's text. `user`: whom the control plane is to be, if not who installs it; `environment`: for it."""
    python = _escaped(sys.executable)
    settings = {"SEGUE_HOME": home, **environment}
    return _TEXT.format(
        written=_WRITTEN,
        home=home.replace("%", "%%"),
        machine="" if of_user else _MACHINE.format(home=_escaped(home), python=python),
        python=python,
        environment="".join(f'Environment="{_escaped(f"{name}={value}")}"\n' for name, value in settings.items()),
        user=_USER.format(user=user) if user else "",
        target="default" if of_user else "multi-user",
    )


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit that lies in `folder`: of the machine's systemd, or of a user's own."""

    folder: Path
    of_user: bool

    @property
    def path(self) -> Path:
        """The unit's file."""
        return self.folder / NAME

    @property
    def systemctl(self) -> str:
        """How a person speaks to this systemd."""
        return "systemctl --user" if self.of_user else "systemctl"

    @property
    def journal(self) -> str:
        """The command that shows what the control plane has said."""
        return f"journalctl{' --user' if self.of_user else ''} -u segue"

    def text(self) -> str | None:
        """What the file says; None: there is none that we may read."""
        try:
            return self.path.read_text()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None

    def is_ours(self) -> bool:
        """Whether the file is one that `segue install` has written."""
        return (self.text() or "").startswith(_WRITTEN)

    def home(self) -> str | None:
        """The home that it is for; None where that is not known."""
        found = _HOME.search(self.text() or "")
        return _plain(found[1]) if found else None

    def keeps(self, home: str) -> bool:
        """Whether it is for `home`."""
        its = self.home()
        return its is not None and os.path.realpath(its) == os.path.realpath(home)

    def write(self, text: str) -> None:
        """Put `text` into the file, whole or not at all, for everybody to read."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".new")
        draft.write_text(text)
        draft.chmod(0o644)
        draft.replace(self.path)

    def ask(self, *words: str) -> str:
        """What systemd answers. Raises Unreachable where it refuses, or is not there."""
        done = self._run(*words)
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[0]
            raise Unreachable(f"`{self.systemctl} {' '.join(words)}` failed: {said}", next=self.journal)
        return done.stdout.strip()

    def rests(self) -> bool:
        """Whether its control plane does not run, and will not by itself."""
        return self._run("is-active", NAME).stdout.strip() in _RESTING

    def main_pid(self) -> int:
        """The process of its control plane; 0: there is none."""
        return int(self.ask("show", "--property=MainPID", "--value", NAME))

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {"XDG_RUNTIME_DIR": f"/run/user/{os.geteuid()}", **os.environ}
        command = ["systemctl", "--no-ask-password", *(["--user"] if self.of_user else []), *words]
        try:
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise Unreachable("There is no systemctl on this machine.", next="segue serve") from None


def own() -> Unit:
    """The unit that this user installs. Root's is the machine's."""
    if os.geteuid() == 0:
        return Unit(MACHINE, of_user=False)
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Unit(Path(config) / "systemd" / "user", of_user=True)


def is_booted() -> bool:
    """Whether systemd runs this machine."""
    return BOOTED.exists()


def keeper(home: str) -> Unit | None:
    """The unit that keeps the control plane of `home`, the machine's or this user's own; None: there is none."""
    if not is_booted():
        return None
    return next((unit for unit in (Unit(MACHINE, of_user=False), own()) if unit.keeps(home)), None)


def _escaped(text: str) -> str:
    """`text` as it stands between quotation marks in a unit."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def _plain(text: str) -> str:
    """What was `_escaped`."""
    return re.sub(r"\\(.)|%%", lambda found: found[1] or "%", text)


def main() -> int:
    """After the control plane's end: if that was no wish of anybody, start an Envoy that has died with it."""
    os.umask(0o077)
    if os.environ.get("SERVICE_RESULT") != "success":
        keep_traffic(Path(os.environ["SEGUE_HOME"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
