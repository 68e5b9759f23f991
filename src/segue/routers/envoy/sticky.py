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
from fractions import Fraction
from zlib import crc32

from segue.core.traffic import Route
from segue.routers.envoy.http import TYPE, Document

DAY = 86400
"""Seconds that a browser keeps the cookie."""
_DIGITS = 5
NUMBERS = 16**_DIGITS
"""How many numbers there are: the first hexadecimal digits of an identity. A share is exact to a millionth."""
_HEX = "0123456789abcdef"
_ANY = rf"[0-9a-f]{{{_DIGITS}}}"
_REST = rf"[0-9a-f-]{{{36 - _DIGITS}}}"
_NO_NUMBER = "x"


def cookie_name(service: str) -> str:
    """The cookie of a service: several may share a host."""
    return f"segue-{service}"


def known(service: str, limit: Fraction | None) -> Document:
    """Whether a user has a cookie with a number below `limit`; None: with any number."""
    name, number = re.escape(cookie_name(service)), _ANY if limit is None else below(limit)
    return _header("cookie", rf"(.*;\s*)?{name}={number}{_REST}(;.*)?")


def drawn(limit: Fraction) -> Document:
    """Whether the number that a user without a cookie draws with this request is below `limit`."""
    return _header("x-request-id", f"{below(limit)}.*")


def remember(service: str, route: Route) -> Document:
    """What tells the user's browser the identity that was drawn."""
    attributes = f"Path={route.path.rstrip('/') or '/'}; Max-Age={DAY}; HttpOnly; SameSite=Lax"
    attributes += "; Secure" if route.tls else ""
    cookie = {"key": "set-cookie", "value": f"{cookie_name(service)}=%REQ(x-request-id)%; {attributes}"}
    return {"response_headers_to_add": [{"header": cookie}]}


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


def hashed(header: str, limit: Fraction, seed: str) -> Document:
    """Whether the number of what a user sends in `header` is below `limit`: a predicate of a matcher.

    With another `seed` the same users have other numbers. Nobody's number is below who does not send it.
    """
    config = {
        "@type": TYPE + "envoy.extensions.matching.input_matchers.consistent_hashing.v3.ConsistentHashing",
        "modulo": NUMBERS,
        "threshold": NUMBERS - round(limit * NUMBERS),  # true of what is not less
        "seed": str(crc32(seed.encode())),
    }
    source = header_input(header)
    hashing = {"name": "envoy.matching.matchers.consistent_hashing", "typed_config": config}
    return {
        "and_matcher": {
            "predicate": [
                {"single_predicate": {"input": source, "value_match": regex(".+")}},
                {"single_predicate": {"input": source, "custom_match": hashing}},
            ]
        }
    }


def header_input(name: str) -> Document:
    """A request's header as what a matcher looks at."""
    config = {"@type": TYPE + "envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": name.lower()}
    return {"name": "envoy.matching.inputs.request_headers", "typed_config": config}


def regex(text: str) -> Document:
    """A regular expression as what a matcher compares with: the whole of it."""
    return {"safe_regex": {"google_re2": {}, "regex": text}}


def _header(name: str, expression: str) -> Document:
    return {"name": name, "string_match": {"safe_regex": {"regex": expression}}}
