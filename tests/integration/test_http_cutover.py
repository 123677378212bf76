"""Accounts and routes that move while HTTP clients stay: mapping, hold, kick, reload."""

import threading
import time

from tests.integration.accounts import ALICE, at
from tests.integration.tool import Tool
from tests.integration.web import WebClient
from tests.integration.website import BOB, WebTestCase, basic, byAuthorization

OLD, NEW = at("old"), at("new")
MOVING = at("old", BOB)


class CutoverTests(WebTestCase):
    """Two nginxes, and a kept connection to the proxy."""

    def setUp(self) -> None:
        """Put the account back."""
        super().setUp()
        self.addCleanup(self.move, "old")

    def move(self, server: str) -> None:
        """Map the account there."""
        answer = self.api("PUT", "/mappings", identifier=MOVING.name, destination=server)
        self.assertEqual(answer.status, 200, answer)
        self.api("POST", "/cache/invalidate", identifier=MOVING.name)

    def askMoving(self, client: WebClient, target: str = "/x") -> str | None:
        """Ask for the account; which server it was."""
        answer = client.ask(target, Authorization=basic(MOVING))
        self.assertEqual(answer.status, 200, answer)
        return answer.header("x-server")

    def waiting(self, seconds: int = 30, **more: str) -> WebClient:
        """A client whose request is in flight, and on file."""
        client = self.web(**more)
        client.sendRequest(f"/wait?seconds={seconds}", Authorization=basic(MOVING))
        self.assertEventually(
            lambda: len(self.connections(identifier=MOVING.name)) == 1, "it is not on file"
        )
        return client

    def test_theNextRequestGoesToTheNewServer(self) -> None:
        """On the same connection; others stay where they are."""
        client = self.web()
        self.assertEqual(self.askMoving(client), "old")
        self.move("new")
        self.assertEqual(self.askMoving(client), "new")
        self.assertFrom("old", client.ask("/x", Authorization=basic(OLD)))
        self.move("old")
        self.assertEqual(self.askMoving(client), "old")

    def test_requestsInFlightAreListedAndKicked(self) -> None:
        """With account and destination; the client sees its connection end."""
        client = self.waiting()
        (session,) = self.connections(protocol="http", destination="old", identifier=MOVING.name)
        self.assertEqual(session["identifier"], MOVING.name)
        self.assertEqual((session["listener"], session["destination"]), ("https", "old"))
        address, port = client.socket.getsockname()
        self.assertEqual(session["client"], f"{address}:{port}")
        other = self.web()
        kicked = self.api("POST", "/connections/kick", identifier=MOVING.name)
        self.assertIn("1", kicked.text)
        started = time.monotonic()
        rest = client.readToEnd()
        self.assertLess(time.monotonic() - started, 15)
        self.assertNotIn(b"200 OK", rest)
        self.assertEventually(lambda: not self.connections(), "it is still on file")
        self.assertEqual(self.askMoving(other), "old")

    def test_aConnectionBetweenRequestsIsNoSession(self) -> None:
        """There is nothing to list and nothing to kick; it goes on."""
        client = self.web()
        self.askMoving(client)
        self.assertEventually(lambda: self.connections() == [], "it is still on file")
        kicked = self.api("POST", "/connections/kick", identifier=MOVING.name)
        self.assertIn("0", kicked.text)
        self.assertEqual(self.askMoving(client), "old")

    def test_aHeldAccountWaitsAndGoesToItsNewServer(self) -> None:
        """`delay` holds its next request; when that ends the account has moved. Others go on."""
        client, found = self.web(), list[str | None]()
        self.assertEqual(self.askMoving(client), "old")
        self.api("POST", "/connections/delay", identifier=MOVING.name, seconds=60)
        held = threading.Thread(target=lambda: found.append(self.askMoving(client)))
        held.start()
        self.assertFrom("old", self.web().ask("/x", Authorization=basic(OLD)))
        self.move("new")
        held.join(0.5)
        self.assertEqual(found, [])
        self.api("POST", "/connections/delay", identifier=MOVING.name, seconds=0)
        held.join(10)
        self.assertEqual(found, ["new"])

    def test_theOperatorsToolMovesHTTPToo(self) -> None:
        """`cutover`: the request in flight ends, the next is on the new server, and it is seen."""
        tool = Tool({"PROXY_CONFIG": str(self.proxy.configFile)})
        client, again = self.waiting(), self.web()
        running = tool.start("cutover", MOVING.name, "new", "--wait", "20")
        client.readToEnd()
        again.sendRequest("/events?seconds=30", Authorization=basic(MOVING))
        done = tool.finish(running)
        self.assertEqual((done.status, done.err), (0, ""), done)
        self.assertRegex(done.out, r"old -> new: moved \(1 session ended; next session there after")
        self.assertFrom("new", again.head())

    def test_aReloadTakesNewRoutes(self) -> None:
        """An old connection's next request follows them; the one in flight is not disturbed."""
        client, busy = self.web(), self.web()
        self.assertFrom("old", client.ask("/rerouted/x", Authorization=basic(OLD)))
        address, port = busy.socket.getsockname()
        busy.sendRequest("/wait?seconds=1", Authorization=basic(OLD))
        self.assertEventually(
            lambda: [each["client"] for each in self.connections()] == [f"{address}:{port}"],
            "it is not on file",
        )
        self.changeRoutes([{"match": "/rerouted/**", "destination": "new"}, byAuthorization()])
        self.assertFrom("new", client.ask("/rerouted/x", Authorization=basic(OLD)))
        self.assertFrom("new", self.web().ask("/rerouted/x", Authorization=basic(OLD)))
        self.assertFrom("old", client.ask("/else", Authorization=basic(OLD)))
        answer = busy.answer()
        self.assertFrom("old", answer)
        self.assertEqual(answer.body, b"waited\n")

    def test_aBadReloadChangesNothing(self) -> None:
        """A regular expression without a group is refused, and the old routes stay."""
        bad = {"match": "/x", "extract": {"from": "body", "regex": "no group"}}
        before = self.proxy.config["http"]["route"]
        self.proxy.config["http"]["route"] = [bad]
        self.addCleanup(self.changeRoutes, before)
        self.proxy.writeConfiguration()
        answer = self.api("POST", "/config/reload")
        self.assertEqual(answer.status, 400)
        self.assertIn("http.route", answer.text)
        self.assertFrom("new", self.web().ask("/x", Authorization=basic(NEW)))

    def test_aReloadTakesNewAddresses(self) -> None:
        """A connection that waits for a destination's old address is not used for its new one."""
        client = self.web()
        self.assertFrom("old", client.ask("/x", Authorization=basic(OLD)))
        table = self.proxy.config["destination"]
        before = table["old"]
        table["old"] = table["new"]
        self.addCleanup(self.reload)
        self.addCleanup(table.update, old=before)
        self.reload()
        self.assertFrom("new", client.ask("/x", Authorization=basic(OLD)))

    def reload(self) -> None:
        """Have the proxy take its configuration as it is now."""
        self.proxy.writeConfiguration()
        self.assertEqual(self.api("POST", "/config/reload").status, 200)

    def changeRoutes(self, routes: list[dict[str, object]]) -> None:
        """Reload with these; the test's end puts the class's back."""
        self.proxy.config["http"]["route"] = routes
        self.reload()
        if routes != list(self.routes):
            self.addCleanup(self.changeRoutes, list(self.routes))


class ServerlessTests(WebTestCase):
    """An account's server that is gone, and comes back elsewhere."""

    def test_movingAwayFromADeadServer(self) -> None:
        """502 while it is down; the next request after the move is answered."""
        client = self.web()
        account = basic(at("old", ALICE))
        self.assertFrom("old", client.ask("/x", Authorization=account))
        self.old.stop()
        self.addCleanup(self.old.start)
        self.assertOurs(502, client.ask("/x", Authorization=account))
        self.api("PUT", "/mappings", identifier=OLD.name, destination="new")
        self.assertFrom("new", client.ask("/x", Authorization=account))
        self.api("PUT", "/mappings", identifier=OLD.name, destination="old")
