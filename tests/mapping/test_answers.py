"""What stores say, made fit for routing and for the log."""

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.errors import MappingError
from mailproxy.identity import redact
from mailproxy.mapping.answers import LONGEST_REASON, asDestination, oneLine, reason


class DestinationTests(SynchronousTestCase):
    """A destination's name."""

    def test_textAndBytes(self) -> None:
        """Text as it is, bytes as UTF-8, a number by its digits."""
        for value, name in (
            ("new", "new"),
            (b"gr\xc3\xb6", "grö"),
            (memoryview(b"a"), "a"),
            (7, "7"),
        ):
            self.assertEqual(asDestination(value), name)

    def test_nothingIsAbsent(self) -> None:
        """NULL, an empty text and one of blanks."""
        for value in (None, "", b"", "  ", b"\n"):
            self.assertIsNone(asDestination(value))

    def test_paddingIsNoPartOfAName(self) -> None:
        """A column of fixed width pads, a script leaves a line end."""
        self.assertEqual(asDestination("new     "), "new")
        self.assertEqual(asDestination(b"new\n"), "new")

    def test_otherBytesAreAMistake(self) -> None:
        """They are no name, and no absence either."""
        self.assertRaises(MappingError, asDestination, b"\xff")


class ReasonTests(SynchronousTestCase):
    """A store's own words, for the log."""

    def test_oneLine(self) -> None:
        """On one line, printable, numbers and texts together, never empty."""
        self.assertEqual(oneLine(ValueError("a\n\tb \x1b[1m")), "a b ?[1m")
        self.assertEqual(oneLine(OSError(1146, "no table")), "1146 no table")
        self.assertEqual(oneLine(KeyError()), "KeyError")

    def test_boundedLength(self) -> None:
        """Whatever a server sends."""
        self.assertEqual(len(oneLine(ValueError("x" * 10000))), LONGEST_REASON + 3)

    def test_identifierIsRedacted(self) -> None:
        """Where the store quotes it; a short one does not spoil other words."""
        text = reason("Redis", 'bad value: "ann@example.org"', "ann@example.org")
        self.assertEqual(text, f'Redis: bad value: "{redact("ann@example.org")}"')
        self.assertEqual(reason("Redis", "a bad value", "a"), f"Redis: {redact('a')} bad value")
