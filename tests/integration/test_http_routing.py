"""HTTP requests go where their accounts live, by every way to find out whose they are."""

import threading
from http.client import HTTPSConnection
from typing import ClassVar
from urllib.parse import quote

from tests.integration.accounts import at
from tests.integration.front import Table
from tests.integration.web import Message, chunks
from tests.integration.website import BOB, WebTestCase, basic, byAuthorization

OLD, NEW = at("old"), at("new")
MAIL = "<EMailAddress>([^<]+)</EMailAddress>"


def extracting(match: str, extract: Table, **more: str) -> Table:
    """A route."""
    return {"match": match, "extract": extract, **more}


class RoutingTests(WebTestCase):
    """One route of each kind."""

    routes: ClassVar[tuple[Table, ...]] = (
        {"match": "/pinned/**", "destination": "new"},
        {"match": "/pinned/late", "destination": "old"},
        byAuthorization("/jmap/**"),
        byAuthorization("/dav/*"),
        byAuthorization("/fallback/**", fallback="new"),
        byAuthorization("/default/**", fallback="default"),
        extracting("/query", {"from": "query", "param": "emailaddress"}, fallback="new"),
        extracting("/header/**", {"from": "header", "header": "X-Account"}, fallback="new"),
        extracting("/body/**", {"from": "body", "regex": MAIL}, fallback="new"),
        extracting("/form/**", {"from": "body", "regex": "account=([^&]+)"}),
        byAuthorization("/head"),
        extracting("/echo", {"from": "body", "regex": MAIL}, fallback="new"),
        extracting("/head/*", {"from": "body", "regex": MAIL}),
    )

    @classmethod
    def configuration(cls) -> Table:
        """A master user may log in for an account; a small body is read for its account."""
        config = super().configuration()
        config["http"]["body_extract_cap"] = 1000
        return config

    def test_authorizationTellsTheAccount(self) -> None:
        """Basic and Bearer, over one connection and in turns; the header goes along as it is."""
        client = self.web()
        for account in (NEW, OLD, NEW, NEW, at("old", BOB)):
            server = account.name.partition("@")[2].partition(".")[0]
            for value in (basic(account), self.bearer(account.name), basic(account).lower()[:5]):
                answer = client.ask("/jmap/x", Authorization=value)
                self.assertFrom(server if " " in value else "old", answer)
        answer = client.ask("/head", Authorization=basic(NEW))
        self.assertFrom("new", answer)
        self.assertIn(f"Authorization: {basic(NEW)}".encode(), answer.body)

    def test_masterUsersAndSchemesInAnyCase(self) -> None:
        """The part before the separator is the account; a scheme is named in any case."""
        client = self.web()
        for value in (
            basic(NEW).replace("Basic", "bAsIc"),
            self.bearer(NEW.name).replace("Bearer", "bearer"),
            self.bearer("nobody", upn=NEW.name),
        ):
            self.assertFrom("new", client.ask("/jmap/x", Authorization=value))

    def test_nothingFoundGoesToTheFallback(self) -> None:
        """Else to the default; so does an account that nobody knows."""
        client = self.web()
        for value in ("", "Negotiate abc", "Bearer x.y.z", "Basic", "Basic ==="):
            self.assertFrom("new", client.ask("/fallback/x", Authorization=value))
            self.assertFrom("old", client.ask("/default/x", Authorization=value))
            self.assertFrom("old", client.ask("/jmap/x", Authorization=value))
        self.assertFrom("new", client.ask("/fallback/x"))
        self.assertFrom("old", client.ask("/jmap/x"))
        stranger = self.bearer("stranger@elsewhere.example")
        self.assertFrom("old", client.ask("/fallback/x", Authorization=stranger))

    def test_aPinBeatsAllThatIsSaid(self) -> None:
        """The first route that matches wins, whoever asks."""
        client = self.web()
        self.assertFrom("new", client.ask("/pinned/x", Authorization=basic(OLD)))
        self.assertFrom("new", client.ask("/pinned/late"))

    def test_noRouteIs404(self) -> None:
        """In our own words; the connection goes on."""
        client = self.web()
        for target in ("/", "/nowhere", "/Jmap/x", "/dav/a/b", "/pinnedx", "/query/more"):
            self.assertOurs(404, client.ask(target))
        self.assertFrom("new", client.ask("/pinned/x"))

    def test_pathsAreDecodedAndForwardedAsTheyAre(self) -> None:
        """For the route `%6a` is a letter and a slash at the end is none; the backend decides."""
        client = self.web()
        for target in ("/%6amap/x", "/jmap/x%2Fy", "/jmap//x", "/jmap/x/", "/jmap/x?a=/../b"):
            answer = client.ask(target, Authorization=basic(NEW))
            self.assertFrom("new", answer)
            self.assertEqual(answer.body, f"GET {target}\n".encode())
        for target in ("/dav/x", "/dav/x/"):
            self.assertFrom("new", client.ask(target, Authorization=basic(NEW)))

    def test_queryTellsTheAccount(self) -> None:
        """Decoded as forms are; among other parameters."""
        client, name = self.web(), NEW.name
        for query in (
            f"emailaddress={name}",
            f"a=b&emailaddress={quote(name, safe='')}&c",
            "emailaddress=" + name.replace("a", "%61"),
        ):
            self.assertFrom("new", client.ask(f"/query?{query}"))
        self.assertFrom("old", client.ask(f"/query?emailaddress={OLD.name}"))
        self.assertFrom("new", client.ask(f"/query?email={OLD.name}"))

    def test_aHeaderTellsTheAccount(self) -> None:
        """Its name in any case."""
        client = self.web()
        self.assertFrom("old", client.ask("/header/x", X_Account=OLD.name))
        self.assertFrom("old", client.ask("/header/x", x_aCCOUNT=OLD.name))
        self.assertFrom("new", client.ask("/header/x"))

    def test_theBodyTellsTheAccount(self) -> None:
        """With a length and in chunks; it arrives whole, up to and over what is read for it."""
        client = self.web()
        for size in (0, 900, 5000, 300_000):
            for account, server in ((OLD, "old"), (NEW, "new")):
                body = f"<EMailAddress>{account.name}</EMailAddress>".encode() + b"x" * size
                for answer in (
                    client.ask("/echo", "POST", body),
                    client.ask("/echo", "POST", chunks(body[:9], body[9:]), **_CHUNKED),
                ):
                    self.assertFrom("new" if size > 900 else server, answer)
                    self.assertEqual(answer.body, body)

    def test_whatIsBehindTheLimitIsNotRead(self) -> None:
        """An account that comes late in a body is not found; the body is sent on all the same."""
        body = b"x" * 2000 + f"<EMailAddress>{OLD.name}</EMailAddress>".encode()
        answer = self.web().ask("/echo", "POST", body)
        self.assertFrom("new", answer)
        self.assertEqual(answer.body, body)

    def test_formsAreDecoded(self) -> None:
        """An account in a form's body is written as forms are."""
        body = f"a=b&account={quote(NEW.name, safe='')}&x=y".encode()
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        self.assertFrom("new", self.web().ask("/form/x", "POST", body, **form))

    def test_aBodyIsAwaitedWithContinue(self) -> None:
        """Where the body must be read, the proxy asks for it; the backend is not asked twice."""
        client = self.web()
        body = f"<EMailAddress>{NEW.name}</EMailAddress>".encode()
        said = {"Content_Length": str(len(body)), "Expect": "100-continue"}
        for target in ("/echo", "/head/x"):
            client.sendRequest(target, "POST", **said)
            self.assertEqual(client.head().status, 100)
            client.send(body)
            answer = client.answer()
            self.assertFrom("new", answer)
            self.assertEqual(answer.interim, ())
            if target == "/echo":
                self.assertEqual(answer.body, body)
            else:
                self.assertNotIn(b"Expect", answer.body)

    def test_invalidIdentifiersAreUnavailable(self) -> None:
        """Whatever holds one; nothing of it is logged."""
        client, mark = self.web(), self.proxy.log.mark()
        for name in ("a b@old.example", "x" * 600, 'q"@old.example', "nul%00@old.example"):
            answer = client.ask(f"/query?emailaddress={quote(name, safe='%')}")
            self.assertEqual(answer.status, 502, name)
            self.assertIsNone(answer.header("x-server"))
            self.assertNotIn(name, self.proxy.log.text(mark))

    def test_manyConnectionsAtOnce(self) -> None:
        """Nobody gets an answer that is somebody else's."""
        wrong: list[tuple[str, Message]] = []

        def visit(number: int) -> None:
            with self.web() as client:
                for turn in range(20):
                    server = "old" if (number + turn) % 3 else "new"
                    path = f"/jmap/{number}/{turn}"
                    answer = client.ask(path, Authorization=basic(at(server)))
                    if (answer.header("x-server"), answer.body) != (
                        server,
                        b"GET %b\n" % path.encode(),
                    ):
                        wrong.append((path, answer))

        visitors = [threading.Thread(target=visit, args=(number,)) for number in range(12)]
        for each in visitors:
            each.start()
        for each in visitors:
            each.join()
        self.assertEqual(wrong, [])

    def test_pythonsClientKeepsItsConnection(self) -> None:
        """For two accounts in turns."""
        connection = HTTPSConnection(
            "localhost", self.proxy.portOf("https"), context=self.context, timeout=20
        )
        self.addCleanup(connection.close)
        for account, server in ((OLD, "old"), (NEW, "new"), (OLD, "old")):
            connection.request("GET", "/jmap/x", headers={"Authorization": basic(account)})
            answer = connection.getresponse()
            self.assertEqual(
                (answer.headers["X-Server"], answer.read()), (server, b"GET /jmap/x\n")
            )


_CHUNKED = {"Transfer_Encoding": "chunked"}
