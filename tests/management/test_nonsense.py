"""Requests of any bytes, to a whole site."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.management import Guard, ManagementAPI, makeSite
from mailproxy.management.api import CALLS, Call
from tests.management.support import BEARER, TOKEN, FakeControl, Wire

NAMES = ("identifier", "destination", "seconds", "protocol", "x", "")
VALUES = st.one_of(
    st.text("0a+;&=?/.-", max_size=6),
    st.sampled_from(("%", "%zz", "%ff", "%00", "%D9%A3", "%F0%9F%98%80", "1" * 300, "-1")),
)
PAIRS = st.tuples(st.sampled_from(NAMES), VALUES)


class NonsenseTests(SynchronousTestCase):
    """What no client should send."""

    def connect(self) -> Wire:
        """Come in anew, known to nobody; the control answers everything with an empty table."""
        control = FakeControl()
        control.result = {}
        api = ManagementAPI(control, Guard(TOKEN, 3, 60.0, Clock()))
        return Wire(makeSite(api.resource(), Clock()))

    def test_bytesBeyondASCIIAreRefused(self) -> None:
        """In the token, in the host, in any other field: an answer below 500, nothing logged."""
        bearer = b"Authorization: " + BEARER.encode()
        for fields, status in (
            ((b"Authorization: Bearer \xff\xfe",), 401),
            ((b"Authorization: B",), 401),
            ((bearer, bearer), 401),
            ((bearer, b"Host: \xff\xfe"), 200),
            ((bearer, b"Host: " + b"x" * 300), 200),
            ((bearer, b"Host: a..b:c:d"), 200),
            ((bearer, b"Cookie: =;;=\xff", b"Content-Type: \xff"), 200),
        ):
            self.assertEqual(self.connect().ask(b"/stats", *fields).status, status, fields)

    def test_headHasTheHeadersOfGet(self) -> None:
        """The length of the body that is not sent among them; the connection can be used on."""
        wire = self.connect()
        for fields in ((b"X: y",), ()):
            got = wire.ask(b"/stats", *fields)
            head = wire.ask(b"/stats", *fields, method=b"HEAD")
            self.assertEqual((head.status, head.body), (got.status, b""))
            self.assertEqual({**head.headers, "date": ""}, {**got.headers, "date": ""})
            self.assertEqual(head.headers["content-length"], str(len(got.body)))

    def test_methodsAreCapitals(self) -> None:
        """No other method is one, be it spelled nearly so."""
        for method in (b"get", b"Get", b"G-T", b"!"):
            self.assertEqual(self.connect().ask(b"/stats", method=method).status, 400, method)

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(CALLS), st.lists(PAIRS, max_size=4), st.binary(max_size=12))
    def test_nonsenseIsNeverOurMistake(
        self, call: Call, pairs: list[tuple[str, str]], junk: bytes
    ) -> None:
        """Strange parameters and fields give an answer below 500, and no wrong token another."""
        query = "&".join(f"{name}={value}" for name, value in pairs)
        target = f"{call.path}?{query}".encode("ascii")
        field = junk.translate(None, b"\r\n\0")
        fields = (b"X-Junk: " + field, b"Accept: " + field, b"Connection: " + field)
        bearer = b"Authorization: " + BEARER.encode()
        reply = self.connect().ask(target, bearer, *fields, method=call.method.encode("ascii"))
        self.assertLess(reply.status, 500)
        reply = self.connect().ask(target, b"Authorization: " + field)
        self.assertEqual(reply.status, 401 if call.needsToken else 200)
