"""POP3's words on both sides (RFC 1939, 2449, 2595, 3206, 5034).

Knows status indicators and response codes; must not know what comes of a login.
"""

from collections.abc import Mapping
from typing import ClassVar

from mailproxy.config.model import Capabilities
from mailproxy.errors import BackendFailed, LimitExceeded, ProtocolError, Refusal, Stage
from mailproxy.protocols.base import Advertised, AuthResult, Command, Dismissed, Login, Verdict
from mailproxy.protocols.client import ProxyClient, ProxyClientFactory
from mailproxy.protocols.server import ProxyServer, ProxyServerFactory, Verb
from mailproxy.sasl import Credentials
from mailproxy.stream import MAX_LINE

_REFUSALS: Mapping[Refusal, bytes] = {
    Refusal.AUTHENTICATION: b"-ERR [AUTH] Authentication failed.",
    Refusal.TEMPORARY: b"-ERR [SYS/TEMP] Temporarily unavailable, try again later.",
    Refusal.UNAVAILABLE: b"-ERR [SYS/TEMP] Temporarily unavailable, try again later.",
    Refusal.PRIVACY: b"-ERR Secrets are taken over TLS only.",
    Refusal.MECHANISM: b"-ERR Authentication mechanism not supported.",
    Refusal.ENCODING: b"-ERR Malformed authentication message.",
    Refusal.CANCELLED: b"-ERR Authentication cancelled.",
    Refusal.TOO_BIG: b"-ERR Command too long.",
    Refusal.TIMEOUT: b"-ERR [SYS/TEMP] Disconnected for inactivity during authentication.",
    Refusal.SHUTDOWN: b"-ERR [SYS/TEMP] Server shutting down, try again later.",
}

_TEMPORARY = (b"[SYS/TEMP]", b"[SYS/PERM]", b"[IN-USE]", b"[LOGIN-DELAY]")
"""Response codes of an error that says nothing about the password (RFC 2449, 3206)."""

_LONGEST_COMMAND = 255
"""Bytes of a command with its line end (RFC 2449, section 4); longer SASL messages go alone."""


class POP3Server(ProxyServer):
    """Us, as a POP3 server in the authorization state."""

    _user: bytes | None = None

    def greeting(self) -> bytes:
        """Say hello; a trusted proxy learns that it may speak for its client."""
        marker = b"[XCLIENT] " if self.trusting else b""
        return b"+OK %b%b\r\n" % (marker, self.settings.advertised.banner)

    def forget(self) -> None:
        """Forget a USER that came in the clear."""
        self._user = None

    async def readCommand(self) -> Command:
        """Read `verb SP arguments`; of a password every byte behind that one space counts."""
        verb, _, arguments = (await self.readLine()).partition(b" ")
        return Command(b"", verb.upper(), arguments)

    async def continuation(self, challenge: bytes) -> bytes:
        """Ask by `+`."""
        self.send(b"+ %b\r\n" % challenge)
        return await self.readLine()

    def refuse(self, command: Command, refusal: Refusal) -> None:
        """Word a refusal with its response code."""
        self.send(_REFUSALS[refusal] + b"\r\n")

    def mistake(self, command: Command | None) -> None:
        """Answer -ERR."""
        self.send(b"-ERR Unknown or malformed command.\r\n")

    def upgrade(self, command: Command) -> None:
        """Send the client into the handshake."""
        self.send(b"+OK Begin TLS negotiation now.\r\n")

    def answer(self, command: Command, result: AuthResult) -> None:
        """Pass on what the backend said."""
        self.send(result.reply + b"\r\n")

    def dismiss(self, refusal: Refusal, command: Command | None) -> None:
        """Say why, unless the last answer has said it."""
        if refusal in _REFUSALS:
            self.send(_REFUSALS[refusal] + b"\r\n")

    async def capaVerb(self, command: Command) -> None:
        """Serve CAPA (RFC 2449)."""
        lines = [b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING"]
        if self.takesPasswords:
            lines.append(b"USER")
        if self.offered:
            lines.append(b"SASL " + b" ".join(each.value for each in self.offered))
        if self.offersTLS:
            lines.append(b"STLS")
        self._list(b"Capability list follows.", [*lines, b"IMPLEMENTATION mailproxy"])

    def _list(self, title: bytes, lines: list[bytes]) -> None:
        self.send(b"\r\n".join([b"+OK " + title, *lines, b".", b""]))

    async def noopVerb(self, command: Command) -> None:
        """Serve NOOP."""
        self.send(b"+OK\r\n")

    async def quitVerb(self, command: Command) -> None:
        """Serve QUIT."""
        self.send(b"+OK Logging out.\r\n")
        raise Dismissed(None)

    async def userVerb(self, command: Command) -> None:
        """Serve USER: the answer does not tell whether there is such an account."""
        if not command.arguments:
            raise ProtocolError("USER without a name")
        if self.mayLogIn(command):
            self._user = command.arguments
            self.send(b"+OK\r\n")

    async def passVerb(self, command: Command) -> Login | None:
        """Serve PASS."""
        user, self._user = self._user, None
        if user is None:
            raise ProtocolError("PASS without USER")
        return self.logInWithPassword(command, user, command.arguments)

    async def authVerb(self, command: Command) -> Login | None:
        """Serve AUTH (RFC 5034); alone it asks for the list of mechanisms."""
        match command.arguments.split():
            case []:
                self._list(b"Mechanisms follow.", [each.value for each in self.offered])
                return None
            case [mechanism]:
                return await self.authenticate(command, mechanism, None)
            case [mechanism, initial]:
                return await self.authenticate(command, mechanism, initial)
        raise ProtocolError("AUTH takes two arguments at most")

    async def xclientVerb(self, command: Command) -> None:
        """Serve XCLIENT from a trusted proxy."""
        self.introduced(command.arguments.split())
        self.send(b"+OK\r\n")

    verbs: ClassVar[Mapping[bytes, Verb["POP3Server"]]] = {
        b"CAPA": capaVerb,
        b"NOOP": noopVerb,
        b"QUIT": quitVerb,
        b"STLS": ProxyServer.startTLSVerb,
        b"USER": userVerb,
        b"PASS": passVerb,
        b"AUTH": authVerb,
        b"XCLIENT": xclientVerb,
    }
    # APOP and everything else is -ERR: we send no timestamp that a digest could be made with.


class POP3Client(ProxyClient):
    """Us, as the POP3 client of a backend."""

    _takesXCLIENT = False
    _capabilities: Mapping[bytes, frozenset[bytes]] | None = None

    async def readGreeting(self) -> None:
        """Take +OK; -ERR is a temporary refusal."""
        greeting = await self.readLine()
        if greeting.startswith(b"-ERR"):
            raise BackendFailed(Stage.GREETING, "greeted with -ERR", retry=True)
        if not greeting.startswith(b"+OK"):
            raise ProtocolError("no POP3 greeting")
        self._takesXCLIENT = b"[XCLIENT]" in greeting

    async def readCapabilities(self) -> None:
        """Ask CAPA; a backend that does not know it has USER and PASS."""
        if self._capabilities is not None:
            return
        capabilities: dict[bytes, frozenset[bytes]] = {}
        if await self._accepts(b"CAPA"):
            size = 0
            while (line := await self.readLine()) != b".":
                size += len(line) + 2
                if size > MAX_LINE:
                    raise LimitExceeded("the capability list is too long")
                name, *values = line.upper().split() or [b""]
                capabilities[name] = frozenset(values)
        self._capabilities = capabilities

    async def requestTLS(self) -> None:
        """Ask for STLS; what was learned before it does not count."""
        await self.readCapabilities()
        if not self._offers(b"STLS"):
            raise BackendFailed(Stage.PREPARE, "STLS is not offered")
        if not await self._accepts(b"STLS"):
            raise BackendFailed(Stage.PREPARE, "STLS is refused")
        self._capabilities = None

    async def introduce(self) -> None:
        """Send XCLIENT where the endpoint asks for it and the greeting has offered it."""
        if not (self.settings.introduces and self._takesXCLIENT):
            return
        if not await self._accepts(b"XCLIENT " + b" ".join(self.origin.xclient())):
            raise BackendFailed(Stage.PREPARE, "XCLIENT is refused")

    @property
    def mechanisms(self) -> frozenset[bytes]:
        """The SASL mechanisms that CAPA lists."""
        return (self._capabilities or {}).get(b"SASL", frozenset())

    def sendAuthenticate(self, mechanism: bytes, initial: bytes) -> bool:
        """Send AUTH, with the initial response if it fits."""
        return self.sendInitial(b"AUTH " + mechanism, initial, _LONGEST_COMMAND)

    async def readStep(self) -> bytes | AuthResult:
        """Read a challenge or the answer."""
        line = await self.readLine()
        if line.startswith(b"+OK"):
            return AuthResult(Verdict.ACCEPTED, b"", line)
        if line.startswith(b"-ERR"):
            temporary = line[5:].upper().startswith(_TEMPORARY)
            return AuthResult(Verdict.TEMPORARY if temporary else Verdict.REFUSED, b"", line)
        if not line.startswith(b"+"):
            raise ProtocolError("no answer to a login")
        return line[1:].strip()

    async def logInPlainly(self, credentials: Credentials) -> AuthResult | None:
        """Send USER and PASS; what has no place on a line cannot go that way."""
        words = credentials.user + credentials.secret
        if (self._capabilities and not self._offers(b"USER")) or b"\r" in words or b"\n" in words:
            return None
        self.send(b"USER %b\r\n" % credentials.user)
        result = await self._readAnswer()
        if result.accepted:
            self.send(b"PASS %b\r\n" % credentials.secret)
            result = await self._readAnswer()
        return result

    async def _readAnswer(self) -> AuthResult:
        step = await self.readStep()
        if not isinstance(step, AuthResult):
            raise ProtocolError("a challenge where none belongs")
        return step

    def _offers(self, capability: bytes) -> bool:
        return capability in (self._capabilities or {})

    async def _accepts(self, command: bytes) -> bool:
        self.send(command + b"\r\n")
        return (await self.readLine()).startswith(b"+OK")


class POP3ServerFactory(ProxyServerFactory):
    """Listens for POP3 clients."""

    conversation = POP3Server

    @classmethod
    def advertised(cls, capabilities: Capabilities) -> Advertised:
        """Read `[capabilities.pop3]`."""
        table = capabilities.pop3
        return Advertised.of(table, table.banner)


class POP3ClientFactory(ProxyClientFactory):
    """Connects to POP3 backends."""

    conversation = POP3Client
