"""SASL messages: what a client sends to log in, and how it is replayed.

PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login), OAUTHBEARER (RFC 7628) and XOAUTH2 (Google).
Knows messages with base64 removed; must not know lines, tags or who carries them.
"""

import binascii
import enum
from base64 import b64decode

import attrs

from mailproxy.errors import ProtocolError


class SASLError(ProtocolError):
    """A SASL message that cannot be understood; its text never quotes the message."""


class EmptyCredentials(SASLError):
    """A login whose user, password or token is missing."""


class Mechanism(enum.Enum):
    """The mechanisms that we can read and replay."""

    PLAIN = b"PLAIN"
    LOGIN = b"LOGIN"
    OAUTHBEARER = b"OAUTHBEARER"
    XOAUTH2 = b"XOAUTH2"


@attrs.frozen
class Credentials:
    """One login, as it will be replayed; nothing of it but the mechanism shows in a repr.

    :ivar mechanism: PLAIN, OAUTHBEARER or XOAUTH2; LOGIN is replayed as PLAIN.
    :ivar response: the SASL message, base64 removed, sent on unchanged.
    :ivar authorization: whose mailbox is asked for (the authorization identity); may be empty.
    :ivar user: who logs in (the authentication identity); empty for a token.
    :ivar secret: the password, or the bearer token.
    """

    mechanism: Mechanism
    response: bytes = attrs.field(repr=False)
    authorization: bytes = attrs.field(repr=False)
    user: bytes = attrs.field(repr=False)
    secret: bytes = attrs.field(repr=False)

    @property
    def token(self) -> bytes | None:
        """The bearer token; None for a password."""
        return None if self.mechanism is Mechanism.PLAIN else self.secret

    @property
    def asPassword(self) -> bool:
        """Whether user and password say it all: so it fits a backend without PLAIN."""
        return self.mechanism is Mechanism.PLAIN and self.authorization in (b"", self.user)


def unbase64(line: bytes) -> bytes:
    """Decode one base64 message (RFC 4648, section 4).

    :raises SASLError: on a character outside the alphabet, or bad padding.
    """
    if len(line) % 4:
        raise SASLError("not base64")  # b64decode passes over a superfluous `=`
    try:
        return b64decode(line, validate=True)
    except binascii.Error:
        raise SASLError("not base64") from None


def initialResponse(line: bytes) -> bytes:
    """Decode an initial response, where `=` stands for an empty one (RFC 4954, section 4)."""
    return b"" if line == b"=" else unbase64(line)


def fromPassword(user: bytes, password: bytes) -> Credentials:
    """Make PLAIN credentials of a user name and a password.

    :raises SASLError: when either is empty or holds a NUL, which PLAIN cannot carry.
    """
    return decode(Mechanism.PLAIN, b"\0" + user + b"\0" + password)


def decode(mechanism: Mechanism, message: bytes) -> Credentials:
    """Read a client's one message of PLAIN, OAUTHBEARER or XOAUTH2.

    :raises EmptyCredentials: when a user, password or token is missing.
    :raises SASLError: when it is malformed.
    """
    if mechanism is Mechanism.PLAIN:
        return _plain(message)
    if mechanism is Mechanism.OAUTHBEARER:
        return _oauthBearer(message)
    return _xoauth2(message)


def _plain(message: bytes) -> Credentials:
    """Read `authzid NUL authcid NUL passwd` (RFC 4616, section 2)."""
    match message.split(b"\0"):
        case [authorization, user, password] if user and password:
            return Credentials(Mechanism.PLAIN, message, authorization, user, password)
        case [_, _, _]:
            raise EmptyCredentials("empty user or password")
    raise SASLError("not two NUL")


def _oauthBearer(message: bytes) -> Credentials:
    """Read `gs2-header ^A key=value ^A ... ^A^A` (RFC 7628, section 3.1; RFC 5801, section 4)."""
    header, *pairs = message.split(b"\1")
    match header.split(b","):
        case [b"n" | b"y", b"", b""]:
            authorization = b""
        case [b"n" | b"y", name, b""] if name.startswith(b"a="):
            authorization = _saslName(name[2:])
        case _:
            raise SASLError("bad GS2 header")
    return Credentials(Mechanism.OAUTHBEARER, message, authorization, b"", _bearer(pairs))


def _saslName(name: bytes) -> bytes:
    """Undo `=2C` and `=3D`, the only escapes of a saslname (RFC 5801, section 4)."""
    if name.count(b"=") != name.count(b"=2C") + name.count(b"=3D"):
        raise SASLError("bad name in GS2 header")
    return name.replace(b"=2C", b",").replace(b"=3D", b"=")


def _xoauth2(message: bytes) -> Credentials:
    """Read `user=... ^A auth=Bearer ... ^A^A`; without a user the token tells."""
    first, *pairs = message.split(b"\1")
    named = first.startswith(b"user=")
    if not named and not first.startswith(b"auth="):
        raise SASLError("no user")
    token = _bearer(pairs if named else [first, *pairs])
    return Credentials(Mechanism.XOAUTH2, message, first[5:] if named else b"", b"", token)


def _bearer(pairs: list[bytes]) -> bytes:
    """Find the token among the key-value pairs, which end in two ^A."""
    if pairs[-2:] != [b"", b""]:
        raise SASLError("not ended by two ^A")
    for pair in pairs:
        scheme, _, token = pair.removeprefix(b"auth=").partition(b" ")
        if pair.startswith(b"auth=") and scheme.lower() == b"bearer" and token.strip():
            return token.strip()
    raise EmptyCredentials("no bearer token")


def dismissal(mechanism: Mechanism) -> bytes:
    """What a client answers to a token's refusal so that the exchange ends.

    One ^A for OAUTHBEARER (RFC 7628, section 3.2.3), an empty message for XOAUTH2.
    """
    return b"\1" if mechanism is Mechanism.OAUTHBEARER else b""
