"""Whose request it is, and where it goes: the routes, tried in order.

Knows the parts of a request and which of them names an account; must not know where an account
lives, nor any connection.
"""

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Self, TypeAlias
from urllib.parse import unquote_to_bytes

import attrs

from mailproxy.config.model import HTTP, Config, Extract, ExtractFrom, Forwarded, Route
from mailproxy.config.patterns import firstGroup
from mailproxy.errors import InvalidIdentifier
from mailproxy.http.globs import compileGlob
from mailproxy.http.heads import Fields
from mailproxy.http.messages import Request
from mailproxy.identity import IdentityRules

FORM = b"application/x-www-form-urlencoded"

Find: TypeAlias = Callable[[Request, bytes, IdentityRules], str | None]
"""Finds an account in a request and its body; None when it names none.

:raises InvalidIdentifier: when the name may not be used.
"""


@attrs.frozen
class Rule:
    """One route.

    :ivar pattern: of the decoded paths that it is for.
    :ivar destination: where all of its requests go; None where each goes to its account's.
    :ivar find: finds the account; None for a pinned route.
    :ivar needsBody: whether the account's name is in the body.
    :ivar fallback: where requests without an account go; None: to the default.
    """

    pattern: re.Pattern[bytes]
    destination: str | None
    find: Find | None
    needsBody: bool
    fallback: str | None

    @classmethod
    def fromConfig(cls, route: Route) -> Self:
        """Read a `[[http.route]]`."""
        extract = route.extract
        return cls(
            pattern=compileGlob(route.match),
            destination=route.destination,
            find=None if extract is None else _finder(extract),
            needsBody=extract is not None and extract.from_ is ExtractFrom.BODY,
            fallback=None if route.fallback == "default" else route.fallback,
        )


@attrs.frozen
class HTTPRules:
    """What holds for all requests.

    :ivar bodyCap: bytes of a body that are read to find an account.
    :ivar maxHead: bytes of a head.
    :ivar idle: seconds without a byte after which an exchange is given up.
    :ivar keepalive: seconds that a connection may wait for its next request.
    :ivar maxRequests: requests on one connection; 0: any number.
    :ivar keepsForwarded: the listeners whose peers may say who their client is.
    :ivar forwarded: the destinations that are told who the client is.
    """

    rules: tuple[Rule, ...] = ()
    bodyCap: int = 65536
    maxHead: int = 65536
    idle: float = 60.0
    keepalive: float = 75.0
    maxRequests: int = 1000
    keepsForwarded: frozenset[str] = frozenset()
    forwarded: frozenset[str] = frozenset()

    @classmethod
    def fromConfig(cls, config: Config) -> Self:
        """Take what the configuration says of requests."""
        http: HTTP = config.http
        return cls(
            rules=tuple(map(Rule.fromConfig, http.route)),
            bodyCap=http.body_extract_cap,
            maxHead=http.max_head_size,
            idle=http.relay_idle,
            keepalive=http.keepalive_timeout,
            maxRequests=http.max_keepalive_requests,
            keepsForwarded=_names(config.listener, lambda each: each.forwarded is Forwarded.TRUST),
            forwarded=_names(config.destination, lambda each: each.forwarded),
        )

    def match(self, path: bytes) -> Rule | None:
        """Find the first route for a path, as sent or without its trailing slash."""
        decoded = unquote_to_bytes(path) if b"%" in path else path
        bare = decoded[:-1] if decoded.endswith(b"/") else None
        for rule in self.rules:
            fits = rule.pattern.fullmatch
            if fits(decoded) or (bare and fits(bare)):
                return rule
        return None


def _names(table: Mapping[str, object], chosen: Callable[..., bool]) -> frozenset[str]:
    return frozenset(name for name, each in table.items() if chosen(each))


# How accounts are found


def _finder(extract: Extract) -> Find:
    """Make what looks into the part of a request that a route names."""
    if extract.from_ is ExtractFrom.QUERY:
        return _fromQuery((extract.param or "").encode())
    if extract.from_ is ExtractFrom.HEADER:
        return _fromHeader((extract.header or "").lower().encode())
    if extract.from_ is ExtractFrom.BODY:
        return _fromBody(firstGroup(extract.regex or ""))
    return _fromAuthorization


def _fromAuthorization(request: Request, body: bytes, rules: IdentityRules) -> str | None:
    """Read the login of `Basic` (RFC 7617), or the token of `Bearer` (RFC 6750)."""
    scheme, _, given = (request.fields.first(b"authorization") or b"").partition(b" ")
    given = given.strip(b" ")
    match scheme.lower():
        case b"basic":
            try:
                login, colon, _ = b64decode(given, validate=True).partition(b":")
            except ValueError:
                return None
            return _normalized(login if colon else b"", rules)
        case b"bearer":
            return rules.fromToken(given)
    return None


def _fromQuery(param: bytes) -> Find:
    """Make what reads a parameter of the query: the first of its name."""

    def find(request: Request, body: bytes, rules: IdentityRules) -> str | None:
        for pair in request.target.partition(b"?")[2].split(b"&"):
            name, _, value = pair.partition(b"=")
            if _decoded(name) == param:
                return _normalized(_decoded(value), rules)
        return None

    return find


def _fromHeader(name: bytes) -> Find:
    """Make what reads a field."""

    def find(request: Request, body: bytes, rules: IdentityRules) -> str | None:
        return _normalized(request.fields.first(name) or b"", rules)

    return find


def _fromBody(search: Callable[[bytes], bytes]) -> Find:
    """Make what searches the body; in a form's body the name is decoded as its values are."""

    def find(request: Request, body: bytes, rules: IdentityRules) -> str | None:
        name = search(body)
        return _normalized(_decoded(name) if _isForm(request.fields) else name, rules)

    return find


def _normalized(name: bytes, rules: IdentityRules) -> str | None:
    """Bring a name to the form that accounts are known by; nothing is no name."""
    if not name:
        return None
    try:
        return rules.normalize(name.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidIdentifier("not UTF-8") from None


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _isForm(fields: Fields) -> bool:
    kind = fields.first(b"content-type") or b""
    return kind.partition(b";")[0].strip().lower() == FORM
