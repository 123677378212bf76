"""Who the client is, and how a backend is told.

Knows addresses, the session's name and the hops left; must not know sockets, TLS objects or any
configuration. What a client says of itself is kept apart from what a trusted peer says of it.
"""

import ipaddress
import secrets
from collections.abc import Mapping
from typing import Self, TypeAlias

import attrs

Fields: TypeAlias = tuple[tuple[bytes, bytes | None], ...]
"""The fields of an IMAP ID command, in order; None stands for NIL (RFC 2971, section 3.3)."""


MAX_FIELDS = 30
"""Fields that an ID command may have (RFC 2971, section 3.3)."""


MAX_DESCRIPTION = 2048
"""Bytes of a client's own fields that are passed on: a backend hangs up on one that says more, and
would be held to be ill."""


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
        address = ipaddress.ip_address(host.partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        if not 0 <= port <= 65535:
            raise ValueError(f"{port} is no port")
        return cls(str(mapped or address), port)

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The address as a number."""
        return ipaddress.ip_address(self.host)

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
    :ivar description: what the client's program says of itself by IMAP ID, to be passed on.
    """

    session: str
    client: Address
    local: Address
    ttl: int
    secure: bool = False
    description: Fields = ()

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
        """Believe a trusted peer's `x-` fields; one that makes no sense is passed over."""
        said = {name.lower(): value for name, value in fields if value}
        hops = said.get(b"x-proxy-ttl", b"")
        return attrs.evolve(
            self,
            client=_address(said, b"x-originating") or self.client,
            local=_address(said, b"x-connected") or self.local,
            session=_sessionName(said.get(b"x-session-id", b"")) or self.session,
            ttl=int(hops) if hops.isdigit() and len(hops) < 4 else self.ttl,
        )

    def imapID(self) -> Fields:
        """Say it as IMAP ID fields, with one hop less: the names that Dovecot's proxies use."""
        ours = (
            (b"x-originating-ip", self.client.host.encode()),
            (b"x-originating-port", b"%d" % self.client.port),
            (b"x-connected-ip", self.local.host.encode()),
            (b"x-connected-port", b"%d" % self.local.port),
            (b"x-proxy-ttl", b"%d" % (self.ttl - 1)),
            (b"x-session-id", self.session.encode()),
            (b"x-client-transport", b"TLS" if self.secure else b"insecure"),
        )
        return *self.description[: MAX_FIELDS - len(ours)], *ours


def _mayPass(field: tuple[bytes, bytes | None]) -> bool:
    """Whether a client's field is its own to say, and of a legal size (RFC 2971, section 3.3)."""
    name, value = field
    return not name.lower().startswith(b"x-") and len(name) <= 30 and len(value or b"") <= 1024


def _address(said: Mapping[bytes, bytes], prefix: bytes) -> Address | None:
    """Read PREFIX-ip and PREFIX-port; None unless both are sound."""
    try:
        host = said[prefix + b"-ip"].decode("ascii")
        return Address.parse(host, int(said.get(prefix + b"-port", b"0")))
    except (KeyError, ValueError):
        return None


def _sessionName(value: bytes) -> str | None:
    """Take a peer's session name when it is short and plain enough to be logged."""
    if 0 < len(value) <= 64 and value.isascii() and all(33 <= byte <= 126 for byte in value):
        return value.decode("ascii")
    return None
