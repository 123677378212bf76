"""Who the client is, and how a backend is told.

Knows addresses, the session's name and the hops left; must not know sockets, TLS objects or any
configuration. What a client says of itself is kept apart from what a trusted peer says of it.
"""

import ipaddress
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Self, TypeAlias

import attrs

from mailproxy.errors import ProtocolError

Fields: TypeAlias = tuple[tuple[bytes, bytes | None], ...]
"""The fields of an IMAP ID command, in order; None stands for NIL (RFC 2971, section 3.3)."""


MAX_FIELDS = 30
"""Fields that an ID command may have (RFC 2971, section 3.3)."""


MAX_DESCRIPTION = 2048
"""Bytes of a client's own fields that are passed on: a backend hangs up on one that says more, and
would be held to be ill."""


IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


@lru_cache(maxsize=4096)
def _read(host: str) -> tuple[str, IPAddress]:
    """Read an address: how it is written, and its number.

    A session asks for the same few again and again, and `ipaddress` is slow.

    :raises ValueError: when it is none.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), mapped or address


@attrs.frozen
class Address:
    """An IP address and a port; an IPv4-mapped IPv6 address is written as the IPv4 one it is."""

    host: str
    port: int

    @classmethod
    def parse(cls, host: str, port: int) -> Self:
        """Build from text that may hold a zone (`fe80::1%eth0`) or an IPv4-mapped address.

        :raises ValueError: when it is no IP address or no port.
        """
        if not 0 <= port <= 65535:
            raise ValueError(f"{port} is no port")
        return cls(_read(host)[0], port)

    @property
    def ip(self) -> IPAddress:
        """The address as a number."""
        return _read(self.host)[1]

    @property
    def neighbourhood(self) -> str:
        """Who counts as one: an IPv4 address, or the /64 of an IPv6 one, which one person has."""
        if ":" not in self.host:
            return self.host
        return str(ipaddress.ip_network((self.host, 64), strict=False))

    def __str__(self) -> str:
        """Write `host:port`, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def sessionID() -> str:
    """Name a session: 12 characters, URL-safe, not to be guessed."""
    return secrets.token_urlsafe(9)


@attrs.frozen
class Origin:
    """Where a session comes from.

    :ivar session: the session's name in logs and towards backends.
    :ivar client: the client's address, as the socket or a trusted peer says.
    :ivar local: the address that the client connected to.
    :ivar ttl: hops left for a chain of proxies, ours included.
    :ivar secure: whether the client's own leg is encrypted.
    :ivar helo: the name that an SMTP client has greeted with.
    :ivar transport: how the client's own leg is, as a trusted peer says: `TLS` or `insecure`.
    :ivar nameless: whether a trusted peer speaks for somebody whose address it does not tell: so
        `client` is that peer's, and its rights are not to be had by it.
    :ivar description: what the client's program says of itself by IMAP ID, to be passed on.
    """

    session: str
    client: Address
    local: Address
    ttl: int
    secure: bool = False
    description: Fields = ()
    helo: bytes | None = None
    transport: bytes | None = None
    nameless: bool = False

    def described(self, fields: Fields) -> Self:
        """Keep what a client says of itself, less all that only a proxy may say.

        A backend that trusts our address would believe an `x-originating-ip` from us.
        """
        passed: list[tuple[bytes, bytes | None]] = []
        room = MAX_DESCRIPTION
        for name, value in filter(_mayPass, fields[:MAX_FIELDS]):
            room -= len(name) + len(value or b"")
            if room >= 0:
                passed.append((name, value))
        return attrs.evolve(self, description=tuple(passed))

    def forwarded(self, fields: Fields) -> Self:
        """Believe a trusted peer's IMAP ID; a field that makes no sense is passed over."""
        said = {_FROM_ID.get(name.lower(), b""): value for name, value in fields if value}
        return self._believe(said)

    def introduced(self, words: Sequence[bytes]) -> Self:
        """Believe a trusted peer's XCLIENT words, `NAME=value` in xtext (RFC 1891, section 5).

        :raises ProtocolError: when one is not of that form, or the address is none. LOGIN, and what
            we do not know, is passed over.
        """
        said: dict[bytes, bytes] = {}
        for word in words:
            name, equals, value = word.partition(b"=")
            if not equals:
                raise ProtocolError("an XCLIENT word without a value")
            if value.upper() not in _UNKNOWN:
                said[name.upper()] = fromXtext(value)
        if b"ADDR" in said and _address(said, b"ADDR", b"PORT") is None:
            raise ProtocolError("an XCLIENT address that is none")
        return attrs.evolve(self._believe(said), nameless=b"ADDR" not in said)

    def _believe(self, said: Mapping[bytes, bytes]) -> Self:
        hops, hello = said.get(b"TTL", b""), said.get(b"HELO")
        transport = said.get(b"CLIENT-TRANSPORT")
        return attrs.evolve(
            self,
            client=_address(said, b"ADDR", b"PORT") or self.client,
            local=_address(said, b"DESTADDR", b"DESTPORT") or self.local,
            session=_plain(said.get(b"SESSION", b""), 64) or self.session,
            ttl=min(int(hops), 255) if hops.isdigit() and len(hops) < 4 else self.ttl,
            transport=transport if transport in _TRANSPORTS else self.transport,
            helo=self.helo if hello is None else hello if _plain(hello, 255) else None,
        )

    def _facts(self) -> dict[bytes, bytes]:
        """Say it by XCLIENT's names, with one hop less."""
        return {
            b"ADDR": self.client.host.encode(),
            b"PORT": b"%d" % self.client.port,
            b"DESTADDR": self.local.host.encode(),
            b"DESTPORT": b"%d" % self.local.port,
            b"SESSION": self.session.encode(),
            b"TTL": b"%d" % (self.ttl - 1),
            b"CLIENT-TRANSPORT": self.transport or _TRANSPORTS[self.secure],
        }

    def imapID(self) -> Fields:
        """Say it as IMAP ID fields: the names that Dovecot's proxies use."""
        facts = self._facts()
        ours = tuple((name, facts[key]) for name, key in _FROM_ID.items())
        return *self.description[: MAX_FIELDS - len(ours)], *ours

    def xclient(self, taken: frozenset[bytes] | None = None, *, smtp: bool = False) -> list[bytes]:
        """Say it as XCLIENT words.

        :param taken: the attributes that the backend lists; None where it lists none.
        :param smtp: whether to write it as SMTP does: IPv6 addresses marked, HELO and PROTO added.
        """
        facts = self._facts()
        if smtp:
            for key in (b"ADDR", b"DESTADDR"):
                facts[key] = (b"IPV6:" if b":" in facts[key] else b"") + facts[key]
            if self.helo is not None:
                facts |= {b"HELO": self.helo, b"PROTO": b"ESMTP"}
            if self.nameless:
                # An address has rights in SMTP without a login, and this one is the peer's.
                facts[b"ADDR"] = _UNKNOWN[0]
                del facts[b"PORT"]
        return [
            name + b"=" + toXtext(value)
            for name, value in facts.items()
            if taken is None or name in taken
        ]


NOBODY = Origin(session="", client=Address("0.0.0.0", 0), local=Address("0.0.0.0", 0), ttl=0)
"""Whose a conversation is that is over: so many are, and none of them is asked any more."""

_TRANSPORTS = (b"insecure", b"TLS")
_UNKNOWN = (b"[UNAVAILABLE]", b"[TEMPUNAVAIL]")
"""How a proxy says by XCLIENT that it does not know (as Postfix documents it)."""

_FROM_ID = {
    b"x-originating-ip": b"ADDR",
    b"x-originating-port": b"PORT",
    b"x-connected-ip": b"DESTADDR",
    b"x-connected-port": b"DESTPORT",
    b"x-proxy-ttl": b"TTL",
    b"x-session-id": b"SESSION",
    b"x-client-transport": b"CLIENT-TRANSPORT",
}


_ESCAPED = b'+="(){}%*\\'
"""`+` and `=` have to be; the others mean something to ManageSieve."""


def toXtext(value: bytes) -> bytes:
    """Write a value so that it can stand in a command (RFC 1891, section 5)."""
    return b"".join(
        bytes([byte]) if 33 <= byte <= 126 and byte not in _ESCAPED else b"+%02X" % byte
        for byte in value
    )


def fromXtext(text: bytes) -> bytes:
    """Undo `toXtext`.

    :raises ProtocolError: when the text is no xtext.
    """
    plain, *escaped = text.split(b"+")
    for part in escaped:
        if not re.match(rb"[0-9A-F]{2}", part):
            raise ProtocolError("bad xtext")
        plain += bytes([int(part[:2], 16)]) + part[2:]
    return plain


def _mayPass(field: tuple[bytes, bytes | None]) -> bool:
    """Whether a client's field is its own to say, and of a legal size (RFC 2971, section 3.3)."""
    name, value = field
    return not name.lower().startswith(b"x-") and len(name) <= 30 and len(value or b"") <= 1024


def _address(said: Mapping[bytes, bytes], host: bytes, port: bytes) -> Address | None:
    """Read an address; None unless it is sound. Of a port that is none nothing is known: 0."""
    number = said.get(port, b"0")
    try:
        text = said[host].decode("ascii")
        text = text[5:] if text[:5].upper() == "IPV6:" else text
        sound = re.fullmatch(rb"[0-9]{1,5}", number) and int(number) <= 65535
        return Address.parse(text, int(number) if sound else 0)
    except (KeyError, ValueError):
        return None


def _plain(value: bytes, longest: int) -> str | None:
    """Take a peer's word when it is short and plain enough to be logged and sent on."""
    if 0 < len(value) <= longest and all(33 <= byte <= 126 for byte in value):
        return value.decode("ascii")
    return None
