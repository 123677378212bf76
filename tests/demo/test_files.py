"""The files that the demonstration's proxy reads."""

import socket
import stat
import tomllib
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config import load, warnings
from mailproxy.demo import files
from mailproxy.demo.files import (
    CERTIFICATE,
    KEY,
    MAPPING,
    PREFERRED_PORTS,
    TOKEN,
    choosePorts,
    writeFiles,
)
from mailproxy.demo.mail import ACCOUNTS


class FilesTests(SynchronousTestCase):
    """What `writeFiles` leaves in the directory."""

    def setUp(self) -> None:
        """Write the files, in a directory whose name would need quoting in TOML."""
        self.directory = Path(self.mktemp()) / 'de"mo \\ 1'
        self.directory.mkdir(parents=True)
        self.config = writeFiles(self.directory, PREFERRED_PORTS)

    def certificate(self) -> x509.Certificate:
        """Return the written certificate."""
        return x509.load_pem_x509_certificate((self.directory / CERTIFICATE).read_bytes())

    def test_configurationIsValid(self) -> None:
        """The proxy takes the configuration as it is and has nothing to warn of."""
        self.assertEqual(warnings(load(self.config, {})), [])

    def test_secretsAreForTheOwnerAlone(self) -> None:
        """Key and token can be read by nobody else."""
        for name in (KEY, TOKEN):
            mode = stat.S_IMODE((self.directory / name).stat().st_mode)
            self.assertEqual(mode & 0o077, 0, name)

    def test_tokenDiffersEachTime(self) -> None:
        """The token is long enough for the management API and never the same."""
        first = (self.directory / TOKEN).read_text()
        self.assertGreaterEqual(len(first.strip()), 32)
        writeFiles(self.directory, PREFERRED_PORTS)
        self.assertNotEqual((self.directory / TOKEN).read_text(), first)

    def test_certificateServesLoopback(self) -> None:
        """The certificate names localhost and 127.0.0.1, so clients can verify it."""
        names = self.certificate().extensions.get_extension_for_class(x509.SubjectAlternativeName)
        self.assertEqual(names.value.get_values_for_type(x509.DNSName), ["localhost"])
        addresses = names.value.get_values_for_type(x509.IPAddress)
        self.assertEqual([str(address) for address in addresses], ["127.0.0.1"])

    def test_destinationsArePinned(self) -> None:
        """Both destinations carry the certificate's own pin."""
        pin = self.certificate().fingerprint(hashes.SHA256()).hex()
        destinations = tomllib.loads(self.config.read_text())["destination"]
        self.assertEqual(set(destinations), {"legacy", "new"})
        for destination in destinations.values():
            self.assertEqual(destination["tls_pinned_cert_sha256"], pin)

    def test_everyAccountIsMapped(self) -> None:
        """The mapping names each account of the servers, and both destinations."""
        lines = (self.directory / MAPPING).read_text().splitlines()
        table = dict(line.split("\t") for line in lines if not line.startswith("#"))
        self.assertEqual(set(table), set(ACCOUNTS))
        self.assertEqual(set(table.values()), {"legacy", "new"})


class PortsTests(SynchronousTestCase):
    """The choice of ports."""

    def test_everyNameHasItsOwnPort(self) -> None:
        """Each socket gets a port, and no two the same."""
        ports = choosePorts()
        self.assertEqual(set(ports), set(PREFERRED_PORTS))
        self.assertEqual(len(set(ports.values())), len(ports))

    def test_aPortInUseIsNotChosen(self) -> None:
        """When a preferred port is taken, another one is chosen for that name."""
        with socket.socket() as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            taken = holder.getsockname()[1]
            self.patch(files, "PREFERRED_PORTS", {"imap": taken, "imaps": 0})
            ports = choosePorts()
        self.assertNotIn(taken, ports.values())
        self.assertEqual(set(ports), {"imap", "imaps"})
