"""The files that the demonstration's proxy reads: certificate, token, mapping, configuration.

Everything lies in one directory of the caller's. One self-signed certificate serves the proxy and
both servers; the proxy trusts the servers by its pin, as for any private certificate.
"""

import secrets
import socket
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOOPBACK = "127.0.0.1"
CERTIFICATE, KEY, TOKEN = "certificate.pem", "key.pem", "token"
MAPPING, CONFIGURATION = "mapping", "mailproxy.toml"

PREFERRED_PORTS: Mapping[str, int] = {
    "imap": 10143,
    "imaps": 10993,
    "https": 10443,
    "admin": 18443,
    "legacy": 11993,
    "legacy_web": 11443,
    "new": 12993,
    "new_web": 12443,
}
"""The port of each socket, by its name in what is printed; another is taken if it is in use."""

_MAPPING = "# identifier\tdestination\nanna\tlegacy\nben\tlegacy\ncarol\tnew\n"

_CONFIGURATION = """\
[server]
threads = 1
shutdown_grace = "2s"

[tls.certificate.demo]
cert = "certificate.pem"
key = "key.pem"
default = true

[listener.imap]
protocol = "imap"
bind = ["127.0.0.1:{imap}"]
tls = "starttls"

[listener.imaps]
protocol = "imap"
bind = ["127.0.0.1:{imaps}"]
tls = "implicit"

[listener.https]
protocol = "http"
bind = ["127.0.0.1:{https}"]
tls = "implicit"

[[http.route]]
match = "/**"
extract = {{ from = "authorization" }}

[destination.legacy]
host = "127.0.0.1"
tls_server_name = "localhost"
tls_pinned_cert_sha256 = "{pin}"
proxy_protocol = false
protocol.imap = {{ port = {legacy}, tls = "implicit" }}
protocol.http = {{ port = {legacy_web}, tls = "implicit" }}

[destination.new]
host = "127.0.0.1"
tls_server_name = "localhost"
tls_pinned_cert_sha256 = "{pin}"
proxy_protocol = false
protocol.imap = {{ port = {new}, tls = "implicit" }}
protocol.http = {{ port = {new_web}, tls = "implicit" }}

[routing]
default_destination = "legacy"

[mapping]
source = "file"
file.path = "mapping"

[admin]
bind = "127.0.0.1:{admin}"
tls = "implicit"
bearer_token_file = "token"
"""


def choosePorts() -> dict[str, int]:
    """Return a free loopback port for each name in `PREFERRED_PORTS`."""
    taken: set[int] = set()
    ports = {}
    for name, preferred in PREFERRED_PORTS.items():
        ports[name] = _freePort(preferred, taken)
        taken.add(ports[name])
    return ports


def _freePort(preferred: int, taken: set[int]) -> int:
    for candidate in (preferred, 0, 0, 0):
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, candidate))
            except OSError:
                continue
            port: int = probe.getsockname()[1]
        if port not in taken:
            return port
    raise OSError("no free port on loopback")


def writeFiles(directory: Path, ports: Mapping[str, int]) -> Path:
    """Write all files into the directory; return the configuration's path."""
    pin = _writeCertificate(directory)
    _writePrivate(directory / TOKEN, secrets.token_hex(20).encode("ascii") + b"\n")
    (directory / MAPPING).write_text(_MAPPING, encoding="ascii")
    path = directory / CONFIGURATION
    path.write_text(_CONFIGURATION.format(pin=pin, **ports), encoding="utf-8")
    return path


def _writePrivate(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def _writeCertificate(directory: Path) -> str:
    """Write certificate and key; return the certificate's SHA-256 in hex digits."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _selfSigned(key)
    encoded = certificate.public_bytes(serialization.Encoding.PEM)
    (directory / CERTIFICATE).write_bytes(encoded)
    _writePrivate(
        directory / KEY,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    return certificate.fingerprint(hashes.SHA256()).hex()


def _selfSigned(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mailproxy demonstration")])
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ip_address(LOOPBACK))]
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    return builder.sign(key, hashes.SHA256())
