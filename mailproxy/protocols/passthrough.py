"""Pass-through: SMTP and LMTP without a login, bridged from the first byte.

Knows what is said when there is no backend to bridge to, and how a backend that believes us is told
whose stream follows; must not know what is in the stream.
"""

from mailproxy.config.model import Capabilities
from mailproxy.errors import BackendFailed, Refusal, Stage
from mailproxy.protocols.base import Command
from mailproxy.protocols.client import ProxyClientFactory
from mailproxy.protocols.server import Promises, ProxyServer, ProxyServerFactory
from mailproxy.protocols.submission import REFUSALS, SubmissionClient


class PassThroughServer(ProxyServer):
    """Us, towards a client whose every byte is the backend's: we only speak when there is none."""

    def dismiss(self, refusal: Refusal, command: Command | None) -> None:
        """Say 421."""
        self.send(REFUSALS[refusal] + b"\r\n")


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


class LMTPClient(PassThroughClient):
    """Us, towards an LMTP backend (RFC 2033)."""

    hello = b"LHLO"


class PassThroughServerFactory(ProxyServerFactory):
    """Listens for SMTP or LMTP clients."""

    conversation = PassThroughServer

    @classmethod
    def promises(cls, capabilities: Capabilities) -> Promises:
        """Promise nothing: the backend speaks for itself."""
        return Promises()


class SMTPClientFactory(ProxyClientFactory):
    """Connects to SMTP backends."""

    conversation = PassThroughClient


class LMTPClientFactory(ProxyClientFactory):
    """Connects to LMTP backends."""

    conversation = LMTPClient
