"""A session from its greeting to its end, between a client and a backend that the test plays."""

import gc
from base64 import b64encode
from typing import Any, ClassVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.logger import LogLevel
from zope.interface.verify import verifyObject

from mailproxy.config.stores import OnError
from mailproxy.errors import MappingError, Stage
from mailproxy.registry import ISession
from mailproxy.sasl import Credentials
from tests.dialling import Backend
from tests.stage import BEARER, LOGIN, NEW_HOST, OLD_HOST, PASSWORD, Client, Scene, StageCase
from tests.stage import Stage as Theatre
from tests.support import Segments

UNAVAILABLE = b"NO [UNAVAILABLE] Temporarily unavailable, try again later.\r\n"
BYE = b"* BYE [UNAVAILABLE] Temporarily unavailable, try again later.\r\n"
BEARER_LOGIN = b"a AUTHENTICATE OAUTHBEARER %b\r\n" % b64encode(BEARER)
CHALLENGE = b"+ eyJzdGF0dXMiOiI0MDEifQ==\r\n"
REFUSED = b"%t NO [AUTHENTICATIONFAILED] db7: wrong\r\n"


class StoryTests(StageCase):
    """What happens when all goes well, or a login is refused; subclasses cut the bytes otherwise.

    :cvar segments: how what is sent arrives.
    """

    segments: ClassVar[Segments] = Segments.WHOLE

    def open(self, **scene: Any) -> tuple[Theatre, Client]:
        """Set a stage and let a client in."""
        stage = self.begin(Scene(segments=self.segments, **scene))
        client = stage.enter()
        self.assertTrue(client.take().startswith(b"* OK [CAPABILITY "))
        return stage, client

    def test_loginIsReplayedAndBridged(self) -> None:
        """The backend gets the login, the client its whole answer, then both each other."""
        stage, client = self.open()
        self.assertEqual(stage.ask(client, LOGIN), b"")
        answer = b"* CAPABILITY IMAP4rev1 IDLE\r\n%t OK [CAPABILITY IMAP4rev1] in\r\n"
        backend = stage.answer(Backend(login=answer))
        self.assertEqual(client.take(), answer.replace(b"%t", b"a"))
        initial = b64encode(b"\0ann\0" + PASSWORD)
        self.assertEqual(backend.commands, [b"P1 AUTHENTICATE PLAIN " + initial])
        stage.ask(client, b"b NOOP\r\nc SEL")
        self.assertEqual(backend.bridged, b"b NOOP\r\nc SEL")
        stage.ask(backend, b"b OK done\r\n\0\xff")
        self.assertEqual(client.take(), b"b OK done\r\n\0\xff")
        client.hangUp()
        stage.network.pump()
        self.assertNothingLeft(stage)

    def test_pipelinedBytesArriveOnceInOrder(self) -> None:
        """What is sent behind a login reaches the backend after it, and before what comes later."""
        stage, client = self.open()
        stage.ask(client, LOGIN + b"b NOOP\r\nc LOGOUT")
        backend = stage.answer()
        stage.ask(client, b"\r\n")
        self.assertEqual(backend.bridged, b"b NOOP\r\nc LOGOUT\r\n")
        self.assertEqual(len(backend.commands), 1)

    def test_clientThatHalfClosesBehindItsLoginIsServed(self) -> None:
        """A FIN behind pipelined commands is no departure: they are served, then it follows."""
        stage, client = self.open()
        client.say(LOGIN + b"b LOGOUT\r\n")
        client.finish()
        stage.network.pump()
        backend = stage.answer()
        self.assertEqual(backend.bridged, b"b LOGOUT\r\n")
        self.assertTrue(backend.ended)
        self.assertNothingLeft(stage)

    def test_refusedLoginLeadsBackToTheDialogue(self) -> None:
        """The backend's words arrive, its leg is closed, and what was pipelined is served by us."""
        stage, client = self.open()
        stage.ask(client, LOGIN + b"b NOOP\r\n")
        backend = stage.answer(Backend(login=b"* OK news\r\n" + REFUSED))
        self.assertEqual(
            client.take(),
            b"* OK news\r\na NO [AUTHENTICATIONFAILED] db7: wrong\r\nb OK Completed.\r\n",
        )
        self.assertIsNotNone(backend.lost)
        self.assertIsNone(client.lost)
        self.assertEqual(stage.registry.find("ann"), [])
        self.assertEqual(len(stage.registry.find()), 1)

    def test_neverBridgedAfterARefusal(self) -> None:
        """Nothing that a client says behind a refused login reaches that backend."""
        stage, client = self.open()
        stage.ask(client, LOGIN + b"b DELETE INBOX\r\n")
        backend = stage.answer(Backend(login=REFUSED))
        heard = client.take() + stage.ask(client, b"c DELETE INBOX\r\n")
        self.assertIn(b"\r\nb BAD ", heard)
        self.assertIn(b"\r\nc BAD ", heard)
        self.assertEqual(len(backend.commands), 1)
        self.assertIsNone(backend.bridged)

    def test_anotherLoginAfterARefusal(self) -> None:
        """Each login is routed anew, and may be let in by another backend."""
        stage, client = self.open()
        stage.source.table["bob"] = "new"
        stage.ask(client, LOGIN + b"b LOGIN bob guess\r\nc NOOP\r\n")
        stage.answer(Backend(login=REFUSED))
        self.assertEqual([call.host for call in stage.network.dialled], [OLD_HOST, NEW_HOST])
        backend = stage.answer()
        self.assertEqual(backend.bridged, b"c NOOP\r\n")
        self.assertEqual(len(stage.registry.find("bob", "new")), 1)
        self.assertEqual(stage.registry.find("ann"), [])
        self.assertTrue(client.take().endswith(b"wrong\r\nb OK in\r\n"))

    def test_lastRefusalIsFollowedByTheClose(self) -> None:
        """After `max_auth_attempts` the client hears the last refusal, BYE, and is closed."""
        stage, client = self.open(listener={"max_auth_attempts": 2})
        heard = b""
        for tag in (b"a", b"b"):
            stage.ask(client, LOGIN.replace(b"a ", tag + b" ", 1))
            stage.answer(Backend(login=REFUSED))
            heard += client.take()
        self.assertEqual(
            heard,
            b"a NO [AUTHENTICATIONFAILED] db7: wrong\r\nb NO [AUTHENTICATIONFAILED] db7: wrong\r\n"
            b"* BYE Too many failures.\r\n",
        )
        self.assertIsNotNone(client.lost)
        self.assertNothingLeft(stage)

    def test_ourRefusalsAndTheBackendsCountTogether(self) -> None:
        """A malformed login and a refused one are two attempts."""
        stage, client = self.open(listener={"max_auth_attempts": 2})
        stage.ask(client, b"x AUTHENTICATE PLAIN =\r\n" + LOGIN)
        stage.answer(Backend(login=REFUSED))
        self.assertTrue(client.take().endswith(b"wrong\r\n* BYE Too many failures.\r\n"))
        self.assertNothingLeft(stage)

    def test_hiddenRefusal(self) -> None:
        """With `hide_auth_errors` the client hears our words alone."""
        stage, client = self.open(target={"hideAuthErrors": True})
        stage.ask(client, LOGIN)
        stage.answer(Backend(login=b"* OK db7 says\r\n" + REFUSED))
        self.assertEqual(client.take(), b"a NO [AUTHENTICATIONFAILED] Authentication failed.\r\n")

    def test_hiddenTemporaryTroubleStaysTemporary(self) -> None:
        """A client that is told that its password is wrong would forget it."""
        for code in (b"UNAVAILABLE", b"INUSE"):
            stage, client = self.open(target={"hideAuthErrors": True})
            stage.ask(client, LOGIN)
            stage.answer(Backend(login=b"%%t NO [%b] db7 is busy\r\n" % code))
            self.assertEqual(client.take(), b"a " + UNAVAILABLE)
            self.assertIsNone(client.lost)

    def test_challengeIsRelayed(self) -> None:
        """An OAuth error goes to the client and its answer back, then the refusal."""
        stage, client = self.open()
        stage.ask(client, BEARER_LOGIN)
        backend = stage.answer(Backend(login=CHALLENGE))
        self.assertEqual(client.take(), CHALLENGE)
        answer = stage.ask(client, b"AQ==\r\n")
        self.assertEqual(backend.commands[1:], [b"AQ=="])
        self.assertEqual(answer, b"")
        stage.ask(backend, b"P1 NO [AUTHENTICATIONFAILED] expired\r\n")
        self.assertEqual(client.take(), b"a NO [AUTHENTICATIONFAILED] expired\r\n")

    def test_hiddenChallengeIsAnsweredByUs(self) -> None:
        """With `hide_auth_errors` the client sees no challenge."""
        xoauth2 = b64encode(b"user=ann\1auth=Bearer " + BEARER.split()[-1].strip(b"\1") + b"\1\1")
        for login, answer in (
            (BEARER_LOGIN, b"AQ=="),
            (b"a AUTHENTICATE XOAUTH2 %b\r\n" % xoauth2, b""),
        ):
            stage, client = self.open(target={"hideAuthErrors": True})
            stage.ask(client, login)
            greeting = b"* OK [CAPABILITY SASL-IR AUTH=OAUTHBEARER AUTH=XOAUTH2] hi\r\n"
            backend = stage.answer(Backend(greeting, login=CHALLENGE))
            self.assertEqual(backend.commands[1:], [answer])
            stage.ask(backend, b"P1 NO [AUTHENTICATIONFAILED] db7: expired\r\n")
            self.assertEqual(
                client.take(), b"a NO [AUTHENTICATIONFAILED] Authentication failed.\r\n"
            )

    def test_passwordIsNotAskedTwice(self) -> None:
        """A challenge behind a password is cancelled: the client is not shown it."""
        stage, client = self.open()
        stage.ask(client, LOGIN)
        backend = stage.answer(Backend(login=CHALLENGE))
        self.assertEqual(backend.commands[1:], [b"*"])
        stage.ask(backend, b"P1 BAD cancelled\r\n")
        self.assertEqual(client.take(), b"a BAD cancelled\r\n")


class LinesTests(StoryTests):
    """The same, one line per segment."""

    segments = Segments.LINES


class BytesTests(StoryTests):
    """The same, one byte per segment."""

    segments = Segments.BYTES


class RoutingTests(StageCase):
    """When a login is held, looked up and filed."""

    def test_heldFirstLookedUpAfter(self) -> None:
        """A login held during a move goes where the account lives when the hold is over."""
        stage = self.begin()
        client = stage.enter()
        stage.registry.hold("ann", 60)
        stage.ask(client, LOGIN)
        self.assertEqual(stage.source.asked, [])
        stage.source.table["ann"] = "new"
        stage.network.advance(60)
        self.assertEqual(stage.source.asked, ["ann"])
        self.assertEqual(stage.network.call.host, NEW_HOST)
        self.assertIsNotNone(stage.answer().bridged)

    def test_holdIsNoLoginThatIsLate(self) -> None:
        """The time before a login bounds the client, not what we do with its login."""
        stage = self.begin()
        client = stage.enter()
        stage.registry.hold("ann", 120)
        stage.ask(client, LOGIN)
        stage.network.advance(119)
        self.assertIsNone(client.lost)
        stage.registry.hold("ann", 0)
        stage.network.pump()
        self.assertIsNotNone(stage.answer().bridged)

    def test_filedAsSoonAsItIsRouted(self) -> None:
        """A kick during the dial reaches the session: none escapes a move."""
        stage = self.begin()
        client = stage.enter()
        self.assertEqual(stage.registry.find("ann"), [])
        stage.ask(client, LOGIN)
        (session,) = stage.registry.find("ann", "old", "imap")
        self.assertEqual((session.identifier, session.destination), ("ann", "old"))
        self.assertEqual(stage.registry.kick("ann"), 1)
        stage.network.pump()
        self.assertNothingLeft(stage)

    def test_sessionProvidesItsInterface(self) -> None:
        """What management sees: client, listener, bytes each way."""
        stage = self.begin()
        client = stage.enter()
        (session,) = stage.registry.find()
        verifyObject(ISession, session)
        self.assertEqual((session.protocol, session.listener), ("imap", "door"))
        self.assertEqual(session.client, "198.51.100.7:40000")
        self.assertEqual((session.received, session.sent), (0, 0))
        backend = stage.bridge(client)
        stage.ask(client, b"b NOOP\r\n")
        stage.ask(backend, b"b OK\r\n")
        self.assertEqual((session.received, session.sent), (8, 6))

    def test_masterUserIsRoutedByTheMailbox(self) -> None:
        """Routed by the part before the separator, replayed as it came."""
        stage = self.begin()
        stage.source.table["ann"] = "new"
        stage.ask(stage.enter(), LOGIN.replace(b"ann", b"ann%root"))
        self.assertEqual(stage.source.asked, ["ann"])
        backend = stage.answer()
        login = b64encode(b"\0ann%root\0" + PASSWORD)
        self.assertEqual(backend.commands, [b"P1 AUTHENTICATE PLAIN " + login])

    def test_tokenWithoutAnAddressGoesToTheDefault(self) -> None:
        """An opaque token names nobody: no store is asked."""
        stage = self.begin()
        message = b64encode(b"n,,\1auth=Bearer opaque\1\1")
        stage.ask(stage.enter(), b"a AUTHENTICATE OAUTHBEARER %b\r\n" % message)
        self.assertEqual((stage.source.asked, stage.network.call.host), ([], OLD_HOST))

    def test_nothingKeepsThePasswordAfterTheLogin(self) -> None:
        """Once the streams are joined, no object holds the login any more."""
        stage = self.begin()
        client = stage.enter()
        password = b"nobody-elses-password"
        stage.ask(client, LOGIN.replace(PASSWORD, password))
        self.assertTrue(_kept(password))
        self.assertIsNotNone(stage.answer().bridged)
        self.assertEqual(_kept(password), [])


def _kept(password: bytes) -> list[Credentials]:
    """The live objects that hold a password."""
    gc.collect()
    return [
        each
        for each in gc.get_objects()
        if isinstance(each, Credentials) and each.secret == password
    ]


class UnavailableTests(StageCase):
    """Every cause that keeps a login from its backend: temporary, never a wrong password."""

    def assertUnavailable(self, stage: Theatre, client: Client) -> None:
        """The client hears that it is temporary, BYE, and is closed; nothing is left."""
        stage.network.pump()
        self.assertEqual(client.take(), b"a " + UNAVAILABLE + BYE)
        self.assertIsNotNone(client.lost)
        self.assertNothingLeft(stage)
        (end,) = self.ends()
        self.assertIn(", unavailable (", end)

    def enter(self, scene: Scene | None = None, login: bytes = LOGIN) -> tuple[Theatre, Client]:
        """Let a client in and log in."""
        stage = self.begin(scene)
        client = stage.enter()
        client.take()
        client.say(login)
        return stage, client

    def test_refusedConnection(self) -> None:
        """Nobody listens there."""
        stage, client = self.enter()
        stage.network.pump()
        stage.network.call.refuse(ConnectionRefusedError())
        self.assertUnavailable(stage, client)

    def test_noAddress(self) -> None:
        """The name is unknown."""
        self.assertUnavailable(*self.enter(Scene(target={"host": "old.example.com"})))

    def test_noAnswerToTheCall(self) -> None:
        """All attempts together take `backend_timeout`."""
        stage, client = self.enter()
        stage.network.pump()
        stage.network.advance(10)
        self.assertUnavailable(stage, client)

    def test_openCircuit(self) -> None:
        """A destination that is down is not called."""
        stage = self.begin()
        for _ in range(3):
            stage.health.admit("old").failed(Stage.CONNECT, "192.0.2.9")
        client = stage.enter()
        client.take()
        client.say(LOGIN)
        stage.network.pump()
        self.assertEqual(stage.network.dialled, [])
        self.assertUnavailable(stage, client)

    def test_invalidIdentifierReachesNobody(self) -> None:
        """A name with a control character is in no store, no log and no backend."""
        stage, client = self.enter(login=b'a LOGIN "ann\x1b[31mbob" "secret"\r\n')
        self.assertUnavailable(stage, client)
        self.assertEqual((stage.source.asked, stage.network.dialled), ([], []))
        self.assertNotIn("31m", repr(self.events))

    def test_destinationWithoutTheProtocol(self) -> None:
        """A mapping to a destination that has no IMAP."""
        stage = self.begin()
        stage.source.table["ann"] = "empty"
        client = stage.enter()
        client.take()
        client.say(LOGIN)
        self.assertUnavailable(stage, client)

    def test_storeThatCannotTell(self) -> None:
        """With `on_error = "tempfail"` a failed lookup refuses the login."""
        stage = self.begin(Scene(onError=OnError.TEMPFAIL))
        stage.source.error = MappingError("down")
        client = stage.enter()
        client.take()
        client.say(LOGIN)
        self.assertUnavailable(stage, client)

    def test_storeThatIsTooSlow(self) -> None:
        """`lookup_timeout` bounds the lookup."""
        stage = self.begin(Scene(onError=OnError.TEMPFAIL))
        stage.source.pending = Deferred()
        client = stage.enter()
        client.take()
        stage.ask(client, LOGIN)
        stage.network.advance(5)
        self.assertUnavailable(stage, client)

    def test_backendThatGreetsWithBye(self) -> None:
        """A full backend."""
        stage, client = self.enter()
        stage.network.pump()
        stage.answer(Backend(b"* BYE full\r\n"))
        self.assertUnavailable(stage, client)

    def test_backendThatLeavesDuringTheLogin(self) -> None:
        """It has said nothing of the password."""
        stage, client = self.enter()
        stage.network.pump()
        backend = stage.answer(Backend(login=b""))
        backend.hangUp()
        self.assertUnavailable(stage, client)
        (health,) = stage.health.report(["old"])
        self.assertEqual((health.consecutiveFailures, health.hostLevelFailure), (1, False))

    def test_backendThatDoesNotAnswerTheLogin(self) -> None:
        """`backend_auth_timeout` bounds its answer; a slow refusal before that still counts."""
        stage, client = self.enter()
        stage.network.pump()
        backend = stage.answer(Backend(login=b""))
        stage.network.advance(29)
        self.assertIsNone(client.lost)
        stage.network.advance(1)
        self.assertUnavailable(stage, client)
        self.assertIsNotNone(backend.lost)
        (health,) = stage.health.report(["old"])
        self.assertEqual((health.consecutiveFailures, health.hostLevelFailure), (1, False))

    def test_backendThatCannotTakeTheLogin(self) -> None:
        """No common mechanism: the client's password is not wrong."""
        stage, client = self.enter()
        stage.network.pump()
        stage.answer(Backend(b"* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] hi\r\n"))
        self.assertUnavailable(stage, client)

    def test_clientsMechanismDoesNotTakeABackendDown(self) -> None:
        """Two clients that choose what a backend does not have cannot close it to everybody."""
        stage = self.begin()
        login = b"a AUTHENTICATE XOAUTH2 %b\r\n" % b64encode(b"user=ann\1auth=Bearer x\1\1")
        for host in ("198.51.100.7", "198.51.100.8", "198.51.100.9"):
            client = stage.enter(host)
            stage.ask(client, login)
            stage.answer()
            self.assertIn(b"a NO [UNAVAILABLE]", client.take())
        (health,) = stage.health.report(["old"])
        self.assertEqual((health.consecutiveFailures, health.down), (0, False))

    def test_ourOwnBug(self) -> None:
        """What nobody expected is logged as our failure, and temporary to the client."""
        stage = self.begin()
        broken: Any = None
        resources = attrs.evolve(stage.runtime.resources, targets=broken)
        stage.runtime = attrs.evolve(stage.runtime, resources=resources)
        client = stage.enter()
        client.take()
        self.assertEqual(stage.ask(client, LOGIN), BYE)
        self.assertIsNotNone(client.lost)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertEqual(len(self.ends()), 1)

    def test_silentClientIsNotTheBackendsFault(self) -> None:
        """Whoever leaves a relayed challenge unanswered cannot have a backend declared down."""
        for host in ("198.51.100.7", "198.51.100.8", "198.51.100.9"):
            stage = self.begin() if host.endswith("7") else self.stage
            client = stage.enter(host)
            client.take()
            stage.ask(client, BEARER_LOGIN)
            backend = stage.answer(Backend(login=CHALLENGE))
            self.assertEqual(client.take(), CHALLENGE)
            stage.network.advance(30)
            self.assertIsNotNone(backend.lost)
            self.assertRegex(client.take(), rb"\A\* BYE Disconnected for inactivity")
            self.assertIsNotNone(client.lost)
        (health,) = stage.health.report(["old"])
        self.assertEqual((health.consecutiveFailures, health.down), (0, False))


class RefusalHealthTests(StageCase):
    """What a login says about the backend's health."""

    def test_refusedLoginIsASuccess(self) -> None:
        """A backend that refuses a password works: its streak of failures ends."""
        stage = self.begin()
        stage.health.admit("old").failed(Stage.CONNECT, "192.0.2.9")
        stage.ask(stage.enter(), LOGIN)
        stage.answer(Backend(login=REFUSED))
        (health,) = stage.health.report(["old"])
        self.assertEqual(health.consecutiveFailures, 0)


class LogTests(StageCase):
    """What is written of a session."""

    def test_oneLineAtTheEnd(self) -> None:
        """Listener, protocol, id, client, destination, bytes, seconds and the reason, at info."""
        stage = self.begin()
        client = stage.enter()
        (session,) = stage.registry.find()
        backend = stage.bridge(client)
        stage.ask(client, b"b NOOP\r\n")
        stage.network.advance(2.5)
        backend.hangUp()
        stage.network.pump()
        (line,) = self.logged(LogLevel.info)
        self.assertRegex(
            line,
            rf"^session {session.id} imap door from 198\.51\.100\.7:40000: \w+~[0-9a-f]+ on old, "
            r"bridged \(backend closed\), 8 bytes in, 0 out, 2\.5 s$",
        )

    def test_namesAreRedactedAboveDebug(self) -> None:
        """Who a session is for stands in full at debug alone."""
        stage = self.begin()
        stage.source.table["annabel@example.org"] = "new"
        client = stage.enter()
        stage.ask(client, LOGIN.replace(b"ann", b"annabel@example.org"))
        stage.answer(Backend(login=REFUSED))
        client.hangUp()
        stage.network.pump()
        self.assertNotIn("annabel", "\n".join(self.logged(LogLevel.info)))
        self.assertIn("annabel@example.org", "\n".join(self.logged(LogLevel.debug)))

    def test_everyEndHasItsReason(self) -> None:
        """However a session ends, it ends in exactly one line that says why."""
        for said, waited, pattern in (
            (b"a LOGOUT\r\n", 0, r"client_gone \([a-z ]+\)"),
            (b"", 30, r"timeout \(no login in time\)"),
            (b"a X\r\n" * 20, 0, r"refused \(too many failed logins or mistakes\)"),
            (b"x" * 70000, 0, r"limit \(line, literal or dialogue too long\)"),
        ):
            stage = self.begin()
            client = stage.enter()
            stage.ask(client, said)
            stage.network.advance(waited)
            self.assertRegex(self.ends()[-1], pattern)
            self.assertNothingLeft(stage)
        self.assertEqual(len(self.ends()), 4)
