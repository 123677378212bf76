"""Heads as they stand on the wire: what two programs could read in two ways is refused."""

import h11
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.http import heads
from mailproxy.http.heads import MAX_FIELDS, BadMessage, Fields
from tests.http.support import parseRequest


class InspectTests(SynchronousTestCase):
    """A whole head, before h11 reads it."""

    def refused(self, head: bytes) -> int:
        """Have a head refused; tells with what status."""
        error: BadMessage = self.assertRaises(BadMessage, heads.inspect, head)
        return error.status

    def test_bareLineEnds(self) -> None:
        """A CR or LF by itself ends a line for some and not for others."""
        for head in (b"x\nHost: a", b"x\r\nA: b\nC: d", b"x\r\nA: b\rC: d", b"x\r\r\nA: b", b"x\r"):
            self.assertEqual(self.refused(head), 400)

    def test_foldedLine(self) -> None:
        """obs-fold (RFC 9112, section 5.2)."""
        self.assertEqual(self.refused(b"x\r\nA: b\r\n c"), 400)
        self.assertEqual(self.refused(b"x\r\nA: b\r\n\tc"), 400)
        self.assertEqual(self.refused(b"x\r\n A: b"), 400)

    def test_nulAndOtherControls(self) -> None:
        """In a name or in a value; a tab may stand in a value."""
        for byte in [*range(9), 11, 12, *range(14, 32), 127]:
            self.assertEqual(self.refused(b"x\r\nA: b%cd" % byte), 400)
            self.assertEqual(self.refused(b"x\r\nA%cd: b" % byte), 400)
        heads.inspect(b"x\r\nA:\tb\tc")

    def test_tooManyFields(self) -> None:
        """431 for one too many."""
        fields = b"\r\nA: b" * MAX_FIELDS
        heads.inspect(b"x" + fields)
        self.assertEqual(self.refused(b"x" + fields + b"\r\nA: b"), 431)

    @given(
        st.from_regex(
            rb"GET / HTTP/1\.1(\r\n[A-Z]:[ \t]{0,2}[!-~\xa1-\xff ]{0,9}){0,9}", fullmatch=True
        )
    )
    def test_soundHeadsPass(self, head: bytes) -> None:
        """Whatever stands in their values."""
        heads.inspect(head)
        for end in range(1, len(head)):
            heads.inspectPart(head[:end], 0)


class PartTests(SynchronousTestCase):
    """What has come of a head so far."""

    def test_whatMayBecomeAGoodOne(self) -> None:
        """A CR at the very end may still get its LF."""
        for part in (b"G", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\n", b"x\r\nA: b\r\n\r"):
            heads.inspectPart(part, 0)

    def test_whatCannot(self) -> None:
        """A bare line end, a fold, a control, a first byte of no message: TLS on a plain port."""
        for part in (b"GET /\n", b"x\r\nA: b\n", b"x\ry", b"\x16\x03\x01", b" x", b"\r\n", b"x\0"):
            self.assertRaises(BadMessage, heads.inspectPart, part, 0)
        self.assertRaises(BadMessage, heads.inspectPart, b"x\r\nA: b\r\n c", 0)

    def test_newPartIsEnough(self) -> None:
        """A CR that was the last byte before is seen again."""
        self.assertRaises(BadMessage, heads.inspectPart, b"x\ry", 2)
        heads.inspectPart(b"x\r\n", 2)


class FieldsTests(SynchronousTestCase):
    """The fields of a head."""

    def fields(self, *lines: bytes) -> Fields:
        """Have fields parsed."""
        machine = h11.Connection(h11.SERVER)
        machine.receive_data(b"\r\n".join([b"GET / HTTP/1.1", b"Host:a", *lines, b"", b""]))
        event = machine.next_event()
        assert isinstance(event, h11.Request)
        return Fields.parsed(event)

    def test_namesAndValues(self) -> None:
        """Names keep their case and are found in lower case; values lose the space around them."""
        fields = self.fields(b"X-Two: \t b c \t", b"x-two:d\xc3\xa4")
        self.assertEqual(
            fields.items,
            (
                (b"host", b"Host", b"a"),
                (b"x-two", b"X-Two", b"b c"),
                (b"x-two", b"x-two", b"d\xc3\xa4"),
            ),
        )
        self.assertEqual(fields.values(b"x-two"), [b"b c", b"d\xc3\xa4"])
        self.assertEqual((fields.first(b"x-two"), fields.first(b"none")), (b"b c", None))

    def test_lists(self) -> None:
        """All fields of a name are one list, in lower case; empty members do not count."""
        fields = self.fields(b"Connection: Close, ,TE", b"connection: x")
        self.assertEqual(fields.words(b"connection"), [b"close", b"te", b"x"])
        self.assertEqual(fields.words(b"te"), [])

    def test_nothing(self) -> None:
        """Everything is absent."""
        self.assertEqual((Fields().values(b"a"), Fields().words(b"a")), ((), []))

    def test_longRunOfSpaceIsCheap(self) -> None:
        """A value of spaces takes no time that grows with their square."""
        head = b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b" " * 60000 + b"b" + b" " * 60000
        self.assertEqual(parseRequest(head).fields.first(b"a"), b"b")
