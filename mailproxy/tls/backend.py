"""The backend leg: how a destination proves who it is, and how its sessions are resumed.

Knows one destination's TLS keys; must not know how it is dialled or what is said on it. A context
with the platform's trust store takes milliseconds to build: once per destination, never per
connection.
"""

import socket
import time
from collections.abc import Callable, Iterable
from copy import copy
from pathlib import Path
from typing import Any, Self

import attrs
import service_identity
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, ISystemHandle
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mailproxy import openssl
from mailproxy.config import ciphers
from mailproxy.config.certificates import Read
from mailproxy.config.model import Destination, TLSProtocols
from mailproxy.config.values import isIPAddress
from mailproxy.openssl import ISocketTLS
from mailproxy.tls.contexts import (
    UNREADABLE,
    KeyPair,
    commonNames,
    hostNames,
    makeContext,
    setGroups,
)
from mailproxy.tls.failures import CertificateRefused, quoted

GROUPS = ("X25519", "secp256r1", "secp384r1", "secp521r1", "X448")
"""Key exchange groups that a backend is offered, best first.

No hybrid one: a server that prefers it over the X25519 share that we send first asks for a second
round trip.
"""

RESUMABLE = 3600.0
"""Seconds after a full handshake for which its session is offered: a resumed one does not look at
the chain, and each brings a new ticket, so without an end nobody would ever look again."""

_SHOWN_NAMES = 5
"""How many of a certificate's names a message lists."""

_VERIFY = SSL.X509VerificationCodes
_REASONS = {
    _VERIFY.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "its issuer is not trusted here",
    _VERIFY.ERR_UNABLE_TO_GET_ISSUER_CERT: "its issuer is not trusted here",
    _VERIFY.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: "its issuer is not trusted here",
    _VERIFY.ERR_SELF_SIGNED_CERT_IN_CHAIN: "the authority at the end of its chain is not trusted",
    _VERIFY.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "it is self-signed",
    _VERIFY.ERR_CERT_HAS_EXPIRED: "it, or one in its chain, has expired",
    _VERIFY.ERR_CERT_NOT_YET_VALID: "it, or one in its chain, is not valid yet",
}
"""OpenSSL's verification errors that operators meet; others are given by their number."""


_MISMATCHES = (_VERIFY.ERR_HOSTNAME_MISMATCH, _VERIFY.ERR_IP_ADDRESS_MISMATCH)


@attrs.frozen
class BackendOptions:
    """What a destination's certificate must be, and what is shown of ourselves.

    :ivar serverName: the name, or IP address, that the certificate must be for.
    :ivar pin: SHA-256 of the certificate in DER; it replaces trust store and name.
    :ivar allowInvalid: take any certificate; a pin holds all the same.
    :ivar authorities: trusted besides the platform's own.
    """

    serverName: str
    protocols: TLSProtocols
    pin: bytes | None = None
    allowInvalid: bool = False
    clientCertificate: KeyPair | None = None
    authorities: tuple[x509.Certificate, ...] = ()

    @classmethod
    def fromConfig(
        cls,
        destination: Destination,
        protocols: TLSProtocols,
        authorities: Iterable[x509.Certificate] = (),
        read: Read = Path.read_bytes,
    ) -> Self:
        """Take what the configuration says of a destination.

        :param read: gives the files' contents.
        :raises ConfigError: when its client certificate or key cannot be used.
        """
        pair = None
        if destination.tls_client_cert is not None and destination.tls_client_key is not None:
            pair = KeyPair.load(destination.tls_client_cert, destination.tls_client_key, read)
        return cls(
            serverName=destination.serverName,
            protocols=protocols,
            pin=destination.tls_pinned_cert_sha256,
            allowInvalid=destination.tls_allow_invalid_certs,
            clientCertificate=pair,
            authorities=tuple(authorities),
        )


class BackendConnection(SSL.Connection):
    """One connection; its handshake does not end well before its certificate is accepted.

    :ivar offered: whether the server is offered a session that we remembered.
    :ivar accepted: whether the destination's own checks have passed.
    :ivar resumed: whether the server took up a session that we remembered.
    :ivar verifiedAt: when the chain behind an offered session was looked at.
    """

    offered = accepted = resumed = False
    verifiedAt = 0.0

    def __init__(
        self, creator: "BackendTLS", context: SSL.Context, connected: socket.socket | None
    ) -> None:
        super().__init__(context, connected)
        self.creator = creator

    def do_handshake(self) -> None:
        """Go on with the handshake.

        OpenSSL shows the certificates of a full handshake as they arrive. A resumed one has none:
        it is with a server that was accepted by the same rules.

        :raises CertificateRefused: when it is not what the destination asks for.
        """
        super().do_handshake()
        if not self.accepted:
            if not self.offered:
                self.creator.judge(self.get_peer_certificate(as_cryptography=True))
            self.accepted = self.resumed = True


@implementer(IOpenSSLClientConnectionCreator, ISocketTLS)
class BackendTLS:
    """Makes the TLS connections to one destination, and keeps the session to resume next.

    A session never leaves this object, so it is offered only to servers that its own checks have
    accepted.
    """

    def __init__(
        self, options: BackendOptions, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Build the context.

        :param clock: gives seconds.
        :raises ConfigError: when a suite, a group or the client certificate cannot be used.
        """
        self._options = options
        self._name = options.serverName.removesuffix(".")
        self._isAddress = isIPAddress(self._name)
        self._trusting = options.pin is None and not options.allowInvalid
        self._context = self._build()
        # On connections of this context OpenSSL looks at the name, where it can be asked to.
        self._nameIsChecked = self._trusting and openssl.expectName(
            self._context, self._name, self._isAddress
        )
        self._clock = clock
        self._accepted: x509.Certificate | None = None
        self._alpn: tuple[bytes, ...] = ()
        self._session: SSL.Session | None = None
        self._verifiedAt = -RESUMABLE

    def another(self, alpn: tuple[bytes, ...] = ()) -> "BackendTLS":
        """Make the creator of another endpoint of the same destination.

        They share the context, which is dear, and no session.

        :param alpn: the application protocols that are spoken there (RFC 7301), best first.
        """
        made = copy(self)
        made._alpn = alpn
        made.forget()
        return made

    def forget(self) -> None:
        """Offer no session any more."""
        self._session = None

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Make one connection, with the name that is asked for and the session to resume."""
        return self._connection(None)

    def connectionOn(self, connected: socket.socket) -> SSL.Connection:
        """Make the same on a socket."""
        return self._connection(connected)

    def _connection(self, connected: socket.socket | None) -> SSL.Connection:
        connection = BackendConnection(self, self._context, connected)
        if not self._isAddress:
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        if self._alpn:
            connection.set_alpn_protos(list(self._alpn))
        if self._session is not None and self._clock() - self._verifiedAt < RESUMABLE:
            connection.set_session(self._session)
            connection.offered, connection.verifiedAt = True, self._verifiedAt
        return connection

    def remember(self, transport: object) -> None:
        """Keep a connection's session for the next one.

        TLS 1.3 servers send it after the handshake: call this when the server has said something,
        best once it has accepted the login.

        :param transport: a transport that runs TLS; anything else is passed over.
        """
        connection = self._connectionOf(transport)
        if connection is None:
            return
        session = connection.get_session()
        if session is not None:
            self._session = session
            self._verifiedAt = connection.verifiedAt if connection.resumed else self._clock()

    def resumed(self, transport: object) -> bool:
        """Tell whether this connection took up an earlier session."""
        connection = self._connectionOf(transport)
        return connection is not None and connection.resumed

    def judge(self, certificate: x509.Certificate | None) -> None:
        """Check a server's own certificate; its chain, where it matters, is OpenSSL's to verify.

        The one that was accepted last needs no second look: the same bytes hold the same names.

        :raises CertificateRefused: when it is not what the destination asks for.
        """
        if certificate is None:
            raise CertificateRefused("the server has shown none")
        if certificate == self._accepted:
            return
        if self._options.pin is not None:
            self._checkPin(certificate, self._options.pin)
        elif self._trusting and not self._nameIsChecked:
            self._checkName(certificate)
        self._accepted = certificate

    def _connectionOf(self, transport: object) -> BackendConnection | None:
        """Find a transport's connection if it is one of ours and was accepted."""
        handle = ISystemHandle(transport, None)
        connection = None if handle is None else handle.getHandle()
        if not isinstance(connection, BackendConnection) or not connection.accepted:
            return None
        return connection if connection.creator is self else None

    def _build(self) -> SSL.Context:
        """Build the context; the trust store is read only where it will be asked."""
        options = self._options
        context = makeContext(SSL.TLS_CLIENT_METHOD, options.protocols)
        if options.protocols.suites.tls12:
            context.set_cipher_list(_legacySuites(options.protocols).encode())
        setGroups(context, _groups(options.protocols))
        if options.clientCertificate is not None:
            options.clientCertificate.use(context)
        if self._trusting:
            _trust(context, options.authorities)
        context.set_verify(SSL.VERIFY_PEER, _verify)
        return context

    def verify(
        self, connection: BackendConnection, certificate: X509, code: int, depth: int, valid: int
    ) -> bool:
        """Judge one certificate of the chain; the server's own, at depth 0, comes last.

        What is raised here, pyOpenSSL raises again from the handshake, after OpenSSL's alert.
        """
        try:
            if self._trusting and not valid:
                raise self._refusal(certificate, code)
            if depth == 0:
                if not self._nameIsChecked:  # else nothing is left to be looked at
                    self.judge(certificate.to_cryptography())
                connection.accepted = True
        except UNREADABLE as error:
            raise CertificateRefused("it cannot be read") from error
        return True

    def _refusal(self, certificate: X509, code: int) -> CertificateRefused:
        """Put OpenSSL's reason into words."""
        if code in _MISMATCHES:
            return self._mismatch(certificate.to_cryptography())
        return CertificateRefused(_REASONS.get(code, f"OpenSSL's verification error {code}"))

    def _mismatch(self, certificate: x509.Certificate) -> CertificateRefused:
        """Say what it is for; that a common name was enough once is what its owner may not know."""
        names, common = _shown(hostNames, certificate), _shown(commonNames, certificate)
        found = f"it is for {names or 'no name'}, not for {self._name}"
        if common and not names:
            found += (
                f": its common name {common} does not count (RFC 9525),"
                " and it has no subject alternative name that is a host's"
            )
        return CertificateRefused(found)

    def _checkPin(self, certificate: x509.Certificate, pin: bytes) -> None:
        """Compare the certificate's fingerprint with the pinned one."""
        found = certificate.fingerprint(SHA256())
        if found != pin:
            raise CertificateRefused(f"its SHA-256 is {found.hex()}, which is not the pinned one")

    def _checkName(self, certificate: x509.Certificate) -> None:
        """Check that the certificate is for the server that we mean (RFC 9525)."""
        verify = verify_certificate_ip_address if self._isAddress else verify_certificate_hostname
        if not hostNames(certificate):
            raise self._mismatch(certificate)
        try:
            verify(certificate, self._name)
        except service_identity.VerificationError as error:
            raise self._mismatch(certificate) from error
        except (service_identity.CertificateError, ValueError) as error:
            raise CertificateRefused(f"its names cannot be used: {quoted(str(error))}") from error


def _verify(connection: SSL.Connection, *link: Any) -> bool:
    """Have a connection's creator judge a certificate.

    A context that called its creator itself would be garbage to be collected when both are given
    up: with the trust store that is half a megabyte of OpenSSL's, which the collector does not see.
    """
    assert isinstance(connection, BackendConnection), "its creator makes no others"
    return connection.creator.verify(connection, *link)


def _trust(context: SSL.Context, authorities: Iterable[x509.Certificate]) -> None:
    """Trust the platform's authorities (or those of SSL_CERT_FILE) and these."""
    context.set_default_verify_paths()
    store = context.get_cert_store()
    assert store is not None, "every context has a store"
    for authority in authorities:
        store.add_cert(X509.from_cryptography(authority))


def _groups(protocols: TLSProtocols) -> tuple[str, ...]:
    """Put X25519 in front of the configured groups, if it is one; without any, our own list."""
    if not protocols.groups:
        return GROUPS
    return tuple(sorted(protocols.groups, key=lambda group: group.lower() != "x25519"))


def _legacySuites(protocols: TLSProtocols) -> str:
    """Name the TLS 1.2 suites for a backend: all of OpenSSL's defaults, less the removed ones.

    Old servers are what accounts are moved away from, and some have no forward secrecy.
    """
    removed = (ciphers.openSSLName(name) for name in protocols.disable_cipher_suites)
    return ":!".join(("DEFAULT", "aNULL", "eNULL", "PSK", "SRP", *removed))


def _shown(
    namesOf: Callable[[x509.Certificate], tuple[str, ...]], certificate: x509.Certificate
) -> str:
    """List names of a peer's for a message."""
    try:
        names = namesOf(certificate)
    except ValueError:
        names = ()
    shown = ", ".join(quoted(name) for name in names[:_SHOWN_NAMES])
    return shown + " and more" if len(names) > _SHOWN_NAMES else shown
