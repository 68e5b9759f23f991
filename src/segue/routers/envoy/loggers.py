"""What Envoy counts of attempts and requests, and what it writes into files: pure documents.

The loggers are a part of every listener for good. What they write, and how much, is said by hosts' metadata, by marks
on requests, and by Envoy's runtime.
"""

from __future__ import annotations

from segue.routers.envoy.documents import TYPE, Document
from segue.routers.envoy.goodbyes import NOTED, OPENED


def attempts() -> Document:
    """One sample per attempt on an instance, or on some of them: its outcome, and its time to the first byte."""
    return {**_counted("attempt"), "filter": _SOME}


def of_requests(listen: str) -> list[Document]:
    """What is written when a request to the listener at `listen` ends."""
    return [_account(listen), _last_attempts(), _websockets(), *_files()]


def _last_attempts() -> Document:
    """One sample per request when it ends: its last attempt, and which one that was.

    For requests that came at rest, and for those whose attempt was cancelled: the log of attempts does not say that.
    """
    long = {"op": "GE", "value": {"default_value": 0, "runtime_key": RESTED}}
    wanted = [{"duration_filter": {"comparison": long}}, {"response_flag_filter": {"flags": ["UT", "DC", "DR"]}}]
    some = {"and_filter": {"filters": [_SOME, {"or_filter": {"filters": wanted}}]}}
    return {**_counted("attempt.last", _RESTS, _TRIES), "filter": some}


def _counted(prefix: str, *marks: tuple[str, str]) -> Document:
    """Counts attempts by how they ended, and their times, below these `marks`."""
    tag = _tag(*marks, _ROUTE, _INSTANCE, _CODE, _FLAGS)
    counted = {"stat": {"name": "n", "tags": [tag]}, "value_fixed": 1}
    timed = {
        "stat": {"name": "us", "tags": [_tag(*marks, _ROUTE, _VERSION)]},
        "unit": "Microseconds",
        "value_format": "%COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)%",
    }
    return _stats_logger({"stat_prefix": prefix, "counters": [counted], "histograms": [timed]})


def _account(listen: str) -> Document:
    """One count per user's request when it ends: the account."""
    tag = _tag(("listen", listen.replace("%", "%%")), _ROUTE, _VERSION, _CODE, _FLAGS)
    counted = {"stat": {"name": "n", "tags": [tag]}, "value_fixed": 1}
    return _stats_logger({"stat_prefix": "request", "counters": [counted]})


def _websockets() -> Document:
    """One count per WebSocket when it ends, by its instance: the log of attempts does not know of goodbyes."""
    tag = _tag(_INSTANCE, ("flags", f"%RESPONSE_FLAGS%{NOTED}"))
    counted = {"stat": {"name": "websocket", "tags": [tag]}, "value_fixed": 1}
    logger = _stats_logger({"stat_prefix": "attempt", "counters": [counted]})
    return {**logger, "filter": _marked(OPENED, {"bool_match": True})}


def _files() -> list[Document]:
    """What may be written of each request into the files, if it is marked."""
    return [_file("written", ACCESS_LOG, _LINE), _file("visit", VISITS, _VISIT)]


def _file(mark: str, path: str, line: Document) -> Document:
    """One line of JSON per user's request when it ends, of those that have this mark."""
    return {
        "name": "envoy.access_loggers.file",
        "filter": _marked(mark, {"string_match": {"exact": YES}}),
        "typed_config": {
            "@type": TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"json_format": line},
        },
    }


def _marked(mark: str, value: Document) -> Document:
    """A filter: requests on which a filter of ours has noted `value` as this mark."""
    matcher = {"filter": "segue", "path": [{"key": mark}], "value": value}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}


def _tag(*tags: tuple[str, str]) -> Document:
    """One tag that reads as all of these, each a name and its value, would: Envoy pays for each tag at each entry."""
    (name, value), *others = tags
    return {"name": name, "value_format": ".".join([value, *(f"{name}.{value}" for name, value in others)])}


def _stats_logger(config: Document) -> Document:
    return {
        "name": "envoy.access_loggers.stats",
        "typed_config": {"@type": TYPE + "envoy.extensions.access_loggers.stats.v3.Config", **config},
    }


ATTEMPTS = "segue.attempts"
"""What Envoy's runtime calls the part of the attempts that is counted, in per cent; all, where it says nothing."""
RESTED = "segue.rested"
"""What it calls the time in ms that a request has taken at least if it came at rest; where it says nothing, any."""
_SOME: Document = {
    "runtime_filter": {
        "runtime_key": ATTEMPTS,
        "percent_sampled": {"numerator": 100},
        "use_independent_randomness": True,
    }
}

_RESTS = "rest", "%METADATA(VIRTUAL_HOST:segue:rest)%"
_TRIES = "tries", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"
_ROUTE = "route", "%ROUTE_NAME%"
_VERSION = "version", "%UPSTREAM_HOST_NAME%"
# One name of version and instance costs no more than one of the version.
_INSTANCE = "version", "%UPSTREAM_METADATA(segue:attempt)%"
_CODE = "code", "%RESPONSE_CODE%_%RESP(grpc-status):2%%TRAILER(grpc-status):2%"
_FLAGS = "flags", "%RESPONSE_FLAGS%"

YES = "1"
"""What a mark says where it is: that a request is to be written down, or that it came at rest."""

ACCESS_LOG = "access.log"
"""The file in the folder where Envoy runs."""
# No query, no body and no header but this one: they may hold secrets.
_LINE = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "service": "%METADATA(ROUTE:segue:service)%",
    "given_to": "%METADATA(ROUTE:segue:version)%",
    "version": "%UPSTREAM_METADATA(segue:revision)%",
    "instance": "%UPSTREAM_METADATA(segue:instance)%",
    "address": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "user": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "user_agent": "%REQ(USER-AGENT)%",
    "protocol": "%PROTOCOL%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%PATH(NQ:PATH)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "duration_ms": "%DURATION%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}

VISITS = "visits.log"
"""The file for the visits of an experiment's users, and for paths that are to be learned, in the same folder."""
# Of what users send nothing else is needed; they are told apart by what they are known by.
_VISIT = {
    **{key: _LINE[key] for key in ("service", "status")},
    "version": "%METADATA(ROUTE:segue:version)%",
    "trial": "%METADATA(ROUTE:segue:trial)%",
    "path": "%PATH(NQ:PATH)%",
    "user": "%DYNAMIC_METADATA(segue:user)%",
    "goal": "%DYNAMIC_METADATA(segue:goal)%",
}
