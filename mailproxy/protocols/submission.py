"""Submission's words on both sides: SMTP up to the login (RFC 6409, 5321, 4954, 3207, 2034).

Knows reply codes and EHLO; must not know what comes of a login, nor anything of a message.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from mailproxy.config.model import Capabilities
from mailproxy.errors import BackendFailed, LimitExceeded, ProtocolError, Refusal, Stage
from mailproxy.protocols.base import Advertised, AuthResult, Command, Dismissed, Login, Verdict
from mailproxy.protocols.client import ProxyClient, ProxyClientFactory
from mailproxy.protocols.server import ProxyServer, ProxyServerFactory, Verb
from mailproxy.stream import MAX_LINE

REFUSALS: Mapping[Refusal, bytes] = {
    Refusal.AUTHENTICATION: b"535 5.7.8 Authentication failed.",
    Refusal.TEMPORARY: b"454 4.7.0 Temporary authentication failure.",
    Refusal.UNAVAILABLE: b"421 4.3.2 Temporarily unavailable, try again later.",
    Refusal.PRIVACY: b"538 5.7.11 Encryption required for requested authentication mechanism.",
    Refusal.MECHANISM: b"504 5.5.4 Authentication mechanism not supported.",
    Refusal.ENCODING: b"501 5.5.2 Malformed authentication message.",
    Refusal.CANCELLED: b"501 5.7.0 Authentication cancelled.",
    Refusal.TOO_BIG: b"500 5.5.6 Line too long.",
    Refusal.TOO_MANY: b"421 4.7.0 Too many errors.",
    Refusal.TIMEOUT: b"421 4.4.2 Timeout while waiting for a login.",
    Refusal.SHUTDOWN: b"421 4.3.2 Server shutting down, try again later.",
}

_HELLO = re.compile(rb"[\x21-\x7e]{1,255}\Z")
_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])([^\r\n]*))?\Z")
_REFUSED = {b"4": Verdict.TEMPORARY, b"5": Verdict.REFUSED}
_LONGEST_COMMAND = 512
"""Bytes of a command with its line end (RFC 5321, section 4.5.3.1.4)."""


class SubmissionServer(ProxyServer):
    """Us, as a submission server that takes no mail before a login."""

    lineEnd = b"\r\n"
    _heard = _parted = False

    def greeting(self) -> bytes:
        """Say hello."""
        return b"220 %b ESMTP %b\r\n" % (self.hostname, self.settings.advertised.banner)

    @property
    def hostname(self) -> bytes:
        """What we call ourselves: the configured name, else the address that the client sees."""
        if self.settings.hostname is not None:
            return self.settings.hostname
        host = self.origin.local.host
        return (f"[IPv6:{host}]" if ":" in host else f"[{host}]").encode()

    def forget(self) -> None:
        """Let the client say EHLO again (RFC 3207, section 4.2)."""
        self._heard = False
        self.origin = attrs.evolve(self.origin, helo=None)

    async def readCommand(self) -> Command:
        """Read `verb SP arguments`; a bare CR or LF never ends a line, nor may it stand in one."""
        line = await self.readLine()
        if b"\n" in line or b"\r" in line:
            raise ProtocolError("a bare CR or LF")
        verb, _, arguments = line.partition(b" ")
        return Command(b"", verb.upper(), arguments.strip())

    async def continuation(self, challenge: bytes) -> bytes:
        """Ask by 334."""
        self.reply(b"334 " + challenge)
        return await self.readLine()

    def reply(self, *lines: bytes) -> None:
        """Send one reply, whole; one that begins with 421 is our last."""
        self._parted = lines[0].startswith(b"421")
        self.send(b"\r\n".join([*lines, b""]))

    def refuse(self, command: Command, refusal: Refusal) -> None:
        """Word a refusal with its enhanced code."""
        self.reply(REFUSALS[refusal])

    def mistake(self, command: Command | None) -> None:
        """Tell what is no command from what comes at the wrong time."""
        if command is None:
            self.reply(b"500 5.5.2 Malformed command.")
        elif command.verb == b"MAIL":
            self.reply(b"530 5.7.0 Authentication required.")
        elif command.verb in (b"EHLO", b"HELO"):
            self.reply(b"501 5.5.4 A name is required.")
        else:
            self.reply(b"503 5.5.1 Not now, or unknown.")

    def upgrade(self, command: Command) -> None:
        """Send the client into the handshake."""
        self.reply(b"220 2.0.0 Begin TLS negotiation now.")

    def answer(self, command: Command, result: AuthResult) -> None:
        """Pass on what the backend said, all lines of it."""
        self.reply(result.preamble + result.reply)

    def reject(self, login: Login, result: AuthResult, *, hide: bool) -> None:
        """Tell a refusal; a backend's 421 that we pass on ends our conversation as it ended its.

        :raises Dismissed: then, or when it was the last attempt.
        """
        super().reject(login, result, hide=hide)
        if self._parted:
            raise Dismissed(Refusal.UNAVAILABLE)

    def dismiss(self, refusal: Refusal, command: Command | None) -> None:
        """Say 421, once, or why the line was too long."""
        if not self._parted:
            self.reply(REFUSALS[refusal])

    async def ehloVerb(self, command: Command) -> None:
        """Serve EHLO."""
        self._hello(command)
        lines = [self.hostname, *self.settings.advertised.capabilities]
        if self.offersTLS:
            lines.append(b"STARTTLS")
        if self.offered:
            lines.append(b"AUTH " + b" ".join(each.value for each in self.offered))
        if self.trusting:
            lines.append(b"XCLIENT ADDR PORT PROTO HELO DESTADDR DESTPORT SESSION TTL")
        self.reply(*(b"250-" + line for line in lines[:-1]), b"250 " + lines[-1])

    async def heloVerb(self, command: Command) -> None:
        """Serve HELO."""
        self._hello(command)
        self.reply(b"250 " + self.hostname)

    def _hello(self, command: Command) -> None:
        if not _HELLO.match(command.arguments):
            raise ProtocolError("no name to greet")
        self._heard = True
        self.origin = attrs.evolve(self.origin, helo=command.arguments)

    async def noopVerb(self, command: Command) -> None:
        """Serve NOOP and RSET."""
        self.reply(b"250 2.0.0 OK")

    async def quitVerb(self, command: Command) -> None:
        """Serve QUIT."""
        self.reply(b"221 2.0.0 Bye.")
        raise Dismissed(None)

    async def authVerb(self, command: Command) -> Login | None:
        """Serve AUTH (RFC 4954)."""
        words = command.arguments.split()
        if not self._heard or not 1 <= len(words) <= 2:
            raise ProtocolError("AUTH before EHLO, or without a mechanism")
        return await self.authenticate(command, words[0], words[1] if len(words) == 2 else None)

    async def xclientVerb(self, command: Command) -> None:
        """Serve XCLIENT from a trusted proxy; the dialogue begins anew."""
        self.introduced(command.arguments.split())
        self._heard = False
        self.send(self.greeting())

    verbs: ClassVar[Mapping[bytes, Verb[Any]]] = {
        b"EHLO": ehloVerb,
        b"HELO": heloVerb,
        b"NOOP": noopVerb,
        b"RSET": noopVerb,
        b"QUIT": quitVerb,
        b"STARTTLS": ProxyServer.startTLSVerb,
        b"AUTH": authVerb,
        b"XCLIENT": xclientVerb,
    }


@attrs.frozen
class _Reply:
    """A reply: its code, the text of each line, and all its bytes."""

    code: bytes
    lines: tuple[bytes, ...]
    preamble: bytes
    last: bytes


class SubmissionClient(ProxyClient):
    """Us, as the submission client of a backend.

    :ivar opening: the backend's last greeting, with its line ends.
    :cvar hello: the verb that asks for the backend's extensions.
    """

    hello = b"EHLO"
    lineEnd = b"\r\n"
    opening = b""
    _extensions: Mapping[bytes, tuple[bytes, ...]] = {}

    async def readGreeting(self) -> None:
        """Take 220; everything else is a temporary refusal."""
        reply = await self._reply()
        if reply.code != b"220":
            raise BackendFailed(Stage.GREETING, f"greeted with {reply.code.decode()}", retry=True)
        self._greetedBy(reply)

    def _greetedBy(self, reply: _Reply) -> None:
        self.opening = reply.preamble + reply.last + b"\r\n"
        self._extensions = {}

    async def readCapabilities(self) -> None:
        """Say EHLO by the client's own name."""
        if self._extensions:
            return
        reply = await self._command(self.hello + b" " + self._ownName())
        _expect(b"250", reply, "EHLO")
        words = [line.upper().split() for line in reply.lines[1:]]
        self._extensions = {b"": (), **{first: tuple(rest) for first, *rest in filter(None, words)}}

    def _ownName(self) -> bytes:
        """Name the client as it has named itself, else by its address (RFC 5321, 4.1.3)."""
        host = self.origin.client.host.encode()
        return self.origin.helo or (b"[IPv6:%b]" if b":" in host else b"[%b]") % host

    async def requestTLS(self) -> None:
        """Ask for STARTTLS; what was learned before it does not count."""
        await self.readCapabilities()
        if not self.offers(b"STARTTLS"):
            raise BackendFailed(Stage.PREPARE, "STARTTLS is not offered")
        _expect(b"220", await self._command(b"STARTTLS"), "STARTTLS")
        self._extensions = {}

    async def introduce(self) -> None:
        """Send what XCLIENT takes of what we know; the backend then greets anew."""
        if not (self.settings.introduces and self.offers(b"XCLIENT")):
            return
        words = self.origin.xclient(self.attributes, smtp=True)
        if len(b" ".join(words)) > _LONGEST_COMMAND - len(b"XCLIENT \r\n"):
            words = [word for word in words if not word.startswith(b"HELO=")]
        if words:
            reply = await self._command(b"XCLIENT " + b" ".join(words))
            _expect(b"220", reply, "XCLIENT")
            self._greetedBy(reply)

    def offers(self, extension: bytes) -> bool:
        """Whether the backend's last EHLO lists an extension."""
        return extension in self._extensions

    @property
    def attributes(self) -> frozenset[bytes]:
        """What may be said by XCLIENT; nothing where it is not offered."""
        return frozenset(self._extensions.get(b"XCLIENT", ()))

    @property
    def mechanisms(self) -> frozenset[bytes]:
        """The SASL mechanisms that EHLO lists."""
        return frozenset(self._extensions.get(b"AUTH", ()))

    def sendAuthenticate(self, mechanism: bytes, initial: bytes) -> bool:
        """Send AUTH, with the initial response if it fits."""
        return self.sendInitial(b"AUTH " + mechanism, initial, _LONGEST_COMMAND)

    async def readStep(self) -> bytes | AuthResult:
        """Read a challenge or the answer."""
        reply = await self._reply()
        if reply.code == b"334":
            return reply.lines[-1].strip()
        verdict = Verdict.ACCEPTED if reply.code == b"235" else _REFUSED.get(reply.code[:1])
        if verdict is None:
            raise ProtocolError("no answer to a login")
        return AuthResult(verdict, reply.preamble, reply.last)

    async def _command(self, command: bytes) -> _Reply:
        self.send(command + b"\r\n")
        return await self._reply()

    async def _reply(self) -> _Reply:
        """Read one reply, all lines of it."""
        texts: list[bytes] = []
        preamble = b""
        while True:
            line = await self.readLine()
            found = _LINE.match(line)
            if found is None:
                raise ProtocolError("no SMTP reply")
            texts.append(found[3] or b"")
            if found[2] != b"-":
                return _Reply(found[1], tuple(texts), preamble, line)
            preamble += line + b"\r\n"
            if len(preamble) > MAX_LINE:
                raise LimitExceeded("a reply is too long")


def _expect(code: bytes, reply: _Reply, command: str) -> None:
    """Make sure that a command before the login has done what it should."""
    if reply.code != code:
        temporary = reply.code.startswith(b"4")
        detail = f"{command} is answered by {reply.code.decode()}"
        raise BackendFailed(Stage.PREPARE, detail, retry=temporary)


class SubmissionServerFactory(ProxyServerFactory):
    """Listens for submission clients."""

    conversation = SubmissionServer

    @classmethod
    def advertised(cls, capabilities: Capabilities) -> Advertised:
        """Read `[capabilities.submission]`."""
        table = capabilities.submission
        return Advertised.of(table, table.banner, table.ehlo)


class SubmissionClientFactory(ProxyClientFactory):
    """Connects to submission backends."""

    conversation = SubmissionClient
