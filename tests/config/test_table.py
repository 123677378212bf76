"""The mapping file's grammar."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.table import (
    REPORTED,
    checkTable,
    formatTable,
    isStorable,
    parseTable,
)
from mailproxy.errors import ConfigError

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(isStorable)


class ParseTableTests(SynchronousTestCase):
    """Bytes become a table."""

    def problems(self, data: bytes) -> list[str]:
        """What is wrong with a file named `map`."""
        return list(self.assertRaises(ConfigError, parseTable, data, "map").problems)

    def test_entries(self) -> None:
        """An identifier, any spaces and tabs, a destination; lines may end as on Windows."""
        table = parseTable(b"anna new\nben@example.com \t old\r\n  carol\tnew  \nd old")
        expected = {"anna": "new", "ben@example.com": "old", "carol": "new", "d": "old"}
        self.assertEqual(table.entries, expected)
        self.assertEqual(table.firstLine, {"new": 1, "old": 2})

    def test_commentsAndBlankLinesAreNothing(self) -> None:
        """A comment may also stand behind an entry, after white space."""
        table = parseTable(b'# "all\n\n  \t\r\n  #x\nanna new # since May\nben#1 old#2\n\n')
        self.assertEqual(table.entries, {"anna": "new", "ben#1": "old#2"})
        self.assertEqual(table.firstLine, {"new": 5, "old#2": 6})

    def test_emptyFileIsAnEmptyTable(self) -> None:
        """A file without entries is sound; a byte order mark is no content."""
        self.assertEqual(parseTable(b"").entries, {})
        self.assertEqual(parseTable(b"\xef\xbb\xbfanna new\n").entries, {"anna": "new"})

    def test_identifiersMayBeAnyLegalText(self) -> None:
        """UTF-8 and punctuation stand as they are."""
        table = parseTable("jürgen new\na%b/c=d,e'f\\g old\n".encode())
        self.assertEqual(table.entries, {"jürgen": "new", "a%b/c=d,e'f\\g": "old"})

    def test_everyBadLineIsNamed(self) -> None:
        """Each malformed line is reported by its number, with what is wrong."""
        data = b"anna\nok new\nben new old\nc\x00 new\nd\xff new\ne\x0bnew\nf #new\ng\rnew\n"
        data += b"h\xc2\xa0i new"
        problems = self.problems(data)
        numbers = [problem.split(":")[1] for problem in problems]
        self.assertEqual(numbers, ["1", "3", "4", "5", "6", "7", "8", "9"])
        self.assertIn("map:1: no destination", problems[0])
        self.assertIn("more than two words", problems[1])
        self.assertIn("control character", problems[2])
        self.assertIn("not UTF-8", problems[3])
        self.assertIn("no destination", problems[5])

    def test_quotesAreRefused(self) -> None:
        """No identifier that a login could have holds a quote; a file with them is mistaken."""
        self.assertEqual(len(self.problems(b'"anna" new\nben "new"\n')), 2)

    def test_longWordsAreRefused(self) -> None:
        """512 bytes of UTF-8 are the most that an identifier has."""
        self.assertEqual(len(parseTable(b"a" * 512 + b" new\n").entries), 1)
        problems = self.problems(b"a" * 513 + b" new\n" + "é".encode() * 257 + b" new\n")
        self.assertEqual([one.split(": ")[0] for one in problems], ["map:1", "map:2"])

    def test_longLinesAreFine(self) -> None:
        """Only words are limited, not white space and comments."""
        table = parseTable(b"anna" + b" " * 2000 + b"new #" + b"x" * 2000)
        self.assertEqual(table.entries, {"anna": "new"})

    def test_twoDestinationsForOneAreRefused(self) -> None:
        """Both lines are named; the same entry again does no harm."""
        problems = self.problems(b"anna new\nben old\nanna new\n\nanna old\n")
        self.assertEqual(len(problems), 1)
        self.assertIn("map:5: ", problems[0])
        self.assertIn('"anna" was mapped to "new" on line 1', problems[0])

    def test_allKindsAreReportedTogether(self) -> None:
        """Malformed lines and conflicts come in the order of the file."""
        problems = self.problems(b"anna new\nanna old\nben\n" + b"x" * 600 + b" new\n")
        self.assertEqual([one.split(": ")[0] for one in problems], ["map:2", "map:3", "map:4"])

    def test_manyProblemsAreAbridged(self) -> None:
        """Nobody reads a million lines of complaints."""
        problems = self.problems(b"broken\n" * (REPORTED + 7))
        self.assertEqual(len(problems), REPORTED + 1)
        self.assertEqual(problems[-1], "and 7 more")

    def test_hugeFilesShareTheirDestinations(self) -> None:
        """A destination is one object however many lines name it."""
        entries = parseTable(b"".join(b"u%d new\n" % one for one in range(2000))).entries
        self.assertEqual(len({id(one) for one in entries.values()}), 1)

    @given(st.binary(max_size=200))
    def test_garbageIsReadOrRefused(self, data: bytes) -> None:
        """Any bytes give a table that can be written again, or a ConfigError."""
        try:
            table = parseTable(data)
        except ConfigError:
            return
        self.assertEqual(parseTable(formatTable(table.entries)).entries, table.entries)


class FormatTableTests(SynchronousTestCase):
    """A table becomes bytes."""

    def test_sortedWithTabs(self) -> None:
        """One entry per line, a tab between, sorted by identifier."""
        self.assertEqual(formatTable({"ben": "old", "anna": "new"}), b"anna\tnew\nben\told\n")
        self.assertEqual(formatTable({}), b"")

    def test_unreadableEntriesAreRefused(self) -> None:
        """What would be read back as something else is never written."""
        for identifier in ("#anna", "", "a b", "a\nb", 'a"', "\ufeffa", "\ud800", "a" * 513):
            with self.subTest(identifier=identifier):
                self.assertFalse(isStorable(identifier))
                self.assertRaises(ValueError, formatTable, {identifier: "new"})
                self.assertRaises(ValueError, formatTable, {"anna": identifier})

    @given(st.dictionaries(WORDS, WORDS))
    def test_whatIsWrittenIsReadBack(self, entries: dict[str, str]) -> None:
        """Writing and reading a table changes nothing."""
        self.assertEqual(parseTable(formatTable(entries)).entries, entries)


class CheckTableTests(SynchronousTestCase):
    """A table against the destinations."""

    def test_soundTableHasNoProblems(self) -> None:
        """Declared destinations with every protocol that is served."""
        table = parseTable(b"anna new\n")
        self.assertEqual(checkTable(table, {"new": {"imap", "pop3"}}, ["imap"]), [])

    def test_undeclaredDestination(self) -> None:
        """It is named once, at its first line, with the number of entries."""
        table = parseTable(b"anna new\nben nwe\ncarol nwe\n")
        (problem,) = checkTable(table, {"new": set()}, [], "map")
        self.assertTrue(problem.startswith('map:2: destination "nwe" is not declared'), problem)
        self.assertIn("first of 2 entries", problem)

    def test_missingProtocol(self) -> None:
        """All protocols that it lacks are named in one line."""
        table = parseTable(b"\nanna new\n")
        (problem,) = checkTable(table, {"new": {"imap"}}, ["imap", "pop3", "http"], "map")
        self.assertEqual(
            problem, 'map:2: destination "new" lacks pop3, http, which a listener serves'
        )

    def test_manyAreAbridged(self) -> None:
        """As with malformed lines."""
        table = parseTable(b"".join(b"u%d d%d\n" % (one, one) for one in range(REPORTED + 3)))
        self.assertEqual(checkTable(table, {}, [])[-1], "and 3 more")
