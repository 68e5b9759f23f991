"""What a folder holds: how the application in it is built and started, guessed from the files of its kind.

A guess runs nothing and never fails: a file that cannot be understood is passed over. LOOKS is asked in order.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segue.manifest.commands import program
from segue.manifest.values import Wrong

_PORT = re.compile(r"\$\{PORT(?::-?\d+)?\}|\$PORT\b")
_SHELL = re.compile(r"[$&|;<>()`*?~]|^\s*\w+=")
_DEPENDENCIES = ("requirements.txt", "pyproject.toml", "Pipfile", "setup.py", "setup.cfg")
_SERVERS = ("gunicorn", "uvicorn", "hypercorn", "daphne", "waitress-serve", "flask", "python", "python3")
_APPLICATION = re.compile(r"^(\w+)(?:\s*:\s*\w+)?\s*=\s*(?:\w+\.)?(FastAPI|Starlette|Flask|Quart)\(", re.MULTILINE)
_SETTINGS = re.compile(r"""DJANGO_SETTINGS_MODULE["']\s*,\s*["'](\w+)\.""")
_HEALTH = re.compile(r"""["'`](/(?:healthz|health|readyz|livez|up))/?["'`]""")
_SOURCES = ("*.py", "*.js", "*.mjs", "*.ts", "*.go", "*.rb", "*.rs")
_REPLACE = "replace it: this is a guess"


@dataclass(frozen=True, slots=True)
class Project:
    """How an application is started: `seen` says what that was guessed from, `hint` what to look at."""

    seen: str
    command: str
    hint: str = "starts one instance; {port} is its own port, also in $PORT"
    build: str | None = None
    health: str | None = None


def look(folder: Path) -> Project:
    """The application in `folder`; where nothing is known, a placeholder that serves its files."""
    guesses = (found for one in LOOKS if (found := one(folder)))
    project = next((found for found in guesses if _runs(found.command)), _PLACEHOLDER)
    return project if project.health else replace(project, health=_health(folder))


_PLACEHOLDER = Project(
    seen="Nothing here says how the application starts",
    command="python3 -m http.server {port} --bind 127.0.0.1",
    hint="REPLACE this: it only serves the folder's files; {port} is the instance's own port, also in $PORT",
)


def _text(path: Path) -> str:
    try:
        text = path.read_bytes()[:200_000].decode("utf-8", "replace")
    except OSError:
        return ""
    return _printable(text, besides="\n\t")


def _printable(text: str, besides: str = "") -> str:
    return "".join(character for character in text if character.isprintable() or character in besides)


def _argv(command: str) -> str:
    """A line for a shell as a command without one: `$PORT` becomes {port}; what still needs a shell is given one."""
    command = _PORT.sub("{port}", " ".join(_printable(command).split())).replace("0.0.0.0:{port}", "127.0.0.1:{port}")
    return command if _runs(command) and not _SHELL.search(command) else f"sh -c {shlex.quote(command)}"


def _runs(command: str) -> bool:
    """Whether a manifest may name this command."""
    try:
        return bool(program(command))
    except Wrong:
        return False


def _listens(command: str) -> str:
    if "{port}" in command:
        return "starts one instance; {port} is its own port, also in $PORT"
    return "starts one instance; it must listen on the port in $PORT, or take {port} here"


def _procfile(folder: Path) -> Project | None:
    line = re.search(r"^web:[ \t]*(\S.*)$", _text(folder / "Procfile"), re.MULTILINE)
    if line is None:
        return None
    build = _python_build(folder) or _node_build(folder, _package(folder))
    command = _in_venv(_argv(line[1]), build)
    return Project("The `web` line of Procfile", command, _listens(command), build)


def _package(folder: Path) -> dict[str, Any]:
    try:
        package = json.loads(_text(folder / "package.json") or "{}")
    except (ValueError, RecursionError):
        return {}
    return package if isinstance(package, dict) else {}


def _node(folder: Path) -> Project | None:
    package = _package(folder)
    scripts = package.get("scripts")
    start = scripts.get("start") if isinstance(scripts, dict) else None
    if not isinstance(start, str) or not start.strip():
        return None
    command = _argv(start) if start.startswith("node ") else "npm start"
    return Project("`scripts.start` in package.json", command, _listens(command), _node_build(folder, package))


def _node_build(folder: Path, package: dict[str, Any]) -> str | None:
    if not package:
        return None
    scripts = package.get("scripts")
    steps = []
    if package.get("dependencies") or package.get("devDependencies"):
        locks = {"package-lock.json": "npm ci", "pnpm-lock.yaml": "pnpm install --frozen-lockfile"}
        locks["yarn.lock"] = "yarn install --frozen-lockfile"
        steps.append(next((how for lock, how in locks.items() if (folder / lock).exists()), "npm install"))
    if isinstance(scripts, dict) and "build" in scripts:
        steps.append("npm run build")
    return _steps(steps)


def _steps(steps: list[str]) -> str | None:
    return f"sh -c {shlex.quote(' && '.join(steps))}" if len(steps) > 1 else next(iter(steps), None)


def _python_build(folder: Path) -> str | None:
    """What puts the application's dependencies into `.venv` of its folder."""
    if (folder / "uv.lock").exists():
        return "uv sync --frozen"
    make = "python3 -m venv .venv"
    if (folder / "requirements.txt").exists():
        return _steps([make, ".venv/bin/pip install -r requirements.txt"])
    if "[project]" in _text(folder / "pyproject.toml"):
        return _steps([make, ".venv/bin/pip install ."])
    return None


def _in_venv(command: str, build: str | None) -> str:
    """`command` with a Python program taken from `.venv`, where `build` puts it."""
    program = command.split()[0]
    makes = build is not None and (".venv" in build or build.startswith("uv "))
    return f".venv/bin/{command}" if makes and program in _SERVERS else command


def _django(folder: Path) -> Project | None:
    text = _text(folder / "manage.py")
    if not text:
        return None
    name = (_SETTINGS.search(text) or [None, "project"])[1]
    needs, build = _needs(folder), _python_build(folder)
    command, hint = (
        "python3 manage.py runserver --noreload 127.0.0.1:{port}",
        f"Django's server for development; {_REPLACE}",
    )
    if "gunicorn" in needs:
        command, hint = f"gunicorn -b 127.0.0.1:{{port}} {name}.wsgi", ""
    elif "uvicorn" in needs:
        command, hint = f"uvicorn --host 127.0.0.1 --port {{port}} {name}.asgi:application", ""
    return Project("manage.py (Django)", _in_venv(command, build), hint or _listens(command), build)


def _needs(folder: Path) -> str:
    return "\n".join(_text(folder / name) for name in _DEPENDENCIES).lower()


def _python(folder: Path) -> Project | None:
    needs = _needs(folder)
    wanted = [word for word in ("fastapi", "starlette", "quart", "flask", "uvicorn", "gunicorn") if word in needs]
    if not wanted:
        return None
    module, found = _application(folder)
    build = _python_build(folder)
    if {"fastapi", "starlette", "quart"} & set(wanted) or ("gunicorn" not in wanted and "flask" not in wanted):
        command = f"uvicorn --host 127.0.0.1 --port {{port}} {module}"
    elif "gunicorn" in wanted:
        command = f"gunicorn -b 127.0.0.1:{{port}} {module}"
    else:
        command = f"flask --app {module} run --host 127.0.0.1 --port {{port}}"
    hint = _listens(command) if found else f"`{module}` stands for module:application; {_REPLACE}"
    return Project(f"The dependency {wanted[0]}", _in_venv(command, build), hint, build)


def _application(folder: Path) -> tuple[str, bool]:
    """``module:name`` of the first application object, and whether one was found."""
    for path in sorted([*folder.glob("*.py"), *folder.glob("*/*.py"), *folder.glob("src/*/*.py")])[:200]:
        match = _APPLICATION.search(_text(path))
        parts = path.relative_to(folder).with_suffix("").parts
        if match and all(part.isidentifier() for part in parts):
            return f"{'.'.join(parts)}:{match[1]}", True
    return "app:app", False


def _go(folder: Path) -> Project | None:
    if not (folder / "go.mod").is_file():
        return None
    mains = [path.parent.name for path in sorted(folder.glob("cmd/*/main.go"))]
    package = "." if (folder / "main.go").exists() or len(mains) != 1 else f"./cmd/{mains[0]}"
    return Project("go.mod", "bin/app", _listens(""), f"go build -o bin/app {package}")


def _rust(folder: Path) -> Project | None:
    try:
        cargo = tomllib.loads(_text(folder / "Cargo.toml"))
    except tomllib.TOMLDecodeError:
        return None
    package = cargo.get("package")
    name = package.get("name") if isinstance(package, dict) else None
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        return None
    return Project("Cargo.toml", f"target/release/{name}", _listens(""), "cargo build --release --locked")


def _java(folder: Path) -> Project | None:
    gradle = _text(folder / "build.gradle") + _text(folder / "build.gradle.kts")
    maven = _text(folder / "pom.xml")
    if not gradle and not maven:
        return None
    if maven:
        seen, jars = "pom.xml", "target/*.jar"
        build = f"{'./mvnw' if (folder / 'mvnw').exists() else 'mvn'} -q -DskipTests package"
    else:
        seen, jars = "build.gradle", "build/libs/*.jar"
        build = f"{'./gradlew' if (folder / 'gradlew').exists() else 'gradle'} -q bootJar"
    health = "/actuator/health" if "spring-boot-starter-actuator" in maven + gradle else None
    if "spring-boot" in (maven + gradle).replace("springframework.boot", "spring-boot"):
        command = f"sh -c 'exec java -jar {jars} --server.address=127.0.0.1 --server.port={{port}}'"
        return Project(f"{seen} (Spring Boot)", command, _listens(command), build, health)
    return Project(seen, f"sh -c 'exec java -jar {jars}'", _listens(""), build.replace("bootJar", "build -x test"))


def _dockerfile(folder: Path) -> Project | None:
    lines = re.sub(r"\\\n", " ", _text(folder / "Dockerfile"))
    words = []
    for keyword in ("ENTRYPOINT", "CMD"):
        said = re.findall(rf"^[ \t]*{keyword}[ \t]+(\S.*)$", lines, re.MULTILINE | re.IGNORECASE)
        words += [_docker_words(said[-1])] if said else []
    command = _argv(" ".join(words)) if words else ""
    if not command:
        return None
    hint = f"containers come later, so the image's command must run here as well; {_listens(command)}"
    return Project("Dockerfile", command, hint)


def _docker_words(said: str) -> str:
    try:
        listed = json.loads(said)
    except (ValueError, RecursionError):
        return said
    if not isinstance(listed, list):
        return said
    return shlex.join(_PORT.sub("{port}", str(word)) for word in listed).replace("'{port}'", "{port}")


def _health(folder: Path) -> str | None:
    """A path in the sources that looks like a health check's."""
    for pattern in _SOURCES:
        for path in sorted([*folder.glob(pattern), *folder.glob(f"*/{pattern}")])[:100]:
            match = _HEALTH.search(_text(path)) if "node_modules" not in path.parts else None
            if match:
                return match[1]
    return None


LOOKS: tuple[Callable[[Path], Project | None], ...] = (
    _procfile,
    _node,
    _django,
    _python,
    _go,
    _rust,
    _java,
    _dockerfile,
)
