"""What holds for a session in each protocol that has a login, in the words of each."""

from base64 import b64encode
from collections.abc import Iterator
from typing import Any, ClassVar

import attrs
from twisted.internet.error import ConnectionRefusedError

from mailproxy.errors import Refusal, Stage
from tests import words
from tests.dialling import Scripted
from tests.protocols.words import ServerWords
from tests.stage import NEW_HOST, OLD_HOST, Client, Scene, StageCase
from tests.stage import Stage as Theatre
from tests.support import Segments
from tests.words import Words

LOGIN = words.PLAIN


@attrs.define
class Play:
    """One protocol's stage, and a client on it."""

    words: Words
    stage: Theatre
    client: Client

    def logIn(self, message: bytes = LOGIN, behind: bytes = b"") -> bytes:
        """Let the client log in, and say something behind that; returns what it hears."""
        return self.stage.ask(self.client, self.words.logIn(message) + behind)

    def answer(self, reply: bytes) -> Scripted:
        """Let the last call's backend answer the login so."""
        backend = self.words.makeBackend(reply)
        self.stage.take(backend)
        return backend

    @property
    def server(self) -> ServerWords:
        """What the client says to us, and hears."""
        return self.words.server

    def reply(self, backends: bytes) -> bytes:
        """What of the backend's reply the client hears: under its own tag, in IMAP."""
        return self.words.passedOn(backends)


class ProtocolCase(StageCase):
    """Sessions in every protocol.

    :cvar segments: how everything arrives.
    """

    segments: ClassVar[Segments] = Segments.WHOLE

    def plays(self, host: str = "198.51.100.7", **scene: Any) -> Iterator[Play]:
        """A client in each protocol, greeted."""
        for each in words.ALL:
            stage = self.begin(
                Scene(self.segments, each.protocol, advertised=words.PROMISES, **scene)
            )
            yield self.enter(each, stage, host)

    def enter(self, each: Words, stage: Theatre, host: str = "198.51.100.7") -> Play:
        """Let a client in."""
        client = stage.enter(host)
        self.assertTrue(client.take().startswith(each.greeting), each.protocol)
        self.assertTrue(stage.ask(client, each.server.hello).startswith(each.helloed))
        return Play(each, stage, client)

    def assertUnavailable(self, play: Play, heard: bytes | None = None) -> None:
        """The client hears that it is temporary, once, and is closed; nothing is left."""
        play.stage.network.pump()
        heard = play.client.take() if heard is None else heard
        self.assertEqual(heard, play.server.unavailable)
        self.assertIsNotNone(play.client.lost)
        self.assertNothingLeft(play.stage)


class LoginTests(ProtocolCase):
    """Logins that reach their backend."""

    def test_acceptedLoginIsBridged(self) -> None:
        """The whole answer, then every byte both ways, what was pipelined first."""
        for play in self.plays():
            play.logIn(behind=b"FIRST\r\nSEC")
            backend = play.answer(play.words.accepted)
            self.assertEqual(play.client.take(), play.reply(play.words.accepted))
            play.stage.ask(play.client, b"OND\r\n")
            self.assertEqual(backend.said[-2:], [b"FIRST", b"SECOND"])
            play.stage.ask(backend, b"\0\xff\r\n")
            self.assertEqual(play.client.take(), b"\0\xff\r\n")
            play.client.hangUp()
            play.stage.network.pump()
            self.assertNothingLeft(play.stage)

    def test_refusalLeadsBackToTheDialogue(self) -> None:
        """In the backend's words, all lines; its leg is closed; another login goes elsewhere."""
        for play in self.plays():
            play.stage.source.table["bob"] = "new"
            play.logIn(behind=play.server.noop)
            backend = play.answer(play.words.refused)
            expected = play.reply(play.words.refused) + play.server.done
            self.assertEqual(play.client.take(), expected)
            self.assertIsNotNone(backend.lost)
            play.logIn(b64encode(b"\0bob\0guess"))
            hosts = [call.host for call in play.stage.network.dialled]
            self.assertEqual(hosts, [OLD_HOST, NEW_HOST])
            play.answer(play.words.accepted)
            self.assertEqual(play.client.take(), play.reply(play.words.accepted))

    def test_hiddenRefusalIsInOurWords(self) -> None:
        """And a temporary one stays temporary: a client would forget its password."""
        for play in self.plays(target={"hideAuthErrors": True}):
            for reply, heard in (
                (play.words.refused, play.server.refusals[Refusal.AUTHENTICATION]),
                (play.words.later, play.server.refusals[Refusal.TEMPORARY]),
            ):
                play.logIn()
                play.answer(reply)
                self.assertEqual(play.client.take(), heard)

    def test_temporaryRefusalIsPassedOn(self) -> None:
        """As it is; the client may try again on the same connection."""
        for play in self.plays():
            play.logIn()
            play.answer(play.words.later)
            self.assertEqual(play.client.take(), play.reply(play.words.later))
            self.assertEqual(play.stage.ask(play.client, play.server.noop), play.server.done)

    def test_lastRefusalIsFollowedByTheClose(self) -> None:
        """After `max_auth_attempts`; ours and the backend's count together."""
        for play in self.plays(listener={"max_auth_attempts": 3}):
            play.logIn(b"!!!!")
            for _ in range(2):
                play.logIn()
                play.client.take()
                play.answer(play.words.refused)
            expected = play.reply(play.words.refused) + play.server.farewells[Refusal.TOO_MANY]
            self.assertEqual(play.client.take(), expected)
            self.assertNothingLeft(play.stage)

    def test_challengeIsRelayed(self) -> None:
        """A token's refusal, and the client's answer to it."""
        for play in self.plays():
            play.stage.ask(play.client, play.words.bear())
            exchange = play.server.exchange
            backend = play.answer(exchange.ask(b"{}"))
            self.assertEqual(play.client.take(), exchange.ask(b"{}"))
            play.stage.ask(play.client, exchange.answer(b"AQ=="))
            self.assertEqual(backend.said[-1] + b"\r\n", exchange.answer(b"AQ=="))
            play.stage.ask(backend, play.words.refused)
            self.assertEqual(play.client.take(), play.reply(play.words.refused))

    def test_hiddenChallengeIsAnsweredByUs(self) -> None:
        """With `hide_auth_errors` the client sees none."""
        for play in self.plays(target={"hideAuthErrors": True}):
            play.stage.ask(play.client, play.words.bear())
            backend = play.answer(play.server.exchange.ask(b"{}"))
            self.assertIn(backend.said[-1], (b"AQ==", b'"AQ=="'))
            play.stage.ask(backend, play.words.refused)
            self.assertEqual(play.client.take(), play.server.refusals[Refusal.AUTHENTICATION])


class LinesTests(LoginTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(LoginTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class UnavailableTests(ProtocolCase):
    """What keeps a login from its backend is temporary, never a wrong password."""

    def test_refusedConnection(self) -> None:
        """Nobody listens there."""
        for play in self.plays():
            play.logIn()
            play.stage.network.call.refuse(ConnectionRefusedError())
            self.assertUnavailable(play)

    def test_openCircuit(self) -> None:
        """A destination that is down is not called."""
        for play in self.plays():
            for _ in range(3):
                play.stage.health.admit("old").failed(Stage.CONNECT, "192.0.2.9")
            self.assertUnavailable(play, play.logIn())
            self.assertEqual(play.stage.network.dialled, [])

    def test_invalidIdentifier(self) -> None:
        """A name that no store may see is in none, nor at a backend."""
        for name in (b"an\x1bn", b"an n", b'an"n', b"ann\r\nQUIT", b"n" * 513):
            for play in self.plays():
                self.assertUnavailable(play, play.logIn(b64encode(b"\0%b\0x" % name)))
                self.assertEqual(play.stage.source.asked, [])

    def test_destinationWithoutTheProtocol(self) -> None:
        """The client is not wrong."""
        for play in self.plays():
            play.stage.source.table["ann"] = "empty"
            self.assertUnavailable(play, play.logIn())

    def test_backendThatLeavesOrTalksNonsense(self) -> None:
        """It has said nothing of the password."""
        for reply in (b"", b"garbage\r\n"):
            for play in self.plays():
                play.logIn()
                backend = play.answer(reply)
                if not reply:
                    backend.hangUp()
                self.assertUnavailable(play)
                (health,) = play.stage.health.report(["old"])
                self.assertEqual(health.consecutiveFailures, 1)

    def test_backendThatCannotTakeTheLogin(self) -> None:
        """No mechanism of the client's; nothing was sent."""
        for play in self.plays():
            token = b64encode(b"user=ann\1auth=Bearer x\1\1")
            play.stage.ask(play.client, play.words.logIn(token, b"XOAUTH2"))
            backend = play.answer(play.words.accepted)
            self.assertUnavailable(play)
            self.assertEqual([line for line in backend.said if b"AUTH" in line], [])

    def test_greetingThatRefuses(self) -> None:
        """A full backend."""
        for play in self.plays():
            play.logIn()
            play.stage.take(Scripted(play.words.client.full[0]))
            self.assertUnavailable(play)

    def test_backends421IsTheLastWord(self) -> None:
        """It is passed on, said once, and followed by the close."""
        for attempts in (1, 3):
            stage = self.begin(
                Scene(
                    protocol="submission",
                    advertised=words.PROMISES,
                    listener={"max_auth_attempts": attempts},
                )
            )
            play = self.enter(words.SUBMISSION, stage)
            play.logIn(behind=b"NOOP\r\n")
            play.answer(b"421 4.3.2 db7 closing\r\n")
            self.assertEqual(play.client.take(), b"421 4.3.2 db7 closing\r\n")
            self.assertNothingLeft(stage)

    def test_clientsNonsenseIsNotTheBackendsFault(self) -> None:
        """Nobody can have a backend declared down by what it answers to a challenge."""
        for play in self.plays():
            play.stage.ask(play.client, play.words.bear())
            backend = play.answer(play.server.exchange.ask(b"{}"))
            play.client.take()
            play.stage.ask(play.client, play.words.nonsense)
            self.assertIn(backend.said[-1], (b"*", b'"*"'))
            play.stage.ask(backend, play.words.refused)
            self.assertEqual(play.client.take(), play.reply(play.words.refused))
            (health,) = play.stage.health.report(["old"])
            self.assertEqual(health.consecutiveFailures, 0)


class ManagementTests(ProtocolCase):
    """Holds, kicks and limits."""

    def test_heldLoginWaits(self) -> None:
        """Looked up after the hold, so that a move is seen."""
        for play in self.plays():
            play.stage.registry.hold("ann", 60)
            play.logIn()
            play.stage.network.advance(59)
            self.assertEqual((play.stage.source.asked, play.stage.network.dialled), ([], []))
            play.stage.source.table["ann"] = "new"
            play.stage.network.advance(1)
            self.assertEqual(play.stage.network.call.host, NEW_HOST)
            play.answer(play.words.accepted)
            self.assertEqual(play.client.take(), play.reply(play.words.accepted))

    def test_kick(self) -> None:
        """A bridge just ends; a client that waits for its backend is told to come later."""
        for play in self.plays():
            play.logIn()
            backend = play.answer(play.words.accepted)
            play.client.take()
            self.assertEqual(play.stage.registry.kick("ann"), 1)
            play.stage.network.pump()
            self.assertEqual(play.client.take(), b"")
            self.assertIsNotNone(backend.lost)
            self.assertNothingLeft(play.stage)
        for play in self.plays():
            play.logIn()
            play.stage.registry.kick("ann")
            play.stage.network.pump()
            self.assertTrue(play.server.unavailable.endswith(play.client.take()))
            self.assertNothingLeft(play.stage)

    def test_slowClientIsSentAway(self) -> None:
        """`preauth_timeout`, in one line of each protocol's."""
        for play in self.plays():
            play.stage.network.advance(30)
            heard = play.client.take()
            self.assertRegex(heard, rb"\A(\* BYE|-ERR \[SYS/TEMP\]|421 4\.4\.2|BYE) [^\r]+\r\n\Z")
            self.assertNothingLeft(play.stage)

    def test_endlessLineIsAnsweredAndClosed(self) -> None:
        """64 KiB, in one line of each protocol's."""
        for play in self.plays():
            heard = play.stage.ask(play.client, b"x" * 70_000)
            self.assertRegex(heard, rb"\A(\* BYE \[TOOBIG\]|-ERR|500 5\.5\.6|BYE) [^\r]+\r\n\Z")
            self.assertNothingLeft(play.stage)

    def test_overTheLimitIsClosedAtOnce(self) -> None:
        """`max_connections`: without a word."""
        for play in self.plays(listener={"max_connections": 1}):
            second = play.stage.enter()
            self.assertEqual((second.received, second.lost is None), (b"", False))

    def test_clientThatLeavesWhileWeDial(self) -> None:
        """The call is given up."""
        for play in self.plays():
            play.logIn()
            play.client.hangUp()
            play.stage.network.pump()
            self.assertNothingLeft(play.stage)

    def test_quitEndsTheSession(self) -> None:
        """With the protocol's one answer and nothing behind it."""
        for play in self.plays():
            heard = play.stage.ask(play.client, play.server.quit + play.server.noop)
            self.assertEqual(heard, play.server.bye)
            self.assertNothingLeft(play.stage)
