"""Query parameters: what is read, and what is refused with which words."""

from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.errors import BadParameter
from mailproxy.management.query import parse, wholeNumber


class ParseTests(SynchronousTestCase):
    """A query's names and values."""

    def refusal(self, query: bytes) -> str:
        """Why a query for `a`, and maybe `b`, is refused."""
        error: BadParameter = self.assertRaises(BadParameter, parse, b"/x?" + query, ["a"], ["b"])
        return str(error)

    def test_parametersAreRead(self) -> None:
        """In any order; what is optional may be absent."""
        self.assertEqual(parse(b"/x?b=2&a=1", ["a"], ["b"]), {"a": "1", "b": "2"})
        self.assertEqual(parse(b"/x?a=1", ["a"], ["b"]), {"a": "1"})
        self.assertEqual(parse(b"/x?&a=1&", ["a"]), {"a": "1"})

    def test_noneIsNone(self) -> None:
        """With an empty query and without one."""
        for uri in (b"/x", b"/x?", b"/x?&", b"", b"?"):
            self.assertEqual(parse(uri, []), {})

    def test_valuesAreDecoded(self) -> None:
        """Percent-encoded UTF-8, plus for a space; only the first sign of each kind divides."""
        cases = {
            b"a=%C3%A4%40%e4%bd%A0": "ä@你",
            b"a=x+y%20z%2B": "x y z+",
            b"a=1=2": "1=2",
            b"%61=1": "1",
            b"a=1;b=2": "1;b=2",
            b"a=1?b": "1?b",
            b"a=%2526": "%26",
            b"a=%26b%3D2": "&b=2",
        }
        for query, value in cases.items():
            self.assertEqual(parse(b"/x?" + query, ["a"], ["b"]), {"a": value}, query)

    def test_aMissingParameterIsNamed(self) -> None:
        """The first one that is not there."""
        for query in (b"", b"b=2"):
            self.assertEqual(self.refusal(query), "a: missing parameter")

    def test_aRepeatedParameterIsRefused(self) -> None:
        """The same value twice as well: which one was meant is not ours to guess."""
        for query in (b"a=1&a=2", b"a=1&a=1", b"a=1&%61=2"):
            self.assertEqual(self.refusal(query), "a: given more than once")

    def test_anUnknownParameterIsRefused(self) -> None:
        """A misspelt filter must not widen what a call does; what was sent is not repeated."""
        for query in (b"a=1&c=2", b"A=1", b"a=1&=2", b"a=1&c", b"%3Cscript%3E=1"):
            self.assertEqual(self.refusal(query), "unknown parameter; this call takes a, b")
        error: BadParameter = self.assertRaises(BadParameter, parse, b"/x?a=1", [])
        self.assertEqual(str(error), "unknown parameter; this call takes none")

    def test_anEmptyParameterIsRefused(self) -> None:
        """A script's variable that is not set must not mean "all"."""
        for query in (b"a=", b"a", b"a=1&b="):
            self.assertIn(": empty", self.refusal(query))

    def test_badUTF8IsRefused(self) -> None:
        """Overlong forms and surrogates too."""
        for value in (b"%ff", b"\xff", b"%C0%80", b"%ED%A0%80", b"%C3"):
            self.assertIn("not UTF-8", self.refusal(b"a=" + value))

    def test_brokenPercentEncodingIsRefused(self) -> None:
        """An identifier with a bare percent sign must not lose its end to a separator."""
        for value in (b"%", b"%4", b"%zz", b"50%off", b"%%41"):
            self.assertIn("broken percent-encoding", self.refusal(b"a=" + value))

    @given(st.dictionaries(st.sampled_from("abc"), st.text(min_size=1)))
    def test_whatIsEncodedIsRead(self, parameters: dict[str, str]) -> None:
        """Any text comes through the usual encoding."""
        uri = b"/x?" + urlencode(parameters).encode("ascii")
        self.assertEqual(parse(uri, list(parameters), "abc"), parameters)

    @given(st.binary())
    def test_nonsenseFailsInOneWay(self, query: bytes) -> None:
        """Whatever the bytes: parameters or `BadParameter`."""
        try:
            found = parse(b"/x?" + query, ["a"], ["b"])
        except BadParameter:
            return
        self.assertIn("a", found)


class WholeNumberTests(SynchronousTestCase):
    """Numbers."""

    def test_wholeNumbersAreRead(self) -> None:
        """Both ends are included."""
        for value, number in {"0": 0, "1": 1, "120": 120, "007": 7}.items():
            self.assertEqual(wholeNumber("seconds", value, 120), number)

    def test_anythingElseIsRefused(self) -> None:
        """Huge, negative, broken, foreign and decorated numbers; the message says what is right."""
        values = ("121", str(2**64), "9" * 5000, "-1", "-0", "+1", "1.5", "1e1", "", " 1", "1\n")
        for value in (*values, "٣", "²", "1_0", "0x1", "ten", "30s", "\0"):
            error: BadParameter = self.assertRaises(BadParameter, wholeNumber, "s", value, 120)
            self.assertEqual(str(error), "s: must be a whole number from 0 to 120")
