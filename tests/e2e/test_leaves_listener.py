"""Settings of the manifest about what a listener carries, by real clients: changing one changes what users get.

All services of this file live in one home.
"""

from __future__ import annotations

import json
import shlex
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from homes import Service, a_home
from loads import eventually

from segue.testing import certificates
from segue.testing.site import Segue, free_port


@pytest.fixture(scope="module")
def home() -> Iterator[Segue]:
    with a_home() as segue:
        yield segue


def curl(*words: str) -> str:
    """What curl prints of an answer: its version, its status, where it leads."""
    written = "%{http_version} %{http_code} %{redirect_url}"
    command = ["curl", "-s", "-o", "/dev/null", "-w", written, "--max-time", "20", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def serial(port: int) -> int | None:
    """What tells the certificate that is shown from every other one; None: there is no TLS."""
    try:
        shown = ssl.get_server_certificate(("127.0.0.1", port), timeout=5)
    except OSError:
        return None
    return hash(shown)


def refused(service: Service, *command: str, expect: int) -> str:
    """What a command says that ends with `expect`."""
    done = service.segue(*command, cwd=service.folder, expect=expect)
    return done.stdout + done.stderr


def told(service: Service, **route: Any) -> dict[str, Any]:
    return {"listen": f"127.0.0.1:{service.port}", **route}


@pytest.mark.leaf("route.tls.cert", "route.tls.key", "route.tls.redirect")
def test_with_a_certificate_users_speak_tls_and_a_renewed_one_is_taken_by_itself(home: Segue) -> None:
    service, away = Service(home, "secure"), free_port()
    service.write()
    service.deploy("v1")
    cert, key = certificates.write(service.folder, "site", ["shop.test"])
    tls = {"cert": cert.name, "key": str(key), "redirect": f"127.0.0.1:{away}"}
    service.write(route=told(service, tls=tls))
    service.deploy("v2")
    there = ("--cacert", str(cert), "--resolve", f"shop.test:{service.port}:127.0.0.1")
    url = f"https://shop.test:{service.port}/"
    eventually(lambda: serial(service.port))
    assert curl(*there, url) == "2 200"
    assert curl(*there, "--http1.1", url) == "1.1 200"
    assert curl("-H", "Host: shop.test", f"http://127.0.0.1:{away}/x?y=z") == f"1.1 308 {url}x?y=z"
    first = serial(service.port)
    (service.folder / "new").mkdir()
    new_cert, new_key = certificates.write(service.folder / "new", "site", ["shop.test"])
    new_cert.replace(cert)
    event = service.told(lambda event: event["event"] == "certificate")
    assert "does not belong to the certificate" in event["problem"]
    assert "does not belong to the certificate" in service.segue("status", cwd=service.folder).stdout
    assert serial(service.port) == first, "what cannot be used never replaces what is in use"
    assert curl(*there, "--insecure", url) == "2 200"
    new_key.replace(key)
    eventually(lambda: serial(service.port) not in (None, first))
    assert curl(*there, url) == "2 200"


def test_a_certificate_that_cannot_be_used_is_refused_before_anything_happens(home: Segue) -> None:
    service, other = Service(home, "careless"), Service(home, "careful")
    (service.folder / "other").mkdir(parents=True)
    cert, _ = certificates.write(service.folder, "site", ["shop.test"])
    _, key = certificates.write(service.folder / "other", "site", ["shop.test"])
    service.write(route=told(service, tls={"cert": str(cert), "key": str(key)}))
    for command in (("check",), ("deploy", "--version", "v1")):
        assert "does not belong to the certificate" in refused(service, *command, expect=2)
    assert not any(s["service"] == "careless" and s["stable"] for s in service.ask("/v1/services")["services"])
    good = certificates.write(service.folder, "good", ["shop.test"])
    service.write(route=told(service, tls={"cert": str(good[0]), "key": str(good[1])}))
    service.deploy("v1")
    other.write(route={**told(service), "hosts": ["else.test"]})
    assert "careless is reached with TLS" in refused(other, "check", expect=2)
    assert "careless is reached with TLS" in refused(other, "deploy", "--version", "v1", expect=4)
    other.write(route={**told(service), "listen": f"0.0.0.0:{service.port}"})
    assert "are one address" in refused(other, "deploy", "--version", "v1", expect=4)


def test_a_place_that_another_service_has_is_refused_by_its_name_and_nobody_else_waits(home: Segue) -> None:
    first, second, third = (Service(home, name) for name in ("first", "second", "third"))
    shown, other = (certificates.write(first.folder, name, ["a.test"]) for name in ("shown", "other"))

    def at(path: str, files: tuple[Path, Path]) -> dict[str, Any]:
        cert, key = map(str, files)
        return {**told(first), "hosts": ["a.test"], "path": path, "tls": {"cert": cert, "key": key}}

    def users_of(path: str) -> str:
        there = ("--cacert", str(shown[0]), "--resolve", f"a.test:{first.port}:127.0.0.1")
        return curl(*there, f"https://a.test:{first.port}{path}")

    first.write(route=at("/", shown))
    first.deploy("v1")
    for route, why in (
        (at("/", shown), "is first's already, for the host a.test"),
        (at("/tea", other), "first shows another certificate for the host a.test"),
    ):
        second.write(route=route)
        assert why in refused(second, "check", expect=2)
        assert why in refused(second, "deploy", "--version", "v1", expect=4)
    third.write(route=at("/tea", shown))
    third.deploy("v1")
    assert (users_of("/"), users_of("/tea")) == ("2 200", "2 200")


@pytest.mark.leaf("route.protocol")
def test_instances_are_spoken_to_as_protocol_says(home: Segue) -> None:
    service = Service(home, "talk")
    app = shlex.join([sys.executable, "-P", "-m", "segue.testing.grpc_app"])
    process = {"command": f"{app} {{port}} {{version}}"}
    method = "/segue.Talk/Echo"

    def call() -> str:
        with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            try:
                return str(channel.unary_unary(method)(b"tea", timeout=10).decode())
            except grpc.RpcError as error:
                return str(error.code().name)

    service.write(process=process, route=told(service), health={"command": "true"})
    service.deploy("v1")
    assert call() in ("UNAVAILABLE", "UNKNOWN")
    grpc_health = {"path": "/grpc.health.v1.Health/Check"}
    service.write(process=process, route=told(service, protocol="grpc"), health=grpc_health)
    service.deploy("v2")
    assert eventually(lambda: call() if call().startswith("v2") else "").endswith("tea")


@pytest.mark.leaf("route.idle")
def test_a_stream_may_be_silent_as_long_as_idle_says(home: Segue) -> None:
    service = Service(home, "silent")
    service.write(route=told(service, idle="500ms"))
    service.deploy("v1")
    assert httpx.get(f"{service.url}slow?1.5", timeout=20).status_code == 504
    service.write()
    service.deploy("v2")
    eventually(lambda: httpx.get(f"{service.url}slow?1.5", timeout=20).status_code == 200)


@pytest.mark.leaf("route.max_body")
def test_a_body_that_is_longer_than_max_body_is_refused(home: Segue) -> None:
    service = Service(home, "short")
    service.write(route=told(service, max_body="64k"))
    service.deploy("v1")

    def post(size: int, *, announced: bool) -> int:
        body = b"x" * size
        return httpx.post(service.url, content=body if announced else iter([body]), timeout=20).status_code

    for announced in (True, False):
        assert [post(size, announced=announced) for size in (0, 65536, 65537, 10**6)] == [200, 200, 413, 413]
    service.write()
    service.deploy("v2")
    eventually(lambda: post(10**6, announced=False) == 200)
    assert post(10**6, announced=True) == 200


@pytest.mark.leaf("route.access_log")
def test_requests_are_written_down_as_access_log_says(home: Segue) -> None:
    service, file = Service(home, "written"), home.home / "envoy" / "access.log"

    def lines() -> list[Any]:
        found = map(json.loads, file.read_text().splitlines())
        return [line for line in found if line["service"] == "written"]

    service.write(route=told(service))
    service.deploy("v1")
    assert httpx.get(f"{service.url}quiet", timeout=20).status_code == 200
    service.write(route=told(service, access_log="on"))
    service.deploy("v2")
    eventually(lambda: httpx.get(f"{service.url}loud?secret=1", timeout=20) and lines())
    line = lines()[-1]
    assert (line["version"], line["path"], line["status"], line["method"]) == ("v2.1", "/loud", 200, "GET")
    assert line["instance"] == "written-v2.1-1"
    assert {line["path"] for line in lines()} == {"/loud"}
