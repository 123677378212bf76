"""Answers: their bodies, and how they are written."""

import json

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.management.answers import Answer, asJSON, lines


class AnswerTests(SynchronousTestCase):
    """What a body looks like."""

    def test_textIsLines(self) -> None:
        """Each line ends in a line end, the last one too."""
        self.assertEqual(lines(200, "ok").body, b"ok\n")
        self.assertEqual(lines(400, "one", "two").body, b"one\ntwo\n")

    def test_textIsUTF8(self) -> None:
        """And says so."""
        answer = lines(200, "Größe")
        self.assertEqual(answer.body, "Größe\n".encode())
        self.assertEqual(answer.contentType, "text/plain; charset=utf-8")

    def test_foreignTextCannotBreakALine(self) -> None:
        """A store's message may hold anything, half a surrogate pair included."""
        body = lines(500, "a\r\nb\x1b[31m\0\ud800 ").body
        self.assertEqual(body, b"a  b [31m\n")

    def test_headersAreWrittenWithDashes(self) -> None:
        """`retry_after` is Retry-After."""
        self.assertEqual(lines(429, "x", retry_after="5").headers, {"Retry-After": "5"})

    def test_factsAreJSON(self) -> None:
        """Whatever the text, the bytes are ASCII and end in a line end."""
        facts = {"identifier": "größe@例子", "count": 1}
        answer = asJSON(facts)
        self.assertEqual(json.loads(answer.body), facts)
        self.assertTrue(answer.body.isascii() and answer.body.endswith(b"}\n"))
        expected = Answer(200, answer.body, "application/json")
        self.assertEqual(answer, expected)
