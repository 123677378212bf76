"""Another configuration under a running proxy, while everybody works."""

import copy
import signal
import ssl
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import attrs

from tests.integration.accounts import ALICE
from tests.integration.certificates import CertificateFiles
from tests.integration.dovecot import Account, Dovecot
from tests.integration.front import ProxyTestCase, Table, behind, settings, standardListeners
from tests.integration.messages import message
from tests.integration.network import freePort, isListening, memoryGrowth, openFiles
from tests.integration.proxy import Answer
from tests.integration.toml import tomlText
from tests.integration.wire import LineClient

BOB = attrs.evolve(ALICE, name="bob@example.org")
"""The bystander: in IDLE on `legacy` in every test, and undisturbed."""

CAROL = attrs.evolve(ALICE, name="carol@example.org")
"""Who comes and goes all the time."""

RELOADS, SLEEPERS = 500, 6
THREADS = 10
"""As many as the reactor's pool has at most: how many of them there are is a matter of haste."""

MOST_GROWTH = 12_000_000
"""Bytes that the proxy may grow by meanwhile; if no runtime were given up, it would be 30 MB."""


class ReloadTestCase(ProxyTestCase):
    """Two Dovecots with the same accounts; each test begins with the same configuration."""

    legacy: ClassVar[Dovecot]
    new: ClassVar[Dovecot]
    files: ClassVar[CertificateFiles]
    original: ClassVar[Table]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """One message in each mailbox tells where it is."""
        cls.makeAuthority(stack)
        accounts = [ALICE, BOB, CAROL]
        cls.keepSecret(*accounts)
        cls.legacy, cls.new = (
            stack.enter_context(Dovecot(name, cls.authority, accounts))
            for name in ("legacy", "new")
        )
        for server, account in ((each, one) for each in (cls.legacy, cls.new) for one in accounts):
            server.deliver(account.name, message(f"on {server.name}"))
        destinations = {server.name: behind(server) for server in (cls.legacy, cls.new)}
        cls.original = settings(cls.authority, standardListeners(), destinations)
        cls.original["server"]["log_level"] = "info"
        cls.files = cls.renew()
        cls.startProxy(stack, copy.deepcopy(cls.original), cls.accounts())

    @classmethod
    def accounts(cls) -> dict[str, str]:
        """The mapping file as each test finds it."""
        return {account.name: "legacy" for account in (ALICE, BOB, CAROL)}

    @classmethod
    def renew(cls) -> CertificateFiles:
        """Write another pair into the certificate's files, as an ACME client does."""
        return cls.authority.issue("mail.test", "localhost", "127.0.0.1", "::1")

    def setUp(self) -> None:
        """Everything is as it was at the start, and the bystander is there."""
        super().setUp()
        self.proxy.config = copy.deepcopy(self.original)
        self.proxy.writeMapping(self.accounts())
        self.assertReloaded()
        self.bystander = self.idling(BOB)
        self.addCleanup(self.assertUndisturbed)

    @property
    def config(self) -> Table:
        """What the file will be at the next reload."""
        return self.proxy.config

    def reload(self) -> Answer:
        """Write the configuration and have it taken into use."""
        self.proxy.writeConfiguration()
        return self.api("POST", "/config/reload")

    def assertReloaded(self, note: str | None = None) -> None:
        """The proxy takes the file, and says so."""
        answer = self.reload()
        self.assertEqual((answer.status, answer.text[:1]), (200, "{"), answer.text)
        self.assertEqual(answer.json(), {"reloaded": True, "note": note})

    def idling(self, account: Account) -> LineClient:
        """A session in IDLE."""
        client = self.loggedIn(account)
        self.assertOK(client.command(b"a SELECT INBOX"))
        client.send(b"b IDLE\r\n")
        self.assertEqual(client.readLine(), b"+ idling")
        return client

    def assertUndisturbed(self) -> None:
        """The bystander's session lives on the server where it began."""
        self.legacy.deliver(BOB.name, message("for the bystander"))
        self.assertHearsOfMail(self.bystander)

    def shownTo(self, client: LineClient) -> bytes:
        """The certificate that a client was shown."""
        assert isinstance(client.socket, ssl.SSLSocket)
        return client.socket.getpeercert(binary_form=True) or b""

    def shownByManagement(self) -> bytes:
        """The certificate of a new connection to the API."""
        port = int(self.config["admin"]["bind"].rpartition(":")[2])
        with LineClient(port, self.context) as client:
            return self.shownTo(client)


class ChangeTests(ReloadTestCase):
    """What new sessions see, and what the rest keeps."""

    def test_destinationThatMoved(self) -> None:
        """Logins go to its new address from now on; those who are in stay where they are."""
        talking = self.greeted("imap")
        self.config["destination"]["legacy"] = behind(self.new)
        self.assertReloaded()
        self.assertEqual(self.home(self.loggedIn(ALICE)), "new")
        self.assertOK(self.logIn(talking, ALICE))
        self.assertEqual(self.home(talking), "new", "it was greeted before, and logs in now")

    def test_destinationThatIsNew(self) -> None:
        """A login that was held meanwhile, and a client that was greeted before, find it."""
        talking = self.greeted("imap")
        self.api("POST", "/connections/delay", identifier=ALICE.name, seconds=60)
        held = self.sendLogin(ALICE)
        self.config["destination"]["third"] = behind(self.new)
        self.assertReloaded()
        self.api("PUT", "/mappings", identifier=ALICE.name, destination="third")
        self.api("POST", "/connections/delay", identifier=ALICE.name, seconds=0)
        self.assertOK(held.readUntil(b"l "))
        self.assertOK(self.logIn(talking, ALICE))
        self.assertEqual([self.home(held), self.home(talking)], ["new", "new"])
        placed = [each["destination"] for each in self.connections(identifier=ALICE.name)]
        self.assertEqual(placed, ["third", "third"])

    def test_destinationThatIsGone(self) -> None:
        """Its sessions live, and are listed under its name."""
        del self.config["destination"]["legacy"]
        self.config["routing"]["default_destination"] = "new"
        self.proxy.writeMapping({})
        self.assertReloaded()
        self.assertEqual(self.home(self.loggedIn(ALICE)), "new")
        [session] = self.connections(identifier=BOB.name)
        self.assertEqual(session["destination"], "legacy")
        names = [each["destination"] for each in self.api("GET", "/destinations").json()]
        self.assertEqual(names, ["new"])

    def test_listenersRules(self) -> None:
        """Banner, capabilities and TLS mode of a port change without a new socket."""
        self.config["capabilities"] = {"imap": {"banner": "good day", "sasl": ["PLAIN"]}}
        self.config["listener"]["imap"]["tls"] = "implicit"
        self.assertReloaded()
        for name in ("imaps", "imap"):
            greeting = self.connect(name).readLine()
            self.assertIn(b"good day", greeting)
            self.assertNotIn(b"XOAUTH2", greeting)

    def test_mappingIsReadAgain(self) -> None:
        """With what was remembered of it; an unchanged file leaves the memory alone."""
        self.assertEqual(self.home(self.loggedIn(ALICE)), "legacy")
        entries = self.api("GET", "/stats").json()["cache_entries"]
        self.assertReloaded()
        self.assertEqual(self.api("GET", "/stats").json()["cache_entries"], entries)
        self.proxy.writeMapping({**self.accounts(), ALICE.name: "new"})
        self.assertReloaded()
        self.assertEqual(self.home(self.loggedIn(ALICE)), "new")

    def test_anotherMappingFile(self) -> None:
        """It is asked, and written to, from then on."""
        other = self.proxy.folder / "other"
        other.write_text(f"{ALICE.name} new\n")
        self.config["mapping"]["file"]["path"] = "other"
        self.assertReloaded()
        self.assertEqual(self.home(self.loggedIn(ALICE)), "new")
        self.api("PUT", "/mappings", identifier="dave@example.org", destination="new")
        self.assertIn("dave@example.org\tnew", other.read_text())
        self.assertNotIn("dave", self.proxy.mapping.read_text())

    def test_healthIsKept(self) -> None:
        """A destination that is down is still down, and its failures are not forgotten."""
        self.config["destination"]["new"]["protocol"]["imap"]["port"] = freePort()
        self.config["server"] |= {"host_down_threshold": 1, "backend_connect_retries": 0}
        self.proxy.writeMapping({**self.accounts(), ALICE.name: "new"})
        self.assertReloaded()
        self.addCleanup(self.api, "POST", "/destinations/reset", destination="new")
        self.assertUnavailable(self.logIn(self.greeted(), ALICE))
        self.assertTrue(self.health("new")["down"])
        self.assertReloaded()
        self.assertTrue(self.health("new")["down"])

    def test_whatNeedsARestartIsNamed(self) -> None:
        """Sockets stay as they are, and what else is in the file is taken."""
        port = self.proxy.portOf("imaps")
        elsewhere, more = freePort(), freePort()
        self.config["listener"]["imaps"]["bind"] = [f"127.0.0.1:{elsewhere}"]
        self.config["listener"]["more"] = {
            **self.config["listener"]["imap"],
            "bind": [f"127.0.0.1:{more}"],
        }
        self.config["mapping"]["positive_ttl"] = "1s"
        self.config["admin"]["lockout_threshold"] = 9
        self.config["capabilities"] = {"imap": {"banner": "good day"}}
        self.assertReloaded(
            "needs a restart: listener.imaps.bind, listener.more, mapping.positive_ttl, "
            "admin.lockout_threshold"
        )
        self.assertFalse(isListening(elsewhere) or isListening(more))
        self.config["listener"]["imaps"]["bind"] = [f"127.0.0.1:{port}"]
        self.assertIn(b"good day", self.connect().readLine())


class CertificateTests(ReloadTestCase):
    """A renewed certificate."""

    def test_newSessionsAndManagementShowIt(self) -> None:
        """From the reload on, on every listener; nobody is cut off."""
        upgrading = self.connect("imap")
        upgrading.readLine()
        before = self.shownTo(self.bystander)
        self.renew()
        self.assertEqual(self.shownTo(self.greeted()), before)
        self.assertReloaded()
        renewed = self.shownTo(self.loggedIn(ALICE))
        self.assertNotEqual(renewed, before)
        self.assertEqual(self.shownTo(self.greeted("imap")), renewed)
        self.assertEqual(self.shownByManagement(), renewed)
        self.assertOK(upgrading.command(b"s STARTTLS"))
        upgrading.startTLS(self.context)
        self.assertEqual(self.shownTo(upgrading), before, "it was greeted before")
        self.assertOK(self.logIn(upgrading, ALICE))

    def test_pairThatDoesNotFit(self) -> None:
        """It is refused by name, and the old one is shown."""
        before = self.shownByManagement()
        key = self.files.key.read_bytes()
        self.renew()
        self.files.key.write_bytes(key)
        answer = self.reload()
        self.assertEqual(answer.status, 400)
        self.assertRegex(answer.text, r"\Atls\.certificate\.own\.cert: .*do not belong together")
        self.assertEqual(self.shownByManagement(), before)
        self.renew()
        self.assertReloaded()
        self.assertNotEqual(self.shownByManagement(), before)

    def test_moreCertificates(self) -> None:
        """One for another name is served to those who ask for it."""
        other = self.authority.issue("other.test")
        own = self.config["tls"]["certificate"]["own"]
        self.config["tls"]["certificate"] = {
            "own": {**own, "default": True},
            "other": {"cert": str(other.cert), "key": str(other.key)},
        }
        self.assertReloaded()
        client = self.connect(hostname="other.test")
        self.assertNotEqual(self.shownTo(client), self.shownTo(self.connect()))


class RefusalTests(ReloadTestCase):
    """A file with mistakes."""

    def test_everyCauseIsNamedAndNothingChanges(self) -> None:
        """400, one line each; the next session goes where the last one did."""
        self.config["destination"]["legacy"] = behind(self.new)
        self.config["capabilities"] = {"imap": {"banner": "good day"}}
        self.config["server"]["bridge_idle"] = "soon"
        self.config["routing"]["default_destination"] = "nowhere"
        self.config["tls"]["certificate"]["own"]["key"] = "no-such-file"
        self.proxy.writeMapping({ALICE.name: "never"})
        answer = self.reload()
        self.assertEqual(answer.status, 400)
        lines = answer.text.splitlines()
        self.assertEqual(len(lines), 4, answer.text)
        for line, key in zip(
            lines,
            (
                "server.bridge_idle",
                "routing.default_destination",
                "tls.certificate.own.key",
                "mapping.file.path",
            ),
            strict=True,
        ):
            self.assertTrue(line.startswith(f"{key}: "), line)
        self.assertNotIn(b"good day", self.connect().readLine())
        self.assertEqual(self.home(self.loggedIn(ALICE)), "legacy")

    def test_fileThatIsNoTOML(self) -> None:
        """Or is not there at all."""
        self.proxy.configFile.write_text("[server\n")
        self.assertRegex(self.api("POST", "/config/reload").text, r"mailproxy\.toml:1: is not TOML")
        self.proxy.configFile.unlink()
        answer = self.api("POST", "/config/reload")
        self.assertEqual(answer.status, 400)
        self.assertIn("mailproxy.toml", answer.text)
        self.assertEqual(self.home(self.loggedIn(ALICE)), "legacy")

    def test_whatAnOpenListenerNeedsCannotGo(self) -> None:
        """Its clients would find nobody behind it until the restart."""
        for table in self.config["listener"].values():
            table["protocol"] = "pop3"
        for table in self.config["destination"].values():
            table["protocol"] = {"pop3": table["protocol"]["imap"]}
        answer = self.reload()
        self.assertEqual(answer.status, 400)
        self.assertIn("until a restart", answer.text)
        self.assertEqual(self.home(self.loggedIn(ALICE)), "legacy")


class SignalTests(ReloadTestCase):
    """SIGHUP."""

    def hangUp(self, pattern: str) -> None:
        """Write the configuration, send the signal, and wait for a line in the log."""
        self.proxy.writeConfiguration()
        mark = self.proxy.log.mark()
        self.proxy.signal(signal.SIGHUP)
        self.proxy.log.waitForLine(pattern, since=mark)

    def test_fileIsTakenIntoUse(self) -> None:
        """As by the API; what needs a restart is in the log."""
        self.config["destination"]["legacy"] = behind(self.new)
        self.config["server"]["threads"] = 7
        self.hangUp("reloaded; needs a restart: server.threads")
        self.assertEqual(self.home(self.loggedIn(ALICE)), "new")

    def test_mistakesAreLogged(self) -> None:
        """And nothing changes."""
        self.config["destination"]["legacy"] = behind(self.new)
        self.config["server"]["bridge_idle"] = "soon"
        self.hangUp(r"not reloaded: server\.bridge_idle: ")
        self.assertEqual(self.home(self.loggedIn(ALICE)), "legacy")

    def test_manySignals(self) -> None:
        """They neither end the process nor get lost: the last word is the file's."""
        for number in range(50):
            self.config["capabilities"] = {"imap": {"banner": f"number {number}"}}
            self.proxy.configFile.write_text(tomlText(self.config))
            self.proxy.signal(signal.SIGHUP)
        self.assertEventually(
            lambda: b"number 49" in self.connect().readLine(), "the last file is not in use"
        )


class StormTests(ReloadTestCase):
    """Reload after reload under load, half of the files broken."""

    def test_nothingIsLostInFiveHundredReloads(self) -> None:
        """No session of those that stay or of those that come and go; no memory, file, thread."""
        sleepers = [self.idling(ALICE) for _ in range(SLEEPERS)]
        self.storm(40)
        before, threads = openFiles(self.proxy.pid), self.threads()
        with memoryGrowth(self.proxy.pid) as growth:
            self.storm(RELOADS)
            self.assertLess(growth(), MOST_GROWTH)
        self.assertEventually(lambda: openFiles(self.proxy.pid) <= before, "files are left")
        self.assertLess(self.threads(), threads + THREADS)
        self.assertEventually(
            lambda: len(self.connections()) == SLEEPERS + 1, "not the sessions that should be there"
        )
        self.legacy.deliver(ALICE.name, message("good morning"))
        for client in sleepers:
            self.assertHearsOfMail(client)

    def threads(self) -> int:
        """How many threads the proxy has."""
        return sum(1 for _ in Path(f"/proc/{self.proxy.pid}/task").iterdir())

    def storm(self, count: int) -> None:
        """Reload so often while clients come and go; each answer is as the file deserves."""
        wrong, served, done = list[str](), list[int](), threading.Event()
        workers = [
            threading.Thread(target=self.work, args=(name, wrong, served, done))
            for name in ("imaps", "imap", "imaps")
        ]
        for worker in workers:
            worker.start()
        try:
            for number in range(count):
                self.assertDeserved(number)
        finally:
            done.set()
            for worker in workers:
                worker.join()
        self.assertEqual(wrong, [])
        self.assertGreater(len(served), count // 10)

    def work(self, name: str, wrong: list[str], served: list[int], done: threading.Event) -> None:
        """Log in, read and log out, again and again."""
        while not done.is_set():
            try:
                with self.loggedIn(CAROL, name) as client:
                    if self.home(client) != "legacy":
                        raise AssertionError("on the wrong server")
                    self.assertOK(client.command(b"q LOGOUT"))
                served.append(1)
            except Exception as error:
                wrong.append(repr(error))

    def assertDeserved(self, number: int) -> None:
        """Every other file is broken, each in its way."""
        config = self.proxy.config = copy.deepcopy(self.original)
        config["capabilities"] = {"imap": {"banner": f"number {number}"}}
        config["destination"][f"more{number % 3}"] = behind(self.new)
        if number % 2:
            self.spoil(config, number // 2 % 4)
        answer = self.reload()
        self.assertEqual(answer.status, 400 if number % 2 else 200, answer.text)

    def spoil(self, config: Table, way: int) -> None:
        """Make a mistake."""
        if way == 0:
            config["server"]["hostname"] = "not a name"
        elif way == 1:
            config["routing"]["default_destination"] = "nowhere"
        elif way == 2:
            config["tls"]["certificate"]["own"]["cert"] = str(self.files.key)
        else:
            del config["destination"]["legacy"]
