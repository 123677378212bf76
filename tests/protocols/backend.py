"""Dialogues in memory: the client side is ours, the backend is played by the test."""

from base64 import b64encode
from collections.abc import Coroutine
from typing import Any, ClassVar

import attrs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailproxy import sasl
from mailproxy.config.model import TLSProtocols
from mailproxy.errors import BackendFailed, Stage
from mailproxy.origin import Origin
from mailproxy.protocols.base import AuthResult, Verdict
from mailproxy.protocols.client import ClientSettings, ProxyClient
from mailproxy.sasl import Credentials, Mechanism
from mailproxy.tls import BackendOptions, BackendTLS
from tests.protocols.talk import ORIGIN
from tests.protocols.words import ClientWords
from tests.support import Network, Peer, Segments

PLAINTEXT = ClientSettings(context=None, startTLS=False, cleartext=True, introduces=False)
XCLIENT = attrs.evolve(PLAINTEXT, introduces=True)

ANN = sasl.fromPassword(b"ann", b"secret")
ANN64 = b64encode(ANN.response)
MASTER = sasl.decode(Mechanism.PLAIN, b"ann\0root\0secret")
BEARER = sasl.decode(Mechanism.OAUTHBEARER, b"n,a=ann,\1auth=Bearer token\1\1")
BEARER64 = b64encode(BEARER.response)
XOAUTH2 = sasl.decode(Mechanism.XOAUTH2, b"user=ann\1auth=Bearer token\1\1")
HUGE = sasl.decode(Mechanism.OAUTHBEARER, b"n,a=ann,\1auth=Bearer %b\1\1" % (b"t" * 45_000))
HUGE64 = b64encode(HUGE.response)
SECRETS = (b"secret", ANN64, b64encode(b"secret"))


def backendTLS(name: str = "mail.example.com", *, invalid: bool = True) -> BackendTLS:
    """Make a destination's TLS; by default it takes any certificate."""
    options = BackendOptions(serverName=name, protocols=TLSProtocols(), allowInvalid=invalid)
    return BackendTLS(options)


def upgrading() -> ClientSettings:
    """Settings of an endpoint with STARTTLS."""
    return ClientSettings(context=backendTLS(), startTLS=True, cleartext=False, introduces=False)


class BackendCase(SynchronousTestCase):
    """A conversation with a backend that the test plays; subclasses cut its bytes otherwise.

    :cvar segments: how what the backend sends arrives.
    :cvar conversation: our side.
    :cvar origin: who the client is, where a test does not say otherwise.
    """

    segments: ClassVar[Segments] = Segments.WHOLE
    conversation: ClassVar[type[ProxyClient]]
    origin: ClassVar[Origin] = ORIGIN

    def begin(self, settings: ClientSettings = PLAINTEXT, origin: Origin | None = None) -> None:
        """Connect, and begin to prepare."""
        self.network, self.backend = Network(self.segments), Peer()
        self.client = self.conversation(self.network)
        self.client.settings, self.client.origin = settings, origin or self.origin
        self.network.connect(self.backend, self.client)
        self.asked: list[bytes] = []
        self.challengeAnswer: bytes | None = None
        self.prepared = self.perform(self.client.prepare())

    def perform(self, work: Coroutine[Any, Any, Any]) -> "Deferred[Any]":
        """Let a step begin."""
        deferred: Deferred[Any] = Deferred.fromCoroutine(work)
        self.network.pump()
        return deferred

    def hear(self, data: bytes) -> bytes:
        """Let the backend speak; returns what it hears then."""
        self.backend.say(data)
        self.network.pump()
        return self.backend.take()

    def consent(self, data: bytes) -> bytes:
        """Let the backend agree to TLS and begin it; returns what it hears inside."""
        self.backend.say(data)
        self.backend.startTLS()
        self.network.pump()
        self.assertTrue(self.client.secure)
        return self.backend.take()

    def login(self, credentials: Credentials = ANN) -> bytes:
        """Begin the login; returns what the backend hears."""
        self.answered: Deferred[AuthResult] = self.perform(
            self.client.login(credentials, self._challenge)
        )
        return self.backend.take()

    async def _challenge(self, message: bytes) -> bytes | None:
        self.asked.append(message)
        return self.challengeAnswer

    def assertReady(self) -> None:
        """The login is next, and nothing more was said."""
        self.successResultOf(self.prepared)
        self.assertEqual(self.backend.take(), b"")

    def assertResult(self, verdict: Verdict, reply: bytes, preamble: bytes = b"") -> None:
        """The login was answered so."""
        result = self.successResultOf(self.answered)
        self.assertEqual(result, AuthResult(verdict, preamble, reply))

    def assertFailed(self, stage: Stage, *, retry: bool | None = None) -> None:
        """The backend cannot be used: the preparation failed so, and nothing more was said."""
        failed = self.failure(self.prepared)
        self.assertIs(failed.stage, stage)
        self.assertIn(retry, (None, failed.retry))
        self.assertEqual(self.backend.take(), b"")

    def assertUnanswered(self, stage: Stage = Stage.LOGIN) -> None:
        """The login was neither accepted nor refused, and is never to be tried again."""
        failed = self.failure(self.answered)
        self.assertEqual((failed.stage, failed.retry), (stage, False))

    def failure(self, deferred: "Deferred[Any]") -> BackendFailed:
        """The failure that a step ended in."""
        error = self.failureResultOf(deferred, BackendFailed).value
        assert isinstance(error, BackendFailed)
        return error


class ClientCase(BackendCase):
    """A conversation with one protocol's backend, its capabilities in the protocol's own form."""

    words: ClassVar[ClientWords]

    def tell(self, *capabilities: bytes) -> bytes:
        """Let the backend greet, and tell these; returns what it hears then."""
        raise NotImplementedError

    def tellAgain(self, *capabilities: bytes) -> None:
        """Let the backend tell these inside TLS."""
        raise NotImplementedError

    def offering(self, *mechanisms: bytes) -> tuple[bytes, ...]:
        """The capabilities of a backend that takes these mechanisms, and passwords by no others."""
        raise NotImplementedError

    def introduced(self, *capabilities: bytes) -> bytes:
        """Bring a backend that is told who the client is to the login; returns what it heard."""
        raise NotImplementedError

    def ready(self, *capabilities: bytes) -> None:
        """Bring a backend with these capabilities to where the login is next."""
        self.begin()
        self.assertEqual(self.tell(*capabilities), b"")
        self.assertReady()
