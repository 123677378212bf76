"""Whose request it is, and where it goes."""

from base64 import b64encode, urlsafe_b64encode
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.errors import InvalidIdentifier
from mailproxy.http.rules import FORM, HTTPRules, Rule
from mailproxy.identity import IdentityRules
from tests.config.support import ConfigTestCase, changed
from tests.http.support import request, rules


def find(
    extract: dict[str, Any], *fields: bytes, target: bytes = b"/", body: bytes = b""
) -> str | None:
    """Find the account that a request names."""
    (rule,) = rules({"match": "/**", "extract": extract}).rules
    assert rule.find is not None
    return rule.find(request(b"GET %b HTTP/1.1" % target, *fields), body, IdentityRules())


class MatchTests(SynchronousTestCase):
    """The first route that fits."""

    def match(self, path: bytes, *globs: str) -> str | None:
        """Match a path; each route goes to a destination of its glob's name."""
        table = rules(*({"match": glob, "destination": f"d{glob}"} for glob in globs))
        found = table.match(path)
        return found.destination if found is not None else None

    def test_firstWins(self) -> None:
        """In the order of the file."""
        self.assertEqual(self.match(b"/dav/x", "/dav/**", "/**"), "d/dav/**")
        self.assertEqual(self.match(b"/dav/x", "/**", "/dav/**"), "d/**")

    def test_none(self) -> None:
        """There need not be one."""
        self.assertIsNone(self.match(b"/other", "/dav/**"))
        self.assertIsNone(self.match(b"*", "/**"))

    def test_noPath(self) -> None:
        """What `OPTIONS *` asks for is no path, but has its pattern."""
        self.assertEqual(self.match(b"*", "/**", "*"), "d*")
        self.assertEqual(self.match(b"*", "**"), "d**")

    def test_decoded(self) -> None:
        """Percent-encoding hides nothing; dots and double slashes stay as they are."""
        self.assertEqual(self.match(b"/d%61v%2Fx", "/dav/**"), "d/dav/**")
        self.assertEqual(self.match(b"/%2e%2e/dav", "/../dav"), "d/../dav")
        self.assertTrue(rules({"match": "/a b", "destination": "d"}).match(b"/a%20b"))
        self.assertIsNone(self.match(b"//dav/x", "/dav/**"))
        self.assertIsNone(self.match(b"/x/../dav/", "/dav/**"))

    def test_trailingSlash(self) -> None:
        """With it or without, but only one."""
        self.assertEqual(self.match(b"/push/", "/push"), "d/push")
        self.assertIsNone(self.match(b"/push//", "/push"))
        self.assertIsNone(self.match(b"/push", "/push/"))
        self.assertEqual(self.match(b"/", "/"), "d/")


class AuthorizationTests(SynchronousTestCase):
    """`from = "authorization"`."""

    BY = {"from": "authorization"}

    def given(self, value: bytes) -> str | None:
        """Find the account in a field."""
        return find(self.BY, b"Authorization: " + value)

    def test_basic(self) -> None:
        """The login part, less a master user; the scheme in any case."""
        for login, name in ((b"ann:x", "ann"), (b"ann%root:x", "ann"), (b"ann:x:y", "ann")):
            self.assertEqual(self.given(b"bAsic  " + b64encode(login)), name)

    def test_nothingFound(self) -> None:
        """No field, no login, no base64, another scheme."""
        self.assertIsNone(find(self.BY))
        for value in (
            *(b"Basic", b"Basic !!!", b"Basic " + b64encode(b":x"), b"Basic " + b64encode(b"ann")),
            *(b"Digest username=ann", b"Bearer opaque", b"Bearer", b""),
        ):
            self.assertIsNone(self.given(value))

    def test_bearer(self) -> None:
        """As in a mail login."""
        claims = urlsafe_b64encode(b'{"email": "ann@example.com"}').rstrip(b"=")
        self.assertEqual(self.given(b"Bearer e30.%b.x" % claims), "ann@example.com")

    def test_namesThatMayNotBeUsed(self) -> None:
        """They are no names at all."""
        for login in (b"a b:x", b"\xff:x", b"%root:x", b'"ann":x'):
            self.assertRaises(InvalidIdentifier, self.given, b"Basic " + b64encode(login))


class OtherTests(SynchronousTestCase):
    """`from` query, header and body."""

    def test_query(self) -> None:
        """The first parameter of the name, decoded."""
        by = {"from": "query", "param": "user"}
        for target, name in (
            (b"/?x=1&user=ann%40example.com&user=bob", "ann@example.com"),
            (b"/?us%65r=a%2Bb", "a+b"),
            (b"/?user=", None),
            (b"/?user", None),
            (b"/", None),
            (b"/?xuser=ann", None),
        ):
            self.assertEqual(find(by, target=target), name)
        self.assertRaises(InvalidIdentifier, find, by, target=b"/?user=a+b")

    def test_header(self) -> None:
        """A field's value, its name in any case."""
        by = {"from": "header", "header": "X-Account"}
        self.assertEqual(find(by, b"x-account: ann"), "ann")
        self.assertIsNone(find(by, b"X-Account:"))
        self.assertIsNone(find(by))

    def test_body(self) -> None:
        """The first group of the first match."""
        by = {"from": "body", "regex": "<EMail>([^<]+)</EMail>|x(y)"}
        self.assertEqual(find(by, body=b"..<EMail>ann@example.com</EMail>.."), "ann@example.com")
        self.assertIsNone(find(by, body=b"nothing"))
        self.assertIsNone(find(by, body=b"xy"))

    def test_form(self) -> None:
        """A form's values are decoded."""
        by = {"from": "body", "regex": "user=([^&]*)"}
        body = b"x=1&user=ann%40example.com&y=2"
        kind = b"Content-Type: " + FORM.upper() + b"; charset=utf-8"
        self.assertEqual(find(by, kind, body=body), "ann@example.com")
        self.assertEqual(find(by, body=body), "ann")


class ConfigTests(ConfigTestCase):
    """What is made of a configuration."""

    def test_rules(self) -> None:
        """Routes, limits, and who is told or believed."""
        text = changed(
            (
                "protocol.imap =",
                "forwarded = true\nprotocol.http = {port = 443, tls = 'implicit'}\nprotocol.imap =",
            ),
            extra="""
[listener.web]
protocol = "http"
bind = "127.0.0.1:8443"
tls = "implicit"
forwarded = "trust"
[http]
body_extract_cap = 1
max_head_size = 2
relay_idle = "3s"
keepalive_timeout = "4s"
max_keepalive_requests = 5
[[http.route]]
match = "/a"
destination = "old"
[[http.route]]
match = "/b"
extract = { from = "body", regex = "(x)" }
fallback = "old"
[[http.route]]
match = "/c"
extract = { from = "authorization" }
fallback = "default"
""",
        )
        found = HTTPRules.fromConfig(self.load(text))
        self.assertEqual((found.bodyCap, found.maxHead, found.idle), (1, 2, 3.0))
        self.assertEqual((found.keepalive, found.maxRequests), (4.0, 5))
        self.assertEqual(found.keepsForwarded, {"web"})
        self.assertEqual(found.forwarded, {"old"})
        told = [(each.destination, each.needsBody, each.fallback) for each in found.rules]
        self.assertEqual(told, [("old", False, None), (None, True, "old"), (None, False, None)])
        self.assertIsInstance(found.rules[0], Rule)
