"""Pass-through: SMTP and LMTP without a login, bridged from the first byte.

Knows what is said when there is no backend to bridge to, and how a backend that believes us is told
whose stream follows; must not know what is in the stream.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from mailproxy.config.model import Capabilities
from mailproxy.errors import BackendFailed, PeerGone, ProtocolError, Stage
from mailproxy.protocols.base import Advertised, Command
from mailproxy.protocols.client import ProxyClientFactory
from mailproxy.protocols.server import ProxyServerFactory, Verb
from mailproxy.protocols.submission import SubmissionClient, SubmissionServer


class PassThroughServer(SubmissionServer):
    """Us, towards a client whose every byte is the backend's.

    We speak only when there is no backend, and with a trusted peer, which may introduce its client
    by XCLIENT first; what the backend then says is its answer.
    """

    async def hearIntroduction(self) -> bytes:
        """Answer until XCLIENT, or until something that only the backend can answer."""
        self.greet()
        while True:
            line = await self.readLine()
            name, _, arguments = line.partition(b" ")
            command = Command(b"", name.upper(), arguments.strip())
            if command.verb not in self.verbs:
                return line + b"\r\n"
            await self.serve(command)
            if command.verb == b"XCLIENT" and self.isIntroduced:
                return b""

    isIntroduced = False

    async def introductionVerb(self, command: Command) -> None:
        """Serve XCLIENT; a malformed one is a mistake like any other."""
        self.introduced(command.arguments.split())
        self.isIntroduced = True

    verbs: ClassVar[Mapping[bytes, Verb[Any]]] = {
        b"EHLO": SubmissionServer.ehloVerb,
        b"LHLO": SubmissionServer.ehloVerb,
        b"HELO": SubmissionServer.heloVerb,
        b"NOOP": SubmissionServer.noopVerb,
        b"RSET": SubmissionServer.noopVerb,
        b"QUIT": SubmissionServer.quitVerb,
        b"XCLIENT": introductionVerb,
    }


class PassThroughClient(SubmissionClient):
    """Us, towards a backend that will hear the client itself.

    A backend that believes our address must not take the client's words for ours: so it is told
    who follows, by XCLIENT, before any byte of the client reaches it.
    """

    async def prepare(self) -> None:
        """Speak first only where there is something to say; else the client hears the greeting."""
        if self.settings.introduces or self.settings.startTLS:
            try:
                await super().prepare()
            except BackendFailed as failed:
                # A proxy that waits for the next one's greeting must not ask twice: in a circle of
                # them each attempt would double.
                failed.retry = False
                raise
            self.remember()
        else:
            await self.secureAtOnce()

    async def makeReady(self) -> None:
        """Introduce the client; the greeting that follows is for its ears."""
        if self.settings.introduces:
            await self.readCapabilities()
            if b"ADDR" not in self.attributes:
                raise BackendFailed(Stage.UNSUPPORTED, "XCLIENT is not offered to us")
            await self.introduce()

    async def catchUp(self, first: bytes) -> None:
        """Hear the backend's greeting, greet it by the client's name, and pass the client on."""
        try:
            if not self.opening:
                await self.readGreeting()
            if self.origin.helo is not None:
                await self.readCapabilities()
        except (PeerGone, ProtocolError) as error:
            raise BackendFailed(Stage.GREETING, str(error)) from error
        self.send(first)


class LMTPClient(PassThroughClient):
    """Us, towards an LMTP backend (RFC 2033)."""

    hello = b"LHLO"


class PassThroughServerFactory(ProxyServerFactory):
    """Listens for SMTP or LMTP clients."""

    conversation = PassThroughServer

    @classmethod
    def advertised(cls, capabilities: Capabilities) -> Advertised:
        """Promise nothing: the backend speaks for itself."""
        return Advertised(banner=b"mailproxy")


class SMTPClientFactory(ProxyClientFactory):
    """Connects to SMTP backends."""

    conversation = PassThroughClient


class LMTPClientFactory(ProxyClientFactory):
    """Connects to LMTP backends."""

    conversation = LMTPClient
