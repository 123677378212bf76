"""Globs and regular expressions, before they are used and as they are."""

import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.patterns import checkGlob, checkRegex, firstGroup, shadowed
from mailproxy.http.globs import compileGlob


class GlobTests(SynchronousTestCase):
    """What may be a route's `match`."""

    def assertRefused(self, glob: str, reason: str) -> None:
        """Check that a glob is refused, and that a reason is in what is said."""
        self.assertIn(reason, str(self.assertRaises(ValueError, checkGlob, glob)))

    def test_signsThatMeanSomethingElsewhere(self) -> None:
        """A path with one of them would rarely be meant."""
        for glob in ("/a?x=1", "/[a]", "/{a,b}", "/a#b", "/a\\b", "/a\nb", "/\x7f"):
            self.assertRefused(glob, "cannot be used")
        self.assertRefused("/***", "write * (within a segment)")

    def test_aPathBeginsWithASlash(self) -> None:
        """A star does not reach over it; two do."""
        for glob in ("", "a", "*.xml", "*/a", "a/**", "%2Fa"):
            self.assertRefused(glob, "begin with / or **")

    def test_pathsAreComparedDecoded(self) -> None:
        """A pattern is written as the path is meant."""
        self.assertRefused("/my%20files/**", "instead of %20")
        self.assertRefused("/a%c3%bc", "decoded")
        for glob in ("/my files/**", "/100%", "/50%/x", "/ä"):
            self.assertEqual(checkGlob(glob), glob)

    def test_soundGlobs(self) -> None:
        """Stars may stand anywhere behind the slash; `*` alone is for `OPTIONS *`."""
        for glob in ("/", "/*", "*", "**", "**.xml", "/a/**/b", "/.well-known/*", "/a*b**c"):
            self.assertEqual(checkGlob(glob), glob)


class ShadowedTests(SynchronousTestCase):
    """Routes behind others that take all of their requests."""

    def isShadowed(self, glob: str, before: str) -> bool:
        """Whether nothing comes to a glob because of one before it."""
        return list(shadowed([before, glob])) == [(1, 0)]

    def test_equal(self) -> None:
        """With a slash behind it, too: a path is tried without it."""
        for glob, before in (("/a", "/a"), ("/a*/**", "/a*/**"), ("/a/", "/a"), ("*", "*")):
            self.assertTrue(self.isShadowed(glob, before), glob)

    def test_wider(self) -> None:
        """All that the narrower one matches, the wider one does."""
        for glob, before in (
            *(("/a", "/**"), ("/", "/**"), ("/a/*/b", "/**"), ("/a/**", "/**"), ("*", "**")),
            *(("/dav/x", "/dav/*"), ("/dav/*/x", "/dav/**"), ("/a*b*c", "/a*c"), ("/**", "**")),
        ):
            self.assertTrue(self.isShadowed(glob, before), (glob, before))

    def test_reached(self) -> None:
        """By at least one path, or by `OPTIONS *`."""
        for glob, before in (
            *(("/**", "/a"), ("/a", "/a/"), ("*", "/**"), ("**", "/**"), ("/**", "/**/**")),
            *(("/dav", "/dav/**"), ("/a/**", "/a/*"), ("/a/*", "/a/b"), ("/*x", "/x*")),
        ):
            self.assertFalse(self.isShadowed(glob, before), (glob, before))

    def test_theFirstIsNamed(self) -> None:
        """Of all that are in the way; those before it are reached."""
        self.assertEqual(list(shadowed(["/a", "/**", "/a", "/b"])), [(2, 0), (3, 1)])
        self.assertEqual(list(shadowed([])), [])

    @given(
        st.lists(st.lists(st.sampled_from(["*", "**", "/", "a"]), max_size=5), max_size=2),
        st.lists(st.sampled_from(["/", "a", "b"]), max_size=8),
    )
    def test_noPathTellsOtherwise(self, globs: list[list[str]], path: list[str]) -> None:
        """Whatever a shadowed glob matches, the one before it does; a trailing slash aside."""
        texts = ["/" + "".join(glob).replace("***", "**").replace("***", "**") for glob in globs]
        data = "/" + "".join(path)
        for place, before in shadowed(texts):
            if compileGlob(texts[place]).fullmatch(data.encode()):
                forms = (data, data.removesuffix("/") or data)
                fits = compileGlob(texts[before]).fullmatch
                self.assertTrue(any(fits(form.encode()) for form in forms), (texts, data))


class RegexTests(SynchronousTestCase):
    """What may be a route's `regex`, and what it finds."""

    def assertRefused(self, regex: str, reason: str) -> None:
        """Check that an expression is refused, and that a reason is in what is said."""
        message = str(self.assertRaises(ValueError, checkRegex, regex))
        self.assertIn(reason, message)
        self.assertTrue(message.isprintable(), message)

    def test_mistakes(self) -> None:
        """Each is told, on one line."""
        self.assertRefused("(a", "is not a regular expression of RE2: missing ): (a")
        self.assertRefused("(\n", "missing )")

    def test_whatNeedsBacktracking(self) -> None:
        """It is not in the dialect."""
        for regex in ("(a)\\1", "(?=a)(a)", "(?<!a)(b)", "(a)\\Z"):
            self.assertRefused(regex, "is not a regular expression of RE2: invalid")

    def test_whatIsTooLarge(self) -> None:
        """Counts within counts would take the memory."""
        self.assertRefused("((a{1000}){1000})", "invalid repetition size")

    def test_aGroupIsNeeded(self) -> None:
        """The first one is the identifier."""
        for regex in ("abc", "(?:a)"):
            self.assertRefused(regex, "has no group; put ( ) around the identifier")
        self.assertEqual(checkRegex("<u>(.*?)</u>"), "<u>(.*?)</u>")

    def test_firstGroupOfFirstMatch(self) -> None:
        """Nothing where either is not there."""
        find = firstGroup("<u>(.*?)</u>|x(y)")
        self.assertEqual(find(b"..<u>ann</u><u>bob</u>"), b"ann")
        for text in (b"", b"<u>", b"xy", b"<u>a\nb</u>"):
            self.assertEqual(find(text), b"")
        self.assertEqual(firstGroup("(?s)<u>(.*?)</u>")(b"<u>a\nb</u>"), b"a\nb")
        self.assertEqual(firstGroup("(?i)user=(?P<name>[a-z]+)$")(b"USER=Ann"), b"Ann")

    def test_bytes(self) -> None:
        """What is no UTF-8 belongs to a name as every other byte does, and cannot cut it short."""
        self.assertEqual(firstGroup("ü=([^&]*)")("ü=ö&".encode()), "ö".encode())
        self.assertEqual(firstGroup("u=([^&]*)")(b"u=ann\xff\0x&"), b"ann\xff\0x")

    def test_hostileText(self) -> None:
        """An expression that backtracks elsewhere takes no time to speak of."""
        began = time.process_time()
        for regex in ("(a+)+$", "((a|aa)+)$", "(.*)*=(.*)*x", "^(([a-z])+.)+[A-Z]$"):
            self.assertEqual(firstGroup(regex)(b"a" * 65535 + b"!"), b"", regex)
        self.assertLess(time.process_time() - began, 1.0)
