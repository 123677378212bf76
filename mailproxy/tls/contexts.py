"""What the TLS contexts of both legs have in common: versions, suites, groups, key pairs.

Knows pyOpenSSL and the `[tls.protocols]` table; must not know which leg it builds for.
"""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Self, TypeAlias

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from mailproxy import openssl
from mailproxy.config.certificates import Read
from mailproxy.config.model import TLSProtocols
from mailproxy.errors import ConfigError
from mailproxy.logs import Logger

log = Logger()

PrivateKey: TypeAlias = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

UNREADABLE = (
    ValueError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises for a certificate that OpenSSL has let pass."""

_LIFETIME = datetime.timedelta(days=365)
"""How long a generated certificate says it is valid; each start makes a new one."""


def makeContext(method: int, protocols: TLSProtocols) -> SSL.Context:
    """Build a context with what holds on both legs: versions, TLS 1.3 suites, no surprises.

    :param method: `SSL.TLS_SERVER_METHOD` or `SSL.TLS_CLIENT_METHOD`.
    """
    suites = protocols.suites
    context = SSL.Context(method)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_min_proto_version(
        _VERSIONS[protocols.min_version] if suites.tls12 else SSL.TLS1_3_VERSION
    )
    if suites.tls13:
        context.set_tls13_ciphersuites(":".join(suites.tls13).encode())
    else:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
    return context


def setGroups(context: SSL.Context, groups: Sequence[str]) -> None:
    """Offer these key exchange groups, best first.

    Where pyOpenSSL has no way to name them OpenSSL's own groups stay, and the log says so.

    :raises ConfigError: when this OpenSSL does not know one of them.
    """
    known = openssl.setGroups(context, groups)
    if known is None:
        log.warn("TLS groups cannot be chosen with this pyOpenSSL; OpenSSL's own are used")
    elif not known:
        raise ConfigError(
            [f"tls.protocols.groups: OpenSSL does not know all of {', '.join(groups)}"]
        )


@attrs.frozen
class KeyPair:
    """A certificate with the chain that vouches for it and its private key."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: PrivateKey = attrs.field(repr=False)

    @classmethod
    def load(cls, certificate: Path, key: Path, read: Read = Path.read_bytes) -> Self:
        """Read PEM files; the certificate's own comes first, its chain behind it.

        :raises ConfigError: naming the file that cannot be used.
        """
        try:
            leaf, *chain = x509.load_pem_x509_certificates(read(certificate))
            dnsNames(leaf)
        except (OSError, ValueError) as error:
            raise ConfigError([f"{certificate}: no readable PEM certificate"]) from error
        try:
            private = load_pem_private_key(read(key), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError([f"{key}: no readable, unencrypted PEM private key"]) from error
        if not isinstance(private, PrivateKey):
            raise ConfigError([f"{key}: not a key that can sign a TLS handshake"])
        return cls(leaf, tuple(chain), private)

    @classmethod
    def generate(cls, name: str) -> Self:
        """Make a self-signed pair (ECDSA on P-256) that no client has reason to trust."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder(subject, subject, key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + _LIFETIME)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        return cls(builder.sign(key, SHA256()), (), key)

    def use(self, context: SSL.Context) -> None:
        """Present this pair on the context's connections.

        :raises ConfigError: when certificate and key do not belong together.
        """
        try:
            context.use_certificate(self.certificate)
            context.use_privatekey(self.key)
            context.check_privatekey()
        except SSL.Error as error:
            reason = error.args[0][-1][-1] if error.args and error.args[0] else "not usable"
            raise ConfigError([f"OpenSSL refuses the certificate or key: {reason}"]) from error
        for certificate in self.chain:
            context.add_extra_chain_cert(certificate)


def dnsNames(certificate: x509.Certificate) -> tuple[str, ...]:
    """List the DNS names that a certificate is for; without any, its common name.

    :raises ValueError: when its extensions cannot be read.
    """
    names = _alternativeNames(certificate)
    found = names.get_values_for_type(x509.DNSName) if names is not None else ()
    return tuple(found) or commonNames(certificate)


def hostNames(certificate: x509.Certificate) -> tuple[str, ...]:
    """List the DNS names and IP addresses that a certificate is for; its common name is none.

    :raises ValueError: when its extensions cannot be read.
    """
    names = _alternativeNames(certificate)
    if names is None:
        return ()
    addresses = (str(each) for each in names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def commonNames(certificate: x509.Certificate) -> tuple[str, ...]:
    """List a certificate's common names; there is one as a rule."""
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return tuple(str(attribute.value) for attribute in common)


def _alternativeNames(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        extensions = certificate.extensions
        return extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    except UNREADABLE as error:
        raise ValueError("a certificate with malformed extensions") from error
