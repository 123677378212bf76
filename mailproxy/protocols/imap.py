"""IMAP's words on both sides (RFC 9051 and 3501; RFC 4959, 7888, 2971, 5530).

Knows tags, literals and response codes; must not know what comes of a login.
"""

from collections.abc import Mapping
from typing import ClassVar

import attrs

from mailproxy.config.model import Capabilities
from mailproxy.errors import BackendFailed, LimitExceeded, ProtocolError, Refusal, Stage
from mailproxy.origin import Fields
from mailproxy.protocols import grammar
from mailproxy.protocols.base import Advertised, AuthResult, Command, Dismissed, Login, Verdict
from mailproxy.protocols.client import ProxyClient, ProxyClientFactory
from mailproxy.protocols.literals import TooBig, readPieces, written
from mailproxy.protocols.server import ProxyServer, ProxyServerFactory, Verb
from mailproxy.sasl import Credentials
from mailproxy.stream import MAX_LINE

_TRY_LATER = b"NO [UNAVAILABLE] Temporarily unavailable, try again later."

_REFUSALS: Mapping[Refusal, bytes] = {
    Refusal.AUTHENTICATION: b"NO [AUTHENTICATIONFAILED] Authentication failed.",
    Refusal.TEMPORARY: _TRY_LATER,
    Refusal.UNAVAILABLE: _TRY_LATER,
    Refusal.PRIVACY: b"NO [PRIVACYREQUIRED] Secrets are taken over TLS only.",
    Refusal.MECHANISM: b"NO [CANNOT] Authentication mechanism not supported.",
    Refusal.ENCODING: b"BAD Malformed authentication message.",
    Refusal.CANCELLED: b"BAD Authentication cancelled.",
    Refusal.TOO_BIG: b"NO [TOOBIG] Command too long.",
}

_FAREWELLS: Mapping[Refusal, bytes] = {
    Refusal.UNAVAILABLE: b"* BYE [UNAVAILABLE] Temporarily unavailable, try again later.",
    Refusal.TOO_BIG: b"* BYE [TOOBIG] Command too long.",
    Refusal.TOO_MANY: b"* BYE Too many failures.",
    Refusal.TIMEOUT: b"* BYE Disconnected for inactivity during authentication.",
    Refusal.SHUTDOWN: b"* BYE [UNAVAILABLE] Server shutting down, try again later.",
}

_TEMPORARY = frozenset(
    {
        b"UNAVAILABLE",
        b"INUSE",
        b"LIMIT",
        b"SERVERBUG",
        b"CLIENTBUG",
        b"CANNOT",
        b"CORRUPTION",
        b"CONTACTADMIN",
        b"PRIVACYREQUIRED",
    }
)
"""Response codes of a NO that is not about the credentials (RFC 5530, section 3)."""


class IMAPServer(ProxyServer):
    """Us, as an IMAP server in the not-authenticated state."""

    def greeting(self) -> bytes:
        """Say what we can do at once: most clients then need not ask."""
        return b"* OK [%b] %b\r\n" % (self.capability(), self.settings.advertised.banner)

    def capability(self) -> bytes:
        """Word what may be done now."""
        words = [b"CAPABILITY", *self.settings.advertised.capabilities]
        if self.offersTLS:
            words.append(b"STARTTLS")
        words += [b"AUTH=" + mechanism.value for mechanism in self.offered]
        if not self.takesPasswords:
            words.append(b"LOGINDISABLED")
        return b" ".join(words)

    async def readCommand(self) -> Command:
        """Read `tag SP verb SP arguments`, with literals: those of a bad command too."""
        while True:
            line = await self.readLine()
            tag, _, rest = line.partition(b" ")
            try:
                pieces = await readPieces(self, line, self._consent)
            except TooBig:
                self.refuse(Command(tag if grammar.isTag(tag) else b"*", b""), Refusal.TOO_BIG)
                continue
            if not grammar.isTag(tag):
                raise grammar.GrammarError("bad tag")
            verb, _, pieces[0] = rest.partition(b" ")
            return Command(tag, verb.upper(), pieces)

    def _consent(self) -> None:
        self.send(b"+ OK\r\n")

    async def continuation(self, challenge: bytes) -> bytes:
        """Ask by `+`."""
        self.send(b"+ %b\r\n" % challenge)
        return await self.readLine()

    def reply(self, command: Command, text: bytes) -> None:
        """Send a tagged reply."""
        self.send(b"%b %b\r\n" % (command.tag, text))

    def refuse(self, command: Command, refusal: Refusal) -> None:
        """Word a refusal with its response code."""
        self.reply(command, _REFUSALS[refusal])

    def mistake(self, command: Command | None) -> None:
        """Answer BAD, with the tag when there is one."""
        self.send(b"%b BAD Unknown or malformed command.\r\n" % (command.tag if command else b"*"))

    def upgrade(self, command: Command) -> None:
        """Send the client into the handshake."""
        self.reply(command, b"OK Begin TLS negotiation now.")

    def answer(self, command: Command, result: AuthResult) -> None:
        """Pass on what the backend said, under the client's own tag."""
        self.send(result.preamble)
        self.reply(command, result.reply)

    def dismiss(self, refusal: Refusal, command: Command | None) -> None:
        """Say BYE."""
        if command is not None:
            self.refuse(command, refusal)
        self.send(_FAREWELLS[refusal] + b"\r\n")

    async def capabilityVerb(self, command: Command) -> None:
        """Serve CAPABILITY."""
        self.send(b"* %b\r\n" % self.capability())
        self.reply(command, b"OK Capability completed.")

    async def noopVerb(self, command: Command) -> None:
        """Serve NOOP."""
        self.reply(command, b"OK Completed.")

    async def idVerb(self, command: Command) -> None:
        """Serve ID: take what the client says, say nothing of ourselves (RFC 2971)."""
        match grammar.parse(command.arguments):
            case [tuple(words)] if len(words) % 2 == 0:
                self.describe(_fields(words))
            case [grammar.Atom() as nil] if nil.upper() == b"NIL":
                pass
            case _:
                raise grammar.GrammarError("ID takes a list or NIL")
        self.send(b"* ID NIL\r\n")
        self.reply(command, b"OK Completed.")

    async def logoutVerb(self, command: Command) -> None:
        """Serve LOGOUT."""
        self.send(b"* BYE Logging out.\r\n")
        self.reply(command, b"OK Completed.")
        raise Dismissed(None)

    async def loginVerb(self, command: Command) -> Login | None:
        """Serve LOGIN."""
        user, password = grammar.strings(grammar.parse(command.arguments), 2)
        return self.logInWithPassword(command, user, password)

    async def authenticateVerb(self, command: Command) -> Login | None:
        """Serve AUTHENTICATE, with an initial response (RFC 4959) or without."""
        values = grammar.parse(command.arguments)
        mechanism, *initial = grammar.strings(values, max(1, min(len(values), 2)))
        return await self.authenticate(command, mechanism, initial[0] if initial else None)

    verbs: ClassVar[Mapping[bytes, Verb["IMAPServer"]]] = {
        b"CAPABILITY": capabilityVerb,
        b"NOOP": noopVerb,
        b"ID": idVerb,
        b"LOGOUT": logoutVerb,
        b"STARTTLS": ProxyServer.startTLSVerb,
        b"LOGIN": loginVerb,
        b"AUTHENTICATE": authenticateVerb,
    }


def _fields(words: tuple[bytes, ...]) -> Fields:
    """Pair an ID list up; an unquoted NIL is no value."""
    names, values = words[::2], words[1::2]
    return tuple(
        (name, None if isinstance(value, grammar.Atom) and value.upper() == b"NIL" else value)
        for name, value in zip(names, values, strict=True)
    )


@attrs.frozen
class _Response:
    """One response: its mark (`*`, `+` or a tag), its first word and the rest, literals inside."""

    mark: bytes
    status: bytes
    text: bytes
    whole: bytes

    @property
    def code(self) -> tuple[bytes, ...]:
        """The words of a response code in brackets, upper case; empty without one."""
        code, bracket, _ = self.text[1:].partition(b"]")
        return tuple(code.upper().split()) if self.text[:1] == b"[" and bracket else ()


class IMAPClient(ProxyClient):
    """Us, as the IMAP client of a backend."""

    _commands = 0
    _tag = b""
    _preamble = b""
    _capabilities: frozenset[bytes] | None = None

    async def readGreeting(self) -> None:
        """Take OK; BYE is a temporary refusal, PREAUTH somebody's session that is not ours."""
        greeting = await self._response()
        if greeting.mark != b"*" or greeting.status not in (b"OK", b"BYE", b"PREAUTH"):
            raise ProtocolError("no IMAP greeting")
        if greeting.status != b"OK":
            detail = f"greeted with {greeting.status.decode()}"
            raise BackendFailed(Stage.GREETING, detail, retry=greeting.status == b"BYE")

    async def readCapabilities(self) -> None:
        """Ask, unless the greeting has told."""
        if self._capabilities is None:
            await self._command(b"CAPABILITY")

    async def requestTLS(self) -> None:
        """Ask for STARTTLS; what was learned before it does not count."""
        await self.readCapabilities()
        if not self._offers(b"STARTTLS"):
            raise BackendFailed(Stage.PREPARE, "STARTTLS is not offered")
        if (await self._command(b"STARTTLS")).status != b"OK":
            raise BackendFailed(Stage.PREPARE, "STARTTLS is refused")
        self._capabilities = None

    async def introduce(self) -> None:
        """Send the client's own ID, and ours about it where the endpoint asks for that."""
        fields = self.origin.imapID() if self.settings.introduces else self.origin.description
        words = [
            word
            for name, value in fields
            if grammar.quotable(name) and grammar.quotable(value or b"")
            for word in (grammar.quote(name), b"NIL" if value is None else grammar.quote(value))
        ]
        if words and self._offers(b"ID"):
            await self._command(b"ID (%b)" % b" ".join(words))

    @property
    def mechanisms(self) -> frozenset[bytes]:
        """The SASL mechanisms among the capabilities."""
        found = self._capabilities or frozenset()
        return frozenset(each[5:] for each in found if each.startswith(b"AUTH="))

    def sendAuthenticate(self, mechanism: bytes, initial: bytes) -> bool:
        """Send AUTHENTICATE, with the initial response where the backend takes one (RFC 4959)."""
        self._tag = self._nextTag()
        atOnce = self._offers(b"SASL-IR")
        words = [self._tag, b"AUTHENTICATE", mechanism, *([initial or b"="] if atOnce else [])]
        self.send(b" ".join(words) + b"\r\n")
        return atOnce

    async def readStep(self) -> bytes | AuthResult:
        """Read on to a `+` or the tagged answer; what comes untagged goes along with that."""
        while (response := await self._response()).mark != self._tag:
            if response.mark == b"+":
                return response.whole[2:-2]
            if response.mark != b"*":
                raise ProtocolError("an answer to nothing that was asked")
            if response.status != b"BYE":
                self._preamble += response.whole
                if len(self._preamble) > MAX_LINE:
                    raise LimitExceeded("the answer to a login is too long")
        return _verdict(response, self._preamble)

    async def logInPlainly(self, credentials: Credentials) -> AuthResult | None:
        """Send LOGIN, what cannot be quoted as literals; an early answer is the login's."""
        if self._offers(b"LOGINDISABLED"):
            return None
        self._tag = self._nextTag()
        line = self._tag + b" LOGIN"
        for word in (credentials.user, credentials.secret):
            if grammar.quotable(word):
                line += b" " + grammar.quote(word)
                continue
            unasked = self._offers(b"LITERAL+")
            self.send(line + b" {%d%b}\r\n" % (len(word), b"+" if unasked else b""))
            step = b"" if unasked else await self.readStep()
            if isinstance(step, AuthResult):
                return step
            line = word
        self.send(line + b"\r\n")
        step = await self.readStep()
        if not isinstance(step, AuthResult):
            raise ProtocolError("a challenge where none belongs")
        return step

    def _offers(self, capability: bytes) -> bool:
        return capability in (self._capabilities or ())

    def _nextTag(self) -> bytes:
        self._commands += 1
        return b"P%d" % self._commands

    async def _command(self, text: bytes) -> _Response:
        """Send a command and read on to its tagged response."""
        tag = self._nextTag()
        self.send(b"%b %b\r\n" % (tag, text))
        while (response := await self._response()).mark != tag:
            pass
        return response

    async def _response(self) -> _Response:
        """Read one response with its literals; capabilities in it are learned."""
        whole = written(await readPieces(self, await self.readLine()))
        mark, _, rest = whole.partition(b" ")
        status, _, text = rest.partition(b" ")
        response = _Response(mark, status.upper(), text, whole + b"\r\n")
        self._learn(response)
        return response

    def _learn(self, response: _Response) -> None:
        if response.status == b"CAPABILITY":
            self._capabilities = frozenset(response.text.upper().split())
        elif (code := response.code)[:1] == (b"CAPABILITY",):
            self._capabilities = frozenset(code[1:])


def _verdict(response: _Response, preamble: bytes) -> AuthResult:
    """Understand a tagged response."""
    if response.status == b"OK":
        verdict = Verdict.ACCEPTED
    elif response.status not in (b"NO", b"BAD"):
        raise ProtocolError("no answer to a login")
    else:
        refused = response.status == b"NO" and _TEMPORARY.isdisjoint(response.code[:1])
        verdict = Verdict.REFUSED if refused else Verdict.TEMPORARY
    return AuthResult(verdict, preamble, response.whole[len(response.mark) + 1 : -2])


class IMAPServerFactory(ProxyServerFactory):
    """Listens for IMAP clients."""

    conversation = IMAPServer

    @classmethod
    def advertised(cls, capabilities: Capabilities) -> Advertised:
        """Read `[capabilities.imap]`."""
        table = capabilities.imap
        return Advertised.of(table, table.banner, table.advertise)


class IMAPClientFactory(ProxyClientFactory):
    """Connects to IMAP backends."""

    conversation = IMAPClient
