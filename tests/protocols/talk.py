"""Dialogues in memory: the server side is ours, the client is played by the test."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.errors import Refusal
from mailproxy.origin import Address, Origin
from mailproxy.protocols.base import (
    Advertised,
    AuthResult,
    Dismissed,
    Login,
    ServerSettings,
    Verdict,
)
from mailproxy.protocols.server import ProxyServer
from mailproxy.sasl import Mechanism
from mailproxy.stream import Creator
from tests.protocols.words import ServerWords
from tests.support import Network, Peer, Segments, serverTLS

CLIENT = Address("198.51.100.7", 40000)
LOCAL = Address("192.0.2.1", 993)
ORIGIN = Origin(session="session-one", client=CLIENT, local=LOCAL, ttl=7)
PLAIN = b64encode(b"\0ann\0secret")
BEARER = b"n,,\1auth=Bearer token\1\1"
HUGE = b"n,,\1auth=Bearer %b\1\1" % (b"t" * 45_000)

S = TypeVar("S", bound=ProxyServer)


def trustNobody(address: Address) -> bool:
    """Believe no peer."""
    return False


def trustOnly(*hosts: str) -> Callable[[Address], bool]:
    """Believe these peers."""
    return lambda address: address.host in hosts


def serverSettings(
    *,
    mechanisms: tuple[Mechanism, ...] = tuple(Mechanism),
    cleartext: bool = True,
    maxAttempts: int = 3,
    context: Creator | None = None,
    trusts: Callable[[Address], bool] = trustNobody,
    capabilities: tuple[bytes, ...] = (b"IMAP4rev1", b"SASL-IR"),
) -> ServerSettings:
    """Say what a listener's clients are promised; without more, everything without TLS."""
    advertised = Advertised(mechanisms, cleartext, capabilities, b"ready")
    return ServerSettings(advertised, maxAttempts, context, trusts)


class Talk(Generic[S]):
    """One dialogue; the server waits for its next login all the time.

    :ivar client: what the test plays.
    :ivar greeting: what the server said first.
    :ivar login: the last login; None while there is none.
    :ivar ending: why the dialogue is over; None while it is not.
    """

    def __init__(
        self, make: Callable[[Network], S], settings: ServerSettings, segments: Segments
    ) -> None:
        self.network = Network(segments)
        self.server = make(self.network)
        self.server.settings, self.server.origin = settings, ORIGIN
        self.client = Peer()
        self.login: Login | None = None
        self.ending: BaseException | None = None
        self.network.connect(self.server, self.client)
        self.server.greet()
        self.network.pump()
        self.greeting = self.client.take()
        self.resume()

    def resume(self) -> None:
        """Let the server go on to its next login."""
        self.login = None
        waiting = Deferred.fromCoroutine(self.server.nextLogin())
        waiting.addCallbacks(self._loggedIn, self._ended)
        self.network.pump()

    def _loggedIn(self, login: Login) -> None:
        self.login = login

    def _ended(self, failure: Failure) -> None:
        self.ending = failure.value

    def ask(self, data: bytes) -> bytes:
        """Say something; returns what comes back."""
        self.client.say(data)
        self.network.pump()
        return self.client.take()

    def secure(self, command: bytes) -> bytes:
        """Ask for TLS, and begin it after the answer; returns the answer."""
        answer = self.ask(command)
        self.client.startTLS()
        self.network.pump()
        return answer

    def relay(self, challenge: bytes, answer: bytes) -> Any:
        """Let the server relay a challenge, and answer it.

        :returns: what the server makes of the answer, or the exception.
        """
        found: list[Any] = []
        Deferred.fromCoroutine(self.server.relay(challenge)).addBoth(found.append)
        self.network.pump()
        self.ask(answer)
        return found[0].value if isinstance(found[0], Failure) else found[0]


class DialogueCase(SynchronousTestCase):
    """Dialogues in one chunk; subclasses cut the same bytes otherwise.

    :cvar segments: how what the client sends arrives.
    """

    segments: ClassVar[Segments] = Segments.WHOLE

    def assertPassword(self, talk: Talk[Any], user: bytes, password: bytes) -> None:
        """The client has logged in with this name and password."""
        assert talk.login is not None, talk.client.received
        credentials = talk.login.credentials
        self.assertEqual(credentials.response, b"\0" + user + b"\0" + password)

    def assertMessage(self, talk: Talk[Any], mechanism: Mechanism, message: bytes) -> None:
        """The client has logged in with this SASL message."""
        assert talk.login is not None, talk.client.received
        credentials = talk.login.credentials
        self.assertEqual((credentials.mechanism, credentials.response), (mechanism, message))

    def assertDismissed(self, talk: Talk[Any], refusal: Refusal | None) -> None:
        """The dialogue is over, for this reason."""
        assert isinstance(talk.ending, Dismissed), talk.ending
        self.assertIs(talk.ending.refusal, refusal)

    def reject(self, talk: Talk[Any], result: AuthResult, *, hide: bool = False) -> bytes:
        """Let the backend refuse the login; returns what the client hears until its next one."""
        assert talk.login is not None, talk.client.received
        talk.server.reject(talk.login, result, hide=hide)
        talk.resume()
        return talk.client.take()

    def accept(self, talk: Talk[Any], preamble: bytes, reply: bytes) -> bytes:
        """Let the backend accept the login; returns what the client hears."""
        assert talk.login is not None, talk.client.received
        talk.server.accept(talk.login, AuthResult(Verdict.ACCEPTED, preamble, reply))
        return talk.ask(b"")


def plain(**changes: Any) -> ServerSettings:
    """Settings of a listener without TLS that takes no secrets."""
    return serverSettings(cleartext=False, **changes)


def startTLS(**changes: Any) -> ServerSettings:
    """Settings of a listener that takes secrets after STARTTLS only."""
    return serverSettings(cleartext=False, context=serverTLS(), **changes)


def moved(**changes: Any) -> Origin:
    """`ORIGIN` with changes."""
    return attrs.evolve(ORIGIN, **changes)


class ServerCase(DialogueCase):
    """Dialogues with one protocol's server.

    :cvar capabilities: what the operator advertises.
    """

    words: ClassVar[ServerWords]
    capabilities: ClassVar[tuple[bytes, ...]] = ()

    def begin(self, settings: ServerSettings | None = None) -> Talk[Any]:
        """Begin a dialogue; without settings, secrets are taken without TLS."""
        settings = settings or serverSettings(capabilities=self.capabilities)
        return Talk(self.words.server, settings, self.segments)

    def greeted(self, settings: ServerSettings | None = None) -> Talk[Any]:
        """A dialogue in which the client may log in."""
        talk = self.begin(settings)
        talk.ask(self.words.hello)
        return talk

    def loggedIn(self, settings: ServerSettings | None = None) -> Talk[Any]:
        """A dialogue with a login in it, and a command behind that."""
        talk = self.greeted(settings)
        talk.ask(self.words.exchange.begin(b"PLAIN", PLAIN) + self.words.noop)
        return talk

    def bearing(self) -> Talk[Any]:
        """A dialogue with a token in it."""
        talk = self.greeted()
        talk.ask(self.words.exchange.send(b"OAUTHBEARER", BEARER))
        return talk

    def secured(self) -> Talk[Any]:
        """A dialogue inside TLS, which was asked for."""
        talk = self.begin(startTLS(capabilities=self.capabilities))
        self.assertEqual(talk.secure(self.words.startTLS), self.words.go)
        self.assertEqual(talk.ask(b""), self.words.again)
        return talk

    def trusting(self) -> ServerSettings:
        """Settings of a listener whose clients are proxies."""
        trusts = trustOnly(ORIGIN.client.host)
        return serverSettings(trusts=trusts, capabilities=self.capabilities)
