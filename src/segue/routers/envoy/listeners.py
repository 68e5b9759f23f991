"""Where users connect, without TLS and with it: listeners as pure documents.

Nothing in a listener may depend on a table but which hosts there are with TLS: a listener that changes drains its
connections, a chain that comes or goes only its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from segue.core.places import ANY
from segue.core.traffic import Certificate
from segue.routers.envoy import http
from segue.routers.envoy.documents import ADS, TYPE, Document
from segue.routers.envoy.names import address

HANDSHAKE = "10s"
"""How long a user may take to agree on TLS."""


def listener(listen: str, names: Iterable[str]) -> Document:
    """The listener at `listen`, which asks for its routes, and for the certificates of `names` if there are any."""
    routes = {"rds": {"route_config_name": listen, "config_source": ADS}}
    chains = [_chain([name], asked(listen, name), listen, routes) for name in names]
    return _secure(listen, chains) if chains else _plain(listen, routes)


def fixed(listen: str, names: Mapping[str, Certificate], config: Document) -> Document:
    """The listener with the routes `config` and its certificates in it: it asks nobody."""
    routes = {"route_config": config}
    grouped: dict[tuple[str, str], list[str]] = {}
    for name, certificate in names.items():
        grouped.setdefault((certificate.chain, certificate.key), []).append(name)
    chains = []
    for (chain, key), those in grouped.items():
        inline = {"tls_certificates": [_pem(Certificate(chain, key))]}
        hosts = [name for name in those if name != ANY]
        chains += [_chain(hosts, inline, listen, routes)] if hosts else []
        chains += [_chain([ANY], inline, listen, routes)] if ANY in those else []
    return _secure(listen, chains) if chains else _plain(listen, routes)


def secret_name(listen: str, name: str) -> str:
    """What the certificate of the host `name` at `listen` is called."""
    return f"{listen}~{name}"


def secret(listen: str, name: str, certificate: Certificate) -> Document:
    """The certificate of the host `name` at `listen`, as it is told."""
    return {"name": secret_name(listen, name), "tls_certificate": _pem(certificate)}


def asked(listen: str, name: str) -> Document:
    """A certificate that is asked for, and told again when it changes."""
    return {"tls_certificate_sds_secret_configs": [{"name": secret_name(listen, name), "sds_config": ADS}]}


def _pem(certificate: Certificate) -> Document:
    return {
        "certificate_chain": {"inline_string": certificate.chain},
        "private_key": {"inline_string": certificate.key},
    }


def _plain(listen: str, routes: Document) -> Document:
    return http.listener(listen, address(listen), [{"filters": [http.manager(listen, routes)]}])


def _secure(listen: str, chains: Sequence[Document]) -> Document:
    inspector = {
        "name": "envoy.filters.listener.tls_inspector",
        "typed_config": {"@type": TYPE + "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"},
    }
    return {
        **http.listener(listen, address(listen), [*chains, _spoken_plainly(listen)]),
        "listener_filters": [inspector],
    }


def _chain(names: Sequence[str], certificates: Document, listen: str, routes: Document) -> Document:
    """The users who ask for one of `names`, or, with ``*``, for one that no other chain has."""
    match: Document = {"transport_protocol": "tls"}
    if list(names) != [ANY]:
        match["server_names"] = list(names)
    context = {
        "@type": TYPE + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"], **certificates},
    }
    return {
        "name": names[0],
        "filter_chain_match": match,
        "filters": [http.manager(listen, routes)],
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context},
        "transport_socket_connect_timeout": HANDSHAKE,
    }


def _spoken_plainly(listen: str) -> Document:
    """Users who speak HTTP without TLS where TLS is spoken are told to come with it."""
    route = {"match": {"prefix": "/"}, "redirect": {"https_redirect": True, "response_code": "PERMANENT_REDIRECT"}}
    config = {"name": "plain", "virtual_hosts": [{"name": "plain", "domains": ["*"], "routes": [route]}]}
    return {
        "name": "~plain",
        "filter_chain_match": {"transport_protocol": "raw_buffer"},
        "filters": [http.manager(listen, {"route_config": config}, counted=False)],
    }
