"""HTTP clients as people use them: curl, wrk, nc and openssl, through the proxy."""

import random
import subprocess
import tempfile
from pathlib import Path

from tests.integration import clients
from tests.integration.accounts import at
from tests.integration.front import Table
from tests.integration.process import requireProgram
from tests.integration.website import WebTestCase, basic, webListener

OLD, NEW = at("old"), at("new")


class ProgramTests(WebTestCase):
    """Two nginxes, one listener with TLS and one without."""

    @classmethod
    def configuration(cls) -> Table:
        """`plain` is for clients that know no TLS."""
        config = super().configuration()
        config["listener"]["plain"] = webListener("plain")
        return config

    def setUp(self) -> None:
        """Make a folder with something to send."""
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.content = random.Random(3).randbytes(3_000_000)
        (self.folder / "up").write_bytes(self.content)

    def down(self) -> bytes:
        """What curl has fetched."""
        return (self.folder / "down").read_bytes()

    def run_(self, *arguments: str) -> clients.Finished:
        """Run curl as an account of `new`; it fails if the answer is an error."""
        done = self.curl("--fail", *arguments, account=NEW)
        self.assertEqual(done.status, 0, done.output)
        return done

    # curl

    def test_curlUploadsAndDownloads(self) -> None:
        """It asks with Expect, as it does for what is large, and gets 100 from the backend."""
        done = self.run_("-v", "-T", f"{self.folder}/up", "URL/files/up")
        self.assertIn("< HTTP/1.1 100 Continue", done.output)
        self.run_("-o", f"{self.folder}/down", "URL/files/up")
        self.assertEqual(self.down(), self.content)
        self.run_("-o", f"{self.folder}/down", "-r", "5-104", "URL/files/up")
        self.assertEqual(self.down(), self.content[5:105])

    def test_curlUploadsFromAPipe(self) -> None:
        """In chunks, as it does not know the length."""
        program, port = requireProgram("curl", "curl"), self.proxy.portOf("https")
        command = [program, "-sS", "--fail", "--cacert", str(self.authority.caFile), "-T", "-"]
        command += ["-H", f"Authorization: {basic(NEW)}", "-o", f"{self.folder}/down"]
        subprocess.run(
            [*command, f"https://localhost:{port}/echo"],
            input=self.content,
            timeout=60,
            check=True,
        )
        self.assertEqual(self.down(), self.content)

    def test_curlSendsForms(self) -> None:
        """Fields and files."""
        done = self.run_("-d", "a=1", "--data-urlencode", "b=x y", "URL/echo")
        self.assertEqual(done.output, "a=1&b=x+y")
        done = self.run_(
            "-F",
            f"file=@{self.folder}/up;filename=name",
            "-w",
            "%{size_download}",
            "-o",
            f"{self.folder}/down",
            "URL/echo",
        )
        self.assertIn(self.content, self.down())

    def test_curlKeepsOneConnectionForTwoAccounts(self) -> None:
        """Ten requests in turns, each to its own server."""
        words: list[str] = []
        for number in range(10):
            account = NEW if number % 2 else OLD
            header = f"Authorization: {basic(account)}"
            words += ["-H", header, "-w", "%{num_connects} %header{x-server}\n"]
            words += [
                f"URL/x/{number}",
                "--next",
                "--silent",
                "--cacert",
                str(self.authority.caFile),
            ]
        done = self.curl(*words[:-4])
        self.assertEqual(done.status, 0, done.output)
        lines = [f"GET /x/{n}\n{0 if n else 1} {'new' if n % 2 else 'old'}\n" for n in range(10)]
        self.assertEqual(done.output, "".join(lines))

    def test_curlFollowsRefusals(self) -> None:
        """A wrong path is the backend's 404; HEAD, and a limit on the speed."""
        done = self.curl("-o", "/dev/null", "-w", "%{http_code}", "URL/files/none", account=OLD)
        self.assertEqual(done.output, "404")
        self.assertIn("X-Server: new", self.run_("-I", "URL/x").output)
        (self.new.files / "slow").write_bytes(self.content[:300_000])
        self.run_("--limit-rate", "300k", "-o", f"{self.folder}/down", "URL/files/slow")
        self.assertEqual(self.down(), self.content[:300_000])

    # Others

    def test_wrkMeetsNoError(self) -> None:
        """Sixteen connections that are kept busy for a second."""
        url = f"https://localhost:{self.proxy.portOf('https')}/x"
        command = ["wrk", "-t1", "-c16", "-d1s", "-H", f"Authorization: {basic(NEW)}", url]
        done = clients.runProgram(command, "wrk")
        self.assertEqual(done.status, 0, done.output)
        self.assertNotRegex(done.output, "Socket errors|Non-2xx")
        self.assertRegex(done.output, r"\d\d+ requests in")

    def test_ncAndOpenSSLSpeakByHand(self) -> None:
        """Requests typed with and without TLS; nc ends its side first, and is answered."""
        text = f"GET /x HTTP/1.1\r\nHost: a\r\nAuthorization: {basic(NEW)}\r\n"
        typed = f"{text}\r\n{text}Connection: close\r\n\r\n"
        plain, secure = self.proxy.portOf("plain"), self.proxy.portOf("https")
        for command, package in (
            (["nc", "-N", "127.0.0.1", str(plain)], "netcat-openbsd"),
            (["openssl", "s_client", "-quiet", "-connect", f"localhost:{secure}"], "openssl"),
        ):
            done = clients.runProgram(command, package, stdin=typed)
            self.assertEqual(done.output.count("GET /x\n"), 2, done.output)
            self.assertEqual(done.output.count("Connection: close"), 1, done.output)
