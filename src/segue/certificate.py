"""A certificate and its key, read from their files: what is wrong is said before anything depends on it.

`cryptography` takes a tenth of a second to import, so it is imported where there is something to read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from segue.core.traffic import Certificate

if TYPE_CHECKING:
    from cryptography import x509


class BadCertificate(Exception):
    """What is wrong with a certificate or its key, as a sentence's end after the file's name."""


@dataclass(frozen=True, slots=True)
class Found:
    """A certificate that its key belongs to; the `hosts` that it is for, and when it runs out."""

    certificate: Certificate
    hosts: tuple[str, ...]
    ends: datetime

    def trouble(self, hosts: tuple[str, ...], now: datetime) -> str | None:
        """Why users will not trust it, who ask for one of `hosts`; None: no reason was found."""
        if now >= self.ends:
            return f"it ran out on {self.ends:%Y-%m-%d}"
        missing = [host for host in hosts if host != "*" and not any(_covers(name, host) for name in self.hosts)]
        return f"it is not for {', '.join(missing)}" if missing else None


def read(cert: str, key: str) -> Found:
    """The certificate in the file `cert`, those that vouch for it after it, with its key. Raises BadCertificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    chain, secret = _bytes(cert), _bytes(key)
    try:
        first = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise BadCertificate(f"{cert} holds no certificate in PEM") from error
    try:
        private = serialization.load_pem_private_key(secret, password=None)
    except TypeError as error:
        raise BadCertificate(f"{key} is locked by a password: nobody is there to type it") from error
    except ValueError as error:
        raise BadCertificate(f"{key} holds no private key in PEM") from error
    if private.public_key() != first.public_key():
        raise BadCertificate(f"the key in {key} does not belong to the certificate in {cert}")
    return Found(Certificate(chain.decode(), secret.decode()), _hosts(first), first.not_valid_after_utc)


def _bytes(file: str) -> bytes:
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise BadCertificate(f"{file} cannot be read: {(error.strerror or str(error)).lower()}") from error
    if not content.isascii():
        raise BadCertificate(f"{file} is not text in PEM")
    return content


def _hosts(found: x509.Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return (*(name.lower() for name in names.get_values_for_type(x509.DNSName)), *addresses)


def _covers(name: str, host: str) -> bool:
    """Whether a certificate's `name`, which may be ``*.example.com``, is for `host`, which may be that, too."""
    if name == host:
        return True
    return name.startswith("*.") and not host.startswith("*.") and host.partition(".")[2] == name[2:]
