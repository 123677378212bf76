"""Which answers refuse a login, and the line that tells of one."""

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.http.logins import isRefused
from tests.http.support import GET, OK, HTTPCase, parseResponse, request, rules

REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


class RefusalTests(SynchronousTestCase):
    """What is a refused login."""

    def test_credentialsThatSayAll(self) -> None:
        """Of a password or a token; no other status is meant."""
        for credentials in (b"Basic YTpi", b"bearer abc"):
            asked = request(b"GET / HTTP/1.1", b"Authorization: " + credentials)
            for status, refused in ((401, True), (403, False), (200, False)):
                answer = parseResponse(b"HTTP/1.1 %d X" % status)
                self.assertEqual(isRefused(asked, answer), refused)

    def test_questionsAreNone(self) -> None:
        """A request without credentials is asked for some; Digest and Negotiate take steps."""
        answer = parseResponse(REFUSAL[:-4])
        for fields in (
            (),
            (b"Authorization: Basic ",),
            (b"Authorization: Digest username=a",),
            (b"Authorization: Negotiate abc",),
        ):
            self.assertFalse(isRefused(request(b"GET / HTTP/1.1", *fields), answer), fields)


class LineTests(HTTPCase):
    """What is told of it."""

    def refusals(self) -> list[str]:
        """The lines so far."""
        return [each for each in self.logged(LogLevel.info) if "login of" in each]

    def test_itHasTheWordsOfAMailLogin(self) -> None:
        """And is counted as one; the answer goes through."""
        client = self.open()
        self.send(client)
        backend = self.answer(REFUSAL)
        self.assertEqual(client.take(), REFUSAL)
        (line,) = self.refusals()
        self.assertRegex(
            line,
            r"\Asession \S+ http door from 198\.51\.100\.7:40000: "
            r"login of a~[0-9a-f]{8} refused by old\Z",
        )
        counted = 'mailproxy_logins_total{destination="old",protocol="http",result="refused"} 1.0'
        self.assertIn(counted, self.stage.metrics.render().decode())
        self.send(client)
        self.reply(backend, OK)
        self.assertEqual(len(self.refusals()), 1)
        self.leave(client)

    def test_pinnedRoute(self) -> None:
        """Nobody knows whose login it is; the address is told all the same."""
        client = self.open(rules({"match": "/**", "destination": "old"}))
        self.send(client, GET)
        self.answer(REFUSAL)
        (line,) = self.refusals()
        self.assertTrue(line.endswith(": login of - refused by old"), line)
        self.leave(client)
