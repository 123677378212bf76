"""Where a listener listens: `HOST:PORT`, `[v6]:PORT`, or a Twisted server endpoint string.

Knows how such texts are written and when two of them claim the same socket; opens none.
"""

import ipaddress
import re

import attrs

from mailproxy.config.values import shown

_ENDPOINT = re.compile(r"([a-z][a-z0-9_.+-]*):(.+)", re.DOTALL)
_BRACKETED = re.compile(r"\[(?P<host>[^\[\]]*)\]:(?P<port>[0-9]+)")
_PLAIN = re.compile(r"(?P<host>[^:\[\]]*):(?P<port>[0-9]+)")
_BARE_IPV6 = re.compile(r"[0-9a-f.]*:[0-9a-f:.]*:[0-9a-f:.]*", re.IGNORECASE)
_FIELD = re.compile(r"(?:[^:\\]|\\.)*", re.DOTALL)

_KNOWN_ENDPOINTS = frozenset({"tcp", "tcp6", "unix", "systemd"})
_REFUSED_ENDPOINTS = {
    "ssl": "leave TLS to the listener's tls key and write tcp:",
    "tls": "leave TLS to the listener's tls key and write tcp:",
    "haproxy": "use the listener's proxy_protocol key instead",
}
_FORMS = (
    'write "192.0.2.1:993", "[2001:db8::1]:993" or a Twisted endpoint such as "unix:/run/imap.sock"'
)


@attrs.frozen
class SocketAddress:
    """An IP address and a port to listen on; port 0 means any free one."""

    host: str
    port: int

    @property
    def isIPv6(self) -> bool:
        """Whether the socket is an IPv6 one; those are v6-only."""
        return ":" in self.host

    @property
    def isWildcard(self) -> bool:
        """Whether it matches every local address of its family."""
        return self.host in ("0.0.0.0", "::")


@attrs.frozen
class EndpointString:
    """A Twisted server endpoint string, given to `serverFromString` as it is."""

    text: str


Bind = SocketAddress | EndpointString


def parseBind(text: str) -> Bind:
    """Read one `bind` value.

    :raises ValueError: with what is wrong and what would be right.
    """
    endpoint = _ENDPOINT.fullmatch(text)
    if endpoint is not None and endpoint[1] in _KNOWN_ENDPOINTS | _REFUSED_ENDPOINTS.keys():
        return _endpoint(text, endpoint[1])
    address = _BRACKETED.fullmatch(text) or _PLAIN.fullmatch(text)
    if address is not None:
        return _socketAddress(text, address)
    if _BARE_IPV6.fullmatch(text):
        raise ValueError(f'{shown(text)} needs brackets around the IPv6 address: "[::]:993"')
    if endpoint is not None:
        return EndpointString(text)
    raise ValueError(f"{shown(text)} is not an address to listen on; {_FORMS}")


def clashes(one: Bind, other: Bind) -> bool:
    """Whether the second of the two could not be bound: same socket, or a wildcard over it."""
    first, second = tcpAddress(one), tcpAddress(other)
    if first is None or second is None:
        return one == other
    if first.port != second.port or first.port == 0 or first.isIPv6 != second.isIPv6:
        return False
    return first.host == second.host or first.isWildcard or second.isWildcard


def tcpAddress(bind: Bind) -> SocketAddress | None:
    """The TCP address behind a bind; None if its text does not tell (`systemd:`, `unix:`)."""
    if isinstance(bind, SocketAddress):
        return bind
    kind, _, rest = bind.text.partition(":")
    if kind not in ("tcp", "tcp6"):
        return None
    positional, named = _fields(rest)
    port = named.get("port", positional[0] if positional else "")
    interface = named.get("interface") or ("::" if kind == "tcp6" else "0.0.0.0")
    try:
        return SocketAddress(str(ipaddress.ip_address(interface)), _port(port))
    except ValueError:
        return None


def _endpoint(text: str, kind: str) -> EndpointString:
    if kind in _REFUSED_ENDPOINTS:
        raise ValueError(f"{shown(text)} cannot be used here; {_REFUSED_ENDPOINTS[kind]}")
    bind = EndpointString(text)
    if kind in ("tcp", "tcp6") and tcpAddress(bind) is None:
        raise ValueError(
            f'{shown(text)} is not a TCP endpoint; write "{kind}:PORT:interface=ADDRESS"'
        )
    return bind


def _socketAddress(text: str, found: re.Match[str]) -> SocketAddress:
    try:
        address = ipaddress.ip_address(found["host"])
    except ValueError:
        host = shown(found["host"])
        raise ValueError(f"{shown(text)}: {host} is not an IP address; {_FORMS}") from None
    if (address.version == 6) != text.startswith("["):
        raise ValueError(f"{shown(text)}: brackets are for IPv6 addresses; {_FORMS}")
    if address.version == 6 and address.ipv4_mapped is not None:
        raise ValueError(f"{shown(text)}: write the IPv4 address {address.ipv4_mapped} itself")
    try:
        return SocketAddress(str(address), _port(found["port"]))
    except ValueError as error:
        raise ValueError(f"{shown(text)}: {error}") from None


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError("the port must be a number from 1 to 65535 (0: any free one)")
    return int(text)


def _fields(text: str) -> tuple[list[str], dict[str, str]]:
    """Split endpoint arguments at colons; a backslash takes the next character literally."""
    positional: list[str] = []
    named: dict[str, str] = {}
    position = 0
    while position <= len(text):
        found = _FIELD.match(text, position)
        part = found[0] if found is not None else ""
        position += len(part) + 1
        name, equals, value = part.partition("=")
        if equals:
            named[name] = _unescape(value)
        else:
            positional.append(_unescape(part))
    return positional, named


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
