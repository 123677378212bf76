"""The configuration: every table, every key, its meaning, unit and default.

Field names are the TOML keys. A model checks each value by itself; what holds between keys and
tables is in `checks`, what is in files in `certificates` and `table`.
"""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from mailproxy.config.bind import Bind, parseBind
from mailproxy.config.ciphers import Suites, checkGroup, openSSLName, remaining
from mailproxy.config.stores import (
    FileStore,
    Mapping,
    Normalize,
    OnError,
    RedisStore,
    SourceKind,
    SQLStore,
)
from mailproxy.config.surface import (
    HTTP,
    Admin,
    BindText,
    Capabilities,
    Dialogue,
    Extract,
    ExtractFrom,
    IMAPCapabilities,
    ManageSieveCapabilities,
    OAuth,
    POP3Capabilities,
    Route,
    SubmissionCapabilities,
)
from mailproxy.config.values import (
    CIDR,
    Count,
    Duration,
    FilePath,
    Flag,
    Forwarded,
    Forwarding,
    Host,
    HostName,
    IPAddress,
    LogLevel,
    MinVersion,
    Name,
    Pin,
    Port,
    Positive,
    PositiveDuration,
    ProtocolName,
    ProxyProtocol,
    Section,
    Separator,
    Subject,
    TLSMode,
    lasting,
)

__all__ = [
    "HTTP",
    "TLS",
    "Admin",
    "Capabilities",
    "Certificate",
    "Config",
    "Destination",
    "Dialogue",
    "Endpoint",
    "Extract",
    "ExtractFrom",
    "FileStore",
    "Forwarded",
    "Forwarding",
    "IMAPCapabilities",
    "Listener",
    "LogLevel",
    "ManageSieveCapabilities",
    "Mapping",
    "MinVersion",
    "Normalize",
    "OAuth",
    "OnError",
    "POP3Capabilities",
    "ProxyProtocol",
    "RedisStore",
    "Route",
    "Routing",
    "SQLStore",
    "Server",
    "SourceKind",
    "SubmissionCapabilities",
    "TLSMode",
    "TLSProtocols",
]


class Server(Section):
    """The `[server]` table."""

    threads: Count = Field(
        default=0, description="Worker processes; 0 = one for each core that we may use."
    )
    hostname: HostName | None = Field(
        default=None,
        description="Name in SMTP greetings and forwarded data; unset: the local address.",
    )
    shutdown_grace: Duration = lasting("30s", "Drain time after SIGTERM or SIGINT.")
    bridge_idle: PositiveDuration = lasting(
        "1800s", "A bridge with no byte either way for this long is closed."
    )
    backend_timeout: PositiveDuration = lasting(
        "10s", "To get a backend ready for the login, all attempts together."
    )
    backend_auth_timeout: PositiveDuration = lasting(
        "30s", "For the backend to answer the replayed login."
    )
    backend_connect_retries: Count = Field(
        default=1, description="Further attempts after a retryable failure, inside backend_timeout."
    )
    host_down_threshold: Count = Field(
        default=5, description="Consecutive failures that open a destination's circuit; 0 = never."
    )
    host_down_min_clients: Count = Field(
        default=2, description="Distinct clients that must have met late failures; 0 = any number."
    )
    host_down_cooldown: Duration = lasting(
        "30s", "How long an open circuit refuses before one probe."
    )
    proxy_ttl: Annotated[Count, Field(ge=2, le=255)] = Field(
        default=7, description="Hops left for a chain of proxies; at 1 a session is refused."
    )
    log_level: LogLevel = Field(
        default=LogLevel.INFO, description="debug, info, warn or error; PROXY_LOG wins."
    )


class Certificate(Section):
    """One `[tls.certificate.NAME]`."""

    cert: FilePath = Field(description="PEM file: the chain, leaf first.")
    key: FilePath = Field(description="PEM file: the private key, without a passphrase.")
    subjects: tuple[Subject, ...] | None = Field(
        default=None, description="Names it serves; unset: its DNS alternative names, else its CN."
    )
    default: Flag = Field(default=False, description="Serve it where no certificate has the name.")


def _known(name: str) -> str:
    openSSLName(name)
    return name


class TLSProtocols(Section):
    """The `[tls.protocols]` table."""

    min_version: MinVersion = Field(default=MinVersion.TLS_1_2, description="1.2 or 1.3.")
    ignore_client_order: Flag = Field(
        default=False, description="Prefer our order of cipher suites."
    )
    disable_cipher_suites: tuple[Annotated[str, AfterValidator(_known)], ...] = Field(
        default=(), description="Standard (IANA) names of suites that are not offered."
    )
    groups: tuple[Annotated[str, AfterValidator(checkGroup)], ...] = Field(
        default=(), description="Key exchange groups in order; empty: OpenSSL's own choice."
    )

    @property
    def suites(self) -> Suites:
        """What is left to offer.

        :raises ValueError: when nothing is; loading refuses that.
        """
        return remaining(self.disable_cipher_suites, self.min_version)


class TLS(Section):
    """The `[tls]` tables."""

    certificate: dict[Name, Certificate] = Field(
        default={}, description="The certificates, by name."
    )
    protocols: TLSProtocols = Field(default=TLSProtocols(), description="Versions, suites, groups.")


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _filled(texts: tuple[str, ...]) -> tuple[str, ...]:
    if not texts:
        raise ValueError('is empty; write at least one address, such as "0.0.0.0:993"')
    return texts


_BindTexts = Annotated[
    tuple[BindText, ...],
    AfterValidator(_filled),
    BeforeValidator(_listed),
    Field(json_schema_extra={"minItems": 1}),
]


class Listener(Section):
    """One `[listener.NAME]`."""

    protocol: ProtocolName = Field(
        description="imap, pop3, managesieve, submission, smtp, lmtp, http."
    )
    bind: _BindTexts = Field(
        description='Where it listens: "0.0.0.0:993", "[::]:993" (v6 only), Twisted endpoints.'
    )
    tls: TLSMode = Field(description="implicit, starttls or plain.")
    proxy_protocol: ProxyProtocol = Field(
        default=ProxyProtocol.OFF,
        description="PROXY headers from trusted peers: off, optional, required.",
    )
    proxy_trusted: tuple[CIDR, ...] = Field(
        default=(), description="Networks whose PROXY header, XCLIENT and ID fields are believed."
    )
    max_connections: Positive = Field(default=8192, description="Further ones are closed at once.")
    preauth_timeout: PositiveDuration = lasting(
        "30s", "From accept to a complete login, TLS handshake included."
    )
    max_auth_attempts: Positive = Field(default=3, description="Failed logins before we close.")
    forwarded: Forwarded = Field(
        default=Forwarded.OFF, description="HTTP: trust keeps forwarding headers, off strips them."
    )

    @property
    def addresses(self) -> tuple[Bind, ...]:
        """Where it listens, in order."""
        return tuple(parseBind(text) for text in self.bind)


class Endpoint(Section):
    """One `[destination.NAME.protocol.PROTO]`."""

    port: Port = Field(description="TCP port of the backend.")
    tls: TLSMode = Field(description="implicit, starttls or plain.")
    forwarding: Forwarding | None = Field(default=None, description="Unset: the destination's.")


class Destination(Section):
    """One `[destination.NAME]`: a backend."""

    host: Host = Field(description="Name, resolved at each connection, or IP address.")
    tls_server_name: HostName | None = Field(
        default=None,
        description="Name in the backend's certificate, and sent to it (SNI); unset: host. "
        "Where host is an IP address it is needed, with a pin too.",
    )
    proxy_protocol: Flag = Field(
        default=True, description="Forward the client's address by PROXY header."
    )
    forwarding: Forwarding | None = Field(
        default=None, description="proxy, xclient or none; unset: by proxy_protocol."
    )
    forwarded: Flag = Field(
        default=False, description="HTTP: add Forwarded and X-Forwarded headers."
    )
    tls_allow_invalid_certs: Flag = Field(
        default=False, description="Accept any certificate: a warning at each start."
    )
    tls_pinned_cert_sha256: Pin | None = Field(
        default=None,
        description="SHA-256 of its certificate, 64 hex digits; replaces other checks.",
    )
    tls_client_cert: FilePath | None = Field(
        default=None, description="PEM file shown to the backend."
    )
    tls_client_key: FilePath | None = Field(default=None, description="PEM file: its private key.")
    source_ips: tuple[IPAddress, ...] = Field(
        default=(), description="Local addresses to connect from, in turn, by address family."
    )
    hide_auth_errors: Flag = Field(
        default=False, description="Answer refused logins in our words instead of the backend's."
    )
    allow_plaintext_auth: Flag = Field(
        default=False, description="Send credentials to it without TLS: its network is trusted."
    )
    protocol: dict[ProtocolName, Endpoint] = Field(
        default={}, description="What it speaks, and where."
    )

    @property
    def serverName(self) -> str:
        """The name that its certificate must carry."""
        return self.tls_server_name or self.host

    def forwardingFor(self, protocol: str) -> Forwarding:
        """How it is told who the client is: the endpoint's word, else its own, else its default."""
        endpoint = self.protocol.get(protocol)
        own = endpoint.forwarding if endpoint is not None else None
        return own or self.forwarding or self._defaultForwarding

    @property
    def _defaultForwarding(self) -> Forwarding:
        return Forwarding.PROXY if self.proxy_protocol else Forwarding.NONE


class Routing(Section):
    """The `[routing]` table."""

    default_destination: Name = Field(description="Where accounts without a mapping go.")
    smtp_passthrough_destination: Name | None = Field(
        default=None, description="Where smtp and lmtp listeners send everything."
    )
    master_user_separators: tuple[Separator, ...] = Field(
        default=("%",), description="What ends the mailbox's name in a master user's login."
    )


class Config(Section):
    """A whole configuration file."""

    server: Server = Field(default=Server(), description="The process.")
    tls: TLS = Field(
        default=TLS(), description="Certificates, versions and suites of client connections."
    )
    listener: dict[Name, Listener] = Field(default={}, description="The sockets, by name.")
    destination: dict[Name, Destination] = Field(default={}, description="The backends, by name.")
    routing: Routing = Field(description="The default destination and the rules for names.")
    mapping: Mapping = Field(description="Which account lives on which destination.")
    capabilities: Capabilities = Field(
        default=Capabilities(), description="What is promised early."
    )
    oauth: OAuth = Field(default=OAuth(), description="How tokens name accounts.")
    http: HTTP = Field(default=HTTP(), description="The HTTP listeners' rules.")
    admin: Admin | None = Field(
        default=None, description="The management API; without it there is none."
    )
