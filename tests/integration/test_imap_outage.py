"""What clients see while a real backend is stopped, paused or back again."""

import time
from contextlib import ExitStack
from typing import ClassVar

from tests.integration.accounts import ALICE, at
from tests.integration.dovecot import Account, Dovecot
from tests.integration.front import ProxyTestCase, behind, settings, standardListeners
from tests.integration.messages import message
from tests.integration.process import waitUntil
from tests.integration.wire import LineClient


class OutageTests(ProxyTestCase):
    """Two Dovecots; `legacy` is stopped, paused and started, `new` must never suffer from it."""

    legacy: ClassVar[Dovecot]
    new: ClassVar[Dovecot]
    cooldown = 2.5
    patience = 2.0

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """Three failures open the circuit for a short time; who hangs is soon given up."""
        cls.makeAuthority(stack)
        cls.keepSecret(ALICE)
        accounts = [at("legacy"), at("new")]
        cls.legacy, cls.new = (
            stack.enter_context(Dovecot(name, cls.authority, accounts))
            for name in ("legacy", "new")
        )
        for server in (cls.legacy, cls.new):
            server.deliver(at(server.name).name, message(f"on {server.name}"))
        destinations = {server.name: behind(server) for server in (cls.new, cls.legacy)}
        config = settings(cls.authority, standardListeners(), destinations)
        config["server"] |= {
            "host_down_threshold": 3,
            "host_down_cooldown": f"{round(cls.cooldown * 1000)}ms",
            "backend_timeout": f"{round(cls.patience * 1000)}ms",
            "backend_connect_retries": 0,
        }
        cls.startProxy(stack, config, {at("legacy").name: "legacy", at("new").name: "new"})
        for server in (cls.legacy, cls.new):
            cls.warm(server)

    @classmethod
    def warm(cls, server: Dovecot) -> None:
        """Have its processes running: the proxy's patience is for one that does not hang."""
        with LineClient(server.imaps, cls.context) as client:
            client.readLine()
            client.command(b"a LOGIN %b %b" % (at(server.name).name.encode(), ALICE.password))

    def startLegacy(self) -> None:
        """Have `legacy` running, and ready."""
        self.legacy.start()
        self.warm(self.legacy)

    def setUp(self) -> None:
        """Begin with both up, whatever the last test did."""
        super().setUp()
        self.api("POST", "/destinations/reset", destination="legacy")
        self.addCleanup(self.startAgain)

    def startAgain(self) -> None:
        """Have `legacy` running, without the connections that waited for it."""
        self.legacy.kill()
        self.startLegacy()

    def failOnce(self) -> str:
        """A login to `legacy` that must fail; the reason as logged."""
        mark = self.proxy.log.mark()
        client = self.greeted()
        self.assertUnavailable(self.logIn(client, at("legacy")))
        self.assertRegex(client.readLine(), rb"\A\* BYE \[UNAVAILABLE\]")
        self.assertTrue(client.atEnd())
        line = self.proxy.log.waitForLine(r"unavailable \(", since=mark)
        return line.partition("unavailable (")[2]

    def openCircuit(self) -> float:
        """Fail until the circuit is open; when that was."""
        for _ in range(3):
            self.assertIn("Connection refused", self.failOnce())
        return time.monotonic()

    def waitOut(self, opened: float) -> None:
        """Wait until the cool-down is over for certain."""
        self.assertTrue(waitUntil(lambda: time.monotonic() > opened + self.cooldown + 0.2, 30))

    def assertWorks(self, name: str) -> None:
        """A login there succeeds and sees its own mail."""
        self.assertEqual(self.home(self.loggedIn(at(name))), name)

    def test_aStoppedBackendIsAskedNoMoreAndThenProbed(self) -> None:
        """Three failures open the circuit, a cool-down later one probe closes it again."""
        self.legacy.stop()
        opened = self.openCircuit()
        found = self.health("legacy")
        self.assertEqual((found["consecutive_failures"], found["down"]), (3, True))
        self.assertTrue(found["host_level_failure"])
        self.assertTrue(self.failOnce().startswith("circuit open: "))
        self.assertWorks("new")
        self.startLegacy()
        self.waitOut(opened)
        self.assertWorks("legacy")
        found = self.health("legacy")
        self.assertEqual((found["consecutive_failures"], found["down"]), (0, False))

    def test_aFailedProbeOpensTheCircuitAgain(self) -> None:
        """The first login after the cool-down finds the backend still away; the next waits."""
        self.legacy.stop()
        self.waitOut(self.openCircuit())
        self.assertTrue(self.failOnce().startswith("connect: "))
        self.assertTrue(self.failOnce().startswith("circuit open: "))
        self.assertTrue(self.health("legacy")["down"])

    def test_onlyOneProbeIsSent(self) -> None:
        """While a probe waits for an answer, another login is refused at once."""
        self.legacy.stop()
        opened = self.openCircuit()
        self.startLegacy()
        with self.legacy.paused():
            self.waitOut(opened)
            probe, other = self.greeted(), self.greeted()
            mark = self.proxy.log.mark()
            sent = b"l LOGIN %b wonderland\r\n" % at("legacy").name.encode()
            probe.send(sent)
            self.proxy.log.waitForLine("goes to legacy", since=mark)
            started = time.monotonic()
            other.send(sent)
            self.assertUnavailable(other.readUntil(b"l "))
            self.assertLess(time.monotonic() - started, self.patience * 0.8)
            self.assertUnavailable(probe.readUntil(b"l "))
        self.proxy.log.waitForLine("circuit open: ", since=mark)
        self.proxy.log.waitForLine("timeout: ", since=mark)

    def test_anOperatorCanCloseTheCircuit(self) -> None:
        """After a reset nobody waits for the cool-down; an unknown destination is 404."""
        self.legacy.stop()
        opened = self.openCircuit()
        answer = self.api("POST", "/destinations/reset", destination="legacy")
        self.assertEqual(answer.status, 200)
        self.assertFalse(self.health("legacy")["down"])
        self.assertTrue(self.failOnce().startswith("connect: "))
        self.assertLess(time.monotonic() - opened, self.cooldown)
        self.startLegacy()
        self.assertWorks("legacy")
        self.assertEqual(self.api("POST", "/destinations/reset", destination="x").status, 404)

    def test_aBackendThatHangsIsGivenUpInTime(self) -> None:
        """A paused server's kernel still accepts: the wait for its greeting is bounded."""
        with self.legacy.paused():
            started = time.monotonic()
            self.assertTrue(self.failOnce().startswith("timeout: "))
            took = time.monotonic() - started
        self.assertGreater(took, self.patience * 0.9)
        self.assertLess(took, self.patience + 10)
        self.assertWorks("legacy")

    def test_nobodyElseWaitsForABackendThatHangs(self) -> None:
        """Logins elsewhere go on while others wait."""
        with self.legacy.paused():
            other, waiting = self.greeted(), [self.greeted() for _ in range(10)]
            for client in waiting:
                client.send(b"l LOGIN %b wonderland\r\n" % at("legacy").name.encode())
            started = time.monotonic()
            self.assertOK(self.logIn(other, at("new")))
            self.assertLess(time.monotonic() - started, self.patience * 0.8)
            for client in waiting:
                self.assertUnavailable(client.readUntil(b"l "))

    def test_liveSessionsSeeTheBackendGo(self) -> None:
        """A backend that is killed takes its sessions with it, and only those."""
        gone, stays = self.loggedIn(at("legacy")), self.loggedIn(at("new"))
        self.legacy.kill()
        gone.readToEnd()
        gone.close()
        self.assertOK(stays.command(b"n NOOP"))
        self.assertEventually(lambda: len(self.connections()) == 1, "the session stays on file")

    def test_aRefusedLoginIsNoFailure(self) -> None:
        """Wrong passwords, however many, say that the backend is well."""
        for _ in range(2):
            client = self.greeted()
            for _ in range(3):
                self.logIn(client, Account(at("legacy").name, b"wrong"))
        self.assertEqual(self.health("legacy")["consecutive_failures"], 0)
