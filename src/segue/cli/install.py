"""`segue install`: let systemd keep the control plane, from the start of the machine on.

As root it is a unit of the machine; with ``--user`` its control plane is that user, and may open low ports all the
same. As any other user it is a unit of the user's own systemd.

Rule: what can be wrong is looked for before anything is written. What is done twice is done once.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from segue.accounts import Account, blocked
from segue.cli.client import Absent, Broken
from segue.cli.context import Context
from segue.cli.unit import NAME, Unit, compose, is_booted, own
from segue.errors import Refused, SegueError, Unreachable, Usage
from segue.platforms.identity import alive, identify

_WITHIN = 30.0
"""Seconds until the control plane answers, and until the one before it has ended."""
_POLL = 0.05
_LINGERING = Path("/var/lib/systemd/linger")


def install(context: Context, user: str | None = None, only_print: bool = False, uninstall: bool = False) -> int:
    """Write the unit, start it, and hand the services over to it; returns when its control plane answers."""
    if uninstall and (user or only_print):
        raise Usage("--uninstall goes with neither --user nor --print.", next="segue install --uninstall")
    unit = own()
    if uninstall:
        return _uninstall(context, unit)
    account = _account(user)
    name = account.name if account else None
    text = compose(context.home, of_user=unit.of_user, user=name, environment=_environment())
    if only_print:
        return _tell(context, text.rstrip("\n"), unit=str(unit.path), text=text)
    _refuse(context, unit, account)
    with _home(Path(context.home), account):
        _try_out(context.home, account)
    changed = _write(unit, text)
    before = _hand_over(context, unit, changed)
    return _installed(context, unit, name, _answers(context, unit), changed, before)


def _account(user: str | None) -> Account | None:
    """Whom the control plane is to be, where that is not who asks."""
    if user is None:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise Usage(f"There is no user {user} on this machine.", next=f"useradd --system {user}") from None
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise Usage(f"Only root can install it for {user}.", next=f"sudo segue install --user {user}")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))


def _environment() -> dict[str, str]:
    """What the control plane needs of this shell's environment."""
    envoy = os.environ.get("SEGUE_ENVOY")
    return {"SEGUE_ENVOY": str(Path(envoy).absolute())} if envoy else {}


# What can be wrong


def _refuse(context: Context, unit: Unit, account: Account | None) -> None:
    """Raise what keeps the unit from being installed."""
    _need_systemd(unit)
    if unit.text() is not None and not unit.is_ours():
        what = f"{unit.path} is there, and `segue install` did not write it."
        raise Refused(what, next=f"{unit.systemctl} disable --now segue; mv {unit.path} {unit.path}.old")
    if unit.text() is not None and not unit.keeps(context.home):
        what = f"{NAME} is the control plane of {unit.home()}; there is one unit, and this is {context.home}."
        raise Refused(what, next="segue install --uninstall")
    nearest = next(folder for folder in (unit.folder, *unit.folder.parents) if folder.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise Usage(f"Nothing can be written in {unit.folder}.", next="segue install --print")
    _refuse_strange_home(Path(context.home), account)


def _need_systemd(unit: Unit) -> None:
    if not is_booted():
        what = (
            "systemd does not run this machine: nothing was changed. Let its own service manager run `segue serve`."
        )
        raise Unreachable(what, next="segue serve")
    try:
        unit.ask("show", "--property=Version")
    except Unreachable as error:
        if not unit.of_user:
            raise
        user = pwd.getpwuid(os.geteuid()).pw_name
        what = f"{user} has no systemd of its own now ({error.message}): nothing was changed."
        raise Unreachable(what, next=f"sudo loginctl enable-linger {user}") from error


def _refuse_strange_home(home: Path, account: Account | None) -> None:
    """Raise Refused if somebody else has kept services in `home`: what runs there is that user's."""
    owner = account.uid if account else os.geteuid()
    try:
        theirs = home.stat().st_uid
        if theirs == owner or not any(home.iterdir()):
            return
    except FileNotFoundError:
        return
    try:
        whose = pwd.getpwuid(theirs).pw_name
    except KeyError:
        whose = str(theirs)
    what = f"{home} is {whose}'s, and so is what runs in it."
    if account is None:
        raise Refused(what, next=f"{'sudo ' if os.geteuid() else ''}segue install --user {whose}")
    raise Refused(what, next=f"segue shutdown --all; chown -R {account.name}: {home}")


@contextmanager
def _home(home: Path, account: Account | None) -> Iterator[None]:
    """`home`, made if need be, for its user alone. It goes again if what follows cannot be done."""
    there = home.exists()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if account:
        os.chown(home, account.uid, account.gid)
    try:
        yield
    except BaseException:
        if not there:
            with suppress(OSError):
                home.rmdir()
        raise


def _try_out(home: str, account: Account | None) -> None:
    """Raise Unreachable unless Segue can work as the unit will start it: as that user, with nothing of this shell."""
    command = [sys.executable, "-P", "-m", "segue.cli.main", "doctor", "--json"]
    whom: dict[str, Any] = {}
    if account:
        groups = os.getgrouplist(account.name, account.gid)
        whom = {"user": account.uid, "group": account.gid, "extra_groups": groups}
    clean = {"SEGUE_HOME": home, "PATH": os.defpath, "HOME": str(account.home) if account else "/"}
    try:
        done = subprocess.run(
            command, cwd="/", env={**clean, **_environment()}, capture_output=True, text=True, check=False, **whom
        )
        checks = json.loads(done.stdout)["checks"]
    except PermissionError as error:
        raise _closed(account) from error
    except ValueError:
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise Unreachable(f"{sys.executable} cannot run Segue as a service: {said}", next="segue doctor") from None
    for check in checks:
        if not check["good"]:
            raise Unreachable(f"It would not work: {check['what']}: {check['detail']}", next=check["do"] or None)


def _closed(account: Account | None) -> SegueError:
    """That this Segue is installed where the account may not look."""
    assert account is not None, "who runs a program may run it"
    ways = (Path(sys.executable).parent, Path(sys.executable).resolve().parent)
    closed = next((step for way in ways if (step := blocked(account, way))), sys.executable)
    what = f"{account.name} cannot run this Segue ({sys.executable}): {closed} is closed to it."
    return Unreachable(
        f"{what} Install it where everybody may read, as in /opt/segue.", next="python3 -m venv /opt/segue"
    )


# Doing it


def _write(unit: Unit, text: str) -> bool:
    """Let systemd know the unit, and start it with the machine; returns whether anything is new."""
    changed = unit.text() != text
    if changed:
        unit.write(text)
        unit.ask("daemon-reload")
    unit.ask("enable", NAME)
    return changed


def _hand_over(context: Context, unit: Unit, changed: bool) -> int | None:
    """Start the unit. Returns the control plane that ended for it, if another one ran."""
    before = _answering(context)
    if before in (None, unit.main_pid()):
        unit.ask("restart" if changed else "start", NAME)
        return None
    assert before is not None
    old = identify(before)
    with suppress(Broken):
        context.client.ask("POST", "/v1/shutdown", {"all": False})
    _until(lambda: old is None or not alive(old), f"The control plane that runs (pid {before}) does not end.", unit)
    unit.ask("restart", NAME)
    return before


def _answers(context: Context, unit: Unit) -> int:
    """The unit's control plane, when it answers."""

    def answers() -> bool:
        if unit.rests():
            raise Unreachable("The unit is installed, but its control plane does not stay up.", next=unit.journal)
        return _answering(context) == unit.main_pid()

    _until(answers, "The unit is installed, but its control plane does not answer.", unit)
    return unit.main_pid()


def _answering(context: Context) -> int | None:
    """The control plane that answers now."""
    try:
        return int(context.client.ask("GET", "/healthz", timeout=5)["pid"])
    except (Absent, Broken):
        return None


def _until(condition: Callable[[], bool], otherwise: str, unit: Unit) -> None:
    deadline = time.monotonic() + _WITHIN
    while not condition():
        if time.monotonic() > deadline:
            raise Unreachable(otherwise, next=unit.journal)
        time.sleep(_POLL)


def _uninstall(context: Context, unit: Unit) -> int:
    """Stop the unit and remove it; what it kept goes on."""
    if unit.text() is None:
        return _tell(context, f"{NAME} is not installed.", unit=str(unit.path), removed=False)
    if not unit.is_ours():
        raise Refused(f"`segue install` did not write {unit.path}.", next=f"{unit.systemctl} disable --now segue")
    _need_systemd(unit)
    unit.ask("disable", "--now", NAME)
    unit.path.unlink()
    unit.ask("daemon-reload")
    sentence = f"{unit.path} is removed. The services go on; the next command that needs a control plane starts one."
    return _tell(context, sentence, unit=str(unit.path), removed=True)


# Saying it


def _installed(context: Context, unit: Unit, user: str | None, pid: int, changed: bool, before: int | None) -> int:
    who = pwd.getpwuid(os.geteuid()).pw_name
    lingers = (_LINGERING / who).exists() if unit.of_user else None
    what = f"{unit.path} {'is written' if changed else 'was written before'}"
    sentences = [
        f"{what}: systemd keeps the control plane of {context.home}{f' as {user}' if user else ''} (pid {pid}).",
        *([f"The one that ran (pid {before}) has ended for it; the services went on."] if before else []),
    ]
    if lingers is False:
        sentences.append(
            f"It runs while {who} is logged in. From the machine's start on: sudo loginctl enable-linger {who}"
        )
    return _tell(
        context,
        "\n".join(sentences),
        unit=str(unit.path),
        home=context.home,
        user=user,
        pid=pid,
        changed=changed,
        before=before,
        lingers=lingers,
    )


def _tell(context: Context, sentence: str, **document: Any) -> int:
    if context.json:
        context.print(document)
    else:
        print(sentence)
    return 0
