"""What goes on to the other side: heads written anew, less what was meant for us alone.

Knows which fields end at each hop (RFC 9110, section 7.6.1) and how a backend is told who the
client is (RFC 7239); must not know connections, routes or accounts.
"""

import re
from collections.abc import Iterable

import attrs

from mailproxy.http import heads
from mailproxy.http.bodies import Framing, Kind
from mailproxy.http.heads import Field, Fields
from mailproxy.http.messages import Request, Response
from mailproxy.origin import Origin

_HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding"),
        *(b"upgrade", b"http2-settings", b"proxy-authenticate", b"proxy-authorization"),
    )
)

_REQUEST_DROPS = _HOP_BY_HOP | {b"host", b"content-length", b"x-request-id"}
_RESPONSE_DROPS = _HOP_BY_HOP | {b"content-length"}

_SPEAKS_FOR_CLIENT = re.compile(rb"forwarded|x[-_]forwarded[-_].*|x[-_]real[-_]ip")
"""Fields that say who a client is. Some servers take `_` for `-`, so both are meant."""

_PLAIN_TOKEN = re.compile(rb"[!#$&'*+.^_`|~0-9A-Za-z:/=@-]{1,128}")
"""A request's name that a client may give: short, and harmless in any log."""

_UPGRADE_REQUIRED = 426


@attrs.frozen
class Passage:
    """How one request goes on.

    :ivar request: its name towards the backend.
    :ivar keepsForwarded: whether what the peer says of its client is passed on.
    :ivar forwarded: whether the backend is told who the client is.
    :ivar keepsExpect: whether the backend is to say that the body may come; else we have.
    """

    request: bytes
    keepsForwarded: bool
    forwarded: bool
    keepsExpect: bool


def requestName(request: Request) -> bytes | None:
    """The name that a client has given its request, if it is sane; None otherwise."""
    names = request.fields.values(b"x-request-id")
    return names[0] if len(names) == 1 and _PLAIN_TOKEN.fullmatch(names[0]) else None


def requestHead(request: Request, passage: Passage, origin: Origin) -> bytes:
    """Write a request's head for the backend, with the empty line behind it."""
    drops = _REQUEST_DROPS | request.options if request.options else _REQUEST_DROPS
    fields = [field for field in request.fields.items if field[0] not in drops]
    if not passage.keepsExpect:
        fields = [field for field in fields if field[0] != b"expect"]
    said = [
        each for each in fields if each[0][0] in b"fx" and _SPEAKS_FOR_CLIENT.fullmatch(each[0])
    ]
    if said and not (passage.keepsForwarded and not passage.forwarded):
        fields = [field for field in fields if field not in said]
    if passage.forwarded:
        fields += _introduction(said if passage.keepsForwarded else (), request, origin)
    host = request.host or str(origin.local).encode()
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b%bX-Request-Id: %b\r\n\r\n" % (
        request.method,
        request.target,
        host,
        heads.write(fields),
        framingFields(request.framing) if _declares(request.fields) else b"",
        _connection(request),
        passage.request,
    )


def _declares(fields: Fields) -> bool:
    """Whether a sender has said how its body is framed; of no body it need not."""
    return b"content-length" in fields.table or b"transfer-encoding" in fields.table


def _connection(request: Request) -> bytes:
    """Say what holds for the backend's connection alone."""
    if request.upgrade:
        return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % request.upgrade
    if b"trailers" in request.fields.words(b"te"):
        return b"Connection: TE\r\nTE: trailers\r\n"
    return b""


def _introduction(said: Iterable[Field], request: Request, origin: Origin) -> list[Field]:
    """Say who the client is, behind what a trusted peer has said of it."""
    known = heads.Fields(tuple(said), _table(said))
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


def _table(fields: Iterable[Field]) -> dict[bytes, list[bytes]]:
    table: dict[bytes, list[bytes]] = {}
    for lower, _, value in fields:
        table.setdefault(lower, []).append(value)
    return table


def responseHead(response: Response, framing: bytes, *, last: bool) -> bytes:
    """Write a response's head for the client, with the empty line behind it.

    :param framing: the fields that say how the body is framed.
    :param last: whether we close the connection behind it.
    """
    drops = _RESPONSE_DROPS | response.options if response.options else _RESPONSE_DROPS
    fields = [field for field in response.fields.items if field[0] not in drops]
    connection = b"Connection: close\r\n" if last else b""
    if response.status == _UPGRADE_REQUIRED:
        wanted = b", ".join(response.fields.values(b"upgrade"))
        connection = b"Connection: Upgrade%b\r\n" % (b", close" if last else b"")
        connection += b"Upgrade: %b\r\n" % wanted
    return _statusLine(response) + heads.write(fields) + framing + connection + b"\r\n"


def interimHead(response: Response) -> bytes:
    """Write the head of an interim response: 100, 102, 103."""
    return responseHead(response, b"", last=False)


def switchingHead(response: Response) -> bytes:
    """Write the head behind which another protocol begins."""
    drops = _RESPONSE_DROPS | response.options
    fields = [field for field in response.fields.items if field[0] not in drops]
    upgrade = b", ".join(response.fields.values(b"upgrade"))
    words = b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % upgrade
    return _statusLine(response) + heads.write(fields) + words


def framingFields(framing: Framing) -> bytes:
    """Say how a body is framed; nothing for none, and for one that the connection's end ends."""
    if framing.kind is Kind.CHUNKED:
        return b"Transfer-Encoding: chunked\r\n"
    if framing.kind is Kind.LENGTH:
        return b"Content-Length: %d\r\n" % framing.length
    return b""


def answerFraming(request: Request, response: Response, framing: Framing) -> bytes:
    """Say how an answer's body is framed.

    To HEAD, and of 304, no body follows: what was said of its length is repeated.

    :param framing: towards the client.
    """
    if request.method == b"HEAD" or response.status == 304:
        length = response.fields.first(b"content-length")
        return b"Content-Length: %b\r\n" % length if length is not None else b""
    return b"" if response.status == 204 else framingFields(framing)


def _statusLine(response: Response) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (response.status, response.reason)
