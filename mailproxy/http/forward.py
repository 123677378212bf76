"""What goes on to the other side: heads made anew, less what was meant for us alone.

Knows which fields end at each hop (RFC 9110, section 7.6.1) and how a backend is told who the
client is (RFC 7239); must not know connections, routes or accounts. h11 writes what is made here.
"""

import re
from collections.abc import Iterable, Sequence

import attrs
import h11

from mailproxy.http.heads import Field, Fields
from mailproxy.http.messages import Request, Response
from mailproxy.origin import Origin

_HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding"),
        *(b"upgrade", b"http2-settings", b"proxy-authenticate", b"proxy-authorization"),
    )
)

_REQUEST_DROPS = _HOP_BY_HOP | {b"host", b"content-length", b"x-request-id", b"x-proxy-ttl"}

_SPEAKS_FOR_CLIENT = re.compile(rb"forwarded|x[-_]forwarded[-_].*|x[-_]real[-_]ip")
"""Fields that say who a client is. Some servers take `_` for `-`, so both are meant."""

_PLAIN_TOKEN = re.compile(rb"[!#$&'*+.^_`|~0-9A-Za-z:/=@-]{1,128}")
"""A request's name that a client may give: short, and harmless in any log."""

NAME = b"X-Request-Id"
"""The field that has a request's name, in the request and in its answer."""

_CHUNKED = (b"Transfer-Encoding", b"chunked")
_UPGRADE = (b"Connection", b"Upgrade")

Pair = tuple[bytes, bytes]
"""A field for h11: name and value."""


@attrs.frozen
class Terms:
    """How one request goes on.

    :ivar request: its name towards the backend.
    :ivar keepsForwarded: whether what the peer says of its client is passed on.
    :ivar forwarded: whether the backend is told who the client is.
    :ivar keepsExpect: whether the backend is to say that the body may come; else we have.
    :ivar hops: how many are left for it, where no PROXY header says so; None where one does.
    """

    request: bytes
    keepsForwarded: bool
    forwarded: bool
    keepsExpect: bool
    hops: int | None = None


def requestName(request: Request) -> bytes | None:
    """The name that a client has given its request, if it is sane; None otherwise."""
    names = request.fields.values(b"x-request-id")
    return names[0] if len(names) == 1 and _PLAIN_TOKEN.fullmatch(names[0]) else None


def hopsLeft(request: Request, most: int) -> int:
    """How many hops a request may take: what it says, if that is less than what we allow.

    Anybody is believed, since to claim fewer harms nobody else.
    """
    said = request.fields.first(b"x-proxy-ttl") or b""
    return min(int(said), most) if said.isdigit() and len(said) < 4 else most


def toBackend(request: Request, terms: Terms, origin: Origin) -> h11.Request:
    """Make the request that a backend gets."""
    drops = _REQUEST_DROPS | request.options if request.options else _REQUEST_DROPS
    fields = [field for field in request.fields.items if field[0] not in drops]
    if not terms.keepsExpect:
        fields = [field for field in fields if field[0] != b"expect"]
    said = [
        each for each in fields if each[0][0] in b"fx" and _SPEAKS_FOR_CLIENT.fullmatch(each[0])
    ]
    if said and not (terms.keepsForwarded and not terms.forwarded):
        fields = [field for field in fields if field not in said]
    if terms.forwarded:
        fields += _introduction(said if terms.keepsForwarded else (), request, origin)
    headers = [(b"Host", request.host or str(origin.local).encode())]
    headers += _pairs(fields)
    headers += _requestFraming(request.fields)
    headers += _connection(request)
    headers.append((NAME, terms.request))
    if terms.hops is not None:
        headers.append((b"X-Proxy-TTL", b"%d" % terms.hops))
    return h11.Request(method=request.method, target=request.target, headers=headers)


def _pairs(fields: Iterable[Field]) -> list[Pair]:
    return [(name, value) for _, name, value in fields]


def _requestFraming(fields: Fields) -> list[Pair]:
    """Say how a request's body is framed, if its sender has; of no body it need not."""
    if b"transfer-encoding" in fields.table:
        return [_CHUNKED]
    length = fields.first(b"content-length")
    return [] if length is None else [(b"Content-Length", length)]


def _connection(request: Request) -> list[Pair]:
    """Say what holds for the backend's connection alone."""
    if request.upgrade:
        return [_UPGRADE, (b"Upgrade", request.upgrade)]
    if b"trailers" in request.fields.words(b"te"):
        return [(b"Connection", b"TE"), (b"TE", b"trailers")]
    return []


def _introduction(said: Sequence[Field], request: Request, origin: Origin) -> list[Field]:
    """Say who the client is, behind what a trusted peer has said of it."""
    known = Fields.of(said)
    proto = b"https" if origin.secure else b"http"
    client = b"unknown" if origin.nameless else origin.client.host.encode()
    node = b'"[%b]"' % client if b":" in client else client
    element = b"for=%b;proto=%b" % (node, proto)
    if request.host:
        element += b';host="%b"' % request.host
    chain = b", ".join([*known.values(b"x-forwarded-for"), client])
    ours = (
        (b"Forwarded", b", ".join([*known.values(b"forwarded"), element])),
        (b"X-Forwarded-For", chain),
        (b"X-Forwarded-Proto", known.first(b"x-forwarded-proto") or proto),
    )
    names = {name.lower() for name, _ in ours}
    rest = [field for field in known.items if field[0] not in names]
    return [*rest, *((name.lower(), name, value) for name, value in ours)]


def toClient(response: Response, name: bytes, *, last: bool) -> h11.Response:
    """Make the final answer that a client gets; h11 adds chunks where no length is known.

    :param name: the request's; a backend that has said it itself is not corrected.
    :param last: whether we close the connection behind it.
    """
    headers = _named(response, name)
    if response.status == 204:
        headers = _withoutLength(headers)
    if response.status == 426:
        headers += [_UPGRADE, (b"Upgrade", _upgrade(response))]
    if last:
        headers.append((b"Connection", b"close"))
    return h11.Response(status_code=response.status, reason=response.reason, headers=headers)


def interim(response: Response) -> h11.InformationalResponse:
    """Make an interim answer that a client gets."""
    return _informational(response, _answerFields(response))


def switch(response: Response, name: bytes) -> h11.InformationalResponse:
    """Make the answer behind which another protocol is spoken."""
    return _informational(
        response, [*_named(response, name), _UPGRADE, (b"Upgrade", _upgrade(response))]
    )


def _informational(response: Response, headers: list[Pair]) -> h11.InformationalResponse:
    return h11.InformationalResponse(
        status_code=response.status, reason=response.reason, headers=_withoutLength(headers)
    )


def _named(response: Response, name: bytes) -> list[Pair]:
    """The fields of an answer, the request's name among them."""
    headers = _answerFields(response)
    return headers if b"x-request-id" in response.fields.table else [*headers, (NAME, name)]


def _answerFields(response: Response) -> list[Pair]:
    """The fields of an answer that are for the client."""
    drops = _HOP_BY_HOP | response.options if response.options else _HOP_BY_HOP
    return _pairs(field for field in response.fields.items if field[0] not in drops)


def _withoutLength(headers: Iterable[Pair]) -> list[Pair]:
    """Leave out what an answer without a body must not say (RFC 9110, section 8.6)."""
    return [pair for pair in headers if pair[0].lower() != b"content-length"]


def _upgrade(response: Response) -> bytes:
    return b", ".join(response.fields.values(b"upgrade"))
