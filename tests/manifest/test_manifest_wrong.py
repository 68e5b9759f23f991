"""Wrong manifests, and what is said about each. `»` stands before the place that is to be blamed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from segue.manifest.load import ManifestError, load, parse, receive

BASE = "service: shop\nrun: {process: {command: ./serve}}\n"
TOP = (
    "one of service, replicas, route, run, health, smoke, warm_up, stop, hooks, strategy, judge, evidence, "
    "approve_within, retain, on_cancel"
)
DURATION = "a duration such as 500ms, 30s, 10m or 24h"
SIGNALS = "one of TERM, INT, HUP, QUIT, USR1, USR2, WINCH, ALRM, ABRT"
NAMES = "one of rolling, in_place, blue_green, canary"
SHARE = "a share such as 10%, 0.5% or 1/3"
LADDER = "a list of shares that grow up to 100%"
CHANCE = "a chance above 0% and below 100%"
COURSE = "continue, hold or rollback"
REGEX = "a regular expression such as 'ERROR|Traceback'"
COUNT = "a whole number from 1 to 10000"
LATER = "is not in this version of Segue yet"


@dataclass(frozen=True)
class Case:
    """A manifest with a marked place; the key blamed, what was expected, what was perhaps meant, the problem."""

    text: str
    key: str
    expected: str | None
    nearest: str | None = None
    problem: str = ""

    @property
    def place(self) -> tuple[int, int]:
        before = self.text[: self.text.index("»")]
        return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def on_base(text: str, key: str, expected: str | None, nearest: str | None = None, problem: str = "") -> Case:
    return Case(BASE + text, key, expected, nearest, problem)


def process(text: str, key: str, expected: str | None, nearest: str | None = None, problem: str = "") -> Case:
    return Case(f"service: shop\nrun:\n  process:\n    {text}\n", f"run.process{key}", expected, nearest, problem)


KEYS = [
    on_base("»helth: {}", "helth", TOP, "health", "unknown key `helth`"),
    on_base("health:\n  »evry: 1s", "health.evry", "one of path, command, expect", "every"),
    on_base("route: {»lisen: 127.0.0.1:80}", "route.lisen", "one of listen, hosts, path", "listen"),
    on_base("strategy: {rolling: {»btach: 1}}", "strategy.rolling.btach", "one of batch, surge", "batch"),
    on_base("»path: /healthz", "path", TOP, "route.path", "it belongs at `route.path` or `health.path`"),
    on_base("»env: {A: 1}", "env", TOP, "run.process.env", "it belongs at `run.process.env`"),
    on_base("»tls: {}", "tls", TOP, "route.tls", "it belongs at `route.tls`"),
    on_base("»proxies: []", "proxies", TOP, "route.proxies", "`route.proxies`, which is not in this version"),
    on_base(
        "smoke:\n  - http: {path: /}\n  - http: {path: /, »contain: x}",
        "smoke[1].http.contain",
        "one of path, ex",
        "contains",
    ),
    on_base("smoke: [{»path: /}]", "smoke[0].path", "one of http, command", "smoke[].http.path", "it belongs at"),
    on_base("»zzzzz: 1", "zzzzz", TOP),
    Case("service: shop\nrun:\n  »command: ./serve\n", "run.command", "`process`", "run.process.command"),
    Case("»servcie: shop\nrun: {process: {command: x}}\n", "servcie", TOP, "service"),
    on_base("replicas: 2\nroute: {path: /}\n»replicas: 3", "replicas", "each key once", None, "first on line 3"),
    on_base("health: {every: 1s, »every: 2s}", "health.every", "each key once"),
    on_base("»? [a, b]\n: 1".replace("»? ", "? »"), "", "text and a colon", None, "a key is not text"),
]

NOT_YET = [
    on_base("route: {»proxies: [a]}", "route.proxies", "one of listen", None, LATER),
    Case("service: shop\nrun: {»container: {image: x}}", "run.container", "`process`", None, LATER),
    Case("service: shop\nrun: {»ssh: {hosts: [a]}}", "run.ssh", "`process`", None, LATER),
    on_base("»notify: []", "notify", TOP, None, LATER),
]

VALUES = [
    Case("service: »Shop\nrun: {process: {command: x}}", "service", "at most 40 small letters", "shop"),
    Case("service: »my_shop\nrun: {process: {command: x}}", "service", "at most 40 small letters", "my-shop"),
    Case("service: »12!\nrun: {process: {command: x}}", "service", "at most 40 small letters", '"12"'),
    Case("service: »12\nrun: {process: {command: x}}", "service", "at most 40 small letters", '"12"'),
    Case(f"service: »{'a' * 41}\nrun: {{process: {{command: x}}}}", "service", "at most 40", "a" * 40),
    on_base("replicas: »0", "replicas", COUNT, "1", "too small"),
    on_base("replicas: »-1", "replicas", COUNT, "1"),
    on_base("replicas: »99999", "replicas", COUNT, "10000", "too large"),
    on_base('replicas: »"3"', "replicas", COUNT, "3", "the text `'3'` is not a whole number"),
    on_base("replicas: »2.5", "replicas", COUNT),
    on_base("replicas: »true", "replicas", COUNT),
    on_base("retain: »-1", "retain", "a whole number from 0 to 10000", "0"),
    on_base("route: {listen: »8080}", "route.listen", "host:port such as 127.0.0.1:8080", "127.0.0.1:8080"),
    on_base("route:\n  listen: »:8080", "route.listen", "host:port", "127.0.0.1:8080", "has no host"),
    on_base("route: {listen: »localhost}", "route.listen", "host:port", "localhost:8080", "has no port"),
    on_base("route: {listen: »127.0.0.1:65536}", "route.listen", "host:port", None, "no port from 1 to 65535"),
    on_base("route: {listen: »127.0.0.1:0}", "route.listen", "host:port"),
    on_base("route: {listen: »127.0.0.300:80}", "route.listen", "host:port", None, "is not a host"),
    on_base('route: {listen: »"::1:8080"}', "route.listen", "host:port", '"[::1]:8080"'),
    on_base("route: {hosts: »shop.example}", "route.hosts", "a list of hosts", "[shop.example]", "not a list"),
    on_base("route: {hosts: »'*'}", "route.hosts", "a list of hosts", '["*"]', "not a list"),
    on_base("route: {hosts: »https://a.b/}", "route.hosts", "a list of hosts", "[a.b]", "not a list"),
    on_base("route: {hosts: »[]}", "route.hosts", "a list of hosts", None, "no host is named"),
    on_base("route: {hosts: [a.b, »https://c.d/]}", "route.hosts[1]", '"*", example.com', "c.d"),
    on_base("route: {path: »shop}", "route.path", "a path that begins with /", "/shop"),
    on_base("route: {path: »/a?b=c}", "route.path", "a path that begins with /", "/a"),
    on_base("route: {path: »/a b}", "route.path", "a path that begins with /"),
    on_base("route: {timeout: »30}", "route.timeout", DURATION, "30s", "has no unit"),
    on_base("route: {shield: »yes}", "route.shield", "true or false", "true"),
    on_base("route: {shield: »'true'}", "route.shield", "true or false", "true", "the text `'true'` is neither"),
    on_base("route: {shield: »Off}", "route.shield", "true or false", "false"),
    on_base("route: {»tls: {cert: a}}", "route.tls.key", "a path"),
    on_base("route: {tls: »a.pem}", "route.tls", "a mapping (cert, key, redirect)"),
    on_base(
        "route: {tls: {cert: a, key: b, redirect: »127.0.0.1:8080}}",
        "route.tls.redirect",
        "another port",
        None,
        "is where users are sent to",
    ),
    on_base("route: {protocol: »h2}", "route.protocol", "http1, http2 or grpc", None, "unknown"),
    on_base("route: {protocol: grpc, max_body: »1m}", "route.max_body", "0", None, "a gRPC stream has no end"),
    on_base("route: {idle: »60}", "route.idle", DURATION, "60s", "has no unit"),
    on_base("route: {max_body: »10MB}", "route.max_body", "a number of bytes such as 0", "10m", "not a size"),
    on_base("route: {max_body: »-1}", "route.max_body", "a number of bytes such as 0", None, "not a size"),
    on_base("route: {max_body: »9999g}", "route.max_body", "a number of bytes such as 0", "1024g", "too large"),
    on_base("route: {access_log: »0.1}", "route.access_log", "off, on, or a share", "10%", "neither off"),
    on_base("route: {access_log: »sampled}", "route.access_log", "off, on, or a share", None, "neither off"),
    on_base("health: {every: »0s}", "health.every", DURATION, None, "longer than 0s"),
    on_base("health: {every: »2 seconds}", "health.every", DURATION, "2s"),
    on_base("health: {every: »-1s}", "health.every", DURATION),
    on_base("health: {every: »0.0001ms}", "health.every", DURATION, None, "finer than a microsecond"),
    on_base("health: {deadline: »999999d}", "health.deadline", DURATION, None, "longer than ten years"),
    on_base("health: {expect: »ok}", "health.expect", "a status such as 200"),
    on_base("health: {expect: »2xx}", "health.expect", "a status such as 200", "200-299"),
    on_base("health: {expect: »201-200}", "health.expect", "a status such as 200", "200-201"),
    on_base("health: {expect: »399-200}", "health.expect", "a status such as 200", "200-399"),
    on_base("health: {expect: »099}", "health.expect", "a status such as 200"),
    on_base("health: {expect: »600}", "health.expect", "a status such as 200"),
    on_base("health: {path: /up, command: »./ok}", "health.command", "one of them", None, "exclude each other"),
    on_base(
        "health: {min_ready: 90s, deadline: »60s}", "health.deadline", "longer than 90500ms", None, "no instance"
    ),
    on_base("»health: {every: 90s}", "health.deadline", "a duration longer than 90s"),
    on_base("stop: {signal: »SIGTREM}", "stop.signal", SIGNALS, "TERM"),
    on_base("stop: {signal: »KILL}", "stop.signal", SIGNALS, None, "not a signal to stop by"),
    on_base("stop: {signal: »15}", "stop.signal", SIGNALS, "TERM"),
    on_base("hooks: {before: »[a, b]}", "hooks.before", "a command", None, "a list is not text"),
    on_base('hooks: {before: »""}', "hooks.before", "a command", None, "empty"),
    on_base(
        "smoke: [{http: {path: /}, command: x}]".replace("[{h", "[»{h"), "smoke[0]", "one of them", None, "not both"
    ),
    on_base("smoke: [»{}]", "smoke[0]", "one of them", None, "not nothing"),
    on_base("smoke: [{»http: {}}]", "smoke[0].http.path", "a path that begins with /", None, "is missing"),
    on_base("strategy: »roling", "strategy", NAMES, "rolling", "unknown strategy"),
    on_base("strategy: »{}", "strategy", NAMES, None, "no strategy"),
    on_base("strategy: »{rolling: {}, blue_green: {}}", "strategy", "`use: rolling`", None, "not said which"),
    on_base("strategy: »in_place", "strategy", "`replicas` above 1", None, "none would serve"),
    on_base("replicas: 3\nstrategy: {in_place: {batch: »3}}", "strategy.in_place.batch", "`replicas` above 3"),
    process("command: »8080", ".command", "a command", '"8080"'),
    process('command: »"echo \'"', ".command", "a command", None, "cannot be split into words"),
    process("command: x\n    build: »make", ".build", "`source: .`", None, "needs `source`"),
    process("command: x\n    shared: »[data]", ".shared", "`source: .`", None, "needs `source`"),
    process("{command: x, source: ., shared: [»../data]}", ".shared[0]", "a folder inside the source"),
    process("{command: x, source: ., shared: [»/tmp]}", ".shared[0]", "a folder", None, "to which it is relative"),
    process("{command: x, user: »0}", ".user", "the name of a user", "root", "the number 0 is not a user's name"),
    process("{command: x, user: »4000000123}", ".user", "the name of a user"),
    process("command: x\n    env: {A: »[1]}", ".env.A", "text, a number", None, "a list cannot stand"),
    process("command: x\n    env: {»A-B: 1}", ".env.A-B", "letters, digits and underscores"),
    process("command: x\n    env: {»PORT: 80}", ".env.PORT", "another name", None, "given by Segue"),
]

SHELL = "`sh -c '…'` around all of it"
PLACES = "one of {port} {socket} {version} {service} {instance}"
COMMANDS = [
    *(
        process(f"command: »'{line}'", ".command", PLACES, nearest, f"`{word}` is unknown")
        for line, word, nearest in (
            ("./serve {prot}", "{prot}", "{port}"),
            ("./serve --listen=127.0.0.1:{prot}", "{prot}", "{port}"),
            ('sh -c "exec ./serve {vesion}"', "{vesion}", "{version}"),
            ("./serve {sockets}", "{sockets}", "{socket}"),
            ("./serve {host}", "{host}", None),
        )
    ),
    *(
        process(f"command: »'{line}'", ".command", SHELL, nearest, f"`{word}` is for a shell, and no shell runs")
        for line, word, nearest in (
            ("./serve | tee log", "|", None),
            ("./migrate && ./serve", "&&", None),
            ("./serve || true", "||", None),
            ("./migrate ; ./serve", ";", None),
            ("./serve > log", ">", None),
            ("./serve >> log", ">>", None),
            ("./serve < input", "<", None),
            ("./serve 2>&1", "2>&1", None),
            ("./serve 2>/dev/null", "2>/dev/null", None),
            ("./serve &", "&", None),
            ("./serve $PORT", "$PORT", "{port}"),
            ('./serve "${HOST}"', '"${HOST}"', None),
            ("sh -c ./serve > log", ">", None),
        )
    ),
    *(
        on_base(
            f"smoke: [{{command: »'{line}'}}]", "smoke[0].command", "one of {url}", "{url}", f"`{word}` is unknown"
        )
        for line, word in (
            ("curl -f {ulr}/", "{ulr}"),
            ('curl -f "{uri}/"', "{uri}"),
        )
    ),
    on_base("health: {command: »'./check {port}'}", "health.command", "one of {url}", None, "`{port}` is unknown"),
    on_base("hooks: {before: »'./migrate {version}'}", "hooks.before", "$NAME", None, "`{version}` is not filled in"),
    process("command: »A=1 ./serve", ".command", "`A` in `run.process.env`, or " + SHELL, None, "`A=…` before the"),
]

CANARY = [
    on_base(f"strategy: {{canary: {text}}}", f"strategy.canary{key}", *rest)
    for text, key, *rest in (
        ("{»step: [100%]}", ".step", "one of steps, judge, holdback", "steps"),
        ("{steps: »10%}", ".steps", LADDER, "[10%, 100%]", "not a list"),
        ("{steps: »[]}", ".steps", LADDER, None, "no step is named"),
        ("{steps: »[10%, 1/3]}", ".steps", LADDER, "[10%, 1/3, 100%]", "would never get everybody"),
        ("{steps: [10%, »10%, 100%]}", ".steps[1]", "a share above 10%", None, "do not grow"),
        ("{steps: [30%, »0.5%, 100%]}", ".steps[1]", "a share above 30%", None, "0.5% comes after 30%"),
        ("{steps: [100%, »100%]}", ".steps[1]", "100% once, as the last step", None, "100% comes after 100%"),
        ("{steps: [»0%, 100%]}", ".steps[0]", SHARE, None, "more than 0%"),
        ("{steps: [»0.1, 100%]}", ".steps[0]", SHARE, "10%", "is not a share"),
        ("{steps: [»10, 100%]}", ".steps[0]", SHARE, "10%", "the number 10 is not a share"),
        ("{steps: [»1, 100%]}", ".steps[0]", SHARE, None, "the number 1 is not a share"),
        ("{steps: [»1/0, 100%]}", ".steps[0]", SHARE, None, "`1/0` is not a share"),
        ("{steps: [10%, »101%]}", ".steps[1]", SHARE, "100%", "is more than all"),
        ("{steps: [»4/3]}", ".steps[0]", SHARE, "100%", "`4/3` is more than all"),
        ("{judge: »30}", ".judge", DURATION, "30s", "has no unit"),
        ("{judge: »[30s]}", ".judge", "a duration such as 2m, or a mapping (least, most)", None, "a list"),
        ("{judge: »0s}", ".judge", DURATION, None, "longer than 0s"),
        ("{judge: {most: »1x}}", ".judge.most", DURATION, None, "not a duration"),
        ("{judge: {least: »2m, most: 1m}}", ".judge.least", "a duration up to 1m", None, "longer than `most`"),
        ("{judge: {»leest: 2m}}", ".judge.leest", "one of least, most", "least"),
        ("{holdback: »100%}", ".holdback", SHARE, None, "less than 100%"),
        ("{holdback: »101%}", ".holdback", SHARE, None, "more than all"),
        ("{holdback: »5}", ".holdback", SHARE, "5%"),
        ("{approve: »manually}", ".approve", "auto or manual", "manual"),
        ("{approve: »true}", ".approve", "auto or manual", None, "`true` is unknown"),
        ("{sticky: »cookies}", ".sticky", "none, cookie or header:NAME", "cookie"),
        ("{sticky: »header:}", ".sticky", "none, cookie or header:NAME", None, "no header is named"),
        ("{sticky: »'header: X-User'}", ".sticky", "none, cookie or header:NAME", "header:X-User"),
        ("{sticky: »header:X User}", ".sticky", "none, cookie or header:NAME", None, "not a header's name"),
        ("{sticky: »{header: X-User}}", ".sticky", "none, cookie or header:NAME", "header:X-User"),
        ("{capacity: »proportionate}", ".capacity", "proportional or full", "proportional"),
        ("{keep: »10}", ".keep", DURATION, "10s"),
    )
]

EXPERIMENT = [
    on_base("strategy: »experiment", "strategy", "goal: {path: /thanks}", None, "needs a goal"),
    *(
        on_base(f"strategy: {{experiment: {text}}}", f"strategy.experiment{key}", *rest)
        for text, key, *rest in (
            ("{goal: »{}}", ".goal", "a path, a status or a header", None, "no goal is named"),
            ("{goal: {path: »thanks}}", ".goal.path", "a path that begins with /", "/thanks"),
            ("{goal: {status: »2xx}}", ".goal.status", "a status such as 200", "200-299"),
            ("{goal: {header: »'X Order'}}", ".goal.header", "the name of a header", None, "not a header's name"),
            ("{goal: {path: /}, share: »100%}", ".share", "a share below 100%", None, "nobody would be left"),
            ("{goal: {path: /}, share: »101%}", ".share", SHARE, None, "more than all"),
            ("{goal: {path: /}, share: »0%}", ".share", SHARE, None, "more than 0%"),
            ("{goal: {path: /}, sticky: »none}", ".sticky", "cookie or header:NAME", "cookie", "cannot stay"),
            ("{goal: {path: /}, who: {header: A, in: »[]}}", ".who.in", "a list of texts", None, "nobody would"),
            ("{goal: {path: /}, who: {header: A, in: »KR}}", ".who.in", "a list of texts", "[KR]", "not a list"),
            ("{goal: {path: /}, »who: {header: A}}", ".who.in", "a list of texts", None, "is missing"),
            ("{goal: {path: /}, most: »14}", ".most", DURATION, "14s", "has no unit"),
        )
    ),
]

JUDGING = [
    on_base("judge: »2m", "judge", "a mapping (false_alarm, alarm, promote", None, "is not a mapping"),
    on_base("judge: {»false_alarms: 1%}", "judge.false_alarms", "one of false_alarm", "false_alarm"),
    on_base("judge: {false_alarm: »0%}", "judge.false_alarm", CHANCE, None, "more than 0%"),
    on_base("judge: {false_alarm: »100%}", "judge.false_alarm", CHANCE, None, "less than 100%"),
    on_base("judge: {false_alarm: »101%}", "judge.false_alarm", CHANCE, None, "more than all"),
    on_base("judge: {false_alarm: »0.01}", "judge.false_alarm", CHANCE, "1%"),
    on_base("judge: {alarm: {ratio: »0.9}}", "judge.alarm.ratio", "a number from 1 to 1000", None, "not from 1"),
    on_base("judge: {alarm: {ratio: ».nan}}", "judge.alarm.ratio", "a number from 1 to 1000", None, "not from 1"),
    on_base("judge: {alarm: {ratio: »2000}}", "judge.alarm.ratio", "a number from 1 to 1000", "1000"),
    on_base("judge: {alarm: {ratio: »'2'}}", "judge.alarm.ratio", "a number from 1 to 1000", "2", "the text `'2'`"),
    on_base("judge: {alarm: {ratio: »5%}}", "judge.alarm.ratio", "a number from 1 to 1000"),
    on_base("judge: {alarm: {ratio: »110%}}", "judge.alarm.ratio", "a number from 1 to 1000", "1.1"),
    on_base("judge: {alarm: {errors: »-1%}}", "judge.alarm.errors", SHARE),
    on_base("judge: {promote: {first: {errors: »100%}}}", "judge.promote.first.errors", SHARE, None, "less than"),
    on_base("judge: {promote: {then: {latency: »slow}}}", "judge.promote.then.latency", "a percentage such as 9%"),
    on_base("judge: {promote: {»second: {}}}", "judge.promote.second", "one of doubt, first, then"),
    on_base("judge: {promote: {doubt: »true}}", "judge.promote.doubt", CHANCE, None, "`true` is not a share"),
    on_base("judge: {settle: »10}", "judge.settle", DURATION, "10s"),
    on_base("judge: {low_traffic: »rolback}", "judge.low_traffic", COURSE, "rollback"),
    on_base("judge: {undecided: »no}", "judge.undecided", COURSE, None, "`no` is unknown"),
    on_base("evidence: »{logs: {match: x}}", "evidence", "a list of evidence", None, "a mapping is not a list"),
    on_base("evidence: [»{}]", "evidence[0]", "one of logs, prometheus, command, url", None, "no source is named"),
    on_base("evidence: [{»logs: {}}]", "evidence[0].logs.match", REGEX, None, "is missing"),
    on_base("evidence: [{»log: {match: x}}]", "evidence[0].log", "one of logs, prometheus, command, url", "logs"),
    on_base("evidence: [{logs: {match: »'(a'}}]", "evidence[0].logs.match", REGEX, None, "at character 1"),
    on_base("evidence: [{logs: {match: »'a{99999999999}'}}]", "evidence[0].logs.match", REGEX, None, "too large"),
    on_base("evidence: [{logs: {match: »'ERROR|'}}]", "evidence[0].logs.match", REGEX, None, "every line"),
]

METRIC = "evidence:\n- prometheus:\n    url: http://127.0.0.1:9090\n    query: 'x{v=\"{version}\"}'\n    "
OTHER = METRIC.replace('x{v="{version}"}', "%s").replace("'%s'", "%s")


def metric(text: str, key: str, expected: str | None, nearest: str | None = None, problem: str = "") -> Case:
    return on_base(METRIC + text, f"evidence[0].prometheus{key}", expected, nearest, problem)


def asking(query: str, nearest: str | None, problem: str, expected: str = "`{version}` or `{revision}`") -> Case:
    return on_base(OTHER % f"»'{query}'" + "worse: lower", "evidence[0].prometheus.query", expected, nearest, problem)


def at(entry: str, key: str, expected: str | None, nearest: str | None = None, problem: str = "") -> Case:
    return on_base(f"evidence: [{{{entry}}}]", f"evidence[0].{key}", expected, nearest, problem)


WHERE = "an address such as http://127.0.0.1:9090"
SOURCES = [
    at("logs: {match: x}, command: »x", "command", "an entry for each", None, "one source, not logs and command"),
    at("»prometheus: {url: http://a}", "prometheus.query", "a query in PromQL", None, "is missing"),
    at("»promtheus: {}", "promtheus", "one of logs, prometheus, command, url", "prometheus"),
    at("prometheus: {»qurey: x}", "prometheus.qurey", "one of url, query, worse", "query"),
    at("prometheus: {query: x, min: 1, url: »prom:9090}", "prometheus.url", WHERE, "http://prom:9090"),
    at("prometheus: {query: x, min: 1, url: »ftp://prom}", "prometheus.url", WHERE, None, "`ftp://prom` is not"),
    at("prometheus: {query: x, min: 1, url: »'http://a b'}", "prometheus.url", WHERE, None, "a server is not sent"),
    at("prometheus: {query: x, min: 1, url: »'http://a:0'}", "prometheus.url", WHERE, None, "has no port"),
    at("prometheus: {query: x, min: 1, url: »'http://[a'}", "prometheus.url", WHERE, None, "is not an address"),
    at("prometheus: {query: x, min: 1, url: »'http://a/p?x=1'}", "prometheus.url", WHERE, "http://a/p", "itself"),
    at("prometheus: {query: x, min: 1, url: »http://a/api/v1/query}", "prometheus.url", WHERE, "http://a", "itself"),
    at(
        "prometheus: {query: x, min: 1, url: »'http://u:hush@a'}",
        "prometheus.url",
        "`authorization: NAME`",
        None,
        "every",
    ),
    at("url: »https://u:hush@a", "url", "`authorization: NAME`", None, "a password does not stand in an address"),
    on_base(
        "evidence: [{prometheus: »{url: http://a, query: x}}]",
        "evidence[0].prometheus",
        "`worse`, or `min` or `max`",
        None,
        "not said what is bad",
    ),
    metric("worse: »up", ".worse", "higher or lower", None, "`up` is unknown"),
    metric("worse: »hihger", ".worse", "higher or lower", "higher"),
    metric("worse: »lower\n    min: 1", ".worse", "`worse`, or `min` or `max`", None, "exclude each other"),
    metric("worse: lower\n    margin: »100%", ".margin", "less than 100%", None, "nothing is lower"),
    metric("worse: higher\n    margin: »0.1", ".margin", "a percentage such as 9%", "10%"),
    metric("worse: higher\n    per: »request", ".per", "share or version", None, "is unknown"),
    metric("max: 1\n    margin: »1%", ".margin", "`worse` beside it", None, "belongs to a comparison"),
    metric("max: 1\n    per: »share", ".per", "`worse` beside it", None, "belongs to a comparison"),
    metric(
        "max: 1\n    min: 2".replace("max: 1", "max: »1"), ".max", "at least 2", None, "that small and that large"
    ),
    metric("max: »5%", ".max", "a number such as 0.05", "0.05", "is not a number"),
    metric("max: ».inf", ".max", "a number such as 0.05", None, "not finite"),
    metric("max: »true", ".max", "a number such as 0.05", None, "`true` is not a number"),
    metric("max: 1\n    every: »15", ".every", DURATION, "15s"),
    metric("max: 1\n    timeout: »0s", ".timeout", DURATION, None, "longer than 0s"),
    metric(
        "max: 1\n    authorization: »Bearer x", ".authorization", "letters, digits", None, "not a variable's name"
    ),
    asking("up", None, "asks the same of both versions"),
    asking('up{v="{verison}"}', "{version}", "`{verison}` is unknown", "one of {version} {service} {revision}"),
    on_base(
        OTHER % "'rate(x{v=\"{version}\"}[5m])'" + "worse: higher\n    every: »1m",
        "evidence[0].prometheus.every",
        "at least 5m",
        "5m",
        "comparisons would share what they look at",
    ),
    at("command: {»rnu: x}", "command.rnu", "one of run, every, timeout", "run"),
    at("command: {run: »5}", "command.run", "a command", '"5"'),
    at("command: »5", "command", "a command", '"5"'),
    at("command: »[x]", "command", "a command, or a mapping", None, "a list is not a mapping"),
    at("url: {get: »ci.example.com/ask}", "url.get", "an address such as https://", "http://ci.example.com/ask"),
    at("url: {get: http://a, »evry: 1s}", "url.evry", "one of get, every", "every"),
    at("url: {get: 'http://a/{versoin}'}".replace("'", "»'", 1), "url.get", "one of {version}", "{version}"),
]

FACES = [
    on_base("warm_up: »50", "warm_up", "a mapping (requests, paths)", None, "is not a mapping"),
    on_base("warm_up: {requests: »0}", "warm_up.requests", COUNT, "1"),
    on_base("warm_up: {paths: »[]}", "warm_up.paths", "a list of paths such as [/]", None, "no path"),
    on_base("warm_up: {paths: [/, »up]}", "warm_up.paths[1]", "a path that begins with /", "/up"),
    on_base("warm_up: {»path: /}", "warm_up.path", "one of requests, paths", "paths"),
    on_base("approve_within: »0s", "approve_within", DURATION, None, "longer than 0s"),
    on_base("approve_within: »0", "approve_within", DURATION, None, "has no unit"),
    on_base("approve_within: »٣s", "approve_within", DURATION, None, "`٣s` is not a duration"),
    on_base("approve_within: »24", "approve_within", DURATION, "24s"),
    on_base("on_cancel: »roll_back", "on_cancel", "continue or rollback", "rollback"),
    on_base("on_cancel: »hold", "on_cancel", "continue or rollback", None, "`hold` is unknown"),
    on_base("strategy: {blue_green: {approve: »man}}", "strategy.blue_green.approve", "auto or manual", "manual"),
    on_base("strategy: {blue_green: {preview: »8081}}", "strategy.blue_green.preview", "host:port", "127.0.0.1:8081"),
    *(
        on_base(
            f"route: {{listen: '{listen}'}}\nstrategy: {{blue_green: {{preview: »'{preview}'}}}}",
            "strategy.blue_green.preview",
            "another port",
            None,
            "is where users connect",
        )
        for listen, preview in (
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::1]:80", "[::]:80"),
            ("localhost:80", "127.0.0.1:80"),
            ("a.example:80", "A.example:80"),
        )
    ),
    on_base("hooks: {after: »x}", "hooks.after", "`keep` of at least 1m in `strategy.rolling`", None, "for 0s only"),
    on_base(
        "strategy: {blue_green: {keep: 59s}}\nhooks:\n  after: »x",
        "hooks.after",
        "`keep` of at least 1m in `strategy.blue_green`",
        None,
        "blue_green keeps the old version for 59s only",
    ),
    on_base("strategy: {canary: {keep: 1s}}\nhooks: {after: »x}", "hooks.after", "in `strategy.canary`"),
    on_base("replicas: 2\nstrategy: in_place\nhooks: {after: »x}", "hooks.after", "a strategy that keeps"),
]

SHAPES = [
    Case("»", "", "`service` and `run`", None, "empty"),
    Case("»# nothing but a comment\n", "", "`service` and `run`", None, "empty"),
    Case("»- service: shop\n", "", "a mapping (service, replicas", None, "a list is not a mapping"),
    Case("»shop\n", "", "a mapping (service", None, "`shop` is not a mapping"),
    Case("»service: shop\n", "run", "a mapping (process)", None, "`run` is missing"),
    Case("»run: {process: {command: x}}\n", "service", "at most 40", None, "`service` is missing"),
    Case("service: shop\n»run: {}\n", "run.process", "a mapping (command", None, "is missing"),
    Case("service: shop\nrun:\n  »process: {}\n", "run.process.command", "a command", None, "is missing"),
    on_base("health: »[]", "health", "a mapping (path, command", None, "a list is not a mapping"),
    on_base("health: »/healthz", "health", "a mapping (path, command", None, "is not a mapping"),
    on_base("smoke: »{http: {path: /}}", "smoke", "a list of smoke tests", None, "a mapping is not a list"),
    on_base("replicas: »[2]", "replicas", COUNT, None, "a list is not a whole number"),
    on_base("strategy: »[rolling]", "strategy", NAMES, None, "a list is not a mapping"),
    on_base("»health:\n", "health", "a mapping (path", None, "no value"),
    on_base("replicas: »~\n", "replicas", COUNT, None, "no value"),
    on_base(
        "smoke:\n  - {command: x}\n  -»\n  - {cmd: x}", "smoke[1]", "a mapping (http, command)", None, "no value"
    ),
    on_base("route: {hosts: [»null]}", "route.hosts[0]", '"*", example.com', None, "no value"),
    Case("service: shop\nrun:\n»\tprocess: {command: x}\n", "", "spaces", None, "a tab in the indentation"),
    Case("service: shop: »x\n".replace("p: »", "p»: "), "", None, None, "it is not YAML"),
    on_base("»--- \nservice: other", "", "one manifest a file", None, "a second document"),
    on_base("replicas: »*nobody", "", None, None, "it is not YAML"),
    on_base("replicas: »!count 3", "replicas", "a value without a tag", None, "unknown tag `!count`"),
    on_base("replicas: »!env COUNT", "replicas", "a value without a tag", None, "only in `run.process.env`"),
    on_base("replicas: »!!int three", "replicas", "a value without a tag", None, "unknown tag `!!int`"),
    process("command: x\n    env: {A: »!evn B}", ".env.A", "!env NAME", None, "unknown tag `!evn`"),
    Case("»" + "[" * 2000, "", None, None, "nested too deeply"),
]


@pytest.mark.parametrize(
    "case",
    [*KEYS, *NOT_YET, *VALUES, *COMMANDS, *CANARY, *EXPERIMENT, *JUDGING, *SOURCES, *FACES, *SHAPES],
    ids=lambda case: case.text.removeprefix(BASE)[:50],
)
def test_a_wrong_manifest_is_refused_with_place_key_expectation_and_suggestion(case: Case) -> None:
    with pytest.raises(ManifestError) as refused:
        parse(case.text.replace("»", ""), Path("shop/segue.yaml"))
    error = refused.value
    assert (error.line, error.column) == case.place, error
    assert error.key == case.key
    assert (case.expected or "") in (error.expected or "") and bool(case.expected) == bool(error.expected)
    assert error.nearest == case.nearest
    assert case.problem in error.problem
    assert str(error).startswith(f"shop/segue.yaml:{error.line}:{error.column}: ")
    assert error.exit == 2


def test_every_key_that_comes_later_is_in_the_table() -> None:
    from segue.manifest.strategy import LATER as LATER_KEYS

    refused = {re.sub(r"\[\d+\]", "[]", case.key) for case in NOT_YET}
    assert set(LATER_KEYS) == refused


def test_the_message_reads_as_one_sentence() -> None:
    with pytest.raises(ManifestError) as refused:
        parse(BASE + "health: {evry: 30}\nreplicas: 0\n")
    assert str(refused.value) == (
        "segue.yaml:3:10: unknown key `evry` in `health`; expected one of path, command, expect, every, timeout, "
        "healthy, unhealthy, min_ready, deadline; did you mean `every`? (1 more)"
    )


def test_all_errors_are_reported_in_the_order_of_their_places() -> None:
    with pytest.raises(ManifestError) as refused:
        parse("replicas: 0\nservice: shop\nretian: 3\nhealth:\nrun: {process: {command: x, env: {A: !what B}}}\n")
    error = refused.value
    assert [error.key, *(other.key for other in error.others)] == [
        "replicas",
        "retian",
        "health",
        "run.process.env.A",
    ]
    assert [other.line for other in error.others] == [3, 4, 5]


@pytest.mark.parametrize(
    "text",
    [
        "route: {hosts: [null]}",
        "health: {path: ~}\n",
        "servce: shop",
        "strategy: experiment",
        "evidence: [{comand: x}]",
        "evidence: [{command: {rnu: x}}]",
        "strategy: {canary: {judge: {most: 1}}}",
        "strategy: {canary: {judge: x}}",
    ],
)
def test_one_slip_is_one_error(text: str) -> None:
    base = BASE if "servce" not in text else BASE.replace("service: shop\n", "")
    with pytest.raises(ManifestError) as refused:
        parse(base + text)
    assert refused.value.others == ()


def test_the_error_as_json_has_all_fields() -> None:
    with pytest.raises(ManifestError) as refused:
        parse(BASE + "replicas: 0\nhelth: {}\n")
    document = json.loads(json.dumps(refused.value.document()))
    assert document["code"] == "manifest" and document["exit"] == 2 and document["next"] == "segue check"
    fields = ("file", "line", "column", "key", "problem", "expected", "nearest")
    assert [document[name] for name in fields] == [
        *("segue.yaml", 3, 11, "replicas", "the number 0 is too small", "a whole number from 1 to 10000", "1")
    ]
    assert [other["key"] for other in document["others"]] == ["helth"]


def test_a_missing_file_sends_to_init(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such file") as refused:
        load(tmp_path / "segue.yaml", as_root=False)
    assert refused.value.next == "segue init" and refused.value.line is None and refused.value.exit == 2


def test_a_folder_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="it cannot be read: is a directory"):
        load(tmp_path, as_root=False)


def test_a_file_that_is_not_utf_8_is_refused_at_the_first_wrong_byte(tmp_path: Path) -> None:
    path = tmp_path / "segue.yaml"
    path.write_bytes(b"service: shop\n# caf\xe9\n")
    with pytest.raises(ManifestError, match="not UTF-8") as refused:
        load(path, as_root=False)
    assert (refused.value.line, refused.value.column) == (2, 6)


def test_a_small_text_cannot_become_a_huge_one() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ManifestError, match="more than 5000 values"):
        parse("\n".join(lines))


def test_a_value_that_contains_itself_is_refused() -> None:
    with pytest.raises(ManifestError, match="nested too deeply"):
        parse("run: &run {process: *run}\n")
    with pytest.raises(ManifestError, match="nested too deeply"):
        parse("run: &run\n  <<: *run\n")


def test_as_root_a_service_names_its_user() -> None:
    with pytest.raises(ManifestError, match="as root each service names `user:`") as refused:
        parse("service: shop\nrun:\n  process:\n    command: x\n", as_root=True)
    error = refused.value
    assert (error.line, error.column, error.key) == (3, 3, "run.process.user")
    assert error.expected == "the name of a user (`user: root` is allowed, but say so)"


def test_as_root_the_user_must_exist() -> None:
    with pytest.raises(ManifestError, match="`rooot` is unknown on this machine") as refused:
        parse("service: shop\nrun: {process: {command: x, user: rooot}}\n", as_root=True)
    assert (refused.value.line, refused.value.column, refused.value.nearest) == (2, 35, "root")


def test_as_root_root_may_be_named() -> None:
    text = "service: shop\nrun: {process: {command: x, user: root}}\n"
    assert parse(text, as_root=True).manifest.run.process.user == "root"


def test_the_control_plane_refuses_what_the_loader_refuses_without_a_place() -> None:
    document = parse(BASE).manifest.document()
    assert receive(document, as_root=False) == parse(BASE).manifest
    with pytest.raises(ManifestError, match="as root each service names"):
        receive(document, as_root=True)
    with pytest.raises(ManifestError, match=r"^manifest: unknown key `x`") as refused:
        receive({**document, "x": 1}, as_root=False)
    assert refused.value.line is None and refused.value.key == "x"
    with pytest.raises(ManifestError, match="is not a mapping"):
        receive(["no"], as_root=False)
