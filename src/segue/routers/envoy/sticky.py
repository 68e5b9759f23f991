"""Users who stay on their version: matches of routes, pure documents.

Every user has a number, and a version is given those whose number is below its limit. The limits are cumulative
and the version on trial comes first, so its users stay its users while its share grows. Rules of this file:
* The number is the user's own: it does not depend on the shares, and it is drawn once.
* A cookie is an identity, not a decision. Everybody can write one and so choose a version: that does no harm.
* By cookie: what is known comes before what is drawn, or a user whose number is not below the limit would be
  drawn again. By header: nobody's number is below the limit who does not send the header.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from zlib import crc32

from segue.core.release import Who
from segue.core.traffic import Route, ServiceTable
from segue.routers.envoy.documents import TYPE, Document

DAY = 86400
"""Seconds that a browser keeps the cookie."""
_DIGITS = 5
NUMBERS = 16**_DIGITS
"""How many numbers there are: the first hexadecimal digits of an identity. A share is exact to a millionth."""
_HEX = "0123456789abcdef"
_ANY = rf"[0-9a-f]{{{_DIGITS}}}"
_REST = rf"[0-9a-f-]{{{36 - _DIGITS}}}"
_NO_NUMBER = "x"


@dataclass(frozen=True, slots=True)
class Cookie:
    """The cookie called `name` that a browser keeps for so many `seconds`."""

    name: str
    seconds: int

    @classmethod
    def of(cls, table: ServiceTable) -> Cookie:
        """The cookie of a service: several may share a host. For each experiment users are drawn anew."""
        if table.experiment is None:
            return cls(f"segue-{table.service}", DAY)
        return cls(f"segue-{table.service}-{_salt(table):08x}", int(table.experiment.most.total_seconds()))


def seed(table: ServiceTable) -> str:
    """What users' numbers depend on beside what they send, where they are known by a header."""
    return str(_salt(table))


def _salt(table: ServiceTable) -> int:
    return crc32(f"{table.service}@{table.trial}".encode())


def known(cookie: Cookie, limit: Fraction | None) -> Document:
    """Whether a user has the cookie with a number below `limit`; None: with any number."""
    name, number = re.escape(cookie.name), _ANY if limit is None else below(limit)
    return _header("cookie", rf"(.*;\s*)?{name}={number}{_REST}(;.*)?")


def drawn(limit: Fraction) -> Document:
    """Whether the number that a user without a cookie draws with this request is below `limit`."""
    return _header("x-request-id", f"{below(limit)}.*")


def remember(cookie: Cookie, route: Route) -> Document:
    """What tells the user's browser the identity that was drawn."""
    attributes = f"Path={route.path.rstrip('/') or '/'}; Max-Age={cookie.seconds}; HttpOnly; SameSite=Lax"
    attributes += "; Secure" if route.tls else ""
    header = {"key": "set-cookie", "value": f"{cookie.name}=%REQ(x-request-id)%; {attributes}"}
    return {"response_headers_to_add": [{"header": header}]}


def below(limit: Fraction) -> str:
    """A regular expression for those beginnings of an identity whose number is below `limit`, of the whole."""
    threshold = round(limit * NUMBERS)
    if threshold >= NUMBERS:
        return _ANY
    digits = f"{threshold:0{_DIGITS}x}"
    smaller = [
        f"{digits[:place]}[{_HEX[: int(digit, 16)]}]" + "[0-9a-f]" * (_DIGITS - 1 - place)
        for place, digit in enumerate(digits)
        if digit != "0"
    ]
    return f"({'|'.join(smaller or [_NO_NUMBER])})"


def takes_part(who: Who) -> Document:
    """Whether a user is one of `who`: a match of routes."""
    return _header(who.header.lower(), _among(who))


def is_among(who: Who) -> Document:
    """Whether a user is one of `who`: a predicate of a matcher."""
    return _says(who.header, _among(who))


def sends(header: str) -> Document:
    """Whether a user sends `header`: a predicate of a matcher."""
    return _says(header, ".+")


def all_of(predicates: Sequence[Document]) -> Document:
    """Whether all of these are true: a predicate of a matcher."""
    return {"and_matcher": {"predicate": list(predicates)}} if len(predicates) > 1 else predicates[0]


def _says(header: str, expression: str) -> Document:
    return {"single_predicate": {"input": header_input(header), "value_match": regex(expression)}}


def _among(who: Who) -> str:
    return "|".join(map(re.escape, who.among))


def hashed(header: str, limit: Fraction, seed: str) -> Document:
    """Whether the number of what a user sends in `header` is below `limit`: a predicate of a matcher.

    With another `seed` the same users have other numbers. Nobody's number is below who does not send it.
    """
    config = {
        "@type": TYPE + "envoy.extensions.matching.input_matchers.consistent_hashing.v3.ConsistentHashing",
        "modulo": NUMBERS,
        "threshold": NUMBERS - round(limit * NUMBERS),  # true of what is not less
        "seed": seed,
    }
    hashing = {"name": "envoy.matching.matchers.consistent_hashing", "typed_config": config}
    below = {"single_predicate": {"input": header_input(header), "custom_match": hashing}}
    return all_of([sends(header), below])


def header_input(name: str) -> Document:
    """A request's header as what a matcher looks at."""
    config = {"@type": TYPE + "envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": name.lower()}
    return {"name": "envoy.matching.inputs.request_headers", "typed_config": config}


def regex(text: str) -> Document:
    """A regular expression as what a matcher compares with: the whole of it."""
    return {"safe_regex": {"google_re2": {}, "regex": text}}


def _header(name: str, expression: str) -> Document:
    return {"name": name, "string_match": {"safe_regex": {"regex": expression}}}
