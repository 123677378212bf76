"""How the process stops, and what is left of it."""

import select
import signal
import time

from tests.integration.accounts import ALICE
from tests.integration.lifecycle import WAITING, LifecycleTestCase
from tests.integration.network import isListening, isRunning
from tests.integration.wire import LineClient


class StopTests(LifecycleTestCase):
    """SIGTERM and SIGINT: in good order, and with status 0."""

    def startWithClients(self, grace: str) -> tuple[LineClient, LineClient, LineClient]:
        """A client in the dialogue, one whose backend does not answer, and one that is bridged."""
        self.proxy.config["server"]["shutdown_grace"] = grace
        self.proxy.start()
        mark = self.proxy.log.mark()
        talking, bridged = self.greeted(), self.loggedIn(ALICE)
        waiting = self.greeted("imap")
        waiting.send(b"l LOGIN %b wonderland\r\n" % WAITING.name.encode())
        self.proxy.log.waitForLine("goes to silent", since=mark)
        return talking, waiting, bridged

    def test_itStopsInGoodOrder(self) -> None:
        """No new clients, good-bye to those who have not logged in, time for those who have."""
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number):
                talking, waiting, bridged = self.startWithClients("60s")
                self.proxy.signal(number)
                self.assertRegex(talking.readToEnd(), rb"\A\* BYE \[UNAVAILABLE\] [^\r\n]*\r\n\Z")
                self.assertRegex(waiting.readToEnd(), rb"\A\* BYE \[UNAVAILABLE\] [^\r\n]*\r\n\Z")
                self.assertEventually(
                    lambda: not any(isListening(port) for port in self.proxy.ports()),
                    "it still listens",
                )
                bridged.send(b"still here\r\n")
                self.assertEqual(bridged.readLine(), b"* echo still here")
                for client in (talking, waiting, bridged):
                    client.close()
                self.assertEqual(self.proxy.wait(), 0)

    def test_theGraceTimeEnds(self) -> None:
        """A bridge that goes on is cut, and the status is 0 all the same."""
        talking, waiting, bridged = self.startWithClients("1s")
        for client in (talking, waiting):
            client.close()
        started = time.monotonic()
        self.proxy.signal(signal.SIGTERM)
        self.assertEqual(bridged.readToEnd(), b"")
        bridged.close()
        self.assertGreater(time.monotonic() - started, 0.9)
        self.assertEqual(self.proxy.wait(), 0)
        self.proxy.log.waitForLine(r"on good, .*shutdown")

    def test_bridgesAreCutOneAfterTheOther(self) -> None:
        """In the second half of the grace time: so their clients do not all call again at once."""
        self.proxy.config["server"]["shutdown_grace"] = "4s"
        self.proxy.start()
        clients = [self.loggedIn(ALICE) for _ in range(9)]
        started = time.monotonic()
        self.proxy.signal(signal.SIGTERM)
        ends = []
        left = {client.socket: client for client in clients}
        while left:
            ready, _, _ = select.select(list(left), [], [], 20)
            ends += [time.monotonic() - started for _ in ready]
            for each in ready:
                client = left.pop(each)
                self.assertEqual(client.readToEnd(), b"")
                client.close()
        self.assertEqual(self.proxy.wait(), 0)
        self.assertGreater(ends[0], 1.9)
        self.assertGreater(ends[-1] - ends[0], 1.0)
        self.assertGreaterEqual(len({round(end, 1) for end in ends}), 5)

    def test_clientsThatDoNotCloseAreNotWaitedFor(self) -> None:
        """Nobody can keep the process from ending."""
        self.startWithClients("1s")
        started = time.monotonic()
        self.assertEqual(self.proxy.stop(), 0)
        self.assertLess(time.monotonic() - started, 14)

    def test_aSecondSignalEndsItAtOnce(self) -> None:
        """An operator who does not want to wait need not."""
        _, _, bridged = self.startWithClients("60s")
        self.proxy.signal(signal.SIGTERM)
        self.proxy.log.waitForLine("SIGTERM: shutting down")
        self.proxy.signal(signal.SIGTERM)
        self.assertEqual(self.proxy.wait(), -signal.SIGTERM)
        bridged.readToEnd()

    def test_itStartsAgainAtOnce(self) -> None:
        """On the same ports, whatever became of the old connections."""
        clients = self.startWithClients("0s")
        self.proxy.signal(signal.SIGTERM)
        for client in clients:
            client.readToEnd()
            client.close()
        self.assertEqual(self.proxy.wait(), 0)
        self.proxy.start()
        self.assertOK(self.logIn(self.greeted(), ALICE))

    def test_aCrashLeavesNothingBehind(self) -> None:
        """SIGKILL, and the mapping file is whole when it starts again."""
        self.proxy.start()
        self.api("PUT", "/mappings", identifier=ALICE.name, destination="silent")
        self.proxy.kill()
        self.proxy.start()
        found = self.api("GET", "/mappings", identifier=ALICE.name).json()
        self.assertEqual(found["destination"], "silent")
        self.assertEqual(
            sorted(path.name for path in self.proxy.folder.iterdir()),
            ["mailproxy.toml", "mapping", "output"],
        )
        self.assertTrue(isRunning(self.proxy.pid))
