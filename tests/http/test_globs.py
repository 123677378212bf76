"""Globs on paths."""

import re
import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.http.globs import compileGlob


def matches(glob: str, path: bytes) -> bool:
    """Whether a glob matches a path."""
    return compileGlob(glob).fullmatch(path) is not None


def plainly(glob: str) -> re.Pattern[bytes]:
    """The same glob as anybody would write it, without a thought of the time."""
    parts = re.split(r"(\*\*|\*)", glob)
    words = {"*": "[^/]*", "**": ".*"}
    text = "".join(words.get(part, re.escape(part)) for part in parts)
    return re.compile(text.encode(), re.DOTALL)


class GlobTests(SynchronousTestCase):
    """What matches what."""

    def test_literal(self) -> None:
        """The whole path, and nothing but it; other signs mean themselves."""
        self.assertTrue(matches("/a.b", b"/a.b"))
        for path in (b"/axb", b"/a.b/", b"/a.", b"x/a.b", b"/a.b\n"):
            self.assertFalse(matches("/a.b", path))

    def test_starStaysInItsSegment(self) -> None:
        """It may be empty."""
        for path in (b"/api/v1/open", b"/api//open"):
            self.assertTrue(matches("/api/*/open", path))
        self.assertFalse(matches("/api/*/open", b"/api/v1/x/open"))
        self.assertTrue(matches("/a*c*e", b"/abcde"))
        self.assertFalse(matches("/a*c*e", b"/abc/de"))

    def test_twoStarsGoAcross(self) -> None:
        """Over any number of segments, line ends included."""
        for path in (b"/dav/", b"/dav/a", b"/dav/a/b/", b"/dav/a\nb"):
            self.assertTrue(matches("/dav/**", path))
        for path in (b"/dav", b"/davx", b"x/dav/"):
            self.assertFalse(matches("/dav/**", path))
        self.assertTrue(matches("**/x/**/y*", b"/a/x/b/c/yz"))
        self.assertTrue(matches("**", b""))

    def test_otherThanASCII(self) -> None:
        """A glob is compared as UTF-8."""
        self.assertTrue(matches("/ä/*", "/ä/ö".encode()))

    @given(
        st.lists(st.sampled_from(["*", "**", "/", "a", "b", "a/", "/b"]), max_size=9),
        st.lists(st.sampled_from(["/", "a", "b", "ab"]), max_size=12),
    )
    def test_asIfWrittenPlainly(self, glob: list[str], path: list[str]) -> None:
        """Giving nothing back costs no match."""
        text, data = re.sub(r"\*{3,}", "**", "".join(glob)), "".join(path).encode()
        self.assertEqual(matches(text, data), plainly(text).fullmatch(data) is not None, text)

    def test_hostilePath(self) -> None:
        """Many stars and a long path take no time to speak of."""
        pattern = compileGlob("**a**a**a**a**a**a**b")
        began = time.process_time()
        self.assertIsNone(pattern.fullmatch(b"/" + b"a" * 8000))
        self.assertIsNone(compileGlob("/*a*a*a*a*a*a*b").fullmatch(b"/" + b"a" * 8000))
        self.assertLess(time.process_time() - began, 1.0)
