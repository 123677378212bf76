"""From a login to the identifier that it is routed by, and what logs see of it."""

import json
from base64 import urlsafe_b64encode
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailproxy import identity
from mailproxy.errors import InvalidIdentifier
from mailproxy.identity import MAX_IDENTIFIER, IdentityRules, redact, redactionKey
from mailproxy.sasl import Mechanism, decode, fromPassword


def encoded(text: str | bytes) -> bytes:
    """Write base64url without padding."""
    data = text.encode() if isinstance(text, str) else text
    return urlsafe_b64encode(data).rstrip(b"=")


def jwt(**claims: Any) -> bytes:
    """Make an unsigned token."""
    return b".".join([encoded('{"alg":"none"}'), encoded(json.dumps(claims)), encoded("signature")])


def warrant(address: str | bytes) -> bytes:
    """Make a session warrant: `sw1.BODY.FOOTER`."""
    return b"sw1." + encoded("body") + b"." + encoded(address)


class RulesCase(SynchronousTestCase):
    """Logins and what they are routed by."""

    rules = IdentityRules()

    def plain(self, message: bytes, rules: IdentityRules | None = None) -> str | None:
        """Identify a PLAIN message."""
        return (rules or self.rules).identify(decode(Mechanism.PLAIN, message))

    def bearer(self, token: bytes, name: bytes = b"", rules: IdentityRules | None = None) -> Any:
        """Identify an OAUTHBEARER message."""
        header = b"n,a=%b," % name if name else b"n,,"
        credentials = decode(Mechanism.OAUTHBEARER, header + b"\1auth=Bearer %b\1\1" % token)
        return (rules or self.rules).identify(credentials)

    def assertInvalid(self, name: bytes) -> str:
        """The name may not be used; give what the error says."""
        with self.assertRaises(InvalidIdentifier, msg=name) as caught:
            self.rules.identify(fromPassword(name, b"password"))
        return str(caught.exception)


class NameTests(RulesCase):
    """Logins that name somebody."""

    def test_theAuthorizationIdentityGoesFirst(self) -> None:
        """It names the mailbox that is opened; else the authentication identity does."""
        self.assertEqual(self.plain(b"jane@example.com\0admin\0pass"), "jane@example.com")
        self.assertEqual(self.plain(b"\0jane@example.com\0pass"), "jane@example.com")

    def test_passwordsNameTheirUser(self) -> None:
        """As LOGIN, USER and PASS do."""
        self.assertEqual(self.rules.identify(fromPassword(b"jane", b"pass")), "jane")

    def test_tokensMayComeWithAName(self) -> None:
        """XOAUTH2's user and the bearer's `a=` go before what the token says."""
        token = jwt(email="other@example.com")
        self.assertEqual(self.bearer(token, b"jane@example.com"), "jane@example.com")
        message = b"user=jane@example.com\1auth=Bearer %b\1\1" % token
        found = self.rules.identify(decode(Mechanism.XOAUTH2, message))
        self.assertEqual(found, "jane@example.com")

    def test_aMasterUserIsCutOff(self) -> None:
        """At the first of any separator, in the authorization identity as well."""
        rules = IdentityRules(separators=("%", "*", "::"))
        for login, mailbox in (
            (b"jane%admin", "jane"),
            (b"jane*admin%x", "jane"),
            (b"jane%a*b", "jane"),
            (b"jane@example.com::admin", "jane@example.com"),
            (b"jane:admin", "jane:admin"),
            (b"jane%", "jane"),
        ):
            self.assertEqual(rules.identify(fromPassword(login, b"pass")), mailbox)
        self.assertEqual(self.plain(b"jane%admin\0admin\0pass"), "jane")
        self.assertEqual(self.plain(b"\0a*b\0pass"), "a*b")

    def test_withoutSeparatorsNothingIsCut(self) -> None:
        """An operator may have none."""
        self.assertEqual(self.plain(b"\0a%b\0pass", IdentityRules(separators=())), "a%b")

    def test_letterCaseIsKeptUnlessToldOtherwise(self) -> None:
        """`lowercase` holds for all letters; the cut comes before it."""
        message = "\0JANE.Müller@Example.COM%ADMIN\0pass".encode()
        self.assertEqual(self.plain(message), "JANE.Müller@Example.COM")
        lower = IdentityRules(lowercase=True)
        self.assertEqual(self.plain(message, lower), "jane.müller@example.com")
        token = jwt(email="JANE@example.com")
        self.assertEqual(self.bearer(token, rules=lower), "jane@example.com")

    def test_managementNamesAreReadLikeLogins(self) -> None:
        """The same cut, case and checks."""
        lower = IdentityRules(lowercase=True)
        self.assertEqual(lower.normalize("Jane@Example.com%admin"), "jane@example.com")
        self.assertRaises(InvalidIdentifier, lower.normalize, "jane doe")

    def test_emptyNamesAreInvalid(self) -> None:
        """Nothing before the separator is nobody's mailbox."""
        self.assertInvalid(b"%admin")
        self.assertRaises(InvalidIdentifier, self.rules.normalize, "")

    def test_overlongNamesAreInvalid(self) -> None:
        """512 bytes of UTF-8 are the limit, counted after the cut and in bytes."""
        self.assertEqual(self.rules.normalize("x" * MAX_IDENTIFIER), "x" * 512)
        self.assertInvalid(b"x" * 513)
        self.assertInvalid("ü".encode() * 257)
        self.assertEqual(self.plain(b"\0" + b"x" * 512 + b"%admin\0pass"), "x" * 512)

    def test_charactersThatStoresAndLogsMustNotSeeAreInvalid(self) -> None:
        """Log and store injection: control characters, white space and double quotes."""
        for character in '"', " ", "\r", "\n", "\t", "\x01", "\x7f", "\x85", "\u00a0", "\u2028":
            self.assertInvalid(f"jane{character}doe".encode())
        self.assertInvalid(b"jane\xff")

    def test_anErrorNeverQuotesTheName(self) -> None:
        """What may reach no log is not in the error that is logged."""
        for name in (b'secretive"name', b"secretive\nname", b"secretive" * 100, b"secretive\xff"):
            self.assertNotIn("secretive", self.assertInvalid(name))

    def test_whatIsUsedMayBeUsed(self) -> None:
        """Any name either is refused or is short and free of what separates words and lines."""
        rules = IdentityRules(lowercase=True)

        @given(st.text(max_size=600))
        def check(name: str) -> None:
            try:
                found = rules.normalize(name)
            except InvalidIdentifier:
                return
            self.assertTrue(0 < len(found.encode()) <= MAX_IDENTIFIER)
            self.assertEqual(found.split(), [found])
            self.assertNotIn('"', found)
            self.assertTrue(all(ord(each) >= 32 and ord(each) != 127 for each in found))

        check()


class TokenTests(RulesCase):
    """Tokens without a name."""

    def test_aSessionWarrantNamesItsAddress(self) -> None:
        """In its third part; the padding is left out."""
        for address in ("j@example.com", "ja@example.com", "jan@example.com", "jané@example.com"):
            self.assertEqual(self.bearer(warrant(address)), address)

    def test_aBrokenWarrantNamesNobody(self) -> None:
        """Not base64url, not UTF-8, empty, or of another shape: the default destination."""
        for token in (
            b"sw1.body.A", b"sw1.body." + encoded(b"\xff\xfe"), b"sw1.body.", b"sw1..", b"sw1.body",
            b"sw1." + encoded("a@b.c"), b"sw2.body." + encoded("a@b.c"),
            b"sw1.a.b." + encoded("a@b.c"),
        ):  # fmt: skip
            self.assertIsNone(self.bearer(token), token)

    def test_aWarrantMayNameNothingInvalid(self) -> None:
        """Its address is checked like any other name."""
        for address in ("a b@example.com", "a\n@example.com", "x" * 513, '"@example.com'):
            with self.assertRaises(InvalidIdentifier):
                self.bearer(warrant(address))

    def test_claimsAreTriedInTurn(self) -> None:
        """The operator's own, then email and so on; the first string that holds an `@`."""
        order = ("mailbox", "email", "preferred_username", "upn", "unique_name", "sub")
        rules = IdentityRules(claim="mailbox")
        claims = {name: f"{name}@example.com" for name in order}
        for name in order:
            self.assertEqual(self.bearer(jwt(**claims), rules=rules), f"{name}@example.com")
            claims[name] = "nobody"  # no address: the next one is tried
        self.assertIsNone(self.bearer(jwt(**claims), rules=rules))

    def test_theUsualClaimIsEmail(self) -> None:
        """Other claims do not count."""
        token = jwt(sub="sub@example.com", email="email@example.com", name="x@example.com")
        self.assertEqual(self.bearer(token), "email@example.com")
        self.assertIsNone(self.bearer(jwt(name="x@example.com", mailbox="y@example.com")))

    def test_claimsThatAreNoStringsArePassedOver(self) -> None:
        """Lists, numbers, objects and null hold no address."""
        for odd in (["a@example.com"], {"a@example.com": 1}, 7, None, True):
            token = jwt(email=odd, upn="jane@example.com")
            self.assertEqual(self.bearer(token), "jane@example.com")

    def test_whatIsNoTokenOfOursNamesNobody(self) -> None:
        """Opaque tokens, other shapes, payloads that are no object, bombs of brackets."""
        payloads = (b"not json", b"[]", b'"a@b.c"', b"7", b"", b"\xff\xff", b"[" * 50_000)
        tokens = [b"e30." + encoded(payload) + b".x" for payload in payloads]
        for token in (*tokens, b"ya29.opaque", b"..", b"a.b", b"a.b.c.d.e", b"\xff.\xff.\xff"):
            self.assertIsNone(self.bearer(token), token[:20])

    def test_aNameThatOtherRulesMade(self) -> None:
        """It is made anew; one that cannot be had by these stays as it is."""
        rules = IdentityRules(separators=("+",), lowercase=True)
        self.assertEqual(rules.rename("Jane+boss"), "jane")
        self.assertEqual(rules.rename("+boss"), "+boss")

    def test_anyTokenIsHarmless(self) -> None:
        """It names somebody, nobody, or somebody who may not be named."""

        @given(st.lists(st.one_of(st.binary(max_size=30), st.just(b".")), max_size=8))
        def check(parts: list[bytes]) -> None:
            try:
                found = self.rules.fromToken(b"".join(parts))
            except InvalidIdentifier:
                return
            self.assertTrue(found is None or found)

        check()

    def test_aClaimIsNormalizedToo(self) -> None:
        """A master user in a token is cut off like any other; a bad name is refused."""
        self.assertEqual(self.bearer(jwt(email="jane@example.com%admin")), "jane@example.com")
        with self.assertRaises(InvalidIdentifier):
            self.bearer(jwt(email="jane doe@example.com"))
        with self.assertRaises(InvalidIdentifier):
            self.bearer(b"e30." + encoded(b'{"email": "\\ud800@example.com"}') + b".x")


class RedactionTests(SynchronousTestCase):
    """What a log at info sees of an identifier."""

    def test_itIsStable(self) -> None:
        """The same identifier looks the same as long as the process lives; another one does not."""
        names = [f"user{number}@example.com" for number in range(1000)]
        self.assertEqual(len({redact(name) for name in names}), 1000)
        self.assertEqual(redact(names[0]), redact(names[0]))

    def test_itShowsAThirdAtMost(self) -> None:
        """Three characters, or fewer of a short name: a prefix must not be the name."""

        @given(st.text(st.characters(exclude_characters="~"), max_size=30))
        def check(name: str) -> None:
            prefix, _, digest = redact(name).partition("~")
            shown = name[: min(3, len(name) // 3)]
            self.assertEqual(prefix, shown.encode("ascii", "backslashreplace").decode("ascii"))
            self.assertEqual(len(digest), 8)

        check()
        self.assertTrue(redact("jane@example.com").startswith("jan~"))
        for short in ("a", "ab"):
            self.assertTrue(redact(short).startswith("~"))

    def test_itIsKeyed(self) -> None:
        """Nobody who has the log can look an account up by hashing names: the key is ours."""
        before = redact("jane@example.com")
        self.patch(identity, "_redactionKey", b"another process's")
        self.assertNotEqual(redact("jane@example.com"), before)

    def test_nobodyIsADash(self) -> None:
        """A login without an identifier."""
        self.assertEqual(redact(None), "-")


class RedactionKeyTests(SynchronousTestCase):
    """Several processes with one key."""

    def test_sameKeySameHash(self) -> None:
        """A process that takes another's key writes identifiers as that one does."""
        own = redactionKey()
        self.addCleanup(redactionKey, own)
        before = redact("alice@example.org")
        redactionKey(b"k" * 16)
        self.assertNotEqual(redact("alice@example.org"), before)
        self.assertEqual(redactionKey(own), own)
        self.assertEqual(redact("alice@example.org"), before)
