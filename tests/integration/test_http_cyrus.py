"""Cyrus' HTTP behind the proxy: JMAP and CalDAV, by real clients, from one version to the next."""

import functools
import json
import smtplib
import tempfile
from contextlib import ExitStack
from http.client import HTTPSConnection
from pathlib import Path
from typing import ClassVar

import attrs
import jmapc
from jmapc.methods import EmailGet, EmailQuery, MailboxGet
from jmapc.session import Session

from tests.integration import clients
from tests.integration.accounts import at
from tests.integration.cyrus import Cyrus
from tests.integration.dovecot import Account
from tests.integration.front import reaching, settings
from tests.integration.messages import message
from tests.integration.website import BOB, WebTestCase, basic, byAuthorization, webListener

MAIL = '{"using": ["urn:ietf:params:jmap:core", "urn:ietf:params:jmap:mail"], "methodCalls": %s}'
EVENT = """\
BEGIN:VCALENDAR\r
VERSION:2.0\r
PRODID:-//tests//EN\r
BEGIN:VEVENT\r
UID:%s\r
DTSTAMP:20260101T000000Z\r
DTSTART:20260102T100000Z\r
DTEND:20260102T110000Z\r
SUMMARY:%s\r
END:VEVENT\r
END:VCALENDAR\r
"""


class JMAPClient(jmapc.Client):
    """PyPI's `jmapc`, for a server whose session has relative addresses, as Cyrus 3.6 has."""

    @functools.cached_property
    def jmap_session(self) -> Session:
        """The session, its addresses made absolute."""
        session = super().jmap_session
        for name in ("api_url", "upload_url", "download_url", "event_source_url"):
            setattr(session, name, f"https://{self._host}{getattr(session, name)}")
        return session


class CyrusWebTests(WebTestCase):
    """Two servers with the same accounts: Alice and Bob live on the first until they move."""

    first: ClassVar[Cyrus]
    second: ClassVar[Cyrus]
    moving: ClassVar[Account] = at("first", BOB)

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """A first message makes an account's inbox, which HTTP wants to be there."""
        cls.makeAuthority(stack)
        cls.secrets = set()
        accounts = [at("first"), at("second"), cls.moving]
        cls.keepWebSecrets(*accounts)
        cls.first = stack.enter_context(Cyrus("first", cls.authority, accounts, web=True))
        cls.second = stack.enter_context(Cyrus("second", cls.authority, accounts, web=True))
        for server in (cls.first, cls.second):
            for each in accounts:
                cls.deliver(server, each, f"on {server.name}")
        destinations = {each.name: reaching(each, "http") for each in (cls.first, cls.second)}
        config = settings(cls.authority, {"https": webListener()}, destinations)
        config["http"] = {"route": [byAuthorization()]}
        cls.startProxy(stack, config, {at("second").name: "second"})

    @classmethod
    def deliver(cls, server: Cyrus, account: Account, subject: str) -> None:
        """Put a message into the account's inbox, by LMTP."""
        with smtplib.LMTP("localhost", server.lmtp, "me.example") as client:
            client.sendmail("a@example.org", [account.name], message(subject))

    # JMAP

    def jmap(self, account: Account) -> JMAPClient:
        """A client of the account's."""
        client = JMAPClient.create_with_password(
            host=f"localhost:{self.proxy.portOf('https')}",
            user=account.name,
            password=account.password.decode(),
        )
        # The environment may name another authority, and requests would prefer it.
        client.requests_session.trust_env = False
        client.requests_session.verify = str(self.authority.caFile)
        self.addCleanup(client.requests_session.close)
        return client

    def subjects(self, client: jmapc.Client) -> list[str]:
        """Of the account's mail."""
        found = client.request(
            [EmailQuery(), EmailGet(ids=jmapc.Ref("/ids"), properties=["subject"])],
            raise_errors=True,
        )
        return sorted(each.subject for each in found[-1].response.data)  # type: ignore[attr-defined]

    def test_mailIsReadByJMAP(self) -> None:
        """Session, mailboxes and mail, each account on its own server."""
        for account, server in ((at("first"), "first"), (at("second"), "second")):
            client = self.jmap(account)
            self.assertEqual(client.jmap_session.username, account.name)
            folders = client.request(MailboxGet(ids=None), raise_errors=True)
            self.assertIn("Inbox", [each.name for each in folders.data])  # type: ignore[union-attr]
            self.assertIn(f"on {server}", self.subjects(client))

    def test_blobsGoUpAndComeDown(self) -> None:
        """Uploaded by the library, read again by hand."""
        client, folder = self.jmap(at("first")), self.folder()
        content = bytes(range(256)) * 4000
        (folder / "blob.bin").write_bytes(content)
        blob = client.upload_blob(folder / "blob.bin")
        self.assertEqual(blob.size, len(content))
        path = f"/jmap/download/{client.account_id}/{blob.id}/blob.bin"
        answer = self.web().ask(path, Authorization=basic(at("first")))
        self.assertEqual(answer.body, content)

    def test_aWrongPasswordIsTheServersAnswer(self) -> None:
        """401 with Cyrus' own challenge."""
        wrong = attrs.evolve(at("first"), password=b"not this one")
        self.keepWebSecrets(wrong)
        answer = self.web().ask("/jmap/", Authorization=basic(wrong))
        self.assertEqual(answer.status, 401)
        self.assertEqual(answer.header("www-authenticate"), 'Basic realm="first.test"')

    def test_anAccountMovesBetweenTwoRequests(self) -> None:
        """Over one connection of Python's own client: before and after the cut-over."""
        connection = HTTPSConnection(
            "localhost", self.proxy.portOf("https"), context=self.context, timeout=20
        )
        self.addCleanup(connection.close)
        self.assertIn("on first", self.mailOf(connection))
        local = connection.sock.getsockname()
        self.api("PUT", "/mappings", identifier=self.moving.name, destination="second")
        self.addCleanup(self.api, "DELETE", "/mappings", identifier=self.moving.name)
        self.assertIn("on second", self.mailOf(connection))
        self.assertEqual(connection.sock.getsockname(), local)

    def mailOf(self, connection: HTTPSConnection) -> str:
        """What JMAP says of the moving account's mail."""
        calls = [
            ["Email/query", {"accountId": self.moving.name}, "q"],
            [
                "Email/get",
                {
                    "accountId": self.moving.name,
                    "#ids": {"resultOf": "q", "name": "Email/query", "path": "/ids"},
                    "properties": ["subject"],
                },
                "g",
            ],
        ]
        headers = {"Authorization": basic(self.moving), "Content-Type": "application/json"}
        connection.request("POST", "/jmap/", MAIL % json.dumps(calls), headers)
        answer = connection.getresponse()
        self.assertEqual(answer.status, 200)
        return answer.read().decode()

    # CalDAV

    def test_vdirsyncerKeepsACalendar(self) -> None:
        """Found, filled, and read again elsewhere."""
        folder, account = self.folder(), at("second")
        config = self.calendarConfig(folder, account)
        for command in (("discover", "own"), ("sync",)):
            done = self.vdirsyncer(config, *command)
            self.assertEqual(done.status, 0, done.output)
        (folder / "near" / "Default" / "one.ics").write_text(EVENT % ("one", "by vdirsyncer"))
        done = self.vdirsyncer(config, "sync")
        self.assertEqual(done.status, 0, done.output)
        target = f"/dav/calendars/user/{account.name}/Default/"
        listed = self.web().ask(target, "PROPFIND", Authorization=basic(account), Depth="1")
        self.assertEqual(listed.status, 207)
        [name] = [line for line in listed.body.decode().split("<D:href>") if ".ics" in line]
        event = self.web().ask(name.partition("<")[0], Authorization=basic(account))
        self.assertIn(b"SUMMARY:by vdirsyncer", event.body)

    def calendarConfig(self, folder: Path, account: Account) -> Path:
        """What vdirsyncer reads."""
        path = folder / "config"
        path.write_text(f"""\
[general]
status_path = "{folder}/status"
[pair own]
a = "near"
b = "far"
collections = ["Default"]
[storage near]
type = "filesystem"
path = "{folder}/near"
fileext = ".ics"
[storage far]
type = "caldav"
url = "https://localhost:{self.proxy.portOf("https")}/dav/"
username = "{account.name}"
password = "{account.password.decode()}"
verify = "{self.authority.caFile}"
""")
        path.chmod(0o600)
        (folder / "near" / "Default").mkdir(parents=True)
        return path

    def vdirsyncer(self, config: Path, *arguments: str) -> clients.Finished:
        """Run it; every question is answered with yes."""
        command = ["vdirsyncer", "--config", str(config), *arguments]
        return clients.runProgram(command, "vdirsyncer", stdin="y\n" * 9)

    def test_eventsOfTwoAccountsOnOneConnection(self) -> None:
        """PUT, GET with ETag, REPORT and DELETE: each account's calendar is on its own server."""
        client = self.web()
        for account in (at("first"), at("second"), at("first"), at("second")):
            path = f"/dav/calendars/user/{account.name}/Default/x.ics"
            said = {"Authorization": basic(account), "Content_Type": "text/calendar"}
            body = (EVENT % ("x", f"of {account.name}")).encode()
            put = client.ask(path, "PUT", body, **said)
            self.assertIn(put.status, (201, 204))
            got = client.ask(path, Authorization=basic(account))
            self.assertIn(f"of {account.name}".encode(), got.body)
            tag = got.header("etag") or ""
            same = client.ask(path, Authorization=basic(account), If_None_Match=tag)
            self.assertEqual(same.status, 304)
        for account in (at("first"), at("second")):
            path = f"/dav/calendars/user/{account.name}/Default/x.ics"
            gone = client.ask(path, "DELETE", Authorization=basic(account))
            self.assertEqual(gone.status, 204)

    def folder(self) -> Path:
        """A folder for a program's files."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return Path(folder.name)
