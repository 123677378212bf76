"""Heads as they stand on the wire: what two programs could read in two ways is refused."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.http import heads
from mailproxy.http.heads import MAX_FIELDS, BadMessage, Fields

NAMES = st.from_regex(heads.TOKEN, fullmatch=True)
VALUES = st.from_regex(rb"([!-~\x80-\xff]([ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?", fullmatch=True)


class SplitTests(SynchronousTestCase):
    """A start line and fields."""

    def refused(self, head: bytes) -> int:
        """Have a head refused; tells with what status."""
        error: BadMessage = self.assertRaises(BadMessage, heads.split, head)
        return error.status

    def test_startLineAndFields(self) -> None:
        """Names keep their case and are found in lower case; values lose the space around them."""
        start, fields = heads.split(b"GET / HTTP/1.1\r\nHost:a\r\nX-Two: \t b c \t\r\nx-two:d")
        self.assertEqual(start, b"GET / HTTP/1.1")
        self.assertEqual(
            fields.items,
            [(b"host", b"Host", b"a"), (b"x-two", b"X-Two", b"b c"), (b"x-two", b"x-two", b"d")],
        )
        self.assertEqual(fields.values(b"x-two"), [b"b c", b"d"])
        self.assertEqual((fields.first(b"x-two"), fields.first(b"none")), (b"b c", None))

    def test_lists(self) -> None:
        """All fields of a name are one list, in lower case; empty members do not count."""
        _, fields = heads.split(b"x\r\nConnection: Close, ,TE\r\nconnection: x")
        self.assertEqual(fields.words(b"connection"), [b"close", b"te", b"x"])
        self.assertEqual(fields.words(b"te"), [])

    def test_bareLineEnds(self) -> None:
        """A CR or LF by itself ends a line for some and not for others."""
        for head in (b"x\nHost: a", b"x\r\nA: b\nC: d", b"x\r\nA: b\rC: d", b"x\r\r\nA: b", b"x\r"):
            self.assertEqual(self.refused(head), 400)

    def test_foldedLine(self) -> None:
        """obs-fold (RFC 9112, section 5.2)."""
        self.assertEqual(self.refused(b"x\r\nA: b\r\n c"), 400)
        self.assertEqual(self.refused(b"x\r\nA: b\r\n\tc"), 400)

    def test_spaceBeforeTheColon(self) -> None:
        """It would be another name to some (RFC 9112, section 5.1)."""
        for line in (b"A : b", b"A\t: b", b" A: b", b": b", b"A", b"A\x0b: b"):
            self.assertEqual(self.refused(b"x\r\n" + line), 400)

    def test_nulAndOtherControls(self) -> None:
        """In a name or in a value."""
        for byte in [*range(9), 11, 12, *range(14, 32), 127]:
            self.assertEqual(self.refused(b"x\r\nA: b%cd" % byte), 400)
            self.assertEqual(self.refused(b"x\r\nA%cd: b" % byte), 400)

    def test_eightBits(self) -> None:
        """Never in a name; in a value they are passed on as they are."""
        self.assertEqual(self.refused(b"x\r\n\xc3\xa4: b"), 400)
        _, fields = heads.split(b"x\r\nA: \xc3\xa4")
        self.assertEqual(fields.first(b"a"), b"\xc3\xa4")

    def test_tooManyFields(self) -> None:
        """431 for one too many."""
        fields = b"\r\nA: b" * MAX_FIELDS
        self.assertEqual(len(heads.split(b"x" + fields)[1].items), MAX_FIELDS)
        self.assertEqual(self.refused(b"x" + fields + b"\r\nA: b"), 431)

    def test_longRunOfSpaceIsCheap(self) -> None:
        """A value of spaces takes no time that grows with their square."""
        _, fields = heads.split(b"x\r\nA: " + b" " * 60000 + b"b" + b" " * 60000)
        self.assertEqual(fields.first(b"a"), b"b")

    @given(st.lists(st.tuples(NAMES, VALUES), max_size=20))
    def test_whatIsWrittenIsReadBack(self, pairs: list[tuple[bytes, bytes]]) -> None:
        """Field by field."""
        items = [(name.lower(), name, value) for name, value in pairs]
        written = b"start\r\n" + heads.write(items)
        self.assertEqual(list(heads.split(written[:-2])[1].items), items)


class CheckTests(SynchronousTestCase):
    """What has come of a head so far."""

    def test_whatMayBecomeAGoodOne(self) -> None:
        """A CR at the very end may still get its LF."""
        for part in (b"G", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\n", b"x\r\nA: b\r\n\r"):
            heads.check(part, 0)

    def test_whatCannot(self) -> None:
        """A bare line end, a control, a first byte that begins no token: TLS on a plain port."""
        for part in (b"GET /\n", b"x\r\nA: b\n", b"x\ry", b"\x16\x03\x01", b" x", b"\r\n", b"x\0"):
            self.assertRaises(BadMessage, heads.check, part, 0)

    def test_newPartIsEnough(self) -> None:
        """A CR that was the last byte before is seen again."""
        self.assertRaises(BadMessage, heads.check, b"x\ry", 2)
        heads.check(b"x\r\n", 2)


class FieldsTests(SynchronousTestCase):
    """Fields without any."""

    def test_nothing(self) -> None:
        """Everything is absent."""
        self.assertEqual((Fields().values(b"a"), Fields().words(b"a")), ((), []))
        self.assertEqual(heads.write(Fields().items), b"")
