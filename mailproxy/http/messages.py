"""Requests and responses: what their heads mean (RFC 9110; RFC 9112, sections 3, 4, 6 and 9).

h11 parses them. What it leaves open is decided here: which of its events are sound, and how the
body behind one is framed. Must not know accounts, destinations or connections.
"""

import re
from typing import Self

import attrs
import h11

from mailproxy.http import heads
from mailproxy.http.bodies import CHUNKED, NOTHING, UNTIL_CLOSE, Framing, Kind
from mailproxy.http.heads import BadMessage, Fields

MAX_METHOD = 64
"""Bytes of a method; those that there are have less than twenty."""

MAX_PATH = 8192
"""Bytes of a path: what routes are matched against."""

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
_AUTHORITY = re.compile(
    rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?",
)
_LENGTH_LIST = re.compile(rb"\ncontent-length:[^\r]*,", re.IGNORECASE)

_QUOTED = re.compile(r":? (?:bytearray\(|b['\"])")
"""Where a reason of h11's begins to repeat what came: it may be a secret."""

_LONGEST = 10**18
"""More than any body has, and what fits into every program's idea of a length."""

_VERSIONS = (b"1.1", b"1.0")
_BODILESS = frozenset((204, 304))

_END_TO_END = frozenset(
    (
        *(b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization"),
        *(b"cookie", b"set-cookie", b"expect", b"forwarded", b"x-real-ip", b"x-request-id"),
        *(b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port"),
    )
)
"""Fields that `Connection` cannot name: without them a message would mean something else."""

_TUNNELS = (b"h2c", b"h2", b"http", b"tls")
"""Upgrades after which requests would pass us unseen (RFC 9113, 3.1; RFC 2817)."""

IDEMPOTENT = frozenset(
    (
        *(b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"),
        *(b"PROPFIND", b"REPORT", b"SEARCH", b"QUERY"),
    )
)
"""Methods whose requests may be sent twice (RFC 9110, 9.2.2; RFC 4918; RFC 3253; RFC 5323)."""


@attrs.frozen
class Request:
    """A request's head, found to be sound.

    :ivar target: in origin form, or `*`.
    :ivar path: the target without its query, as sent.
    :ivar host: what stands in `Host`; empty for an old client that has sent none.
    :ivar isOld: whether it is one of HTTP/1.0.
    :ivar framing: of the body behind it.
    :ivar options: what `Connection` says, in lower case.
    :ivar upgrade: the protocols that the client would change to; empty when it would not.
    """

    method: bytes
    target: bytes
    path: bytes
    host: bytes
    isOld: bool
    fields: Fields
    framing: Framing
    options: frozenset[bytes]
    upgrade: bytes

    @classmethod
    def parse(cls, head: bytes, machine: h11.Connection) -> Self:
        """Read a head.

        :param head: without the empty line, and the line end before it.
        :param machine: in the server's role, new; it will decode the body.
        :raises BadMessage: with the status that the request is to be answered by.
        """
        event = _parsed(head, machine)
        assert isinstance(event, h11.Request), "it comes first"
        if event.http_version not in _VERSIONS:
            raise BadMessage("a version that is not served", 505)
        if event.method == b"CONNECT":
            raise BadMessage("CONNECT is not served", 405)
        if len(event.method) > MAX_METHOD:
            raise BadMessage("a method that is too long", 501)
        isOld = event.http_version == b"1.0"
        fields = Fields.parsed(event)
        target, host = _place(event, _host(fields))
        path = target.partition(b"?")[0]
        if len(path) > MAX_PATH:
            raise BadMessage("a path that is too long", 414)
        if len(fields.values(b"authorization")) > 1:
            raise BadMessage("more than one Authorization")
        framing, options = _framing(fields, isOld), _options(fields)
        upgrade = b"" if isOld or not framing.isEmpty else _upgrade(fields, options)
        return cls(event.method, target, path, host, isOld, fields, framing, options, upgrade)

    @property
    def lasting(self) -> bool:
        """Whether the client may send another request behind this one."""
        return not self.isOld and b"close" not in self.options

    @property
    def expects(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body."""
        return not self.isOld and b"100-continue" in self.fields.words(b"expect")


@attrs.frozen
class Response:
    """A response's head, found to be sound.

    :ivar size: bytes that it had.
    :ivar reason: the text behind the status.
    :ivar isOld: whether it is one of HTTP/1.0.
    """

    size: int
    status: int
    reason: bytes
    isOld: bool
    fields: Fields
    options: frozenset[bytes]

    @classmethod
    def parse(cls, head: bytes, machine: h11.Connection) -> Self:
        """Read a head.

        :param machine: in the client's role; it has sent the request.
        :raises BadMessage: when it is malformed, or answers something else.
        """
        event = _parsed(head, machine)
        assert isinstance(event, h11.Response | h11.InformationalResponse), "it comes first"
        if event.http_version not in _VERSIONS:
            raise BadMessage("a version that is not spoken")
        fields = Fields.parsed(event)
        isOld = event.http_version == b"1.0"
        return cls(len(head), event.status_code, event.reason, isOld, fields, _options(fields))

    @property
    def isInterim(self) -> bool:
        """Whether another response follows it."""
        return self.status < 200

    @property
    def lasting(self) -> bool:
        """Whether the backend takes another request on this connection."""
        return not self.isOld and b"close" not in self.options

    def framing(self, method: bytes) -> Framing:
        """Tell how the body of this answer to such a request is framed (RFC 9112, 6.3).

        :raises BadMessage: when that cannot be told.
        """
        declared = _framing(self.fields, self.isOld, UNTIL_CLOSE)
        if self.isInterim or self.status in _BODILESS or method == b"HEAD":
            return NOTHING
        return declared


def _parsed(head: bytes, machine: h11.Connection) -> object:
    """Have a head parsed that holds nothing in which h11 is lenient."""
    heads.inspect(head)
    if _LENGTH_LIST.search(head) is not None:
        raise BadMessage("a list of lengths")
    machine.receive_data(head + b"\r\n\r\n")
    try:
        return machine.next_event()
    except h11.RemoteProtocolError as error:
        # Its own hint would be 501 for a coding that is not chunked.
        reason = _QUOTED.split(str(error), maxsplit=1)[0]
        raise BadMessage(f"a malformed head: {reason}") from error


def _host(fields: Fields) -> bytes:
    """Find the host (RFC 9112, section 3.2); h11 lets only an old client do without one."""
    host = fields.first(b"host")
    if host is not None and not _AUTHORITY.fullmatch(host):
        raise BadMessage("a malformed Host")
    return host or b""


def _place(event: h11.Request, host: bytes) -> tuple[bytes, bytes]:
    """Bring a target to its origin form (RFC 9112, section 3.2).

    :returns: the target, and the host that it is for.
    """
    target, isOptions = event.target, event.method == b"OPTIONS"
    if target.startswith(b"/"):
        if b"#" in target:
            raise BadMessage("a target with a fragment")
        return target, host
    if target == b"*" and isOptions:
        return target, host
    found = _ABSOLUTE.fullmatch(target)
    if found is None or not _AUTHORITY.fullmatch(found[1]):
        raise BadMessage("a malformed target")
    if host and host.lower() != found[1].lower():
        raise BadMessage("a target that is not for the Host")
    path = found[2]
    if not path and isOptions:
        return b"*", found[1]
    return path if path.startswith(b"/") else b"/" + path, found[1]


def _framing(fields: Fields, isOld: bool, otherwise: Framing = NOTHING) -> Framing:
    """Tell how a body is framed (RFC 9112, section 6), where that can be told in one way only."""
    hasCoding, length = b"transfer-encoding" in fields.table, fields.first(b"content-length")
    if b"transfer_encoding" in fields.table or b"content_length" in fields.table:
        raise BadMessage("a field that some would take for the framing")
    if hasCoding:
        if isOld or length is not None:
            raise BadMessage("two framings, or one that its sender cannot know")
        return CHUNKED
    if length is None:
        return otherwise
    if int(length) >= _LONGEST:
        raise BadMessage("a length that some could not count")
    return Framing(Kind.LENGTH, int(length))


def _options(fields: Fields) -> frozenset[bytes]:
    """Read `Connection` (RFC 9110, section 7.6.1)."""
    if b"connection" not in fields.table:
        return _NO_OPTIONS
    options = frozenset(fields.words(b"connection"))
    if not options.isdisjoint(_END_TO_END):
        raise BadMessage("Connection names a field that is not its own")
    return options


_NO_OPTIONS: frozenset[bytes] = frozenset()


def _upgrade(fields: Fields, options: frozenset[bytes]) -> bytes:
    """Find what a client would change to, less what would hide its requests from us."""
    if b"upgrade" not in options:
        return b""
    wanted = b",".join(fields.values(b"upgrade")).split(b",")
    names = [name.strip() for name in wanted]
    return b", ".join(
        name for name in names if name and name.lower().partition(b"/")[0] not in _TUNNELS
    )
