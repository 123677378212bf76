"""Tests for `mailproxy.proxyheader`."""

import ipaddress
import struct

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.errors import LimitExceeded, ProtocolError
from mailproxy.origin import Address
from mailproxy.proxyheader import (
    MAXIMUM_V1,
    MAXIMUM_V2,
    SIGNATURE_V2,
    TLV,
    Header,
    NeedMore,
    build,
    isPrefix,
    parse,
)

CLIENT = Address("192.0.2.7", 51234)
LOCAL = Address("198.51.100.1", 993)
CLIENT6 = Address("2001:db8::7", 51234)
LOCAL6 = Address("2001:db8::1", 993)

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 993\r\n"
V1_SIX = b"PROXY TCP6 2001:db8::7 2001:db8::1 51234 993\r\n"
V2 = (
    b"\r\n\r\n\x00\r\nQUIT\n"  # the signature
    b"\x21\x11\x00\x0c"  # version 2, PROXY; IPv4, TCP; 12 bytes
    b"\xc0\x00\x02\x07\xc6\x33\x64\x01\xc8\x22\x03\xe1"
)

ports = st.integers(0, 65535)
ipv4 = st.builds(Address, st.ip_addresses(v=4).map(str), ports)
ipv6 = st.builds(
    lambda number, port: Address.parse(str(ipaddress.IPv6Address(number)), port),
    st.integers(2**64, 2**128 - 1),
    ports,
)
fields = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=200)), max_size=5)


def second(commandByte: int, familyByte: int, body: bytes, length: int | None = None) -> bytes:
    """Write a version 2 header by hand; `length` lies about the body's."""
    declared = len(body) if length is None else length
    return SIGNATURE_V2 + struct.pack("!BBH", commandByte, familyByte, declared) + body


def readExactly(wire: bytes) -> tuple[Header, int]:
    """Read a header as a careful reader does: never more than it was told to."""
    taken = 0
    while isinstance(found := parse(wire[:taken]), NeedMore):
        assert found.count > 0
        taken += found.count
        assert taken <= len(wire), "asked for more than there is"
    return found[0], taken


class ReadingTests(SynchronousTestCase):
    """What a header says."""

    def test_versionOneNamesBothAddresses(self) -> None:
        """A line with TCP4 gives the client's and our address and is taken whole."""
        self.assertEqual(parse(V1), (Header(CLIENT, LOCAL), len(V1)))

    def test_versionOneKnowsIPv6(self) -> None:
        """A line with TCP6 gives IPv6 addresses."""
        self.assertEqual(parse(V1_SIX), (Header(CLIENT6, LOCAL6), len(V1_SIX)))

    def test_unknownKeepsTheSocketsAddresses(self) -> None:
        """UNKNOWN says nothing, whatever stands behind it (section 2.1)."""
        for line in (b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff::1 x 1 2 3\r\n"):
            self.assertEqual(parse(line), (Header(), len(line)))

    def test_versionTwoNamesBothAddresses(self) -> None:
        """The binary header of a TCP connection gives both addresses."""
        self.assertEqual(parse(V2), (Header(CLIENT, LOCAL), len(V2)))

    def test_localKeepsTheSocketsAddresses(self) -> None:
        """LOCAL is a proxy's own health check: its addresses, family and fields are passed over."""
        for family in (0x00, 0x11, 0xFF):
            wire = second(0x20, family, b"not to be read")
            self.assertEqual(parse(wire), (Header(local=True), len(wire)))

    def test_familiesWithoutAClientsAddressGiveNone(self) -> None:
        """Unspecified, UNIX and datagram addresses are no TCP client's; their fields are read."""
        field = b"\xe0\x00\x01\x05"
        for family, size in ((0x00, 0), (0x31, 216), (0x12, 12), (0x22, 36), (0x10, 12)):
            wire = second(0x21, family, bytes(size) + field)
            self.assertEqual(parse(wire), (Header(tlvs=((0xE0, b"\x05"),)), len(wire)))

    def test_mappedAddressesAreIPv4(self) -> None:
        """An IPv4-mapped IPv6 address is given as the IPv4 address that it stands for."""
        mapped = ipaddress.IPv6Address("::ffff:192.0.2.7").packed
        wire = second(0x21, 0x21, mapped + mapped + b"\xc8\x22\x03\xe1")
        line = b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.7 51234 993\r\n"
        expected = Header(CLIENT, Address("192.0.2.7", 993))
        self.assertEqual(parse(wire), (expected, len(wire)))
        self.assertEqual(parse(line), (expected, len(line)))

    def test_fieldsAreGivenInOrder(self) -> None:
        """Each type-length-value field is given as type and value, also twice and empty."""
        tlvs = ((0xE1, b"7"), (0x02, b"mail.example"), (0xE1, b""))
        wire = build(CLIENT, LOCAL, tlvs)
        self.assertEqual(parse(wire), (Header(CLIENT, LOCAL, tlvs), len(wire)))

    def test_whatFollowsIsNotTaken(self) -> None:
        """The count tells where the client's own bytes begin."""
        for wire in (V1, V1_SIX, V2, b"PROXY UNKNOWN\r\n"):
            self.assertEqual(parse(wire + V1)[1:], (len(wire),))  # type: ignore[index]


class ArrivalTests(SynchronousTestCase):
    """A header in pieces."""

    def test_aHeaderByteByByteIsTheSame(self) -> None:
        """Whatever the segments, the header is the same and asks for more until it is whole."""
        for wire in (V1, V1_SIX, V2, b"PROXY UNKNOWN\r\n", build(CLIENT6, LOCAL6, [(0xE0, b"6")])):
            for end in range(len(wire)):
                self.assertIsInstance(parse(wire[:end]), NeedMore)
                self.assertTrue(isPrefix(wire[:end]))

    def test_aReaderNeverOverruns(self) -> None:
        """Who reads just as much as `NeedMore` says ends exactly behind the header."""
        for wire in (V1, V1_SIX, V2, b"PROXY UNKNOWN\r\n", build(CLIENT6, LOCAL6, [(0xE0, b"6")])):
            header, taken = readExactly(wire + b"A1 LOGIN anna secret\r\n")
            self.assertEqual((header, taken), parse(wire))

    def test_oneByteIsAskedForWhileItCouldBeAnotherProtocol(self) -> None:
        """A client that says `P` and no more is not waited on for a whole header."""
        for wire in (V1[:6], SIGNATURE_V2):
            for end in range(len(wire)):
                self.assertEqual(parse(wire[:end]), NeedMore(1))

    def test_otherProtocolsAreNoHeader(self) -> None:
        """The first byte that no header has there tells it apart."""
        for data in (b"A1 NOOP\r\n", b"PASS x\r\n", b"PROXY\r\n", b"\r\n\r\nA", b"\x16\x03\x01"):
            self.assertFalse(isPrefix(data))
            self.assertRaises(ProtocolError, parse, data)

    def test_noByteCouldBeAHeader(self) -> None:
        """Before the first byte nothing is decided."""
        self.assertTrue(isPrefix(b""))

    def test_oneSegmentMayHoldMoreThanTheHeader(self) -> None:
        """Bytes behind the signature do not matter to `isPrefix`."""
        self.assertTrue(isPrefix(V1 + b"A1 NOOP\r\n"))
        self.assertTrue(isPrefix(V2 + b"A1 NOOP\r\n"))


class RefusalTests(SynchronousTestCase):
    """What is no sound header."""

    def assertRefused(self, *wires: bytes) -> None:
        """Each of these is malformed, and not merely incomplete."""
        for wire in wires:
            self.assertRaises(ProtocolError, parse, wire)

    def test_versionOneIsRefusedUnlessItIsExact(self) -> None:
        """Families, addresses and ports are written as the standard writes them, or refused."""
        self.assertRefused(
            b"PROXY \r\n",
            b"PROXY UDP4 192.0.2.7 198.51.100.1 51234 993\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 51234\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 993 \r\n",
            b"PROXY TCP4  192.0.2.7 198.51.100.1 51234 993\r\n",
            b"PROXY TCP4 2001:db8::7 2001:db8::1 51234 993\r\n",
            b"PROXY TCP6 192.0.2.7 198.51.100.1 51234 993\r\n",
            b"PROXY TCP4 192.0.2.007 198.51.100.1 51234 993\r\n",
            b"PROXY TCP6 fe80::1%eth0 2001:db8::1 51234 993\r\n",
            b"PROXY TCP4 192.0.2.7 \xc2\xb9.1.1.1 51234 993\r\n",
        )

    def test_portsAreRefusedUnlessTheyAreExact(self) -> None:
        """A port has no sign, no leading zero, no underscore and at most 65535."""
        for port in (b"", b"-1", b"+1", b"01", b"1_0", b"65536", b"9" * 500, b"x", b"1.0"):
            self.assertRefused(b"PROXY TCP4 192.0.2.7 198.51.100.1 " + port + b" 993\r\n")

    def test_aBareLineFeedIsRefusedAtOnce(self) -> None:
        """A line that ends in LF alone is not waited on for a CRLF that never comes."""
        self.assertRefused(V1.replace(b"\r", b""), b"PROXY UNKNOWN x\ny\r\n")

    def test_versionOneIsBounded(self) -> None:
        """Without its CRLF in the first 1024 bytes a line is refused; with it there, read."""
        longest = b"PROXY UNKNOWN ".ljust(MAXIMUM_V1 - 2, b"x") + b"\r\n"
        self.assertEqual(parse(longest), (Header(), MAXIMUM_V1))
        self.assertRaises(
            LimitExceeded, parse, b"PROXY UNKNOWN ".ljust(MAXIMUM_V1 - 1, b"x") + b"\r\n"
        )
        self.assertRaises(LimitExceeded, parse, b"PROXY UNKNOWN ".ljust(MAXIMUM_V1, b"x"))

    def test_versionTwoIsBoundedByWhatItDeclares(self) -> None:
        """A header that declares more than 4096 bytes is refused before they arrive."""
        self.assertRaises(LimitExceeded, parse, second(0x21, 0x11, b"", MAXIMUM_V2 + 1))
        self.assertEqual(parse(second(0x21, 0x11, b"", MAXIMUM_V2)), NeedMore(MAXIMUM_V2))

    def test_versionTwoIsRefusedUnlessItIsExact(self) -> None:
        """Versions, commands, families and transports that the standard lacks are refused."""
        for command, family in (
            (0x11, 0x11),
            (0x31, 0x11),
            (0x22, 0x11),
            (0x21, 0x41),
            (0x21, 0x13),
        ):
            self.assertRefused(second(command, family, bytes(216)))

    def test_addressesMustFit(self) -> None:
        """A header that is shorter than its addresses is refused."""
        for family, size in ((0x11, 12), (0x21, 36), (0x31, 216)):
            self.assertRefused(second(0x21, family, bytes(size - 1)))

    def test_fieldsMustFit(self) -> None:
        """A field that says it is longer than what is left is refused."""
        for field in (b"\xe0", b"\xe0\x00", b"\xe0\x00\x01", b"\xe0\x00\x02x"):
            self.assertRefused(second(0x21, 0x11, bytes(12) + field))

    @given(st.binary(max_size=1500))
    @example(V2)
    def test_garbageRaisesNothingElse(self, data: bytes) -> None:
        """Whatever a peer sends gives a header, a wish for more or a ProtocolError."""
        for wire in (data, b"PROXY " + data, SIGNATURE_V2 + data, second(0x21, 0x11, data)):
            try:
                found = parse(wire)
            except ProtocolError:
                continue
            if not isinstance(found, NeedMore):
                self.assertLessEqual(found[1], len(wire))

    @given(st.text("PROXYTCUNKW46 .:01239af%\r\n", max_size=120))
    def test_mangledLinesRaiseNothingElse(self, text: str) -> None:
        """The same holds for lines made of a header's own letters."""
        try:
            parse(b"PROXY TCP4 " + text.encode() + b"\r\n")
        except ProtocolError:
            return


class BuildingTests(SynchronousTestCase):
    """A header that we send."""

    def test_theBytesAreTheStandards(self) -> None:
        """The header of an IPv4 connection is the standard's, byte by byte."""
        self.assertEqual(build(CLIENT, LOCAL), V2)

    @given(st.one_of(st.tuples(ipv4, ipv4), st.tuples(ipv6, ipv6)), fields)
    def test_whatIsBuiltIsRead(self, pair: tuple[Address, Address], tlvs: list[TLV]) -> None:
        """Reading what was built gives it back, and the careful reader ends behind it."""
        wire = build(*pair, tlvs)
        self.assertEqual(parse(wire), (Header(*pair, tuple(tlvs)), len(wire)))
        self.assertEqual(readExactly(wire + b"X"), parse(wire))

    def test_differentFamiliesAreSaidToBeUnknown(self) -> None:
        """An IPv4 client on an IPv6 address, or no address at all, is AF_UNSPEC with its fields."""
        for source, destination in (
            (CLIENT, LOCAL6),
            (CLIENT6, LOCAL),
            (None, LOCAL),
            (CLIENT, None),
            (None, None),
        ):
            wire = build(source, destination, [(0xE0, b"6")])
            self.assertEqual(wire, second(0x21, 0x00, b"\xe0\x00\x016"))
            self.assertEqual(parse(wire), (Header(tlvs=((0xE0, b"6"),)), len(wire)))

    def test_aHeaderThatNobodyWouldReadIsNotBuilt(self) -> None:
        """Fields over the limit, and a type that is no byte, are our own mistake."""
        for field in ((0xE0, bytes(MAXIMUM_V2 - 12 - 2)), (0xE0, bytes(70000)), (256, b"")):
            self.assertRaises(ValueError, build, CLIENT, LOCAL, [field])
        self.assertEqual(
            len(build(CLIENT, LOCAL, [(0xE0, bytes(MAXIMUM_V2 - 12 - 3))])), 16 + MAXIMUM_V2
        )
