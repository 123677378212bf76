"""The tables of the configuration: defaults, helpers, schema."""

from typing import Any

from pydantic import ValidationError
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.bind import SocketAddress
from mailproxy.config.model import (
    Config,
    Destination,
    Forwarding,
    Listener,
    LogLevel,
    Server,
    TLSProtocols,
)
from tests.config.support import MINIMAL, ConfigTestCase, changed


class DefaultTests(ConfigTestCase):
    """What holds when nothing is written."""

    def test_server(self) -> None:
        """All keys of `[server]` are optional."""
        server = Server()
        self.assertEqual((server.threads, server.hostname), (0, None))
        self.assertEqual((server.shutdown_grace, server.bridge_idle), (30, 1800))
        self.assertEqual((server.backend_timeout, server.backend_auth_timeout), (10, 30))
        self.assertEqual((server.backend_connect_retries, server.proxy_ttl), (1, 7))
        self.assertEqual((server.host_down_threshold, server.host_down_min_clients), (5, 2))
        self.assertEqual((server.host_down_cooldown, server.log_level), (30, LogLevel.INFO))

    def test_listener(self) -> None:
        """Nobody is trusted, logins have half a minute and three attempts."""
        listener = self.load(MINIMAL).listener["imaps"]
        self.assertEqual((listener.proxy_protocol, listener.proxy_trusted), ("off", ()))
        self.assertEqual((listener.max_connections, listener.max_auth_attempts), (8192, 3))
        self.assertEqual((listener.preauth_timeout, listener.forwarded), (30, "off"))

    def test_destination(self) -> None:
        """Everything that weakens TLS is off; the client's address is forwarded."""
        destination = self.load(MINIMAL).destination["old"]
        self.assertTrue(destination.proxy_protocol)
        self.assertFalse(destination.tls_allow_invalid_certs or destination.allow_plaintext_auth)
        self.assertFalse(destination.hide_auth_errors or destination.forwarded)
        self.assertEqual((destination.source_ips, destination.forwarding), ((), None))
        self.assertEqual(destination.serverName, "old.example.com")

    def test_restOfTheFile(self) -> None:
        """TLS 1.2 and newer, "%" as separator, no management API."""
        config = self.load(MINIMAL)
        self.assertEqual(config.tls.protocols.min_version, "1.2")
        self.assertEqual(config.routing.master_user_separators, ("%",))
        self.assertIsNone(config.routing.smtp_passthrough_destination)
        self.assertIsNone(config.admin)


class ValueTests(ConfigTestCase):
    """What the models tell about themselves."""

    def test_forwarding(self) -> None:
        """The endpoint's word, else the destination's, else by `proxy_protocol`."""
        endpoints = {
            "imap": {"port": 993, "tls": "implicit"},
            "smtp": {"port": 25, "tls": "plain", "forwarding": "xclient"},
        }
        destination = self.destination(protocol=endpoints)
        self.assertEqual(destination.forwardingFor("imap"), Forwarding.PROXY)
        self.assertEqual(destination.forwardingFor("smtp"), Forwarding.XCLIENT)
        destination = self.destination(protocol=endpoints, proxy_protocol=False)
        self.assertEqual(destination.forwardingFor("imap"), Forwarding.NONE)
        destination = self.destination(protocol=endpoints, forwarding="none")
        self.assertEqual(destination.forwardingFor("imap"), Forwarding.NONE)
        self.assertEqual(destination.forwardingFor("smtp"), Forwarding.XCLIENT)

    def destination(self, **keys: Any) -> Destination:
        """A destination with these keys."""
        return Destination.model_validate({"host": "old", **keys})

    def test_addresses(self) -> None:
        """Texts of `bind` become addresses; a single one needs no list."""
        keys = {"protocol": "imap", "bind": "[::1]:143", "tls": "plain"}
        self.assertEqual(Listener.model_validate(keys).addresses, (SocketAddress("::1", 143),))

    def test_suites(self) -> None:
        """Removed suites are not offered."""
        name = "TLS_AES_128_GCM_SHA256"
        protocols = TLSProtocols(disable_cipher_suites=(name,))
        self.assertNotIn(name, protocols.suites.tls13)

    def test_relativePathsCountFromTheFile(self) -> None:
        """Wherever the process is started, and whatever directory it changes to."""
        certificate = self.load(MINIMAL).tls.certificate["main"]
        self.assertEqual(certificate.cert, self.directory.absolute() / "main.pem")

    def test_nothingChangesLater(self) -> None:
        """A loaded configuration is a value."""
        config = self.load(MINIMAL)
        self.assertRaises(ValidationError, setattr, config.server, "threads", 2)

    def test_sameFilesAreEqual(self) -> None:
        """A reload can tell which tables changed."""
        self.assertEqual(self.load(MINIMAL), self.load(MINIMAL))
        other = self.load(changed(("[routing]", "[server]\nthreads = 1\n[routing]")))
        self.assertNotEqual(self.load(MINIMAL).server, other.server)


class SchemaTests(SynchronousTestCase):
    """The JSON Schema for editors."""

    def test_everyKeyHasAMeaning(self) -> None:
        """No key without a description."""
        schema = Config.model_json_schema()
        for name, table in {"": schema, **schema["$defs"]}.items():
            for key, field in table.get("properties", {}).items():
                self.assertIn("description", field, f"{name}.{key}")

    def test_unknownKeysAreMistakesInEditorsToo(self) -> None:
        """Every table is closed."""
        for table in Config.model_json_schema()["$defs"].values():
            if table["type"] == "object":
                self.assertIs(table["additionalProperties"], False)

    def test_durationsAreTexts(self) -> None:
        """Type, pattern and default agree with what a person writes."""
        field = Config.model_json_schema()["$defs"]["Server"]["properties"]["bridge_idle"]
        self.assertEqual((field["type"], field["default"]), ("string", "1800s"))
        self.assertRegex("500ms", field["pattern"])
        self.assertNotRegex("30", field["pattern"])

    def test_choicesAreListed(self) -> None:
        """Protocols, as values and as names of endpoints."""
        definitions = Config.model_json_schema()["$defs"]
        self.assertIn("managesieve", definitions["Listener"]["properties"]["protocol"]["enum"])
        endpoints = definitions["Destination"]["properties"]["protocol"]
        self.assertIn("managesieve", endpoints["propertyNames"]["enum"])
        self.assertEqual(definitions["TLSMode"]["enum"], ["implicit", "starttls", "plain"])
