"""Right manifests: what they say, what the rest of Segue is given, and that they survive being sent."""

from __future__ import annotations

import json
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from segue.core import release, traffic, version
from segue.errors import Usage
from segue.judge import settings
from segue.manifest import amounts, commands, values
from segue.manifest.load import Loaded, ManifestError, load, parse, receive
from segue.manifest.schema import Health, Manifest, Route, Stop, WarmUp
from segue.platforms import process as platform

BASE = "service: shop\nrun: {process: {command: ./serve}}\n"
REFERENCE = Path(values.__file__).with_name("reference.yaml")


def process(text: str) -> Loaded:
    return parse(f"service: shop\nrun:\n  process:\n    command: ./serve\n    {text}\n")


def test_only_service_and_run_are_required() -> None:
    manifest = parse(BASE).manifest
    assert (manifest.service, manifest.replicas, manifest.retain, manifest.smoke) == ("shop", 1, 3, ())
    assert manifest.hooks.timeout == timedelta(minutes=10)
    left_out = manifest.run.process.model_dump(exclude={"command"})
    assert left_out == {"source": None, "shared": (), "build": None, "env": {}, "env_file": None, "user": None}


@pytest.mark.parametrize(
    "command",
    [
        "./serve --port={port} {socket} {version} {service} {instance}",
        """sh -c 'exec ./serve $PORT "$HOST" | tee -a log 2>&1; A=1'""",
        'bash -ec "$START"',
        """./serve --json '{"port": 1}' --log '{time} {message}' --also={host}""",
        """sh -c 'x | awk "{print}"' {{prot}} a${prot} %{prot} {} {PROT} {a,b} '%({server}o)s'""",
        "./serve '|' '$HOME' --port=$PORT --server.port=${PORT} \\; a>b A=1 foo>=1 $1",
        "env A=1 ./serve",
    ],
)
def test_what_may_be_the_programs_own_stands_in_a_command(command: str) -> None:
    document = parse(BASE).manifest.document()
    document["run"]["process"]["command"] = command
    assert receive(document, as_root=False).run.process.command == command


@pytest.mark.parametrize(
    "command",
    [
        "curl -f {url}/healthz",
        """curl -s {url} | jq -e '{name}' && awk "{print}" log""",
        """curl -w '%{http}' "$HOST:${port}" {a,b} {} \\{escaped\\} {{twice}} ({grouped})""",
        """python3 -c 'print(f"{user}")' {url}""",
    ],
)
def test_what_may_be_the_shells_own_stands_in_a_line_for_one(command: str) -> None:
    document = parse(BASE).manifest.document()
    document["smoke"] = [{"command": command}]
    assert receive(document, as_root=False).smoke[0].command == command


def test_the_placeholders_of_a_command_are_those_that_the_platform_fills_in() -> None:
    assert platform._PLACEHOLDER.pattern == rf"\{{({'|'.join(commands.PLACEHOLDERS)})\}}"


def test_the_defaults_are_those_of_the_core() -> None:
    assert Route().core(Path()) == traffic.Route()
    assert Health().core() == version.Health()
    assert Stop().core() == version.Stop()
    manifest = parse(BASE).manifest
    assert manifest.rollout() == release.Rolling()
    assert parse(BASE + "replicas: 2").manifest.rollout("in_place") == release.InPlace()
    assert manifest.rollout("blue_green") == release.BlueGreen()
    assert manifest.rollout("canary") == release.Canary()
    assert WarmUp().core() == version.WarmUp()
    assert manifest.judge.core() == settings.Settings()


def test_every_setting_reaches_the_core() -> None:
    manifest = parse(
        BASE
        + """
route:
  {listen: "[::1]:80", hosts: [A.example, "*.b.example"], path: /shop, timeout: 1.5s, shield: false,
   tls: {cert: c.pem, key: /k.pem, redirect: 0.0.0.0:81}, protocol: http2, idle: 6m, max_body: 10m, access_log: 1%}
health:
  {path: "/up?full=1", expect: 204, every: 100ms, timeout: 1s, healthy: 4, unhealthy: 5, min_ready: 6s, deadline: 7m}
smoke:
  - http: {path: /, expect: 200, contains: shop}
  - command: ./smoke.sh {url}
warm_up: {requests: 7, paths: [/a, "/b?c=d"]}
stop: {signal: SIGQUIT, drain: 1h, spread: 2m, grace: 3s}
judge:
  false_alarm: 0.5%
  alarm: {ratio: 2, errors: 1%, latency: 150%}
  promote: {doubt: 1/3, first: {ratio: 4}, then: {errors: 0%, latency: 0%}}
"""
    ).manifest
    assert manifest.route.protocol == "http2"
    assert manifest.route.core(Path("/there")) == traffic.Route(
        "[::1]:80",
        ("a.example", "*.b.example"),
        "/shop",
        timedelta(seconds=1.5),
        shield=False,
        tls=traffic.Tls("/there/c.pem", "/k.pem", "0.0.0.0:81"),
        idle=timedelta(minutes=6),
        max_body=10 * 1024 * 1024,
        access_log=Fraction(1, 100),
    )
    assert manifest.health.core() == version.Health(
        path="/up?full=1",
        expect=(204, 204),
        every=timedelta(milliseconds=100),
        timeout=timedelta(seconds=1),
        healthy=4,
        unhealthy=5,
        min_ready=timedelta(seconds=6),
        deadline=timedelta(minutes=7),
    )
    assert parse(BASE + "health: {command: ./ok.sh}").manifest.health.core() == version.Health(command="./ok.sh")
    smoke = (version.SmokeHttp("/", (200, 200), "shop"), version.SmokeCommand("./smoke.sh {url}"))
    assert tuple(test.core() for test in manifest.smoke) == smoke
    assert manifest.warm_up is not None
    assert manifest.warm_up.core() == version.WarmUp(7, ("/a", "/b?c=d"))
    assert manifest.judge.core() == settings.Settings(
        false_alarm=0.005,
        alarm=settings.Margin(2.0, 0.01, 1.5),
        doubt=1 / 3,
        first=settings.Margin(4.0, 0.02, 0.5),
        then=settings.Margin(1.5, 0.0, 0.0),
    )
    assert manifest.stop.core() == version.Stop(
        "QUIT", timedelta(hours=1), timedelta(minutes=2), timedelta(seconds=3)
    )


@pytest.mark.leaf("strategy.use")
@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        ("rolling", release.Rolling()),
        ("blue_green", release.BlueGreen()),
        ("{blue_green: {judge: 1s, keep: 2s}}", release.BlueGreen(timedelta(seconds=1), timedelta(seconds=2))),
        (
            "{in_place: {batch: 2, first_judge: 1s, judge: 2s}}",
            release.InPlace(2, timedelta(seconds=1), timedelta(seconds=2)),
        ),
        ("{use: blue_green, rolling: {batch: 2}}", release.BlueGreen()),
        ("{use: rolling, rolling: {batch: 2, surge: 3}, blue_green: {}}", release.Rolling(2, 3)),
        ("{use: blue_green}", release.BlueGreen()),
        (
            "{blue_green: {preview: '[::]:81', approve: manual}}",
            release.BlueGreen(preview="[::]:81", approve="manual"),
        ),
        ("canary", release.Canary()),
        ("{canary: {judge: 2h}}", release.Canary(most=timedelta(hours=2))),
        (
            "{canary: {judge: {least: 0s, most: 1s}, holdback: 0%}}",
            release.Canary(least=timedelta(0), most=timedelta(seconds=1), holdback=Fraction(0)),
        ),
        (
            "{canary: {steps: [0.5%, 1/3, 100%], approve: manual, sticky: header:X-User, capacity: full, keep: 1h}}",
            release.Canary(
                steps=(Fraction(1, 200), Fraction(1, 3), Fraction(1)),
                approve="manual",
                sticky="header:X-User",
                capacity="full",
                keep=timedelta(hours=1),
            ),
        ),
        (
            "{experiment: {goal: {path: /thanks}}}",
            release.Experiment(
                goal=release.Goal(path="/thanks"),
                share=Fraction(1, 2),
                sticky="cookie",
                most=timedelta(days=14),
                keep=timedelta(minutes=10),
            ),
        ),
        (
            "{experiment: {share: 1/3, sticky: header:X-User, who: {header: X-Country, in: [KR, JP]}, most: 2h,"
            " goal: {path: /order, status: 201, header: X-Order}, keep: 0s}}",
            release.Experiment(
                goal=release.Goal("/order", (201, 201), "X-Order"),
                share=Fraction(1, 3),
                sticky="header:X-User",
                who=release.Who("X-Country", ("KR", "JP")),
                most=timedelta(hours=2),
                keep=timedelta(0),
            ),
        ),
    ],
)
def test_a_strategy_is_a_name_or_a_mapping_with_options(text: str, strategy: release.Strategy) -> None:
    assert parse(f"{BASE}replicas: 3\nstrategy: {text}").manifest.rollout() == strategy


def test_another_strategy_for_once_has_the_options_that_the_manifest_gives_it() -> None:
    manifest = parse(BASE + "strategy: {use: rolling, rolling: {batch: 2}, blue_green: {keep: 1h}}").manifest
    assert manifest.rollout("blue_green") == release.BlueGreen(keep=timedelta(hours=1))
    assert parse(BASE).manifest.rollout("blue_green") == release.BlueGreen()


def test_a_strategy_that_cannot_be_used_is_refused_with_the_reason() -> None:
    manifest = parse(BASE).manifest
    with pytest.raises(
        Usage, match="unknown strategy `green`; expected one of rolling, in_place, blue_green, canary"
    ):
        manifest.rollout("green")
    with pytest.raises(Usage, match="an experiment needs a goal; expected `strategy: "):
        manifest.rollout("experiment")
    with pytest.raises(Usage, match="in_place takes 1 of 1 instances out"):
        manifest.rollout("in_place")


@pytest.mark.parametrize(
    "text",
    [
        BASE,
        REFERENCE.read_text("utf-8"),
        BASE + "strategy: {blue_green: {keep: 1.5ms}}",
        BASE + "strategy: {canary: {judge: 10s, steps: [1/3, 33.333334%, 2/3, 100%]}}\nhooks: {after: ./contract.sh}",
        BASE + "judge: {alarm: {ratio: 1, latency: 7/3}, low_traffic: hold}\nevidence: [{logs: {match: '^E'}}]",
    ],
)
def test_a_manifest_survives_the_way_to_the_control_plane(text: str) -> None:
    manifest = parse(text).manifest
    sent = json.loads(json.dumps(manifest.model_dump(mode="json"), sort_keys=True))
    assert Manifest.model_validate(sent) == manifest
    assert receive(sent, as_root=False) == manifest


def test_what_is_sent_holds_no_value_of_the_environment() -> None:
    manifest = process("env: {TOKEN: s3cret, KEY: !env SHOP_KEY}").manifest
    env = manifest.document()["run"]["process"]["env"]
    assert env == {"TOKEN": {"from_env": "TOKEN"}, "KEY": {"from_env": "KEY"}}
    dumped = manifest.model_dump(mode="json")["run"]["process"]["env"]
    assert dumped == {"TOKEN": "s3cret", "KEY": {"from_env": "SHOP_KEY"}}
    assert "s3cret" not in repr(manifest)


def test_the_redacted_text_holds_no_value_of_the_environment_and_still_loads() -> None:
    loaded = parse(
        'service: shop\nrun:\n  process:\n    command: x  # runs\n    env:\n      A: "s3cret"\n      B: |\n'
        "        s3cret\n        s3cret\n      C: !env TOKEN\n      D: {from_env: NAME}\nreplicas: 2\n"
    )
    assert "s3cret" not in loaded.redacted() and "# runs" in loaded.redacted()
    again = parse(loaded.redacted())
    assert again.manifest.document() == loaded.manifest.document()


def test_values_of_the_environment_are_kept_as_they_are_written() -> None:
    env = process(
        "env: {A: 1.0, B: 007, C: True, D: yes, E: 0x1F, F: 2001-01-01, G: '', H: a b, I: .inf}"
    ).environment({})
    assert env == {
        "A": "1.0",
        "B": "007",
        "C": "True",
        "D": "yes",
        "E": "0x1F",
        "F": "2001-01-01",
        "G": "",
        "H": "a b",
        "I": ".inf",
    }


def test_env_takes_a_value_from_where_the_deploy_was_called() -> None:
    loaded = process("env: {URL: !env DATABASE_URL, FIXED: a}")
    assert loaded.environment({"DATABASE_URL": "db://x", "OTHER": "y"}) == {"URL": "db://x", "FIXED": "a"}
    with pytest.raises(ManifestError, match="is not set in the environment of this command") as refused:
        loaded.environment({})
    assert (refused.value.line, refused.value.column, refused.value.key) == (5, 16, "run.process.env.URL")


def test_the_manifest_itself_never_looks_at_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "s3cret")
    assert "s3cret" not in str(process("env: {URL: !env DATABASE_URL}").manifest.model_dump(mode="json"))


def write(folder: Path, env_file: str, env: str = "{}") -> Loaded:
    (folder / "vars").write_text(env_file, "utf-8")
    text = f"service: shop\nrun:\n  process:\n    command: x\n    env_file: vars\n    env: {env}\n"
    (folder / "segue.yaml").write_text(text, "utf-8")
    return load(folder / "segue.yaml", as_root=False)


def test_an_environment_file_has_quotes_comments_and_exports(tmp_path: Path) -> None:
    env_file = r"""
# a comment
A=1
export B = two words   # a comment
C="a # b\n\"c\" \$D"
D='as $it \n is'   # a comment
E=
F=a#b
G="" # a comment
"""
    found = write(tmp_path, env_file).environment({})
    assert found == {
        "A": "1",
        "B": "two words",
        "C": 'a # b\n"c" $D',
        "D": r"as $it \n is",
        "E": "",
        "F": "a#b",
        "G": "",
    }


@pytest.mark.leaf("run.process.env_file")
def test_what_env_sets_wins_over_the_file(tmp_path: Path) -> None:
    assert write(tmp_path, "A=file\nB=file\n", "{A: manifest}").environment({}) == {"A": "manifest", "B": "file"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("NONSENSE", "no `=`"),
        ("A B=1", "no `=`"),
        ("1A=s3cret", "not a variable's"),
        ('A="s3cret', "do not close"),
        ("A='s3cret' x", "do not close"),
    ],
)
def test_a_wrong_line_of_an_environment_file_is_named_without_its_value(
    tmp_path: Path, line: str, problem: str
) -> None:
    with pytest.raises(ManifestError, match=problem) as refused:
        write(tmp_path, f"OK=1\n{line}\n").environment({})
    assert (refused.value.file, refused.value.line) == (str(tmp_path / "vars"), 2)
    assert refused.value.key == "run.process.env_file" and "s3cret" not in str(refused.value)


def test_an_environment_file_that_is_missing_is_an_error_at_its_place(tmp_path: Path) -> None:
    loaded = write(tmp_path, "")
    (tmp_path / "vars").unlink()
    with pytest.raises(ManifestError, match="`vars` cannot be read: no such file") as refused:
        loaded.environment({})
    assert (refused.value.line, refused.value.column) == (5, 15)


def test_a_source_that_is_no_folder_is_an_error_at_its_place(tmp_path: Path) -> None:
    (tmp_path / "segue.yaml").write_text("service: shop\nrun:\n  process:\n    command: x\n    source: app\n")
    loaded = load(tmp_path / "segue.yaml", as_root=False)
    with pytest.raises(ManifestError, match="`app` is not there") as refused:
        loaded.copied()
    assert (refused.value.line, refused.value.column, refused.value.key) == (5, 13, "run.process.source")
    (tmp_path / "app").write_text("")
    with pytest.raises(ManifestError, match="`app` is not a folder"):
        loaded.copied()
    (tmp_path / "app").unlink()
    (tmp_path / "app").mkdir()
    assert loaded.copied() == tmp_path / "app" and process("").copied() is None


def test_an_environment_file_that_is_not_text_is_an_error_at_its_place(tmp_path: Path) -> None:
    loaded = write(tmp_path, "")
    (tmp_path / "vars").write_bytes(b"A=\xff\n")
    with pytest.raises(ManifestError, match="`vars` is not text in UTF-8") as refused:
        loaded.environment({})
    assert refused.value.line == 5


def test_anchors_and_merge_keys_are_what_they_are_in_yaml() -> None:
    manifest = parse(
        BASE + "strategy:\n  use: rolling\n  rolling: &slow {batch: 2, judge: 1m}\n"
        "  in_place: {<<: *slow, batch: 3}\nreplicas: &n 7\nretain: *n\n"
    ).manifest
    assert manifest.rollout("in_place") == release.InPlace(3, judge=timedelta(minutes=1))
    assert manifest.retain == 7


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "segue.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (BASE + "replicas: 0\n").replace("\n", "\r\n").encode())
    with pytest.raises(ManifestError) as refused:
        load(path, as_root=False)
    assert (refused.value.line, refused.value.column, refused.value.key) == (3, 11, "replicas")


def test_paths_are_relative_to_the_folder_of_the_manifest(tmp_path: Path) -> None:
    assert write(tmp_path, "").folder == tmp_path


@pytest.mark.parametrize(
    "text", ["0s", "1ms", "500ms", "30s", "90s", "10m", "25h", "14d", "1.5ms", "0.001ms", "400ms"]
)
def test_a_duration_is_written_as_it_is_read(text: str) -> None:
    assert values.duration_text(values.duration(text)) == text


@pytest.mark.parametrize(
    ("text", "same"), [("1.5s", "1500ms"), ("60s", "1m"), ("0.5h", "30m"), ("24h", "1d"), ("0m", "0s")]
)
def test_a_duration_is_written_in_the_largest_unit_that_leaves_no_fraction(text: str, same: str) -> None:
    assert values.duration_text(values.duration(text)) == same


def test_a_short_time_to_judge_a_canary_is_the_least_as_well() -> None:
    canary = parse(BASE + "strategy: {canary: {judge: 10s}}").manifest.rollout()
    assert canary == release.Canary(least=timedelta(seconds=10), most=timedelta(seconds=10))


def test_the_after_hook_goes_with_a_strategy_that_keeps_the_old_version_for_a_minute() -> None:
    after = BASE + "replicas: 2\nhooks: {after: ./contract.sh}\n"
    manifest = parse(after + "strategy: {use: canary, rolling: {keep: 1m}, blue_green: {keep: 59s}}").manifest
    assert manifest.rollout() == release.Canary()
    assert manifest.rollout("rolling") == release.Rolling(keep=timedelta(minutes=1))
    with pytest.raises(
        Usage, match=r"`hooks\.after`.* blue_green keeps the old version for 59s only; expected `keep`"
    ):
        manifest.rollout("blue_green")
    with pytest.raises(Usage, match="expected a strategy that keeps the old version") as refused:
        manifest.rollout("in_place")
    assert refused.value.next == "segue deploy"


@pytest.mark.parametrize("preview", ["127.0.0.2:8080", "127.0.0.1:8081", "0.0.0.0:8081", "shop.example:81"])
def test_a_preview_may_be_anywhere_but_where_users_connect(preview: str) -> None:
    how = parse(f"{BASE}strategy: {{blue_green: {{preview: '{preview}'}}}}").manifest.rollout()
    assert how == release.BlueGreen(preview=preview)


@pytest.mark.parametrize("text", ["0%", "0.02%", "0.5%", "10%", "33.333333%", "100%", "1/3", "1/7", "99999/100000"])
def test_a_share_is_exact_and_written_as_a_percentage_where_that_is_exact(text: str) -> None:
    exact = Fraction(text.removesuffix("%")) / (100 if "%" in text else 1)
    assert amounts.part(text) == exact
    written = amounts.part_text(exact)
    assert amounts.part(written) == exact
    assert written == ("99.999%" if text.startswith("999") else text)


@pytest.mark.parametrize(("text", "same"), [("10.0%", "10%"), ("1/4", "25%"), ("2/6", "1/3"), ("10 %", "10%")])
def test_a_share_has_one_way_to_be_written(text: str, same: str) -> None:
    assert amounts.part_text(amounts.part(text)) == same


@pytest.mark.parametrize(
    ("text", "service"),
    [
        ("service: shop\n", "shop"),
        ("# x\nreplicas: 1\nservice: 'shop-2'   # the shop\nrun: {}\n", "shop-2"),
        ('service: "shop"', "shop"),
        ("run:\n  service: shop\n", None),
        ("{service: shop}", None),
        ("service: Shop\n", None),
        ("service: shop two\n", None),
        ("", None),
    ],
)
def test_the_service_is_found_without_a_parser_where_it_stands_plainly(text: str, service: str | None) -> None:
    assert values.service_in(text) == service


def test_the_schema_can_be_shown_as_json_schema() -> None:
    schema = Manifest.model_json_schema()
    assert schema["required"] == ["service", "run"]
    assert schema["$defs"]["Health"]["properties"]["healthy"]["type"] == "integer"
