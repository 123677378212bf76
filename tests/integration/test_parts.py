"""The parts of the harness that need no mail server; how mailproxy itself is run."""

import http.server
import os
import ssl
import tempfile
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.integration import clients
from tests.integration.accounts import ALICE
from tests.integration.certificates import Authority
from tests.integration.messages import bigMessage
from tests.integration.network import (
    freePort,
    isListening,
)
from tests.integration.process import ServerFailed, requireProgram
from tests.integration.proxy import ProxyProcess, callAPI
from tests.integration.toml import tomlText


class ProxyProcessTests(SynchronousTestCase):
    """The parts that run mailproxy, as far as they can be tried without it."""

    def setUp(self) -> None:
        """An authority, and a token."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.authority = Authority(Path(folder.name))

    def test_refusedConfigurationShowsWhy(self) -> None:
        """A proxy that does not start shows its output; no port is left open."""
        port = freePort()
        config = {"listener": {"imaps": {"protocol": "imap", "bind": [f"127.0.0.1:{port}"]}}}
        proxy = ProxyProcess(config, self.authority)
        self.addCleanup(proxy.close)
        with self.assertRaisesRegex(ServerFailed, r"proxy ended with status [1-9]\d*:\n.+"):
            proxy.start()
        self.assertFalse(isListening(port))

    def test_portsAreThoseOfTheConfiguration(self) -> None:
        """Addresses of both families and the API's count; an endpoint string cannot."""
        config = {
            "listener": {
                "a": {"bind": ["127.0.0.1:1", "[::1]:2"]},
                "b": {"bind": ["unix:/tmp/x", "tcp:3", "tcp:4:interface=127.0.0.1"]},
            },
            "admin": {"bind": "127.0.0.1:5"},
        }
        proxy = ProxyProcess(config, self.authority)
        self.addCleanup(proxy.close)
        self.assertEqual(proxy.ports(), [1, 2, 5])

    def test_environmentIsClean(self) -> None:
        """Settings of whoever runs the tests do not reach the proxy; the authority does."""
        self.patch(os, "environ", {"PROXY_CONFIG": "x", "HOME": "/h"})
        proxy = ProxyProcess({}, self.authority, env={"PROXY_LOG": "debug"})
        self.addCleanup(proxy.close)
        environment = proxy.environment()
        self.assertNotIn("PROXY_CONFIG", environment)
        self.assertEqual(environment["PROXY_LOG"], "debug")
        self.assertEqual(environment["SSL_CERT_FILE"], str(self.authority.caFile))

    def test_configurationRoundTrips(self) -> None:
        """What is written reads back as it was, whatever the nesting and the characters."""
        config: dict[str, object] = {
            "server": {"threads": 1, "hostname": 'a"b\\c\n☃', "ratio": 0.5},
            "listener": {"im.aps": {"bind": ["127.0.0.1:1"], "on": True, "empty": []}},
            "destination": {"new": {"protocol": {"imap": {"port": 1}}, "source_ips": []}},
            "http": {
                "route": [
                    {"match": "/a/**", "destination": "new"},
                    {"match": "/b", "extract": {"from": "header", "header": "X"}},
                ]
            },
        }
        self.assertEqual(tomllib.loads(tomlText(config)), config)

    def test_apiIsAskedOverVerifiedTLS(self) -> None:
        """Method, path, token and body pass; a foreign certificate is not accepted."""
        with echoService(self.authority) as port:
            context = self.authority.clientContext()
            answer = callAPI(port, context, "PUT", "/mappings?identifier=a", "secret")
            with self.assertRaises(ssl.SSLCertVerificationError):
                callAPI(port, ssl.create_default_context(), "GET", "/")
        self.assertEqual(answer.status, 202)
        expected = ["PUT", "/mappings?identifier=a", "Bearer secret"]
        self.assertEqual(answer.json(), expected)


class ProgramTests(SynchronousTestCase):
    """What is left: missing programs, and a client that has no server here yet."""

    def test_missingProgramSkipsAndNamesThePackage(self) -> None:
        """The reason for a skip is what to install."""
        with self.assertRaisesRegex(SkipTest, "apt-get install curl"):
            requireProgram("no-such-program-anywhere", "curl")

    def test_unlistedPackageIsAMistake(self) -> None:
        """A package that `packages.txt` does not list is an error even where it is installed."""
        with self.assertRaisesRegex(ValueError, "packages.txt does not list some-package"):
            requireProgram("sh", "some-package")

    def test_swaksRuns(self) -> None:
        """Swaks starts with our options; nobody listens, so connecting is what fails."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        target = clients.Target(freePort(), Authority(Path(folder.name)).caFile)
        done = clients.swaks(target, ALICE, "--from", "a@example.org", "--to", "b@example.org")
        self.assertEqual(done.status, 2, done.output)
        self.assertIn("Connection refused", done.output)

    def test_bigMessageIsTheSameEverywhere(self) -> None:
        """Same size and seed, same bytes; exact size; short lines that end in CRLF."""
        for size in range(1000, 1200):
            content = bigMessage(size)
            self.assertEqual(len(content), size)
            self.assertEqual(content.count(b"\r\n"), content.count(b"\n"))
            self.assertEqual(content.count(b"\r"), content.count(b"\n"))
            self.assertLess(max(map(len, content.split(b"\r\n"))), 90)
        self.assertEqual(bigMessage(5000, seed=3), bigMessage(5000, seed=3))
        self.assertNotEqual(bigMessage(5000, seed=3), bigMessage(5000, seed=4))


@contextmanager
def echoService(authority: Authority) -> Iterator[int]:
    """An HTTPS server that answers 202 with what it was asked, as JSON; gives its port."""

    class Echo(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            parts = (self.command, self.path, self.headers["Authorization"])
            body = "[{}]".format(", ".join(f'"{part}"' for part in parts)).encode()
            self.send_response(202)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *ignored: object) -> None:
            pass

    files = authority.issue("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    server = http.server.HTTPServer(("127.0.0.1", 0), Echo)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
