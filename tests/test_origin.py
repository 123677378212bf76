"""Who the client is: what is believed, what is passed on, and what only a proxy may say."""

import contextlib

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.errors import ProtocolError
from mailproxy.origin import (
    MAX_FIELDS,
    Address,
    Fields,
    Origin,
    fromXtext,
    sessionID,
    toXtext,
)

CLIENT, LOCAL = Address("198.51.100.7", 40000), Address("192.0.2.1", 993)


class AddressTests(SynchronousTestCase):
    """IP addresses and ports."""

    def test_itIsWrittenAsUsual(self) -> None:
        """An IPv6 host stands in brackets."""
        self.assertEqual(str(Address.parse("192.0.2.1", 993)), "192.0.2.1:993")
        self.assertEqual(str(Address.parse("2001:DB8:0::1", 993)), "[2001:db8::1]:993")

    def test_aMappedAddressIsTheIPv4OneItIs(self) -> None:
        """As dual-stack sockets write it: rules for IPv4 networks hold for it."""
        for host in ("::ffff:192.0.2.1", "::FFFF:c000:0201"):
            self.assertEqual(Address.parse(host, 1), Address("192.0.2.1", 1))

    def test_aZoneIsLeftOut(self) -> None:
        """It means nothing to anybody else."""
        self.assertEqual(Address.parse("fe80::1%eth0", 1).host, "fe80::1")

    def test_nonsenseIsRefused(self) -> None:
        """Names, ports out of range, and IPv4 addresses with leading zeros."""
        for host, port in (("example.com", 1), ("", 1), ("192.0.2.1", -1), ("::1", 65536),
                           ("192.0.2.01", 1), ("1.2.3", 1)):  # fmt: skip
            self.assertRaises(ValueError, Address.parse, host, port)

    def test_itIsANumber(self) -> None:
        """Networks can be asked for it."""
        self.assertEqual(Address.parse("192.0.2.1", 1).ip.version, 4)
        self.assertEqual(Address.parse("::1", 1).ip.version, 6)


class SessionNameTests(SynchronousTestCase):
    """Names of sessions."""

    def test_theyAreShortPlainAndDifferent(self) -> None:
        """Twelve characters that need no quoting anywhere."""
        names = {sessionID() for _ in range(1000)}
        self.assertEqual(len(names), 1000)
        for name in names:
            self.assertRegex(name, r"\A[A-Za-z0-9_-]{12}\Z")


class OriginCase(SynchronousTestCase):
    """A client that is known by its socket."""

    def setUp(self) -> None:
        """Start with nothing said."""
        self.origin = Origin("session", CLIENT, LOCAL, ttl=7)


class DescriptionTests(OriginCase):
    """What a client's program says of itself."""

    def test_itIsKept(self) -> None:
        """In order, values of NIL too."""
        fields = ((b"name", b"Mutt"), (b"version", None), (b"os", b""))
        self.assertEqual(self.origin.described(fields).description, fields)

    def test_whatOnlyAProxyMaySayIsDropped(self) -> None:
        """Forged origin: a backend that trusts our address would believe it from us."""
        names = (b"x-originating-ip", b"X-Proxy-TTL", b"x-session-id", b"X-", b"x-forward-anything")
        fields = tuple((name, b"203.0.113.9") for name in names)
        described = self.origin.described((*fields, (b"name", b"Mutt"), *fields))
        self.assertEqual(described.description, ((b"name", b"Mutt"),))
        self.assertEqual(described.client, CLIENT)

    def test_noXFieldEverPasses(self) -> None:
        """Whatever a client sends, each x- field that a backend gets is ours, and stands once."""
        names = st.one_of(st.binary(max_size=40), st.sampled_from([b"x-originating-ip", b"X-A"]))
        fields = st.lists(st.tuples(names, st.one_of(st.none(), st.binary(max_size=1100))))

        @given(fields.map(tuple))
        def check(fields: Fields) -> None:
            sent = self.origin.described(fields).imapID()
            ours = [name for name, _ in sent if name.lower().startswith(b"x-")]
            self.assertEqual(ours, [name for name, _ in self.origin.imapID()])
            self.assertLessEqual(len(sent), MAX_FIELDS)

        check()

    def test_itIsNoLongerThanItMayBe(self) -> None:
        """With ours no more than the 30 fields of RFC 2971; overlong fields are dropped."""
        many = tuple((b"f%d" % number, b"v") for number in range(100))
        sent = self.origin.described(many).imapID()
        self.assertEqual(len(sent), MAX_FIELDS)
        self.assertEqual(sent[:3], many[:3])
        sizes = ((b"n" * 30, b"v" * 1024), (b"n" * 31, b"v"), (b"n", b"v" * 1025))
        self.assertEqual(self.origin.described(sizes).description, sizes[:1])

    def test_talkativeClientCannotMakeABackendHangUp(self) -> None:
        """What goes beyond the room for all fields together is left out."""
        long = tuple((b"f%d" % number, b"v" * 998) for number in range(4))
        self.assertEqual(self.origin.described(long).description, long[:2])

    def test_theLastDescriptionCounts(self) -> None:
        """A second ID replaces the first."""
        first = self.origin.described(((b"name", b"one"),))
        second = first.described(((b"os", b"two"),))
        self.assertEqual(second.description, ((b"os", b"two"),))


class ForwardedTests(OriginCase):
    """What a trusted peer says of its client."""

    def test_itIsBelieved(self) -> None:
        """Both addresses, the session's name and the hops, in any letter case."""
        said = self.origin.forwarded(
            (
                (b"X-Originating-IP", b"2001:db8::7"),
                (b"x-originating-port", b"50000"),
                (b"x-connected-ip", b"203.0.113.1"),
                (b"x-connected-port", b"143"),
                (b"X-PROXY-TTL", b"4"),
                (b"x-session-id", b"their-name"),
            )
        )
        expected = Origin(
            "their-name", Address("2001:db8::7", 50000), Address("203.0.113.1", 143), ttl=4
        )
        self.assertEqual(said, expected)

    def test_aMissingPortIsZero(self) -> None:
        """The address alone is worth knowing."""
        said = self.origin.forwarded(((b"x-originating-ip", b"203.0.113.9"),))
        self.assertEqual(said.client, Address("203.0.113.9", 0))
        self.assertEqual(said.local, LOCAL)

    def test_nonsenseIsPassedOver(self) -> None:
        """A field that makes no sense changes nothing, and does not take others with it."""
        odd: Fields = (
            (b"x-originating-ip", b"example.com"),
            (b"x-originating-ip", b"\xff\xfe"),
            (b"x-originating-port", b"1"),
            (b"x-connected-ip", None),
            (b"x-proxy-ttl", b"-1"),
            (b"x-proxy-ttl", b"1000"),
            (b"x-proxy-ttl", b"\xb2"),
            (b"x-proxy-ttl", b"7 "),
            (b"x-session-id", b"two words"),
            (b"x-session-id", b"a\r\nb"),
            (b"x-session-id", b"x" * 65),
            (b"x-session-id", b""),
            (b"x-unheard-of", b"1"),
            (b"originating-ip", b"203.0.113.9"),
        )
        for field in odd:
            self.assertEqual(self.origin.forwarded((field,)), self.origin, field)
        sound = (b"x-session-id", b"fine")
        for field in odd[:4]:
            self.assertEqual(self.origin.forwarded((field, sound)).session, "fine")
        for port in (b"70000", b"-5", b"x"):
            fields = (b"x-originating-ip", b"203.0.113.9"), (b"x-originating-port", port)
            said = attrs.evolve(self.origin, client=Address("203.0.113.9", 0))
            self.assertEqual(self.origin.forwarded(fields), said, port)

    def test_anyFieldsAreHarmless(self) -> None:
        """Nothing that a peer may send raises."""
        names = st.sampled_from(
            [name for name, _ in Origin("s", CLIENT, LOCAL, ttl=7).imapID()] + [b"other"]
        )
        fields = st.lists(st.tuples(names, st.one_of(st.none(), st.binary(max_size=70))))

        @given(fields.map(tuple))
        def check(fields: Fields) -> None:
            said = self.origin.forwarded(fields)
            self.assertTrue(0 <= said.ttl <= 255)
            self.assertTrue(0 < len(said.session) <= 64 and said.session.isprintable())

        check()

    def test_privacyIsNotForwarded(self) -> None:
        """Whether the client's own leg is encrypted is what we see of it."""
        said = self.origin.forwarded(((b"x-client-transport", b"TLS"),))
        self.assertFalse(said.secure)


class IDTests(OriginCase):
    """What a backend is told by IMAP ID."""

    def test_itIsAllThere(self) -> None:
        """The client's own fields, then ours; one hop less than we had."""
        origin = attrs.evolve(self.origin.described(((b"name", b"Mutt"),)), secure=True)
        expected = (
            (b"name", b"Mutt"),
            (b"x-originating-ip", b"198.51.100.7"),
            (b"x-originating-port", b"40000"),
            (b"x-connected-ip", b"192.0.2.1"),
            (b"x-connected-port", b"993"),
            (b"x-proxy-ttl", b"6"),
            (b"x-session-id", b"session"),
            (b"x-client-transport", b"TLS"),
        )
        self.assertEqual(origin.imapID(), expected)

    def test_aClearLegIsToldAsSuch(self) -> None:
        """A backend may have rules for it."""
        self.assertEqual(self.origin.imapID()[-1], (b"x-client-transport", b"insecure"))

    def test_theNextProxyKnowsWhatWeKnow(self) -> None:
        """What we send and a proxy that trusts us reads is the same, one hop later."""
        addresses = st.builds(
            Address.parse, st.ip_addresses().map(str), st.integers(min_value=0, max_value=65535)
        )

        @given(addresses, addresses, st.integers(min_value=2, max_value=255))
        def check(client: Address, local: Address, ttl: int) -> None:
            origin = Origin(sessionID(), client, local, ttl)
            next_ = self.origin.forwarded(origin.imapID())
            self.assertEqual(next_, attrs.evolve(origin, ttl=ttl - 1, transport=b"insecure"))

        check()


class XtextTests(SynchronousTestCase):
    """xtext (RFC 1891, section 5)."""

    def test_anyValueSurvives(self) -> None:
        """And what is written can stand in a command of any protocol: no space, line or quote."""

        @given(st.binary())
        def check(value: bytes) -> None:
            text = toXtext(value)
            self.assertEqual(fromXtext(text), value)
            self.assertRegex(text, rb"\A[!#$&',-<>-\[\]-z|~./0-9:;+]*\Z")
            self.assertNotIn(b"{", text)

        check()

    def test_whatNeedsNoEscapeHasNone(self) -> None:
        """Addresses and names stay readable."""
        for value in (b"198.51.100.7", b"IPV6:2001:db8::1", b"there.example", b"[192.0.2.1]"):
            self.assertEqual(toXtext(value), value)
        self.assertEqual(toXtext(b"a+b=c d\r\n"), b"a+2Bb+3Dc+20d+0D+0A")

    def test_nonsenseIsRefused(self) -> None:
        """Whatever comes is text or a protocol error."""
        for text in (b"+", b"a+1", b"+2b", b"+GG", b"++2B", b"x+ 1"):
            self.assertRaises(ProtocolError, fromXtext, text)

        @given(st.binary())
        def check(text: bytes) -> None:
            with contextlib.suppress(ProtocolError):
                fromXtext(text)

        check()


class IntroductionTests(OriginCase):
    """XCLIENT: what a trusted peer says, and what a backend is told."""

    def test_itIsBelieved(self) -> None:
        """Both addresses, the session's name, the hops and the name in HELO, in any case."""
        words = (
            b"addr=IPV6:2001:db8::7 PORT=50000 DESTADDR=203.0.113.1 DESTPORT=587 SESSION=a+2Bb "
            b"TTL=4 helo=far.example PROTO=ESMTP LOGIN=root NAME=x CLIENT-TRANSPORT=TLS"
        )
        expected = Origin(
            "a+b",
            Address("2001:db8::7", 50000),
            Address("203.0.113.1", 587),
            ttl=4,
            helo=b"far.example",
            transport=b"TLS",
        )
        self.assertEqual(self.origin.introduced(words.split()), expected)

    def test_unknownIsNoValue(self) -> None:
        """As Postfix says it."""
        words = b"ADDR=[UNAVAILABLE] HELO=[TEMPUNAVAIL] SESSION=[unavailable] TTL=[UNAVAILABLE]"
        nameless = attrs.evolve(self.origin, nameless=True)
        self.assertEqual(self.origin.introduced(words.split()), nameless)

    def test_whomNobodyNamesIsNotThePeer(self) -> None:
        """What is sent on does not say that the trusted peer itself is the client."""
        nameless = self.origin.introduced([b"TTL=5"])
        said = nameless.xclient(smtp=True)
        self.assertIn(b"ADDR=[UNAVAILABLE]", said)
        self.assertFalse([word for word in said if word.startswith(b"PORT=")])
        self.assertIn(b"ADDR=198.51.100.7", nameless.xclient())  # where a login decides

    def test_aBadPortDoesNotHideTheAddress(self) -> None:
        """Else the client would go on as the peer."""
        for port in (b"0x10", b"-1", b"65536", b"999999"):
            said = self.origin.introduced([b"ADDR=203.0.113.5", b"PORT=" + port])
            self.assertEqual(said.client, Address("203.0.113.5", 0))

    def test_nonsenseIsRefusedOrPassedOver(self) -> None:
        """What is no word is an error; a value that makes no sense changes nothing."""
        self.assertEqual(self.origin.introduced([b"TTL=999"]).ttl, 255)  # a byte holds it then
        for word in (b"ADDR", b"", b"TTL=+1", b"X=+zz", b"ADDR=example.com", b"ADDR=1.2.3.999"):
            self.assertRaises(ProtocolError, self.origin.introduced, [word])
        nameless = attrs.evolve(self.origin, nameless=True)
        for word in (b"TTL=-1", b"TTL=1000", b"TTL=", b"SESSION=+0D", b"X=1"):
            self.assertEqual(self.origin.introduced([word]), nameless, word)

    def test_anyWordsAreHarmless(self) -> None:
        """Nothing that a peer may send does more than a protocol error."""
        names = st.sampled_from(
            [b"ADDR", b"PORT", b"DESTADDR", b"DESTPORT", b"SESSION", b"TTL", b"HELO", b"X"]
        )
        words = st.builds(lambda name, value: name + b"=" + toXtext(value), names, st.binary())

        @given(st.lists(words))
        def check(words: list[bytes]) -> None:
            try:
                said = self.origin.introduced(words)
            except ProtocolError:
                return
            self.assertTrue(0 <= said.ttl <= 255)
            self.assertRegex(said.session, r"\A[!-~]{1,64}\Z")
            self.assertRegex(said.helo or b"x", rb"\A[!-~]{1,255}\Z")

        check()

    def test_theNextProxyKnowsWhatWeKnow(self) -> None:
        """What we send and a proxy that trusts us reads is the same, one hop later."""
        addresses = st.builds(
            Address.parse, st.ip_addresses().map(str), st.integers(min_value=0, max_value=65535)
        )
        names = st.text('!#$+=(){}\\"az09[]:', min_size=1, max_size=64).filter(
            lambda name: "[" not in name
        )

        @given(addresses, addresses, st.integers(min_value=1, max_value=255), names, st.booleans())
        def check(client: Address, local: Address, ttl: int, name: str, smtp: bool) -> None:
            origin = Origin(name, client, local, ttl, helo=name.encode() if smtp else None)
            next_ = self.origin.introduced(origin.xclient(smtp=smtp))
            self.assertEqual(next_, attrs.evolve(origin, ttl=ttl - 1, transport=b"insecure"))

        check()

    def test_onlyWhatIsTakenIsSaid(self) -> None:
        """HELO and PROTO in SMTP alone, and where the client has given a name; never LOGIN."""
        origin = attrs.evolve(self.origin, helo=b"there", client=Address("2001:db8::7", 1))
        taken = frozenset({b"ADDR", b"HELO", b"PROTO", b"LOGIN", b"NAME"})
        words = [b"ADDR=IPV6:2001:db8::7", b"HELO=there", b"PROTO=ESMTP"]
        self.assertEqual(origin.xclient(taken, smtp=True), words)
        self.assertEqual(origin.xclient(taken), [b"ADDR=2001:db8::7"])
        self.assertEqual(self.origin.xclient(taken, smtp=True), [b"ADDR=198.51.100.7"])
        self.assertEqual(self.origin.xclient(frozenset()), [])
