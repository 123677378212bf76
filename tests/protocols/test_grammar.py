"""Atoms, quoted strings, literals and lists: what is written is read, and garbage is refused."""

import contextlib
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.protocols.grammar import (
    Atom,
    GrammarError,
    Value,
    isTag,
    literalAtEnd,
    parse,
    quotable,
    quote,
    strings,
)

printable = st.binary(max_size=60).map(lambda data: bytes(0x20 + byte % 0x5F for byte in data))
atoms = st.from_regex(rb'[^\x00-\x20\x7f()"{}]+', fullmatch=True).map(Atom)
literals = st.binary(max_size=60)


class Written:
    """Arguments as they stand on the wire: text and literals in turn."""

    def __init__(self) -> None:
        self.pieces = [b""]

    def add(self, word: bytes) -> None:
        """Write an atom as it is, another word quoted where it can be, else as a literal."""
        if isinstance(word, Atom):
            self.pieces[-1] += b" " + word
        elif quotable(word) and len(word) % 2:
            self.pieces[-1] += b" " + quote(word)
        else:
            self.pieces[-1] += b" {%d}" % len(word)
            self.pieces += [word, b""]

    def write(self, values: Sequence[Value]) -> list[bytes]:
        """Write values, lists in parentheses."""
        for value in values:
            if isinstance(value, bytes):
                self.add(value)
                continue
            self.pieces[-1] += b" ("
            for word in value:
                self.add(word)
            self.pieces[-1] += b")"
        return self.pieces


class RoundTripTests(SynchronousTestCase):
    """What one end writes the other reads."""

    def test_quotedStringsAreReadAsTheyWere(self) -> None:
        """Any printable text, quotes and backslashes included."""

        @given(printable)
        def check(text: bytes) -> None:
            self.assertTrue(quotable(text))
            self.assertEqual(parse([quote(text)]), [text])

        check()

    def test_valuesAreReadAsTheyWere(self) -> None:
        """Atoms, strings, literals with any bytes at any place, and lists of them."""
        words = st.one_of(atoms, printable, literals)
        values = st.lists(st.one_of(words, st.lists(words, max_size=5).map(tuple)), max_size=6)

        @given(values)
        def check(values: list[Value]) -> None:
            self.assertEqual(parse(Written().write(values)), values)

        check()

    def test_atomsAreKnownFromStrings(self) -> None:
        """NIL is nothing, but "NIL" is a word: so is a literal."""
        atom, quoted, literal = parse([b'NIL "NIL" {3}', b"NIL", b""])
        self.assertEqual([atom, quoted, literal], [b"NIL"] * 3)
        kinds = [isinstance(word, Atom) for word in (atom, quoted, literal)]
        self.assertEqual(kinds, [True, False, False])


class ReadingTests(SynchronousTestCase):
    """Single shapes."""

    def test_everyPlaceTakesALiteral(self) -> None:
        """First, last, between, in a list, empty, and one that looks like grammar."""
        for pieces, expected in (
            ([b"{1}", b"a", b""], [b"a"]),
            ([b"{0}", b"", b" {0+}", b"", b""], [b"", b""]),
            ([b"a {1+}", b"b", b" c"], [b"a", b"b", b"c"]),
            ([b"({1}", b"a", b" {2}", b"b)", b")"], [(b"a", b"b)")]),
            ([b"{3}", b'("{', b""], [b'("{']),
            ([b"{1}", b"(", b" {1}", b")", b""], [b"(", b")"]),
        ):
            self.assertEqual(parse(pieces), expected)

    def test_carelessClientsAreUnderstood(self) -> None:
        """More than one space, eight-bit words, specials in an atom, escapes of any character."""
        for text, expected in (
            (b"  jane   p*ss%word ", [b"jane", b"p*ss%word"]),
            (b'"p\xc3\xa4ss" p\xc3\xa4ss', [b"p\xc3\xa4ss"] * 2),
            (rb'"\a\"\\"', [b'a"\\']),
            (b"a]b\\c {5} d", [b"a]b\\c", b"{5}", b"d"]),
            (b'""', [b""]),
            (b"()", [()]),
            (b"", []),
        ):
            self.assertEqual(parse([text]), expected)

    def test_malformedArgumentsAreRefused(self) -> None:
        """Quotes and parentheses that do not match, lists in lists, control characters."""
        for text in (b'"', b'"abc', b'abc"', b'"a\\"', b"(", b")", b"(a", b"a)",
                     b"((a))", b'"a\\', b"a\0b", b"a\tb", b"a\x7fb", b'"a\0b"', b'"a\rb"',
                     b'"\\\r"'):  # fmt: skip
            with contextlib.suppress(GrammarError):
                self.fail(f"{text!r} is taken for {parse([text])}")

    def test_anErrorNeverQuotesTheArguments(self) -> None:
        """There may be a password among them."""
        for text in (b'LOGIN "s3cr3t', b"s3cr3t)", b"(s3cr3t", b"s3cr3t\0", b"(s3cr3t (s3cr3t))"):
            error = self.assertRaises(GrammarError, parse, [text])
            self.assertNotIn("s3cr3t", f"{error!r} {error}")
        error = self.assertRaises(GrammarError, strings, [b"s3cr3t"], 2)
        self.assertNotIn("s3cr3t", f"{error!r} {error}")

    def test_garbageIsRefusedOrRead(self) -> None:
        """Any bytes are values or a GrammarError, nothing else."""
        bits = st.sampled_from([b"(", b")", b'"', b"\\", b" ", b"{", b"}", b"a", b"\0", b"\xff"])
        text = st.one_of(st.binary(max_size=20), st.lists(bits).map(b"".join))
        rest = st.lists(st.tuples(literals, text, st.sampled_from([b"", b"+"])), max_size=3)

        @given(text, rest)
        def check(text: bytes, rest: list[tuple[bytes, bytes, bytes]]) -> None:
            pieces = [text]
            for literal, text_, plus in rest:
                pieces[-1] += b"{%d%b}" % (len(literal), plus)
                pieces += [literal, text_]
            with contextlib.suppress(GrammarError):
                parse(pieces)

        check()

    def test_aHugeLineIsReadInOneWalk(self) -> None:
        """As many tokens as fit into a line are no trouble, nor is one long word."""
        self.assertEqual(len(parse([b"a " * 32_000])), 32_000)
        self.assertEqual(parse([b'"' + b"\\\\" * 32_000 + b'"']), [b"\\" * 32_000])
        self.assertRaises(GrammarError, parse, [b'"' + b"\\\\" * 32_000])


class LiteralTests(SynchronousTestCase):
    """A line that ends in a literal's announcement."""

    def test_theSizeAndWhetherItWaits(self) -> None:
        """`{5}` waits for our consent, `{5+}` comes unasked; absurd sizes are sizes too."""
        for line, expected in (
            (b"LOGIN {5}", (5, False)),
            (b"LOGIN {5+}", (5, True)),
            (b"{0}", (0, False)),
            (b"x {9999999999+}", (9_999_999_999, True)),
            (b"x~{7}", (7, False)),
            (b"{0005}", (5, False)),
            (b"{99999999999999999999999999+}", (9_999_999_999, True)),
            (b"{%b}" % (b"9" * 6000), (9_999_999_999, False)),
        ):
            self.assertEqual(literalAtEnd(line), expected)

    def test_anythingElseAnnouncesNothing(self) -> None:
        """No digits, signs, or not at the end."""
        for line in (b"", b"LOGIN", b"{}", b"{+}", b"{-1}", b"{5-}", b"{5} ", b"{5}\n", b"{5",
                     b"5}", b"{ 5}", b"{\xd9\xa5}"):  # fmt: skip
            self.assertIsNone(literalAtEnd(line), line)


class WordTests(SynchronousTestCase):
    """Tags, arguments by number, and what can be quoted."""

    def test_tagsAreRepeatedInRepliesSoTheyArePlain(self) -> None:
        """Reply injection: no space, control, eight-bit or special character, and no end."""
        for tag in (b"a", b"A001", b"P1", b".", b"x" * 64, b"]"):
            self.assertTrue(isTag(tag), tag)
        for tag in (b"", b"*", b"+", b"a+", b"a b", b"a\r", b"a\n", b"a\0", b"\xff", b'"', b"(",
                    b"{1}", b"a\\", b"%", b"x" * 65):  # fmt: skip
            self.assertFalse(isTag(tag), tag)

    def test_argumentsAreCounted(self) -> None:
        """Just as many as the command takes, and no list among them."""
        self.assertEqual(strings([b"a", b"b"], 2), [b"a", b"b"])
        self.assertEqual(strings([], 0), [])
        bad: list[list[Value]] = [[], [b"a"], [b"a", b"b", b"c"], [b"a", (b"b",)],
                                  [b"a", b"b", (b"c",)]]  # fmt: skip
        for values in bad:
            self.assertRaises(GrammarError, strings, values, 2)

    def test_whatServersMayNotTakeIsNotQuoted(self) -> None:
        """Line ends (command injection), controls, eight-bit characters, very long strings."""
        for word in (b"a\r\nb", b"a\nb", b"\0", b"\t", b"\x1f", b"\x7f", b"\xc3\xa4", b"x" * 1025):
            self.assertFalse(quotable(word), word)
        for word in (b"", b" ", b'"\\', b"x" * 1024):
            self.assertTrue(quotable(word), word)
