"""The small values that keys hold: durations, networks, pins, names."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config import values
from mailproxy.config.values import formatDuration, parseDuration, shown


class DurationTests(SynchronousTestCase):
    """A whole number and a unit, in seconds."""

    def test_unitsAreSeconds(self) -> None:
        """Each unit is worth what it is called."""
        texts = {"500ms": 0.5, "30s": 30, "5m": 300, "1h": 3600, "7d": 604800, "0s": 0}
        self.assertEqual({text: parseDuration(text) for text in texts}, texts)

    def test_anythingElseIsRefused(self) -> None:
        """No fraction, sign, space, missing unit or bare number passes."""
        for wrong in (
            "30",
            "1.5s",
            "-1s",
            "+1s",
            "1 s",
            "s",
            "",
            "1S",
            "1s\n",
            "٣s",
            30,
            1.5,
            True,
        ):
            with self.subTest(wrong=wrong):
                error = self.assertRaises(ValueError, parseDuration, wrong)
                self.assertIn("write a whole number and ms, s, m, h or d", str(error))

    def test_endlessOnesAreRefused(self) -> None:
        """More than ten years is refused, however many digits it has: no timer could take it."""
        self.assertEqual(parseDuration("3650d"), 3650 * 86400)
        for wrong in ("3651d", "9" * 400 + "d", "9" * 5000 + "ms"):
            self.assertIn("3650d", str(self.assertRaises(ValueError, parseDuration, wrong)))

    def test_zeroIsRefusedWhereItMakesNoSense(self) -> None:
        """A timeout of nothing would end everything at once."""
        self.assertIn("more than 0", _refusal(values.PositiveDuration, "0s"))

    @given(st.integers(0, 3650 * 86400 * 1000))
    def test_formattedOnesAreReadBack(self, milliseconds: int) -> None:
        """Writing and reading a duration changes nothing."""
        seconds = milliseconds / 1000
        self.assertAlmostEqual(parseDuration(formatDuration(seconds)), seconds, places=6)

    @given(st.integers(0, 3650), st.sampled_from(["ms", "s", "m", "h", "d"]))
    def test_anyWholeNumberAndUnitIsRead(self, number: int, unit: str) -> None:
        """A leading zero changes nothing."""
        self.assertEqual(parseDuration(f"00{number}{unit}"), parseDuration(f"{number}{unit}"))


class SmallValueTests(SynchronousTestCase):
    """What else is more than text."""

    def test_networks(self) -> None:
        """A single address is a network of one; bits behind the mask are a mistake."""
        self.assertEqual(str(_read(values.CIDR, "10.0.0.0/8")), "10.0.0.0/8")
        self.assertEqual(str(_read(values.CIDR, "2001:db8::1")), "2001:db8::1/128")
        self.assertIn("write 10.0.0.0/8", _refusal(values.CIDR, "10.1.0.0/8"))
        for wrong in ("10.0.0.0/33", "example.com", "", 12):
            self.assertIn("is not a network", _refusal(values.CIDR, wrong))

    def test_pins(self) -> None:
        """A pin is 32 bytes in hex, with or without colons, in either case."""
        self.assertEqual(_read(values.Pin, "aB:" * 31 + "cd"), b"\xab" * 31 + b"\xcd")
        for wrong in ("ab" * 31, "ab" * 33, "zz" * 32, "", 7):
            self.assertIn("64 hex digits", _refusal(values.Pin, wrong))

    def test_hosts(self) -> None:
        """A host is a name or an IP address without brackets."""
        for right in ("mail", "mail.example.com", "a_b.example.", "192.0.2.1", "2001:db8::1"):
            self.assertEqual(_read(values.Host, right), right)
        for wrong in ("", "a b", "-a", "a..b", "mail:993", "10.0.0", "300.1.1.1", "bücher.de"):
            self.assertIn("is not a host name", _refusal(values.Host, wrong))
        self.assertIn("write 2001:db8::1", _refusal(values.Host, "[2001:db8::1]"))

    def test_serverNamesAreNoAddresses(self) -> None:
        """A name in a certificate cannot be an IP address."""
        self.assertIn("is not a host name", _refusal(values.HostName, "192.0.2.1"))

    def test_subjects(self) -> None:
        """A certificate's subject may have a wildcard as its first label."""
        for right in ("*", "*.example.com", "mail.example.com"):
            self.assertEqual(_read(values.Subject, right), right)
        self.assertIn("is not a host name", _refusal(values.Subject, "a.*.example.com"))

    def test_namesFitIntoTheMappingFile(self) -> None:
        """What the mapping file cannot hold cannot be the name of a destination."""
        self.assertEqual(_read(values.Name, "node-1.eu"), "node-1.eu")
        for wrong in ("", "a b", "#a", 'a"b', "a\n"):
            self.assertIn("cannot be a name", _refusal(values.Name, wrong))

    def test_bannersAreOneLine(self) -> None:
        """A text that is sent to clients cannot smuggle in another line."""
        for wrong in ("", "a\r\n* OK", "é"):
            self.assertIn("printable ASCII", _refusal(values.Printable, wrong))

    def test_wordsMayBeOneText(self) -> None:
        """A list of words may be written as one text."""
        self.assertEqual(_read(values.Words, "a b"), ("a", "b"))
        self.assertEqual(_read(values.Words, ["a", "b"]), ("a", "b"))

    def test_mechanismsAreKnownAndUnique(self) -> None:
        """Any other or repeated SASL mechanism is a mistake."""
        self.assertEqual(_read(values.Mechanisms, ["LOGIN", "PLAIN"]), ("LOGIN", "PLAIN"))
        self.assertIn("is not one of", _refusal(values.Mechanisms, ["CRAM-MD5"]))
        self.assertIn("twice", _refusal(values.Mechanisms, ["PLAIN", "PLAIN"]))

    def test_flagsAndNumbersAreNotGuessed(self) -> None:
        """Text is neither a number nor true or false, and true is no number."""
        for kind, wrong in ((values.Flag, "yes"), (values.Flag, 1), (values.Count, "1")):
            _refusal(kind, wrong)
        _refusal(values.Count, True)
        _refusal(values.Count, 1.0)

    def test_shownValuesAreShortAndOnOneLine(self) -> None:
        """A value in a message is cut, escaped, and a table only named."""
        self.assertEqual(shown("a\nb"), '"a\\nb"')
        self.assertEqual(shown("a\u202eb\x7fé"), '"a\\u202eb\\x7fé"')
        self.assertLess(len(shown("x" * 1000)), 70)
        self.assertEqual(shown({"bearer_token": "secret"}), "a table")
        self.assertEqual(shown(["secret"]), "a list")
        self.assertEqual(shown(True), "true")


def _read(kind: Any, value: object) -> Any:
    return TypeAdapter(kind).validate_python(value)


def _refusal(kind: Any, value: object) -> str:
    try:
        read = _read(kind, value)
    except ValidationError as error:
        return error.errors()[0]["msg"]
    raise AssertionError(f"{value!r} was read as {read!r}")
