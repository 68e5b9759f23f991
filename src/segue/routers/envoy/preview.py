"""A listener of its own that leads to one version only: pure documents.

Nothing there falls through to another version: a preview that does would lie. What comes there is no user's
request: it is in no statistics of the service.
"""

from __future__ import annotations

from segue.core.traffic import Preview, ServiceTable
from segue.routers.envoy import http
from segue.routers.envoy.documents import ADS, Document, duration
from segue.routers.envoy.names import RouteName, address, cluster_name

TOKEN = "x-segue-preview"


def routes(table: ServiceTable) -> Document | None:
    """What the listener of the service's preview does, if there is one."""
    preview = table.preview
    if preview is None:
        return None
    found = [_lead(table, preview)]
    if preview.token is not None:
        found.append(_answer(table, preview, 403, f"Send the preview's token in the header {TOKEN}."))
    hosts = [{"name": "preview", "domains": ["*"], "routes": found}]
    return {**http.configuration(preview.listen), "virtual_hosts": hosts}


def listener(listen: str, inline: Document | None = None) -> Document:
    """The listener at `listen`. With `inline` routes it asks nobody for them."""
    asked = {"rds": {"route_config_name": listen, "config_source": ADS}}
    manager = http.manager(listen, {"route_config": inline} if inline else asked, counted=False)
    return http.listener(listen, address(listen), [{"filters": [manager]}])


def _lead(table: ServiceTable, preview: Preview) -> Document:
    """To the version; its instances need not know the token."""
    match: Document = {"prefix": "/"}
    if preview.token is not None:
        match["headers"] = [{"name": TOKEN, "string_match": {"exact": preview.token}}]
    if preview.revision not in {backend.revision for backend in table.backends}:
        return _answer(table, preview, 503, f"{preview.revision} of {table.service} is not there.") | {"match": match}
    action = {"cluster": cluster_name(table.service, preview.revision), "timeout": duration(table.route.timeout)}
    name = str(RouteName(table.service, preview.revision, "preview"))
    return {"name": name, "match": match, "route": action, "request_headers_to_remove": [TOKEN]}


def _answer(table: ServiceTable, preview: Preview, status: int, sentence: str) -> Document:
    return {
        "name": str(RouteName(table.service, preview.revision, "preview")),
        "match": {"prefix": "/"},
        "direct_response": {"status": status, "body": {"inline_string": f"{sentence}\n"}},
    }
