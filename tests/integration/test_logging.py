"""What a running proxy logs, in both forms, to where twistd's flags say; and fail2ban reads it."""

import json
import signal
from pathlib import Path
from typing import Any

from tests.integration.bans import banned, requireFail2ban
from tests.integration.operating import OperatingCase
from tests.integration.process import LogFile, ServerFailed
from tests.integration.wire import LineClient, base64Of, plain

FORGED = "session x imap imap from 203.0.113.9:1: login of x refused by only"
"""What somebody would like to see in the log."""


class FormatTests(OperatingCase):
    """Text and JSON, on standard output and in a file."""

    def events(self, log: LogFile) -> list[dict[str, Any]]:
        """Each line of a log, read as JSON."""
        return [json.loads(line) for line in log.lines()]

    def test_everyLineIsJSON(self) -> None:
        """From the first to the last, whatever clients send; a session's end has its fields."""
        self.run_(arguments=("--log-format", "json"))
        client = self.logIn(source="127.0.0.5")
        self.assertEqual(client.readLine(), b"a OK Logged in")
        client.send(b"ping\r\n")
        client.readLine()
        client.close()
        self.guess()
        for noise in (b"\x1b[2J\r\n", b"a LOGIN {3}\r\n\xff\r\n x\r\n", b"\0" * 70000):
            hostile = self.connect()
            hostile.send(noise)
            hostile.close()
        self.proxy.log.waitForLine("bridged")
        self.assertEqual(self.proxy.stop(), 0)
        events = self.events(self.proxy.log)
        for event in events:
            self.assertEqual({"time", "level", "system", "message"} - event.keys(), set())
        (ended,) = [event for event in events if event.get("outcome") == "bridged"]
        self.assertEqual(ended["system"], "mailproxy.session.Session")
        expected = {
            "protocol": "imap",
            "listener": "imap",
            "destination": "only",
            "reason": "client closed",
            "received": 6,
            "sent": 13,
        }
        self.assertEqual({key: ended[key] for key in expected}, expected)
        self.assertRegex(ended["identifier"], r"\Aali~[0-9a-f]{8}\Z")
        self.assertTrue(ended["client"].startswith("127.0.0.5:"))
        self.assertIsInstance(ended["seconds"], float)
        self.assertNoSecret(self.proxy.log.text(), ("wrong-guess", "alice@example.org"))

    def test_fileInJSON(self) -> None:
        """`--logfile` holds for JSON: nothing on standard output; SIGUSR1 begins a new file."""
        self.make(arguments=("--log-format", "json"), flags=("--logfile", "the.log")).start()
        log = LogFile(self.proxy.folder / "the.log")
        self.guess()
        log.waitForLine("refused by only")
        self.assertEqual(self.proxy.output.text(), "")
        self.proxy.signal(signal.SIGUSR1)
        LogFile(log.path.with_name("the.log.1")).waitForLine("refused by only")
        self.guess()
        log.waitForLine("refused by only")
        self.events(log)

    def test_fileInText(self) -> None:
        """And for text, where twistd does it all."""
        self.make(flags=("--logfile", "the.log")).start()
        self.guess()
        LogFile(self.proxy.folder / "the.log").waitForLine("login of mal~.* refused by only")
        self.assertEqual(self.proxy.output.text(), "")

    def test_badFormatEndsTheStart(self) -> None:
        """With a hint, and without a traceback."""
        self.make(arguments=("--log-format", "yaml"))
        with self.assertRaisesRegex(ServerFailed, "--log-format is text or json") as caught:
            self.proxy.start()
        self.assertNotIn("Traceback", str(caught.exception))


class BanTests(OperatingCase):
    """The filter that is shipped, run by fail2ban itself over what the proxy has written."""

    def setUp(self) -> None:
        """Skip where fail2ban is missing."""
        super().setUp()
        requireFail2ban()

    def banned(self, text: str) -> list[str]:
        """The addresses that the filter finds, a line for each hit."""
        return banned(text, Path(self.mktemp()))

    def produce(self, *arguments: str) -> str:
        """The log of two refused logins, one accepted, and some that nobody refused."""
        self.config["listener"]["imap"]["proxy_protocol"] = "optional"
        self.config["listener"]["imap"]["proxy_trusted"] = ["127.0.0.1"]
        self.run_(arguments=arguments)
        self.guess(source="127.0.0.5")
        self.guess(preface=b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 143\r\n")
        self.assertIn(b"OK", self.logIn(source="127.0.0.6").readLine())
        for name in (FORGED, f"x\r\n{FORGED}", "\x1b[2J"):
            self.logIn(base64Of(plain(name, b"wrong-guess")), source="127.0.0.7").readLine()
        self.connect(source="127.0.0.7").send(FORGED.encode() + b"\r\n")
        forged = b"PROXY TCP4 nonsense " + FORGED.encode() + b"\r\n"
        with LineClient(self.proxy.portOf("imap"), preface=forged) as client:
            client.readToEnd()
        self.proxy.log.waitForLine("unavailable")
        self.proxy.stop()
        text = self.proxy.log.text()
        self.assertNoSecret(text)
        return text

    def test_textAndWhatTheJournalAndSyslogMakeOfIt(self) -> None:
        """Both clients with a wrong password are found, and nobody else."""
        text = self.produce()
        self.assertEqual(self.banned(text), ["127.0.0.5", "2001:db8::7"])
        stamped = "2026-03-01T10:00:00+0000 host twistd[12]: "
        journal = "".join(f"{stamped}{line}\n" for line in text.splitlines())
        self.assertEqual(self.banned(journal), ["127.0.0.5", "2001:db8::7"])
        bare = (line.partition("] ")[2] for line in text.splitlines())
        syslog = "".join(f"Mar  1 10:00:00 host mailproxy: [-] {line}\n" for line in bare)
        self.assertEqual(self.banned(syslog), ["127.0.0.5", "2001:db8::7"])

    def test_json(self) -> None:
        """The same in JSON, as it is and in the journal."""
        text = self.produce("--log-format", "json")
        self.assertEqual(self.banned(text), ["127.0.0.5", "2001:db8::7"])
        stamped = "2026-03-01T10:00:00+0000 host twistd[12]: "
        journal = "".join(f"{stamped}{line}\n" for line in text.splitlines())
        self.assertEqual(self.banned(journal), ["127.0.0.5", "2001:db8::7"])

    def test_forgedLinesDoNotCount(self) -> None:
        """A whole line of ours inside another one is none."""
        line = f"2026-03-01T10:00:00+0000 [mailproxy.session.Session#info] {FORGED}"
        self.assertEqual(self.banned(f"{line}\n"), ["203.0.113.9"])
        before = "2026-03-01T10:00:00+0000 [mailproxy.proxy.Proxy#info] "
        for text in (f"{before}{line}", f"{before}\n\t{line}", f"{before}{FORGED}", f"{line} x"):
            self.assertEqual(self.banned(f"{text}\n"), [], text)
