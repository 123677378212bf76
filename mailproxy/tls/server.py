"""The client leg: which certificate a client is shown, and on what terms.

Knows certificates, server names and contexts; must not know listeners or protocols. All contexts
are built once, at start and at each reload; a handshake only looks its name up.
"""

import datetime
import socket
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Self

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mailproxy.config.certificates import Read
from mailproxy.config.model import Certificate, TLSProtocols
from mailproxy.errors import ConfigError
from mailproxy.openssl import ISocketTLS
from mailproxy.tls.contexts import KeyPair, dnsNames, makeContext, setGroups
from mailproxy.tls.spare import Spare

_SESSION_CONTEXT = b"mailproxy"
"""Sessions are taken up again under any of our certificates; OpenSSL wants a name for that."""


class ServerConnection(SSL.Connection):
    """One client's connection; contexts are shared by listeners that agree on other protocols.

    :ivar alpn: the application protocols to agree on, best first.
    """

    def __init__(
        self, context: SSL.Context, alpn: tuple[bytes, ...], connected: socket.socket | None = None
    ) -> None:
        super().__init__(context, connected)
        self.alpn = alpn


@implementer(IOpenSSLServerConnectionCreator, ISocketTLS)
class ServerTLS:
    """Makes the TLS connections of a listener.

    A connection begins on the default context, which then holds its callbacks and ticket keys; the
    transport refers to this object as long as it lives, so a reload takes nothing from under it.

    :ivar expiries: when each configured certificate ends, by its name in the configuration.
    :ivar warnings: what somebody should look at.
    """

    def __init__(
        self,
        certificates: Mapping[str, Certificate],
        protocols: TLSProtocols,
        alpn: Sequence[bytes] = (),
        read: Read = Path.read_bytes,
        spare: Spare | None = None,
    ) -> None:
        """Build a context per certificate.

        :param alpn: application protocols to agree on, best first; none: ALPN is not answered.
        :param read: gives the files' contents.
        :param spare: what clients are shown that no certificate is for; None: one of our own.
        :raises ConfigError: when a certificate, a suite or a group cannot be used.
        """
        self._protocols = protocols
        self._alpn = tuple(alpn)
        self._read, self._spare = read, spare or Spare()
        self._contexts: dict[bytes, SSL.Context] = {}
        self.expiries: dict[str, datetime.datetime] = {}
        self.warnings: list[str] = []
        byName = {name: self._add(name, entry) for name, entry in certificates.items()}
        self._default = self._chooseDefault(certificates, byName)

    def offering(self, alpn: Sequence[bytes]) -> Self:
        """Give a creator with the same certificates, which agrees on these protocols."""
        other = copy(self)
        other._alpn = tuple(alpn)
        return other

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Make the connection of one client."""
        return ServerConnection(self._default, self._alpn)

    def connectionOn(self, connected: socket.socket) -> SSL.Connection:
        """Make the connection of one client, on its socket."""
        return ServerConnection(self._default, self._alpn, connected)

    def contextFor(self, serverName: bytes | None) -> SSL.Context:
        """Choose by the name that a client asks for, in any case; None: it asks for no name."""
        name = (serverName or b"").lower().removesuffix(b".")
        parent = name.partition(b".")[2]
        for subject in (name, b"*." + parent, parent):
            if subject in self._contexts:
                return self._contexts[subject]
        return self._default

    def _add(self, name: str, entry: Certificate) -> SSL.Context:
        """Build a certificate's context and enter its subjects; the first to have one keeps it."""
        pair = KeyPair.load(entry.cert, entry.key, self._read)
        self.expiries[name] = pair.certificate.not_valid_after_utc
        try:
            context = self._build(pair)
        except ConfigError as error:
            problems = [f"tls.certificate.{name}: {problem}" for problem in error.problems]
            raise ConfigError(problems) from error
        for subject in dnsNames(pair.certificate) if entry.subjects is None else entry.subjects:
            key = subject.lower().removesuffix(".").encode("ascii", "backslashreplace")
            if self._contexts.setdefault(key, context) is not context:
                self.warnings.append(
                    f"tls.certificate.{name}: {subject} is served by an earlier certificate"
                )
        return context

    def _chooseDefault(
        self, certificates: Mapping[str, Certificate], built: Mapping[str, SSL.Context]
    ) -> SSL.Context:
        """Pick the context for names that no certificate is for, and for clients that name none."""
        for name, entry in certificates.items():
            if entry.default:
                return built[name]
        if b"*" in self._contexts:
            return self._contexts[b"*"]
        if len(built) == 1:
            return next(iter(built.values()))
        return self._build(self._spare.pair())

    def _build(self, pair: KeyPair) -> SSL.Context:
        """Build the context that shows this certificate."""
        context = makeContext(SSL.TLS_SERVER_METHOD, self._protocols)
        pair.use(context)
        context.set_session_id(_SESSION_CONTEXT)
        # Tickets carry a session to the client and back: nothing is kept here.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        if self._protocols.ignore_client_order:
            context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
        if suites := self._protocols.suites.tls12:
            context.set_cipher_list(":".join(suites).encode())
        if self._protocols.groups:
            setGroups(context, self._protocols.groups)
        context.set_tlsext_servername_callback(self._switch)
        context.set_alpn_select_callback(_agree)
        return context

    def _switch(self, connection: SSL.Connection) -> None:
        """Change to the context of the name that the client has just sent."""
        context = self.contextFor(connection.get_servername())
        if context is not connection.get_context():
            connection.set_context(context)


def _agree(
    connection: SSL.Connection, offered: list[bytes]
) -> "bytes | SSL._NoOverlappingProtocols":
    """Take our best application protocol that the client offers; none: go on without."""
    ours: tuple[bytes, ...] = getattr(connection, "alpn", ())
    for name in ours:
        if name in offered:
            return name
    return SSL.NO_OVERLAPPING_PROTOCOLS
