"""Each protocol's server side and client side, talking to each other.

What our own client side says, our own server side understands, in the words of every protocol: so a
chain of proxies works, and what one side writes wrongly the other does not take for right.
"""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailproxy import sasl
from mailproxy.origin import Address
from mailproxy.protocols.base import AuthResult, Login, ServerSettings, Verdict
from mailproxy.protocols.client import ClientSettings, ProxyClient
from mailproxy.protocols.imap import IMAPClient, IMAPServer
from mailproxy.protocols.managesieve import ManageSieveClient, ManageSieveServer
from mailproxy.protocols.pop3 import POP3Client, POP3Server
from mailproxy.protocols.server import ProxyServer
from mailproxy.protocols.submission import SubmissionClient, SubmissionServer
from mailproxy.sasl import Credentials, Mechanism
from tests.protocols.backend import ANN, BEARER, HUGE, MASTER, PLAINTEXT, XCLIENT, XOAUTH2
from tests.protocols.backend import upgrading as upgradingClient
from tests.protocols.talk import ORIGIN, moved, serverSettings, startTLS, trustOnly
from tests.support import Network, Segments

CAPABILITIES = (b"ID", b"SASL-IR")
PROXY = Address("192.0.2.200", 50000)


@attrs.frozen
class Words:
    """A protocol's two sides, and how an accepted and a refused login read."""

    server: type[ProxyServer]
    client: type[ProxyClient]
    accepted: AuthResult
    refused: AuthResult
    later: AuthResult


def _words(server: Any, client: Any, *replies: bytes, preamble: bytes = b"") -> Words:
    verdicts = (Verdict.ACCEPTED, Verdict.REFUSED, Verdict.TEMPORARY)
    results = [
        AuthResult(verdict, preamble, reply)
        for verdict, reply in zip(verdicts, replies, strict=True)
    ]
    return Words(server, client, *results)


PROTOCOLS: Mapping[str, Words] = {
    "imap": _words(
        IMAPServer,
        IMAPClient,
        b"OK [CAPABILITY X] in",
        b"NO [AUTHENTICATIONFAILED] no",
        b"NO [INUSE] later",
        preamble=b"* OK news {3}\r\n\r\n) !\r\n",
    ),
    "pop3": _words(POP3Server, POP3Client, b"+OK in", b"-ERR [AUTH] no", b"-ERR [SYS/TEMP] x"),
    "submission": _words(
        SubmissionServer,
        SubmissionClient,
        b"235 2.7.0 in",
        b"535 5.7.8 no",
        b"454 4.7.0 later",
    ),
    "managesieve": _words(
        ManageSieveServer,
        ManageSieveClient,
        b"OK (SASL {4}\r\nYQ==) {2}\r\n\r\n",
        b'NO "no"',
        b'NO (TRYLATER) "later"',
    ),
}


class Pair:
    """One protocol's two sides on one connection.

    :ivar server: waits for a login all the time.
    :ivar prepared: fires when the client's side is ready for the login.
    :ivar login: what the server's side has understood.
    """

    def __init__(
        self,
        words: Words,
        segments: Segments = Segments.WHOLE,
        serverSide: ServerSettings | None = None,
        clientSide: ClientSettings = PLAINTEXT,
    ) -> None:
        self.network = Network(segments)
        self.server, self.client = words.server(self.network), words.client(self.network)
        self.server.settings = serverSide or serverSettings(capabilities=CAPABILITIES)
        self.server.origin = moved(client=PROXY)
        self.client.settings = clientSide
        self.client.origin = moved(helo=b"there.example")
        self.login: Login | None = None
        self.challenges: list[bytes] = []
        self.network.connect(self.server, self.client)

    def prepare(self) -> None:
        """Lead both to where the login is next."""
        self.server.greet()
        self.await_()
        prepared = Deferred.fromCoroutine(self.client.prepare())
        self.network.pump()
        assert prepared.result is None, prepared.result

    def await_(self) -> None:
        """Let the server wait for its next login."""

        def loggedIn(login: Login) -> None:
            self.login = login

        Deferred.fromCoroutine(self.server.nextLogin()).addCallback(loggedIn)

    def replay(self, credentials: Credentials) -> "Deferred[AuthResult]":
        """Let the client log in; returns its answer, which is still to come."""
        answered = Deferred.fromCoroutine(self.client.login(credentials, self._challenge))
        self.network.pump()
        assert self.login is not None, answered
        return answered

    async def _challenge(self, message: bytes) -> bytes | None:
        self.challenges.append(message)
        return b"\1"

    def relay(self, message: bytes) -> bytes | None:
        """Let the server put a challenge; returns the client's answer."""
        relayed = Deferred.fromCoroutine(self.server.relay(message))
        self.network.pump()
        return cast(bytes | None, relayed.result)


class PairTests(SynchronousTestCase):
    """What one side says, the other understands; subclasses cut the bytes otherwise."""

    segments: ClassVar[Segments] = Segments.WHOLE

    def pairs(self, **sides: Any) -> "list[tuple[Pair, Words]]":
        """One pair of each protocol, ready for the login."""
        made = [(Pair(words, self.segments, **sides), words) for words in PROTOCOLS.values()]
        for pair, _ in made:
            pair.prepare()
        return made

    def test_everyLoginArrivesUnchanged(self) -> None:
        """With every mechanism, master users and tokens."""
        for credentials in (ANN, MASTER, BEARER, XOAUTH2):
            for pair, words in self.pairs():
                pair.replay(credentials)
                assert pair.login is not None
                self.assertEqual(pair.login.credentials, credentials, words.server)

    def test_everyAnswerArrivesWhole(self) -> None:
        """Accepted, refused or temporary: in the last backend's words, literals too."""
        for kind in ("accepted", "refused", "later"):
            for pair, words in self.pairs():
                result = getattr(words, kind)
                answered = pair.replay(ANN)
                assert pair.login is not None
                if result.accepted:
                    pair.server.accept(pair.login, result)
                else:
                    pair.server.reject(pair.login, result, hide=False)
                pair.network.pump()
                self.assertEqual(self.successResultOf(answered), result)

    def test_ourOwnRefusalsAreUnderstood(self) -> None:
        """A hidden refusal stays one, a hidden temporary one stays temporary."""
        for kind, verdict in (("refused", Verdict.REFUSED), ("later", Verdict.TEMPORARY)):
            for pair, words in self.pairs():
                answered = pair.replay(ANN)
                assert pair.login is not None
                pair.server.reject(pair.login, getattr(words, kind), hide=True)
                pair.network.pump()
                self.assertIs(self.successResultOf(answered).verdict, verdict, words.server)

    def test_challengesAreRelayedBothWays(self) -> None:
        """A token's refusal, also one that is long, and its answer."""
        for message in (b'{"status":"401"}', b"x" * 5000):
            for pair, words in self.pairs():
                answered = pair.replay(BEARER)
                self.assertEqual(pair.relay(message), b"\1", words.server)
                self.assertEqual(pair.challenges, [message])
                assert pair.login is not None
                pair.server.reject(pair.login, words.refused, hide=False)
                pair.network.pump()
                self.assertEqual(self.successResultOf(answered), words.refused)

    def test_loginMechanismArrivesAsPlain(self) -> None:
        """Where only LOGIN is offered."""
        only = serverSettings(mechanisms=(Mechanism.LOGIN,), capabilities=CAPABILITIES)
        for pair, words in self.pairs(serverSide=only):
            pair.replay(ANN)
            assert pair.login is not None
            self.assertEqual(pair.login.credentials, ANN, words.server)

    def test_introduction(self) -> None:
        """The next proxy knows what we know, one hop later; and is not told by a stranger."""
        for host, known in ((PROXY.host, True), ("203.0.113.66", False)):
            trusted = serverSettings(trusts=trustOnly(host), capabilities=CAPABILITIES)
            for pair, words in self.pairs(serverSide=trusted, clientSide=XCLIENT):
                origin = pair.server.origin
                self.assertEqual(origin.client, ORIGIN.client if known else PROXY, words.server)
                self.assertEqual(origin.ttl, ORIGIN.ttl - 1 if known else ORIGIN.ttl)
                self.assertEqual((origin.session, origin.local), (ORIGIN.session, ORIGIN.local))
                pair.replay(ANN)
                assert pair.login is not None
                self.assertEqual(pair.login.credentials, ANN)

    def test_clientsNameArrives(self) -> None:
        """In submission: with an introduction and without."""
        for settings_ in (PLAINTEXT, XCLIENT):
            pair = Pair(PROTOCOLS["submission"], self.segments, clientSide=settings_)
            pair.prepare()
            self.assertEqual(pair.server.origin.helo, b"there.example")

    def test_linesInNamesAreNoCommands(self) -> None:
        """A user name or password with line ends is that, and nothing else is understood."""
        for user, password in ((b"ann\r\nQUIT", b"x"), (b"ann", b"x\r\nb LOGOUT\r\n")):
            for pair, words in self.pairs():
                credentials = sasl.fromPassword(user, password)
                pair.replay(credentials)
                assert pair.login is not None
                self.assertEqual(pair.login.credentials, credentials, words.server)
                self.assertEqual((pair.server.unread, pair.server.mistakes), (0, 0))


class LinesTests(PairTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(PairTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class UpgradeTests(SynchronousTestCase):
    """The two sides, by way of STARTTLS."""

    def test_everyLoginArrivesInsideTLS(self) -> None:
        """The server's side offers nothing before it; the client's side asks all again."""
        for words in PROTOCOLS.values():
            trusted = startTLS(trusts=trustOnly(PROXY.host), capabilities=CAPABILITIES)
            introducing = attrs.evolve(upgradingClient(), introduces=True)
            pair = Pair(words, Segments.WHOLE, trusted, introducing)
            pair.prepare()
            pair.replay(ANN)
            assert pair.login is not None
            self.assertTrue(pair.server.secure and pair.client.secure)
            self.assertEqual(pair.server.origin.client, ORIGIN.client)
            self.assertEqual(pair.login.credentials, ANN)


class VolumeTests(SynchronousTestCase):
    """Much at once, and anything at all."""

    def test_hugeTokens(self) -> None:
        """60 KB go over every protocol."""
        self.assertGreater(len(b64encode(HUGE.response)), 60_000)
        for words in PROTOCOLS.values():
            pair = Pair(words)
            pair.prepare()
            pair.replay(HUGE)
            assert pair.login is not None
            self.assertEqual(pair.login.credentials, HUGE)

    def test_anyPasswordArrives(self) -> None:
        """Whatever bytes it holds, but NUL, by PLAIN or by a protocol's own command."""
        words = st.binary(min_size=1, max_size=40).filter(lambda each: b"\0" not in each)
        offers = st.sampled_from(
            [(Mechanism.PLAIN,), (Mechanism.LOGIN,), (Mechanism.PLAIN, Mechanism.LOGIN)]
        )

        @settings(deadline=None)
        @given(st.sampled_from(sorted(PROTOCOLS)), offers, words, words)
        def check(
            protocol: str, offered: tuple[Mechanism, ...], user: bytes, password: bytes
        ) -> None:
            advertised = serverSettings(mechanisms=offered, capabilities=CAPABILITIES)
            pair = Pair(PROTOCOLS[protocol], serverSide=advertised)
            pair.prepare()
            credentials = sasl.fromPassword(user, password)
            if protocol == "pop3" and Mechanism.PLAIN not in offered:
                return  # USER and PASS go first there; they cannot carry every byte
            pair.replay(credentials)
            assert pair.login is not None
            self.assertEqual(pair.login.credentials, credentials)
            self.assertEqual((pair.server.unread, pair.server.mistakes), (0, 0))

        check()

    def test_anyPasswordArrivesByUSERAndPASS(self) -> None:
        """Whatever has a place on a line, spaces in front and behind too."""
        bytes_ = st.binary(min_size=1, max_size=40)
        words = bytes_.filter(lambda each: not set(each) & {0, 10, 13})

        @settings(deadline=None)
        @given(words, words)
        def check(user: bytes, password: bytes) -> None:
            advertised = serverSettings(mechanisms=(Mechanism.LOGIN,), capabilities=CAPABILITIES)
            pair = Pair(PROTOCOLS["pop3"], serverSide=advertised)
            pair.prepare()
            answered = Deferred.fromCoroutine(
                pair.client.login(sasl.fromPassword(user, password), pair._challenge)
            )
            pair.network.pump()
            self.assertNoResult(answered)
            assert pair.login is not None
            self.assertEqual(pair.login.credentials, sasl.fromPassword(user, password))

        check()
