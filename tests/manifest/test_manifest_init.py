"""What `segue init` writes for each kind of project: it loads, and starts what is there."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.manifest.init import scalar, suggest
from segue.manifest.load import load, parse
from segue.manifest.schema import Manifest

FLASK = "from flask import Flask\napp = Flask(__name__)\n"
SPRING = "<project><parent><groupId>org.springframework.boot</groupId></parent>{}</project>"
ACTUATOR = "<dependency><artifactId>spring-boot-starter-actuator</artifactId></dependency>"
VENV = "sh -c 'python3 -m venv .venv && .venv/bin/pip install "


@dataclass(frozen=True)
class Kind:
    """The files of a project, and what its manifest is to say."""

    name: str
    files: dict[str, str]
    command: str
    build: str | None = None
    health: str | None = None
    seen: str = ""


KINDS = [
    Kind("nothing", {}, "python3 -m http.server {port} --bind 127.0.0.1", seen="REPLACE this"),
    Kind(
        "procfile",
        {"Procfile": "release: x\nweb: bin/serve -p ${PORT:-80}\n"},
        "bin/serve -p {port}",
        seen="Procfile",
    ),
    Kind(
        "procfile-python",
        {"Procfile": "web: gunicorn app:app -b 0.0.0.0:$PORT", "requirements.txt": "gunicorn"},
        ".venv/bin/gunicorn app:app -b 127.0.0.1:{port}",
        VENV + "-r requirements.txt'",
    ),
    Kind("procfile-shell", {"Procfile": "web: cd x && A=1 ./run $PORT"}, "sh -c 'cd x && A=1 ./run {port}'"),
    Kind("procfile-hash", {"Procfile": "web: ./run 'a: b' #c"}, "./run 'a: b' #c"),
    Kind("node", {"package.json": '{"scripts": {"start": "node server.js"}}'}, "node server.js", seen="$PORT"),
    Kind(
        "node-npm",
        {
            "package.json": '{"scripts": {"start": "next", "build": "next build"}, "dependencies": {"next": "1"}}',
            "package-lock.json": "{}",
            "server.js": "app.get('/health', ok)",
        },
        "npm start",
        "sh -c 'npm ci && npm run build'",
        "/health",
    ),
    Kind(
        "node-pnpm",
        {"package.json": '{"scripts": {"start": "x"}, "dependencies": {"a": "1"}}', "pnpm-lock.yaml": ""},
        "npm start",
        "pnpm install --frozen-lockfile",
    ),
    Kind("node-broken", {"package.json": "{"}, "python3 -m http.server {port} --bind 127.0.0.1"),
    Kind(
        "django",
        {
            "manage.py": 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")',
            "requirements.txt": "gunicorn",
        },
        ".venv/bin/gunicorn -b 127.0.0.1:{port} mysite.wsgi",
        VENV + "-r requirements.txt'",
        seen="Django",
    ),
    Kind(
        "django-bare", {"manage.py": "#"}, "python3 manage.py runserver --noreload 127.0.0.1:{port}", seen="a guess"
    ),
    Kind(
        "flask",
        {"requirements.txt": "Flask\ngunicorn\n", "wsgi.py": FLASK + "@app.get('/healthz')\n"},
        ".venv/bin/gunicorn -b 127.0.0.1:{port} wsgi:app",
        VENV + "-r requirements.txt'",
        "/healthz",
    ),
    Kind(
        "flask-alone",
        {"requirements.txt": "flask", "a.py": FLASK},
        ".venv/bin/flask --app a:app run --host 127.0.0.1 --port {port}",
        VENV + "-r requirements.txt'",
    ),
    Kind(
        "fastapi",
        {
            "pyproject.toml": '[project]\nname = "api"\ndependencies = ["fastapi", "uvicorn"]\n',
            "uv.lock": "",
            "api/main.py": "api: FastAPI = FastAPI(title='x')\n",
        },
        ".venv/bin/uvicorn --host 127.0.0.1 --port {port} api.main:api",
        "uv sync --frozen",
    ),
    Kind(
        "pyproject",
        {"pyproject.toml": '[project]\ndependencies = ["uvicorn"]\n'},
        ".venv/bin/uvicorn --host 127.0.0.1 --port {port} app:app",
        VENV + ".'",
        seen="a guess",
    ),
    Kind(
        "go",
        {"go.mod": "module x", "main.go": 'http.HandleFunc("/livez", ok)'},
        "bin/app",
        "go build -o bin/app .",
        "/livez",
    ),
    Kind("go-cmd", {"go.mod": "module x", "cmd/shop/main.go": ""}, "bin/app", "go build -o bin/app ./cmd/shop"),
    Kind(
        "rust",
        {"Cargo.toml": '[package]\nname = "shop-api"\n'},
        "target/release/shop-api",
        "cargo build --release --locked",
    ),
    Kind(
        "maven",
        {"pom.xml": SPRING.format(ACTUATOR), "mvnw": ""},
        "sh -c 'exec java -jar target/*.jar --server.address=127.0.0.1 --server.port={port}'",
        "./mvnw -q -DskipTests package",
        "/actuator/health",
        "Spring Boot",
    ),
    Kind(
        "gradle",
        {"build.gradle.kts": 'plugins { id("org.springframework.boot") }'},
        "sh -c 'exec java -jar build/libs/*.jar --server.address=127.0.0.1 --server.port={port}'",
        "gradle -q bootJar",
    ),
    Kind(
        "docker",
        {"Dockerfile": 'FROM x\nENTRYPOINT ["./serve"]\nCMD ["old"]\nCMD ["--port", "$PORT", "--name", "a b"]\n'},
        "./serve --port {port} --name 'a b'",
        seen="containers come later",
    ),
    Kind(
        "docker-shell",
        {"Dockerfile": "FROM x\nCMD ./serve \\\n  --port 80\n"},
        "./serve --port 80",
        seen="Dockerfile",
    ),
    Kind("docker-without", {"Dockerfile": "FROM x\n"}, "python3 -m http.server {port} --bind 127.0.0.1"),
]


def project(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return folder


def written(folder: Path) -> tuple[str, Manifest]:
    """What init writes into `folder` as whoever we are, and the manifest that this is."""
    text = suggest(folder, as_root=os.geteuid() == 0)
    (folder / "segue.yaml").write_text(text, "utf-8")
    return text, load(folder / "segue.yaml", as_root=os.geteuid() == 0).manifest


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_manifest_starts_what_is_in_the_folder(tmp_path: Path, kind: Kind) -> None:
    text, manifest = written(project(tmp_path / kind.name, kind.files))
    process = manifest.run.process
    assert (process.command, process.build) == (kind.command, kind.build)
    assert (manifest.service, manifest.health.path, process.source) == (kind.name, kind.health, ".")
    assert kind.seen in text


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_line_is_explained_and_none_is_too_long(tmp_path: Path, kind: Kind) -> None:
    text, _ = written(project(tmp_path / kind.name, kind.files))
    lines = text.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        opens_only = line.rstrip().endswith(":")
        assert not line or opens_only or "#" in line or before.lstrip().startswith("# "), line
        assert len(line) <= 118, line


@pytest.mark.parametrize(("name", "service"), [("My.Shop_2", "my-shop-2"), ("---", "service"), ("ñandú", "and")])
def test_the_service_is_named_after_the_folder(tmp_path: Path, name: str, service: str) -> None:
    assert written(project(tmp_path / name, {}))[1].service == service


def test_as_root_the_owner_of_the_folder_is_named(tmp_path: Path) -> None:
    text = suggest(tmp_path, as_root=True)
    assert parse(text, as_root=True).manifest.run.process.user == pwd.getpwuid(tmp_path.stat().st_uid).pw_name


def test_an_ordinary_user_is_told_what_root_would_have_to_say(tmp_path: Path) -> None:
    text = suggest(tmp_path, as_root=False)
    assert "# user: www-data" in text and parse(text).manifest.run.process.user is None


def test_an_environment_file_that_is_there_is_used(tmp_path: Path) -> None:
    assert parse(suggest(project(tmp_path, {".env": "A=1"}))).manifest.run.process.env_file == ".env"


def test_what_is_commented_out_can_be_taken_in(tmp_path: Path) -> None:
    text = suggest(tmp_path)
    for line in ("# smoke:", "#   - http:", "    # build:", "    # env:", "# health:"):
        assert line in text
        text = text.replace(line, line.replace("# ", "", 1).replace("#  ", " ", 1))
    manifest = parse(text).manifest
    assert manifest.smoke and manifest.health.path == "/healthz" and manifest.run.process.build == "make"
    assert set(manifest.run.process.env) == {"LOG_LEVEL", "DATABASE_URL"}


@given(st.text(min_size=1))
def test_every_text_stands_in_yaml_as_itself(text: str) -> None:
    text = "".join(filter(str.isprintable, text))
    if text.strip():
        assert (
            parse(
                f"service: shop\nrun: {{process: {{command: x}}}}\nhooks:\n  before: {scalar(text)}"
            ).manifest.hooks.before
            == text
        )


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["Procfile", "Dockerfile", "package.json", "Cargo.toml", "pyproject.toml"]),
    st.text(),
    st.binary(),
)
def test_no_file_keeps_init_from_writing_a_manifest_that_loads(
    tmp_path_factory: pytest.TempPathFactory, name: str, text: str, junk: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    starts = {"Procfile": "web: ", "Dockerfile": "CMD ", "package.json": '{"scripts": {"start": "node '}
    (folder / name).write_bytes(starts.get(name, "").encode() + text.encode("utf-8", "replace") + junk)
    written(folder)
