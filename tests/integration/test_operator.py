"""The operator's command against a running proxy in front of two real servers."""

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import attrs

from tests.integration.accounts import ALICE
from tests.integration.certificates import Authority
from tests.integration.dovecot import Account, Dovecot
from tests.integration.front import TOKEN, ProxyTestCase, behind, settings, standardListeners
from tests.integration.messages import message
from tests.integration.tool import Tool
from tests.integration.wire import LineClient

BOB = attrs.evolve(ALICE, name="bob@example.org")
CROWD = [f"user{number:03}@example.org" for number in range(200)]
ESCAPE = "\x1b["


class OperatorCase(ProxyTestCase):
    """Two Dovecots, everybody on `legacy` before each test; the tool knows the configuration."""

    legacy: ClassVar[Dovecot]
    new: ClassVar[Dovecot]
    tool: ClassVar[Tool]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """One message in each mailbox tells where it is."""
        cls.makeAuthority(stack)
        cls.keepSecret(ALICE, BOB)
        cls.legacy, cls.new = (
            stack.enter_context(Dovecot(name, cls.authority, [ALICE, BOB]))
            for name in ("legacy", "new")
        )
        for server in (cls.legacy, cls.new):
            for account in (ALICE, BOB):
                server.deliver(account.name, message(f"on {server.name}"))
        destinations = {server.name: behind(server) for server in (cls.legacy, cls.new)}
        config = settings(cls.authority, standardListeners(), destinations)
        cls.startProxy(stack, config, {})
        cls.tool = Tool({"PROXY_CONFIG": str(cls.proxy.configFile)})

    def setUp(self) -> None:
        """Map everybody to `legacy` again, nobody being connected."""
        super().setUp()
        self.proxy.writeMapping(dict.fromkeys([ALICE.name, BOB.name, *CROWD], "legacy"))
        self.assertEqual(self.api("POST", "/mappings/reload").status, 200)
        self.assertNobodyIsThere()

    def idling(self, account: Account) -> LineClient:
        """A session in IDLE."""
        client = self.loggedIn(account)
        self.assertOK(client.command(b"a SELECT INBOX"))
        client.send(b"b IDLE\r\n")
        self.assertEqual(client.readLine(), b"+ idling")
        return client

    def table(self) -> dict[str, str]:
        """The mapping file as it lies on disk."""
        lines = self.proxy.mapping.read_text().splitlines()
        return {line.split()[0]: line.split()[1] for line in lines}

    def crowdFile(self, *more: str) -> str:
        """A file of 200 identifiers, and more."""
        path = Path(self.mktemp())
        path.write_text("# everybody\n" + "".join(f"{name}\n" for name in (*CROWD, *more)))
        return str(path)

    def assertNotHeld(self, account: Account, home: str) -> None:
        """A login of that account goes on at once, and to that server."""
        client = self.greeted()
        self.assertOK(self.logIn(client, account))
        self.assertEqual(self.home(client), home)


class CutOverTests(OperatorCase):
    """`mailproxy cutover`."""

    def test_aLiveSessionIsMoved(self) -> None:
        """A client in IDLE is sent away, comes back at once and finds the new server."""
        live, bystander = self.idling(ALICE), self.idling(BOB)
        running = self.tool.start("cutover", ALICE.name, "new", "--wait", "60")
        live.readToEnd()
        again = self.loggedIn(ALICE)
        done = self.tool.finish(running)
        self.assertEqual((done.status, done.err), (0, ""), done)
        expected = r"legacy -> new: moved \(1 session ended; next session there after \d+\.\d s\)"
        self.assertRegex(done.out, expected)
        self.assertEqual(self.home(again), "new")
        self.legacy.deliver(BOB.name, message("for the bystander"))
        self.assertHearsOfMail(bystander)

    def test_thatNobodyComesIsSaid(self) -> None:
        """The account has moved all the same."""
        live = self.idling(ALICE)
        done = self.tool.run("cutover", ALICE.name, "new", "--wait", "1", "--json")
        live.readToEnd()
        told = json.loads(done.out)
        [account] = told["accounts"]
        self.assertEqual((done.status, told["done"]), (0, True))
        self.assertEqual((account["kicked"], account["confirmed"]), (1, False))
        self.assertNotHeld(ALICE, "new")

    def test_aFileOfAccountsIsMoved(self) -> None:
        """Two hundred, twenty at a time; who is there already is left alone at the second run."""
        live = self.idling(ALICE)
        words = ("cutover", "--from-file", self.crowdFile(ALICE.name), "--parallel", "20", "new")
        done = self.tool.run(*words, "--wait", "0")
        self.assertEqual((done.status, done.err), (0, ""), done)
        live.readToEnd()
        lines = done.out.splitlines()
        self.assertEqual(lines[-1], "201 accounts: 201 moved")
        self.assertEqual(len(lines), 202)
        table = self.table()
        self.assertEqual({table[name] for name in (*CROWD, ALICE.name)}, {"new"})
        self.assertEqual(table[BOB.name], "legacy")
        self.assertNotHeld(ALICE, "new")
        again = self.tool.run(*words)
        self.assertEqual(again.out.splitlines()[-1], "201 accounts: 201 already there")

    def test_anUnknownDestinationDisturbsNobody(self) -> None:
        """It's noticed before the first hold."""
        live, before = self.idling(ALICE), self.table()
        done = self.tool.run("cutover", ALICE.name, "nwe")
        self.assertEqual((done.status, done.out), (1, ""))
        text = "mailproxy: unknown destination nwe; the proxy has legacy, new\n"
        self.assertEqual((done.err, self.table()), (text, before))
        self.legacy.deliver(ALICE.name, message("still here"))
        self.assertHearsOfMail(live)

    def test_aStoreThatFailsLeavesAllAsItWas(self) -> None:
        """Nothing is written, nobody is sent away and nobody waits."""
        live, text = self.idling(ALICE), self.proxy.mapping.read_text()
        self.proxy.mapping.write_text(f"{text}somebody has edited badly\n")
        done = self.tool.run("cutover", ALICE.name, "new")
        self.proxy.mapping.write_text(text)
        self.assertEqual(done.status, 1, done)
        self.assertIn("legacy -> new: not moved (write: the mapping store failed", done.out)
        self.assertNotHeld(ALICE, "legacy")
        self.legacy.deliver(ALICE.name, message("still here"))
        self.assertHearsOfMail(live)

    def test_controlCLeavesNobodyOnHold(self) -> None:
        """In the middle of a crowd: each account is on one side or the other, and free."""
        words = ("cutover", "--from-file", self.crowdFile(), "--parallel", "4", "new")
        done = self.tool.interrupt(*words, "--wait", "0", after="user004")
        self.assertEqual(done.status, 130, done)
        self.assertIn("stopping", done.err)
        last = done.out.splitlines()[-1]
        self.assertRegex(last, r"\A200 accounts: .*[0-9]+ not tried\Z")
        moved = [name for name, home in self.table().items() if home == "new"]
        self.assertEqual(len(re.findall(": moved", done.out)), len(moved), done)
        self.assertLess(len(moved), 200)

    def test_controlCPutsTheAccountBack(self) -> None:
        """Or lets it be moved, but whatever it is, its logins go on."""
        live = self.idling(ALICE)
        running = self.tool.start("cutover", ALICE.name, "new", "--wait", "60")
        live.readToEnd()
        running.send_signal(2)
        done = self.tool.finish(running)
        self.assertEqual(done.status, 130, done)
        self.assertNotHeld(ALICE, self.table()[ALICE.name])


class TerminalTests(OperatorCase):
    """A terminal, and no terminal."""

    def test_aTerminalShowsColours(self) -> None:
        """States are marked, and columns aligned."""
        status, text = self.tool.onTerminal("destinations")
        self.assertEqual(status, 0, text)
        self.assertIn(f"{ESCAPE}32mup", text)
        self.assertNotIn("\t", text)

    def test_aPipeIsPlain(self) -> None:
        """Columns for cut, no colours."""
        done = self.tool.run("destinations")
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertNotIn(ESCAPE, done.out)
        self.assertEqual(done.out.splitlines()[1].split("\t")[:2], ["legacy", "up"])

    def test_aTerminalShowsABar(self) -> None:
        """For several accounts; their lines stand above it."""
        words = ("cutover", *CROWD[:5], "new", "--wait", "0", "--parallel", "2")
        status, text = self.tool.onTerminal(*words)
        self.assertEqual(status, 0, text)
        self.assertIn("━", text)
        self.assertIn("5/5", text)
        self.assertIn(f"{ESCAPE}32mmoved", text)

    def test_explainTellsTheWay(self) -> None:
        """From the name to the server, as it is."""
        done = self.tool.run("explain", ALICE.name, "--protocol", "imap")
        self.assertEqual(done.status, 0, done)
        server = f"127.0.0.1:{self.legacy.imaps}, TLS implicit"
        self.assertIn(f"server\t{server}\t[destination.legacy.protocol.imap]", done.out)
        done = self.tool.run("explain", ALICE.name, "--protocol", "pop3", "--json")
        self.assertEqual((done.status, json.loads(done.out)["served"]), (1, False))

    def test_statusSeesTheSessions(self) -> None:
        """Those that are there."""
        self.loggedIn(ALICE)
        self.assertIn("live sessions: 1", self.tool.run("status").out)
        self.assertIn(f"{ALICE.name}\tlegacy\timap", self.tool.run("connections").out)


class ReachTests(OperatorCase):
    """Finding the proxy, and not finding it."""

    def tryURL(self, *words: str, **variables: str) -> tuple[int, str]:
        """Ask for the status with a URL on the command line."""
        port = self.proxy.config["admin"]["bind"].rpartition(":")[2]
        tool = Tool({"PROXY_ADMIN_TOKEN": TOKEN, **variables})
        done = tool.run("status", "--url", f"https://localhost:{port}", *words)
        self.assertNotIn("Traceback", done.err)
        self.assertLessEqual(len(done.err.splitlines()), 1)
        return done.status, done.err

    def test_theCertificateIsVerified(self) -> None:
        """By the system's authorities or `--ca`'s; anything goes only with a warning."""
        status, err = self.tryURL()
        self.assertEqual(status, 3)
        self.assertIn("certificate not trusted", err)
        self.assertEqual(self.tryURL("--ca", str(self.authority.caFile)), (0, ""))
        status, err = self.tryURL("--insecure")
        self.assertEqual(status, 0)
        self.assertIn("whoever answers is given the token", err)

    def test_anotherAuthorityIsNotTrusted(self) -> None:
        """One of the same kind."""
        with ExitStack() as stack:
            other = Authority.temporary(stack)
            self.assertEqual(self.tryURL("--ca", str(other.caFile))[0], 3)

    def test_anotherCertificateThanTheFilesIsNotTrusted(self) -> None:
        """Though its authority may be: the token goes to this proxy alone."""
        config = self.proxy.configFile.read_text()
        other = self.authority.issue("other.test")
        path = Path(self.mktemp()).absolute()
        own = self.proxy.config["tls"]["certificate"]["own"]["cert"]
        path.write_text(config.replace(own, str(other.cert)))
        done = self.tool.run("status", "--config", str(path))
        self.assertEqual(done.status, 3, done)
        self.assertIn(f"it is not the one in {other.cert}", done.err)

    def test_aWrongTokenIsTold(self) -> None:
        """And where it was found."""
        status, err = self.tryURL("--ca", str(self.authority.caFile), PROXY_ADMIN_TOKEN="x" * 40)
        text = "mailproxy: the proxy does not take the token of PROXY_ADMIN_TOKEN\n"
        self.assertEqual((status, err), (1, text))

    def test_aProxyThatIsGoneIsTold(self) -> None:
        """Nobody listens; somebody else does."""
        done = self.tool.run("status", "--url", "https://127.0.0.1:1")
        self.assertEqual(done.status, 3)
        self.assertIn("connection refused", done.err)
        port = self.proxy.portOf("imap")
        done = self.tool.run("status", "--url", f"https://127.0.0.1:{port}", "--insecure")
        self.assertEqual(done.status, 3)
        self.assertIn("does not speak TLS", done.err)
