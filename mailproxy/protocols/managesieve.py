"""ManageSieve's words on both sides (RFC 5804).

Knows capability blocks, strings and response codes; must not know what comes of a login, nor any
script.
"""

from collections.abc import Mapping
from typing import ClassVar

import attrs

from mailproxy.config.model import Capabilities
from mailproxy.errors import BackendFailed, LimitExceeded, ProtocolError, Refusal, Stage
from mailproxy.protocols import grammar
from mailproxy.protocols.base import Advertised, AuthResult, Command, Dismissed, Login, Verdict
from mailproxy.protocols.client import ProxyClient, ProxyClientFactory
from mailproxy.protocols.literals import readPieces, written
from mailproxy.protocols.server import ProxyServer, ProxyServerFactory, Verb

_REFUSALS: Mapping[Refusal, bytes] = {
    Refusal.AUTHENTICATION: b'NO "Authentication failed."',
    Refusal.TEMPORARY: b'NO (TRYLATER) "Temporarily unavailable, try again later."',
    Refusal.PRIVACY: b'NO (ENCRYPT-NEEDED) "Secrets are taken over TLS only."',
    Refusal.MECHANISM: b'NO "Authentication mechanism not supported."',
    Refusal.ENCODING: b'NO "Malformed authentication message."',
    Refusal.CANCELLED: b'NO "Authentication cancelled."',
}
_FAREWELLS: Mapping[Refusal, bytes] = {
    Refusal.UNAVAILABLE: b'(TRYLATER) "Temporarily unavailable, try again later."',
    Refusal.TOO_BIG: b'"Command too long."',
    Refusal.TOO_MANY: b'"Too many failures."',
    Refusal.TIMEOUT: b'"Disconnected for inactivity during authentication."',
    Refusal.SHUTDOWN: b'(TRYLATER) "Server shutting down, try again later."',
}

_MOST_CAPABILITIES = 100
"""Lines of a capability block."""


class ManageSieveServer(ProxyServer):
    """Us, as a ManageSieve server before authentication."""

    lineEnd = b"\r\n"

    def greeting(self) -> bytes:
        """Send the capability block, as at the start and after STARTTLS (section 1.7)."""
        advertised = self.settings.advertised
        lines = [
            b'"IMPLEMENTATION" ' + grammar.quote(advertised.banner),
            b'"SIEVE" ' + grammar.quote(b" ".join(advertised.capabilities)),
            b'"SASL" ' + grammar.quote(b" ".join(each.value for each in self.offered)),
            b'"VERSION" "1.0"',
        ]
        if self.offersTLS:
            lines.append(b'"STARTTLS"')
        if self.trusting:
            lines.append(b'"XCLIENT" "ADDR PORT DESTADDR DESTPORT SESSION TTL CLIENT-TRANSPORT"')
        return b"\r\n".join([*lines, b'OK "Ready."', b""])

    async def readCommand(self) -> Command:
        """Read a verb and its strings; literals come unasked (`{n+}`)."""
        pieces = await readPieces(self, await self.readLine())
        match grammar.parse(pieces):
            case [grammar.Atom() as verb, *arguments]:
                return Command(b"", verb.upper(), arguments)
        raise grammar.GrammarError("no command")

    async def continuation(self, challenge: bytes) -> bytes:
        """Ask by a string, and read one."""
        self.send(_toClient(challenge) + b"\r\n")
        pieces = await readPieces(self, await self.readLine())
        return grammar.strings(grammar.parse(pieces), 1)[0]

    def reply(self, *lines: bytes) -> None:
        """Send whole lines."""
        self.send(b"\r\n".join([*lines, b""]))

    def refuse(self, command: Command, refusal: Refusal) -> None:
        """Word a refusal with its response code."""
        self.reply(_REFUSALS[refusal])

    def mistake(self, command: Command | None) -> None:
        """Answer NO."""
        self.reply(b'NO "Unknown or malformed command."')

    def upgrade(self, command: Command) -> None:
        """Send the client into the handshake."""
        self.reply(b'OK "Begin TLS negotiation now."')

    def upgraded(self) -> None:
        """Send the capability block again: it has changed (section 2.2)."""
        self.send(self.greeting())

    def answer(self, command: Command, result: AuthResult) -> None:
        """Pass on what the backend said, its SASL data too."""
        self.reply(result.reply)

    def dismiss(self, refusal: Refusal, command: Command | None) -> None:
        """Say NO to who waits for an answer, and BYE."""
        words = _FAREWELLS[refusal]
        if command is not None:
            self.reply(b"NO " + words)
        self.reply(b"BYE " + words)

    async def capabilityVerb(self, command: Command) -> None:
        """Serve CAPABILITY."""
        self.send(self.greeting())

    async def noopVerb(self, command: Command) -> None:
        """Serve NOOP; a tag is given back (section 2.13)."""
        if not command.arguments:
            self.reply(b'OK "Completed."')
            return
        (tag,) = grammar.strings(command.arguments, 1)
        self.reply(b'OK (TAG %b) "Completed."' % _toClient(tag))

    async def logoutVerb(self, command: Command) -> None:
        """Serve LOGOUT."""
        self.reply(b'OK "Logging out."')
        raise Dismissed(None)

    async def authenticateVerb(self, command: Command) -> Login | None:
        """Serve AUTHENTICATE: a mechanism, and an initial response or none (section 2.1)."""
        count = max(1, min(len(command.arguments), 2))
        mechanism, *initial = grammar.strings(command.arguments, count)
        return await self.authenticate(command, mechanism, initial[0] if initial else None)

    async def xclientVerb(self, command: Command) -> None:
        """Serve XCLIENT from a trusted proxy."""
        self.introduced(grammar.strings(command.arguments, len(command.arguments)))
        self.reply(b'OK "Updated."')

    verbs: ClassVar[Mapping[bytes, Verb["ManageSieveServer"]]] = {
        b"CAPABILITY": capabilityVerb,
        b"NOOP": noopVerb,
        b"LOGOUT": logoutVerb,
        b"STARTTLS": ProxyServer.startTLSVerb,
        b"AUTHENTICATE": authenticateVerb,
        b"XCLIENT": xclientVerb,
    }


def _toClient(data: bytes) -> bytes:
    """Write a string; a server's literals are not marked as those of a client (section 4)."""
    return grammar.quote(data) if grammar.quotable(data) else b"{%d}\r\n%b" % (len(data), data)


@attrs.frozen
class _Response:
    """One response of a backend: its values, and all its bytes without the line end."""

    values: list[grammar.Value]
    whole: bytes

    @property
    def status(self) -> bytes:
        """OK, NO or BYE; empty for what ends nothing: a capability or a challenge."""
        first = self.values[0] if self.values else b""
        return first.upper() if isinstance(first, grammar.Atom) else b""

    @property
    def strings(self) -> list[bytes]:
        """The strings of a capability or a challenge."""
        return [value for value in self.values if isinstance(value, bytes)]

    @property
    def isTemporary(self) -> bool:
        """Whether the response code asks to try later."""
        return any(
            isinstance(value, tuple) and value[:1] and value[0].upper() == b"TRYLATER"
            for value in self.values
        )


class ManageSieveClient(ProxyClient):
    """Us, as the ManageSieve client of a backend."""

    _capabilities: Mapping[bytes, bytes] | None = None

    async def readGreeting(self) -> None:
        """Take the capability block and its OK; BYE and NO are temporary refusals."""
        capabilities: dict[bytes, bytes] = {}
        for _ in range(_MOST_CAPABILITIES):
            response = await self._response()
            if response.status:
                break
            name, *value = response.strings or [b""]
            capabilities[name.upper()] = value[0] if value else b""
        else:
            raise LimitExceeded("the capability block is too long")
        if response.status != b"OK":
            raise BackendFailed(Stage.GREETING, "greeted with a refusal", retry=True)
        self._capabilities = capabilities

    async def requestTLS(self) -> None:
        """Ask for STARTTLS; the block from before it does not count."""
        if self._capability(b"STARTTLS") is None:
            raise BackendFailed(Stage.PREPARE, "STARTTLS is not offered")
        if not await self._accepts(b"STARTTLS"):
            raise BackendFailed(Stage.PREPARE, "STARTTLS is refused")
        self._capabilities = None

    async def readCapabilities(self) -> None:
        """Read the block that comes by itself after the handshake."""
        if self._capabilities is None:
            await self.readGreeting()

    async def introduce(self) -> None:
        """Send XCLIENT with what the backend takes, where the endpoint asks for it."""
        taken = self._capability(b"XCLIENT")
        if not self.settings.introduces or taken is None:
            return
        # Dovecot's Pigeonhole lists no attributes: it takes them all.
        words = self.origin.xclient(frozenset(taken.upper().split()) or None)
        if words and not await self._accepts(b" ".join([b"XCLIENT", *words])):
            raise BackendFailed(Stage.PREPARE, "XCLIENT is refused")

    @property
    def mechanisms(self) -> frozenset[bytes]:
        """The SASL mechanisms of the block."""
        return frozenset((self._capability(b"SASL") or b"").upper().split())

    def _capability(self, name: bytes) -> bytes | None:
        """The value of a capability, empty for one without; None when it is not in the block."""
        return (self._capabilities or {}).get(name)

    def sendAuthenticate(self, mechanism: bytes, initial: bytes) -> bool:
        """Send AUTHENTICATE with the initial response."""
        self.send(b"AUTHENTICATE %b %b\r\n" % (grammar.quote(mechanism), grammar.string(initial)))
        return True

    def sendAnswer(self, answer: bytes) -> None:
        """Answer a challenge by a string."""
        self.send(grammar.string(answer) + b"\r\n")

    async def readStep(self) -> bytes | AuthResult:
        """Read a challenge or the answer."""
        response = await self._response()
        if response.status == b"OK":
            return AuthResult(Verdict.ACCEPTED, b"", response.whole)
        if response.status == b"NO":
            verdict = Verdict.TEMPORARY if response.isTemporary else Verdict.REFUSED
            return AuthResult(verdict, b"", response.whole)
        if response.status or len(response.strings) != 1:
            raise ProtocolError("no answer to a login")
        return response.strings[0]

    async def _accepts(self, command: bytes) -> bool:
        self.send(command + b"\r\n")
        return (await self._response()).status == b"OK"

    async def _response(self) -> _Response:
        """Read one response with its literals."""
        pieces = await readPieces(self, await self.readLine())
        return _Response(grammar.parse(pieces), written(pieces))


class ManageSieveServerFactory(ProxyServerFactory):
    """Listens for ManageSieve clients."""

    conversation = ManageSieveServer

    @classmethod
    def advertised(cls, capabilities: Capabilities) -> Advertised:
        """Read `[capabilities.managesieve]`."""
        table = capabilities.managesieve
        return Advertised.of(table, table.implementation, table.sieve)


class ManageSieveClientFactory(ProxyClientFactory):
    """Connects to ManageSieve backends."""

    conversation = ManageSieveClient
