"""The PROXY protocol's header, versions 1 and 2: bytes -> header or "more", and building one.

Knows the header's grammar and nothing else: who may send one, how long to wait for it and what it
means for a session is decided by the listener. Everything here is a pure function of bytes.

The grammar is that of haproxy's `proxy-protocol.txt`, sections 2.1 (version 1, a line of text) and
2.2 (version 2, binary).
"""

import enum
import ipaddress
import struct
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import attrs

from mailproxy.errors import LimitExceeded, ProtocolError
from mailproxy.origin import Address

SIGNATURE_V1 = b"PROXY "
SIGNATURE_V2 = b"\r\n\r\n\x00\r\nQUIT\n"

MAXIMUM_V1 = 1024
"""Bytes of a version 1 header with its CRLF. The standard's own lines end at 107."""
MAXIMUM_V2 = 4096
"""Bytes behind the fixed part of a version 2 header, as it declares them itself."""

HOPS = 0xE4
"""Our own field, of the private range: one byte, the hops left for a chain of proxies."""

_SHORTEST_V1 = len(b"PROXY UNKNOWN\r\n")
_FIXED_V2 = struct.Struct("!12sBBH")
"""Signature; version and command; family and transport; the length of what follows."""
_TLV_HEAD = struct.Struct("!BH")

TLV: TypeAlias = tuple[int, bytes]
"""A field of version 2: its type (0xE0 to 0xEF are for private use) and its value."""


class _Family(enum.IntEnum):
    """Address families of version 2 (the upper half of byte 13)."""

    UNSPECIFIED = 0
    IPV4 = 1
    IPV6 = 2
    UNIX = 3


class _Transport(enum.IntEnum):
    """Transports of version 2 (the lower half of byte 13)."""

    UNSPECIFIED = 0
    STREAM = 1
    DATAGRAM = 2


class _Command(enum.IntEnum):
    """What the sender wants (the lower half of byte 12, behind the version)."""

    LOCAL = 0
    PROXY = 1


_ADDRESSES = {
    _Family.UNSPECIFIED: 0,
    _Family.IPV4: 2 * 4 + 2 * 2,
    _Family.IPV6: 2 * 16 + 2 * 2,
    _Family.UNIX: 2 * 108,
}
"""How many bytes each family's two addresses, with their ports, take."""

_PROXY_V2 = 0x20 | _Command.PROXY


@attrs.frozen
class Header:
    """What a header says.

    :ivar source: the client, or None where the socket's own address holds.
    :ivar destination: what the client connected to, or None likewise; both are None or neither is.
    :ivar tlvs: version 2's extra fields, in order; those of a `LOCAL` header are not read.
    :ivar local: whether the sender speaks for itself (`LOCAL`); else without addresses it speaks
        for somebody whom it does not name.
    """

    source: Address | None = None
    destination: Address | None = None
    tlvs: tuple[TLV, ...] = ()
    local: bool = False


@attrs.frozen
class NeedMore:
    """The header is not complete yet.

    :ivar count: how many bytes to read now. That many never overrun the header, and while the bytes
        could still be another protocol's it is 1, so nobody waits on a client that sends less.
    """

    count: int


def isPrefix(data: bytes) -> bool:
    """Tell whether these first bytes are a header, or could still become one."""
    return any(signature.startswith(data[: len(signature)]) for signature in _PARSERS)


def parse(data: bytes) -> tuple[Header, int] | NeedMore:
    """Read the header at the start of `data`.

    :returns: the header and how many bytes it took, or what to read before asking again.
    :raises ProtocolError: for what is no header, is malformed or is too long.
    """
    if not isPrefix(data):
        raise ProtocolError("no PROXY header")
    for signature, parser in _PARSERS.items():
        if data.startswith(signature):
            return parser(data)
    return NeedMore(1)


def build(source: Address | None, destination: Address | None, tlvs: Iterable[TLV] = ()) -> bytes:
    """Write a version 2 header.

    Without both addresses, or when their families differ, it says that the addresses are unknown;
    the fields are sent all the same.

    :raises ValueError: when the fields take more than `MAXIMUM_V2` bytes or a type is no byte.
    """
    family, addresses = _packAddresses(source, destination)
    fields = b"".join(_packTLV(kind, value) for kind, value in tlvs)
    length = len(addresses) + len(fields)
    if length > MAXIMUM_V2:
        raise ValueError(f"a PROXY header of {length} bytes")
    transport = _Transport.STREAM if addresses else _Transport.UNSPECIFIED
    fixed = _FIXED_V2.pack(SIGNATURE_V2, _PROXY_V2, family << 4 | transport, length)
    return fixed + addresses + fields


def _packTLV(kind: int, value: bytes) -> bytes:
    """Write one field."""
    if not 0 <= kind <= 0xFF or len(value) > MAXIMUM_V2:
        raise ValueError(f"a PROXY field of type {kind} and {len(value)} bytes")
    return _TLV_HEAD.pack(kind, len(value)) + value


def _packAddresses(source: Address | None, destination: Address | None) -> tuple[_Family, bytes]:
    """Write both addresses and ports; nothing when they cannot stand in one header."""
    if source is None or destination is None or source.ip.version != destination.ip.version:
        return _Family.UNSPECIFIED, b""
    family = _Family.IPV4 if source.ip.version == 4 else _Family.IPV6
    ports = struct.pack("!HH", source.port, destination.port)
    return family, source.ip.packed + destination.ip.packed + ports


def _parseV1(data: bytes) -> tuple[Header, int] | NeedMore:
    """Read a version 1 line, up to its CRLF."""
    line, end, _ = data[:MAXIMUM_V1].partition(b"\r\n")
    if b"\n" in line:
        raise ProtocolError("a PROXY header that ends in a bare LF")
    if end:
        return _readLine(line), len(line) + len(end)
    if len(data) >= MAXIMUM_V1:
        raise LimitExceeded(f"a PROXY header of more than {MAXIMUM_V1} bytes")
    return NeedMore(max(_SHORTEST_V1 - len(data), 1 if line.endswith(b"\r") else 2))


def _readLine(line: bytes) -> Header:
    """Read a version 1 line without its CRLF; behind UNKNOWN anything may stand."""
    _, protocol, *rest = line.split(b" ")
    if protocol == b"UNKNOWN":
        return Header()
    version = {b"TCP4": 4, b"TCP6": 6}.get(protocol)
    if version is None or len(rest) != 4:
        raise ProtocolError("a PROXY header that names no addresses")
    source, destination, sourcePort, destinationPort = rest
    return Header(
        _readAddress(source, sourcePort, version),
        _readAddress(destination, destinationPort, version),
    )


def _readAddress(host: bytes, port: bytes, version: int) -> Address:
    """Read one address and port of a version 1 line: no zone, no sign, no leading zero."""
    try:
        address = ipaddress.ip_address(host.decode("ascii"))
        number = int(port)
        if address.version != version or b"%" in host or port != b"%d" % number:
            raise ValueError("not as the standard writes it")
        return Address.parse(str(address), number)
    except ValueError as error:
        raise ProtocolError("a PROXY header with a malformed address") from error


def _parseV2(data: bytes) -> tuple[Header, int] | NeedMore:
    """Read a version 2 header: its fixed part, then as many bytes as that declares."""
    if len(data) < _FIXED_V2.size:
        return NeedMore(_FIXED_V2.size - len(data))
    _, versionAndCommand, familyAndTransport, length = _FIXED_V2.unpack_from(data)
    if length > MAXIMUM_V2:
        raise LimitExceeded(f"a PROXY header of {length} bytes")
    if versionAndCommand >> 4 != 2:
        raise ProtocolError("a PROXY header of an unknown version")
    size = _FIXED_V2.size + length
    if len(data) < size:
        return NeedMore(size - len(data))
    body = data[_FIXED_V2.size : size]
    try:
        if _Command(versionAndCommand & 0x0F) is _Command.LOCAL:
            return Header(local=True), size
        family, transport = _Family(familyAndTransport >> 4), _Transport(familyAndTransport & 0x0F)
    except ValueError as error:
        raise ProtocolError("a PROXY header with an unknown command or family") from error
    return _readBody(family, transport, body), size


def _readBody(family: _Family, transport: _Transport, body: bytes) -> Header:
    """Read what follows the fixed part of version 2; only TCP addresses are a client's."""
    size = _ADDRESSES[family]
    if len(body) < size:
        raise ProtocolError("a PROXY header too short for its addresses")
    tlvs = tuple(_readTLVs(body[size:]))
    if transport is not _Transport.STREAM or family not in (_Family.IPV4, _Family.IPV6):
        return Header(tlvs=tlvs)
    width = 4 if family is _Family.IPV4 else 16
    hosts = [ipaddress.ip_address(body[at : at + width]) for at in (0, width)]
    ports = struct.unpack_from("!HH", body, 2 * width)
    source, destination = (
        Address.parse(str(host), port) for host, port in zip(hosts, ports, strict=True)
    )
    return Header(source, destination, tlvs)


def _readTLVs(data: bytes) -> Iterator[TLV]:
    """Read the fields behind the addresses.

    :raises ProtocolError: when one is cut off.
    """
    position = 0
    while position < len(data):
        start = position + _TLV_HEAD.size
        if start > len(data):
            raise ProtocolError("a PROXY header with a truncated field")
        kind, length = _TLV_HEAD.unpack_from(data, position)
        position = start + length
        if position > len(data):
            raise ProtocolError("a PROXY header with a truncated field")
        yield kind, data[start:position]


_PARSERS = {SIGNATURE_V1: _parseV1, SIGNATURE_V2: _parseV2}
"""How each signature goes on."""
