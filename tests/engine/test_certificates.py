"""The certificates that services show: what is wrong is said, what was last whole is shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from segue.certificate import BadCertificate, read
from segue.core.traffic import Tls
from segue.engine.certificates import Certificates
from segue.errors import Usage
from segue.testing import certificates


def tls(folder: Path, name: str = "site") -> Tls:
    cert, key = certificates.write(folder, name, ["a.test"])
    return Tls(str(cert), str(key))


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    good, other = tls(tmp_path), tls(tmp_path, "other")
    locked = tmp_path / "locked.pem"
    key = serialization.load_pem_private_key(Path(good.key).read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for cert, secret, problem in (
        (good.cert, other.key, "does not belong to the certificate"),
        (good.key, good.key, "holds no certificate in PEM"),
        (good.cert, good.cert, "holds no private key in PEM"),
        (good.cert, str(locked), "is locked by a password"),
        (good.cert, str(tmp_path / "none"), "cannot be read: no such file"),
    ):
        with pytest.raises(BadCertificate, match=problem):
            read(cert, secret)
        with pytest.raises(Usage, match=problem):
            Certificates(tmp_path / "kept").require(Tls(cert, secret))


@pytest.mark.parametrize(
    ("names", "host", "days", "trouble"),
    [
        (["a.test"], "a.test", 30, None),
        (["a.test"], "*", 30, None),
        (["*.a.test"], "www.a.test", 30, None),
        (["*.a.test"], "*.a.test", 30, None),
        (["*.a.test"], "a.test", 30, "it is not for a.test"),
        (["*.a.test"], "x.y.a.test", 30, "it is not for x.y.a.test"),
        (["127.0.0.1"], "127.0.0.1", 30, None),
        (["a.test"], "a.test", -1, "it ran out on"),
    ],
)
def test_why_users_will_not_trust_it_is_said(
    tmp_path: Path, names: list[str], host: str, days: int, trouble: str | None
) -> None:
    cert, key = certificates.write(tmp_path, "site", names, days=days)
    found = read(str(cert), str(key))
    said = found.trouble((host,), datetime.now(UTC))
    assert said is None if trouble is None else said is not None and said.startswith(trouble)
    assert abs(found.ends - datetime.now(UTC) - timedelta(days=days)) < timedelta(minutes=10)


def test_what_was_last_whole_is_shown_also_after_a_restart(tmp_path: Path) -> None:
    used, kept = tls(tmp_path), tmp_path / "kept"
    known = Certificates(kept)
    first = known.current(used)
    assert first is not None and "PRIVATE KEY" in first.key and "PRIVATE KEY" not in repr(first)
    Path(used.key).unlink()
    assert known.problem(used) is not None
    assert known.current(used) == first == Certificates(kept).current(used)
    assert [file.stat().st_mode & 0o777 for file in kept.iterdir()] == [0o600]
    renewed = tls(tmp_path)
    assert renewed == used and known.problem(used) is None
    assert known.current(used) not in (None, first)
    known.keep_only([used])
    assert Certificates(kept).current(used) == known.current(used)
    known.keep_only([])
    assert list(kept.iterdir()) == []


def test_without_files_nothing_is_shown(tmp_path: Path) -> None:
    known = Certificates(tmp_path / "kept")
    known.require(None)
    assert known.current(None) is None
    assert known.current(Tls("/nowhere", "/nowhere")) is None
