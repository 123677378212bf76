"""The conversation with a client, as all protocols share it, in the words of none of them."""

from base64 import b64encode
from collections.abc import Mapping
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.model import Capabilities
from mailproxy.errors import LimitExceeded, PeerGone, ProtocolError, Refusal
from mailproxy.origin import Address
from mailproxy.protocols.base import (
    Advertised,
    AuthResult,
    Command,
    Dismissed,
    Login,
    ServerSettings,
    Verdict,
)
from mailproxy.protocols.server import (
    MAX_MISTAKES,
    ClientLeg,
    ProxyServer,
    ProxyServerFactory,
    Verb,
)
from mailproxy.sasl import Mechanism
from mailproxy.stream import MAX_LINE
from tests.protocols.talk import ORIGIN, Talk, plain, serverSettings, startTLS, trustOnly
from tests.support import Network, Peer, Segments

PLAIN = b64encode(b"\0ann\0secret")
BEARER = b"n,,\1auth=Bearer token\1\1"


class WordServer(ProxyServer):
    """A protocol of plain words: `VERB argument argument`, answered by a refusal's own name."""

    forgotten = 0

    def greeting(self) -> bytes:
        """Say hello."""
        return b"hello\n"

    async def readCommand(self) -> Command:
        """Read one line."""
        verb, *arguments = (await self.readLine()).split(b" ")
        if not verb:
            raise ProtocolError("empty")
        return Command(b"", verb, arguments)

    async def continuation(self, challenge: bytes) -> bytes:
        """Ask by `?`."""
        self.send(b"?%b\n" % challenge)
        return await self.readLine()

    def refuse(self, command: Command, refusal: Refusal) -> None:
        """Name the refusal."""
        self.send(b"%b\n" % refusal.name.encode())

    def mistake(self, command: Command | None) -> None:
        """Name the command, if there is one."""
        self.send(b"BAD %b\n" % (command.verb if command else b"-"))

    def upgrade(self, command: Command) -> None:
        """Agree."""
        self.send(b"go\n")

    def answer(self, command: Command, result: AuthResult) -> None:
        """Repeat the answer."""
        self.send(result.preamble + result.reply + b"\n")

    def dismiss(self, refusal: Refusal, command: Command | None) -> None:
        """Say good-bye."""
        self.send(b"bye %b\n" % refusal.name.encode())

    def forget(self) -> None:
        """Count it."""
        self.forgotten += 1

    async def echoVerb(self, command: Command) -> None:
        """Repeat the arguments."""
        self.send(b" ".join(command.arguments) + b"\n")

    async def brokenVerb(self, command: Command) -> None:
        """Find the arguments malformed."""
        raise ProtocolError("malformed")

    async def hugeVerb(self, command: Command) -> None:
        """Find the arguments too long."""
        raise LimitExceeded("too long")

    async def loginVerb(self, command: Command) -> Login | None:
        """Take name and password."""
        user, password = command.arguments
        return self.logInWithPassword(command, user, password)

    async def authVerb(self, command: Command) -> Login | None:
        """Take a mechanism and perhaps an initial response."""
        mechanism, *initial = command.arguments
        return await self.authenticate(command, mechanism, initial[0] if initial else None)

    verbs: ClassVar[Mapping[bytes, Verb["WordServer"]]] = {
        b"ECHO": echoVerb,
        b"BROKEN": brokenVerb,
        b"HUGE": hugeVerb,
        b"LOGIN": loginVerb,
        b"AUTH": authVerb,
        b"TLS": ProxyServer.startTLSVerb,
    }


class WordServerFactory(ProxyServerFactory):
    """Listens for plain words."""

    conversation = WordServer

    @classmethod
    def advertised(cls, capabilities: Capabilities) -> Advertised:
        """Promise nothing."""
        return Advertised((), False, (), b"")


def begin(settings: ServerSettings | None = None) -> Talk[WordServer]:
    """Begin a dialogue in plain words."""
    return Talk(WordServer, settings or serverSettings(), Segments.WHOLE)


class ServerCase(SynchronousTestCase):
    """What tests of a dialogue check."""

    def assertDismissed(self, talk: Talk[WordServer], refusal: Refusal) -> None:
        """The dialogue is over, for this reason."""
        assert isinstance(talk.ending, Dismissed), talk.ending
        self.assertIs(talk.ending.refusal, refusal)

    def assertLogin(self, talk: Talk[WordServer], mechanism: Mechanism, response: bytes) -> None:
        """The client has logged in with this message."""
        assert talk.login is not None
        self.assertIs(talk.login.credentials.mechanism, mechanism)
        self.assertEqual(talk.login.credentials.response, response)


class DialogueTests(ServerCase):
    """The command loop and its limits."""

    def test_greetsFirst(self) -> None:
        """We speak first."""
        self.assertEqual(begin().greeting, b"hello\n")

    def test_servesVerbsOfTheTable(self) -> None:
        """A verb that is in the table is served, one that is not is a mistake."""
        self.assertEqual(begin().ask(b"ECHO a b\nGREET\n"), b"a b\nBAD GREET\n")

    def test_malformedCommandIsAMistake(self) -> None:
        """What cannot be read, or not be understood, is answered, and the dialogue goes on."""
        self.assertEqual(begin().ask(b"\nBROKEN\nECHO on\n"), b"BAD -\nBAD BROKEN\non\n")

    def test_clientsAttributeNamesAreNoVerbs(self) -> None:
        """Verbs come from the table alone: a client cannot name a method of ours."""
        for name in (b"abort", b"loginVerb", b"__init__", b"echo"):
            self.assertEqual(begin().ask(name + b"\n"), b"BAD %b\n" % name)

    def test_tooManyMistakesEndTheDialogue(self) -> None:
        """The last mistake is answered, and then it is over; one less is not too many."""
        talk = begin()
        self.assertEqual(talk.ask(b"X\n" * (MAX_MISTAKES - 1)), b"BAD X\n" * (MAX_MISTAKES - 1))
        self.assertIsNone(talk.ending)
        self.assertEqual(talk.ask(b"\n"), b"BAD -\n")
        self.assertDismissed(talk, Refusal.TOO_MANY)

    def test_tooLongALineEndsTheDialogue(self) -> None:
        """A line over the limit is not waited for."""
        talk = begin()
        talk.ask(b"x" * (MAX_LINE + 2))
        self.assertDismissed(talk, Refusal.TOO_BIG)

    def test_tooLongACommandEndsTheDialogue(self) -> None:
        """A verb that finds its command too long ends the dialogue as a long line does."""
        talk = begin()
        talk.ask(b"HUGE\n")
        self.assertDismissed(talk, Refusal.TOO_BIG)

    def test_clientThatLeavesEndsTheDialogue(self) -> None:
        """A lost client is no mistake of anybody's."""
        talk = begin()
        talk.client.hangUp()
        talk.network.pump()
        self.assertIsInstance(talk.ending, PeerGone)

    def test_manyCommandsInOneSegment(self) -> None:
        """9,000 commands at once are all answered, without recursion."""
        self.assertEqual(begin().ask(b"ECHO\n" * 9000), b"\n" * 9000)


class PasswordTests(ServerCase):
    """Logins by the protocol's own command."""

    def test_becomesPlain(self) -> None:
        """A password by command is the same login as one by PLAIN."""
        talk = begin()
        self.assertEqual(talk.ask(b"LOGIN ann secret\n"), b"")
        self.assertLogin(talk, Mechanism.PLAIN, b"\0ann\0secret")

    def test_emptyPartIsARefusedLogin(self) -> None:
        """An empty name or password is answered, and counted, as a wrong one."""
        talk = begin()
        self.assertEqual(talk.ask(b"LOGIN ann \nLOGIN  secret\n"), b"AUTHENTICATION\n" * 2)
        self.assertEqual((talk.server.failures, talk.server.mistakes), (2, 0))

    def test_nulIsMalformed(self) -> None:
        """A NUL would change what PLAIN says."""
        talk = begin()
        self.assertEqual(talk.ask(b"LOGIN ann\0bob secret\n"), b"ENCODING\n")
        self.assertEqual(talk.server.failures, 1)

    def test_eavesdropperGetsNoPassword(self) -> None:
        """On an open leg a password is refused, however sound, and the refusal is counted."""
        talk = begin(plain())
        self.assertEqual(talk.ask(b"LOGIN ann secret\n"), b"PRIVACY\n")
        self.assertIsNone(talk.login)
        self.assertEqual(talk.server.failures, 1)


class AuthenticateTests(ServerCase):
    """SASL exchanges."""

    def test_initialResponse(self) -> None:
        """A login may come with the command."""
        for mechanism, message in (
            (Mechanism.PLAIN, b"ann\0master\0secret"),
            (Mechanism.OAUTHBEARER, BEARER),
            (Mechanism.XOAUTH2, b"user=ann\1auth=Bearer token\1\1"),
        ):
            talk = begin()
            answer = talk.ask(b"AUTH %b %b\n" % (mechanism.value, b64encode(message)))
            self.assertEqual(answer, b"")
            self.assertLogin(talk, mechanism, message)

    def test_withoutInitialResponse(self) -> None:
        """Else it is asked for with an empty challenge; a mechanism's case does not matter."""
        talk = begin()
        self.assertEqual(talk.ask(b"AUTH plain\n"), b"?\n")
        self.assertEqual(talk.ask(PLAIN + b"\n"), b"")
        self.assertLogin(talk, Mechanism.PLAIN, b"\0ann\0secret")

    def test_loginMechanism(self) -> None:
        """LOGIN asks for name and password, and is replayed as PLAIN."""
        talk = begin()
        self.assertEqual(talk.ask(b"AUTH LOGIN\n"), b"?%b\n" % b64encode(b"Username:"))
        self.assertEqual(talk.ask(b64encode(b"ann") + b"\n"), b"?%b\n" % b64encode(b"Password:"))
        self.assertEqual(talk.ask(b64encode(b"secret") + b"\n"), b"")
        self.assertLogin(talk, Mechanism.PLAIN, b"\0ann\0secret")

    def test_loginMechanismWithItsNameAtOnce(self) -> None:
        """The name may be LOGIN's initial response."""
        talk = begin()
        answer = talk.ask(b"AUTH LOGIN %b\n" % b64encode(b"ann"))
        self.assertEqual(answer, b"?%b\n" % b64encode(b"Password:"))
        talk.ask(b64encode(b"secret") + b"\n")
        self.assertLogin(talk, Mechanism.PLAIN, b"\0ann\0secret")

    def test_malformedMessageIsACountedFailure(self) -> None:
        """Bad base64, a missing NUL, an empty response: each is one failed login."""
        for message in (b"!!!", b"YQ", b64encode(b"ann secret"), b"="):
            talk = begin()
            self.assertEqual(talk.ask(b"AUTH PLAIN %b\n" % message), b"ENCODING\n", message)
            self.assertEqual((talk.server.failures, talk.server.mistakes), (1, 0), message)

    def test_badBase64InAnAnswerIsACountedFailure(self) -> None:
        """The same holds for what is asked for."""
        talk = begin()
        talk.ask(b"AUTH LOGIN\n")
        self.assertEqual(talk.ask(b"*!*\n"), b"ENCODING\n")
        self.assertEqual(talk.server.failures, 1)

    def test_emptyUserPasswordOrTokenIsACountedFailure(self) -> None:
        """A login that lacks a part is a wrong login."""
        for mechanism, message in (
            (b"PLAIN", b"\0\0secret"),
            (b"PLAIN", b"\0ann\0"),
            (b"OAUTHBEARER", b"n,,\1auth=Bearer \1\1"),
        ):
            talk = begin()
            answer = talk.ask(b"AUTH %b %b\n" % (mechanism, b64encode(message)))
            self.assertEqual((answer, talk.server.failures), (b"AUTHENTICATION\n", 1), message)

    def test_starCancels(self) -> None:
        """`*` ends the exchange; it is no failed login, but cannot be done for ever."""
        talk = begin()
        self.assertEqual(talk.ask(b"AUTH PLAIN\n*\n"), b"?\nCANCELLED\n")
        self.assertEqual((talk.server.failures, talk.server.mistakes), (0, 1))
        self.assertEqual(talk.ask(b"ECHO on\n"), b"on\n")

    def test_cancellingForEverEndsTheDialogue(self) -> None:
        """Each cancelled exchange counts as a mistake."""
        talk = begin()
        talk.ask(b"AUTH PLAIN\n*\n" * MAX_MISTAKES)
        self.assertDismissed(talk, Refusal.TOO_MANY)

    def test_mechanismThatIsNotOffered(self) -> None:
        """An unknown mechanism, and a known one that is left out, is refused and counted."""
        for mechanism in (b"GSSAPI", b"XOAUTH2"):
            talk = begin(serverSettings(mechanisms=(Mechanism.PLAIN,)))
            self.assertEqual(talk.ask(b"AUTH %b eA==\n" % mechanism), b"MECHANISM\n")
            self.assertEqual(talk.server.failures, 1)

    def test_eavesdropperGetsNoSASLSecret(self) -> None:
        """On an open leg no mechanism is offered and each is refused, tokens included."""
        for mechanism in Mechanism:
            talk = begin(plain())
            self.assertEqual(talk.server.offered, ())
            self.assertEqual(talk.ask(b"AUTH %b %b\n" % (mechanism.value, PLAIN)), b"PRIVACY\n")
            self.assertEqual(talk.server.failures, 1)

    def test_refusedExchangeAsksForNothing(self) -> None:
        """A client that may not send a secret is not asked for it either."""
        self.assertEqual(begin(plain()).ask(b"AUTH PLAIN\n"), b"PRIVACY\n")

    def test_lastFailureEndsTheDialogue(self) -> None:
        """The last attempt is answered, and then it is over."""
        talk = begin(serverSettings(maxAttempts=2))
        self.assertEqual(talk.ask(b"AUTH PLAIN =\n"), b"ENCODING\n")
        self.assertIsNone(talk.ending)
        self.assertEqual(talk.ask(b"AUTH GSSAPI\nECHO no\n"), b"MECHANISM\n")
        self.assertDismissed(talk, Refusal.TOO_MANY)


class VerdictTests(ServerCase):
    """What the client hears of its backend's answer."""

    def setUp(self) -> None:
        """Have a client log in, with two attempts in all."""
        self.talk = begin(serverSettings(maxAttempts=2))
        self.talk.ask(b"LOGIN ann secret\n")
        assert self.talk.login is not None
        self.login = self.talk.login

    def heard(self) -> bytes:
        """What has arrived at the client."""
        self.talk.network.pump()
        return self.talk.client.take()

    def test_acceptedInTheBackendsWords(self) -> None:
        """Both parts of the answer arrive as they are."""
        self.talk.server.accept(self.login, AuthResult(Verdict.ACCEPTED, b"news\n", b"in"))
        self.assertEqual(self.heard(), b"news\nin\n")

    def test_refusedInTheBackendsWords(self) -> None:
        """A refusal is passed on as it is, and counted."""
        result = AuthResult(Verdict.REFUSED, b"news\n", b"out")
        self.talk.server.reject(self.login, result, hide=False)
        self.assertEqual(self.heard(), b"news\nout\n")
        self.assertEqual(self.talk.server.failures, 1)

    def test_hiddenRefusalIsInOurWords(self) -> None:
        """What a backend says of its accounts need not be known."""
        result = AuthResult(Verdict.REFUSED, b"news\n", b"no such user")
        self.talk.server.reject(self.login, result, hide=True)
        self.assertEqual(self.heard(), b"AUTHENTICATION\n")

    def test_temporaryTroubleIsNeverAWrongPassword(self) -> None:
        """A client told that its password is wrong forgets it: so not even a hidden one is."""
        result = AuthResult(Verdict.TEMPORARY, b"", b"in use")
        self.talk.server.reject(self.login, result, hide=True)
        self.assertEqual(self.heard(), b"TEMPORARY\n")

    def test_lastRefusalIsToldThenEndsIt(self) -> None:
        """Backends' refusals and ours are counted together."""
        result = AuthResult(Verdict.REFUSED, b"", b"out")
        self.talk.server.reject(self.login, result, hide=False)
        error = self.assertRaises(
            Dismissed, self.talk.server.reject, self.login, result, hide=False
        )
        self.assertIs(error.refusal, Refusal.TOO_MANY)
        self.assertEqual(self.heard(), b"out\nout\n")

    def test_dialogueGoesOnAfterARefusal(self) -> None:
        """What the client had sent behind its login is served, in order."""
        self.talk.client.say(b"ECHO on\nLOGIN bob guess\n")
        self.talk.network.pump()
        result = AuthResult(Verdict.REFUSED, b"", b"out")
        self.talk.server.reject(self.login, result, hide=False)
        self.talk.resume()
        self.assertEqual(self.heard(), b"out\non\n")
        self.assertLogin(self.talk, Mechanism.PLAIN, b"\0bob\0guess")


class StartTLSTests(ServerCase):
    """TLS in the middle of a dialogue."""

    def test_secretsMayBeSentAfterIt(self) -> None:
        """With TLS on, mechanisms are offered and logins are taken."""
        talk = begin(startTLS())
        self.assertEqual(talk.secure(b"TLS\n"), b"go\n")
        self.assertTrue(talk.server.origin.secure)
        self.assertEqual(talk.server.offered, tuple(Mechanism))
        self.assertEqual(talk.ask(b"LOGIN ann secret\n"), b"")
        self.assertLogin(talk, Mechanism.PLAIN, b"\0ann\0secret")

    def test_commandInjectedBeforeTheHandshakeIsDropped(self) -> None:
        """Commands in the clear behind STARTTLS are not served as if TLS had protected them."""
        talk = begin(startTLS())
        self.assertEqual(talk.secure(b"TLS\nECHO injected\n"), b"go\n")
        self.assertTrue(talk.client.shaken)
        self.assertEqual(talk.ask(b"ECHO on\n"), b"on\n")

    def test_halfACommandInjectedBeforeTheHandshakeIsDropped(self) -> None:
        """An attacker's half line does not become the head of the client's next one."""
        talk = begin(startTLS())
        talk.secure(b"TLS\nECHO injected ")
        self.assertEqual(talk.ask(b"ECHO on\n"), b"on\n")

    def test_everythingSaidBeforeIsForgotten(self) -> None:
        """An attacker in the middle may have said it: description and forwarded address go."""
        talk = begin(startTLS(trusts=trustOnly(ORIGIN.client.host)))
        talk.server.describe(
            ((b"name", b"evil"), (b"x-originating-ip", b"203.0.113.9"), (b"x-proxy-ttl", b"99"))
        )
        self.assertEqual(talk.server.origin.client.host, "203.0.113.9")
        talk.secure(b"TLS\n")
        self.assertEqual(talk.server.forgotten, 1)
        self.assertEqual(talk.server.origin.description, ())
        self.assertEqual(talk.server.origin.client, ORIGIN.client)
        self.assertEqual(talk.server.origin.ttl, ORIGIN.ttl)

    def test_notOffered(self) -> None:
        """Without a certificate to show, STARTTLS is a mistake."""
        talk = begin(plain())
        self.assertEqual(talk.ask(b"TLS\n"), b"BAD TLS\n")
        self.assertEqual(talk.server.mistakes, 1)

    def test_onlyOnce(self) -> None:
        """TLS inside TLS is a mistake; the connection stays as it is."""
        talk = begin(startTLS())
        talk.secure(b"TLS\n")
        self.assertEqual(talk.ask(b"TLS\nECHO on\n"), b"BAD TLS\non\n")

    def test_failedHandshakeEndsTheDialogue(self) -> None:
        """A client that talks on in the clear is gone."""
        talk = begin(startTLS())
        talk.ask(b"TLS\n")
        talk.ask(b"LOGIN ann secret\n")
        self.assertIsInstance(talk.ending, PeerGone)
        self.assertIsNone(talk.login)


class RelayTests(ServerCase):
    """A backend's challenge put to the client."""

    def test_answerWithoutBase64(self) -> None:
        """Both messages are in base64 on the wire and without it inside."""
        talk = begin()
        talk.ask(b"AUTH OAUTHBEARER %b\n" % b64encode(BEARER))
        self.assertEqual(talk.relay(b"{}", b"AQ==\n"), b"\1")

    def test_cancelOrNonsenseIsNoAnswer(self) -> None:
        """A client that cancels, or errs, lets the backend's exchange be cancelled."""
        for answer in (b"*\n", b"!\n"):
            talk = begin()
            talk.ask(b"AUTH OAUTHBEARER %b\n" % b64encode(BEARER))
            self.assertIsNone(talk.relay(b"{}", answer))

    def test_malformedAnswerIsNoAnswer(self) -> None:
        """Whatever a client writes, it is not taken for its backend's fault."""
        talk = begin()
        talk.ask(b"AUTH OAUTHBEARER %b\n" % b64encode(BEARER))

        async def broken(_: bytes) -> bytes:
            raise ProtocolError("malformed")

        self.patch(talk.server, "continuation", broken)
        self.assertIsNone(talk.relay(b"{}", b""))

    def test_tooLongAnAnswerEndsTheDialogue(self) -> None:
        """The limit of a line holds here too."""
        talk = begin()
        talk.ask(b"AUTH OAUTHBEARER %b\n" % b64encode(BEARER))
        error = talk.relay(b"{}", b"A" * (MAX_LINE + 2))
        self.assertIs(error.refusal, Refusal.TOO_BIG)

    def test_clientThatLeavesEndsTheDialogue(self) -> None:
        """There is nobody to be told."""
        talk = begin()
        talk.ask(b"AUTH OAUTHBEARER %b\n" % b64encode(BEARER))
        talk.client.finish()
        error = talk.relay(b"{}", b"")
        self.assertIsInstance(error, Dismissed)
        self.assertIsNone(error.refusal)


class DescribeTests(ServerCase):
    """What a peer says of itself, or of its client."""

    FIELDS = ((b"name", b"mutt"), (b"x-originating-ip", b"203.0.113.9"))

    def test_strangerCannotForgeAnAddress(self) -> None:
        """Only a trusted peer's x- fields count; nobody's are passed on."""
        talk = begin()
        talk.server.describe(self.FIELDS)
        self.assertEqual(talk.server.origin.client, ORIGIN.client)
        self.assertEqual(talk.server.origin.description, ((b"name", b"mutt"),))

    def test_trustedPeerIsBelieved(self) -> None:
        """A proxy in front of us says who its client is."""
        talk = begin(serverSettings(trusts=trustOnly(ORIGIN.client.host)))
        talk.server.describe(self.FIELDS)
        self.assertEqual(talk.server.origin.client, Address("203.0.113.9", 0))
        self.assertEqual(talk.server.origin.description, ((b"name", b"mutt"),))

    def test_clientBehindATrustedPeerCannotForgeAnAddress(self) -> None:
        """Once we believe in another address, trust goes by that one."""
        talk = begin(serverSettings(trusts=trustOnly(ORIGIN.client.host)))
        talk.server.describe(self.FIELDS)
        talk.server.describe(((b"x-originating-ip", b"192.0.2.66"),))
        self.assertEqual(talk.server.origin.client.host, "203.0.113.9")


class FactoryTests(SynchronousTestCase):
    """Who is let in."""

    def test_stop(self) -> None:
        """A connection that outlives its sessions hears of it; the others have sessions that do."""
        network, stopped = Network(), list[str]()
        factory = WordServerFactory(network, 2, lambda leg: None)
        legs = [factory.buildProtocol(None) for _ in range(2)]
        for leg in legs:
            assert leg is not None
            network.connect(leg, Peer())
            leg.whenStopping = None if leg is legs[0] else lambda: stopped.append("second")
        factory.stop()
        self.assertEqual(stopped, ["second"])

    def test_limit(self) -> None:
        """A connection over the limit is closed at once and counted; one that ends makes room."""
        network, accepted = Network(), list[ClientLeg]()
        factory = WordServerFactory(network, 1, accepted.append)
        first, client = factory.buildProtocol(None), Peer()
        assert first is not None
        network.connect(first, client)
        self.assertEqual(accepted, [first])
        self.assertEqual(factory.connections, {first})
        self.assertIsNone(factory.buildProtocol(None))
        self.assertEqual(factory.turnedAway, 1)
        client.hangUp()
        network.pump()
        first.close()
        network.pump()
        self.assertEqual(factory.connections, set())
        self.assertIsNotNone(factory.buildProtocol(None))
