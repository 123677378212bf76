"""A worker that hangs (SIGSTOP): what management does with it, and what clients see."""

import contextlib
import json
import os
import signal
import time
from typing import Any

from tests.integration.accounts import ALICE
from tests.integration.fleet import PATIENCE, FleetCase
from tests.integration.proxy import ProxyProcess
from tests.integration.scripted import ScriptedServer, wellBehaved
from tests.integration.tool import Tool
from tests.integration.wire import LineClient

SECONDS = 15.0
"""Within which management answers, on a loaded machine, too."""


class HangingTests(FleetCase):
    """One worker of two is stopped, and the parent has less patience than it usually has."""

    def setUp(self) -> None:
        """Start it so."""
        self.patch(ProxyProcess, "program", "from tests.integration.hasty import run; run()")
        super().setUp()

    def hang(self, seat: int) -> int:
        """Stop a worker; it goes on at the test's end, if it still is there."""
        pid = self.workers()[seat]
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(self.goOn, pid)
        return pid

    def goOn(self, pid: int) -> None:
        """End a stop."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def assertQuick(self, method: str, path: str, **query: object) -> Any:
        """Management does it in time."""
        started = time.monotonic()
        answer = self.api(method, path, **query)
        self.assertLess(time.monotonic() - started, SECONDS)
        self.assertEqual(answer.status, 200, answer.text)
        return answer

    def waiting(self) -> list[LineClient]:
        """Clients that have come to both workers, and say nothing yet."""
        return [self.connect() for _ in range(12)]

    def assertNobodyIsOn(self, server: ScriptedServer, clients: list[LineClient]) -> None:
        """Each of these, logging in now, is sent elsewhere or away."""
        before = server.connections
        for client in clients:
            with contextlib.suppress(EOFError, OSError):
                client.readLine()
                self.logIn(client, ALICE)
        self.assertEqual(server.connections, before)

    def test_write(self) -> None:
        """Nobody is sent to the old place once it was answered, whoever had hung.

        The second worker has to follow what the first one writes; then the first one cannot write,
        and the second one does.
        """
        old = self.stack.enter_context(ScriptedServer(wellBehaved))
        self.proxy.config["destination"]["old"] = {
            **self.proxy.config["destination"]["good"],
            "protocol": {"imap": {"port": old.port, "tls": "plain"}},
        }
        self.proxy.writeConfiguration()
        self.assertEqual(self.api("POST", "/config/reload").status, 200)
        for seat in (1, 0):
            with self.subTest(seat=seat):
                self.assertMoves(old, seat)

    def assertMoves(self, old: ScriptedServer, seat: int) -> None:
        """An account moves away from there while that worker hangs."""
        self.assertQuick("PUT", "/mappings", identifier=ALICE.name, destination="old")
        for client in [self.loggedIn(ALICE) for _ in range(6)]:
            client.close()
        clients = self.waiting()
        victim = self.hang(seat)
        self.assertQuick("PUT", "/mappings", identifier=ALICE.name, destination="good")
        self.goOn(victim)
        self.assertNobodyIsOn(old, clients)
        self.assertServing(2)
        self.assertNotIn(victim, self.workers())
        self.assertNobodyIsOn(old, self.waiting())
        self.proxy.log.waitForLine(f"worker {seat + 1} does not answer: it is killed")

    def test_command(self) -> None:
        """An operator sees who hangs, and moves accounts all the same."""
        tool = Tool({"PROXY_CONFIG": str(self.proxy.configFile)})
        self.hang(0)
        shown = tool.run("status")
        self.assertIn("worker 1 does not answer", shown.out)
        moved = tool.run("cutover", "bob", "good", "--json")
        self.assertIn(json.loads(moved.out)["accounts"][0]["result"], ("moved", "already there"))
        self.assertServing(2)
        self.hang(1)
        mapped = tool.run("map", ALICE.name, "good")
        self.assertEqual((mapped.status, mapped.out), (0, f"{ALICE.name}: mapped to good\n"))

    def test_reload(self) -> None:
        """It holds when it is answered, at the other worker and at the next one."""
        self.hang(0)
        self.proxy.config["capabilities"] = {"imap": {"banner": "renewed"}}
        self.proxy.writeConfiguration()
        self.assertQuick("POST", "/config/reload")
        for _ in range(2):
            with LineClient(self.proxy.portOf("imap")) as client:
                self.assertIn(b"renewed", client.readLine())
            self.assertServing(2)

    def test_itHoldsNobodyUp(self) -> None:
        """Who only looks is told who hangs; new clients are accepted by others, when it is sure."""
        victim = self.hang(1)
        started = time.monotonic()
        answer = self.api("GET", "/connections")
        self.assertEqual(answer.status, 503)
        self.assertIn(f"worker 2 (process {victim}) does not answer", answer.text)
        self.assertLess(time.monotonic() - started, SECONDS)
        self.proxy.log.waitForLine("others accept its clients", timeout=SECONDS + PATIENCE)
        for client in self.waiting():
            self.assertTrue(client.readLine().startswith(b"* OK "))
        self.goOn(victim)
        self.proxy.log.waitForLine("worker 2 answers again", timeout=SECONDS)
        self.assertEqual(self.api("GET", "/connections").status, 200)
        self.assertIn(victim, self.workers())
