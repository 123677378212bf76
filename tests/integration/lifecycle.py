"""Tests that each start a proxy of their own."""

from contextlib import ExitStack
from typing import ClassVar

from tests.integration.accounts import ALICE
from tests.integration.dovecot import Account
from tests.integration.front import (
    ProxyTestCase,
    Table,
    destination,
    settings,
    standardListeners,
)
from tests.integration.proxy import ProxyProcess
from tests.integration.scripted import ScriptedServer, saying, wellBehaved
from tests.integration.shared import SharedServers

WAITING = Account("waiting@example.org", ALICE.password)


class LifecycleTestCase(ProxyTestCase):
    """Each test starts a proxy of its own before backends that all share."""

    good: ClassVar[ScriptedServer]
    silent: ClassVar[ScriptedServer]

    @classmethod
    def startServers(cls, stack: ExitStack) -> None:
        """A backend that serves everybody and one that never says a word."""
        cls.makeAuthority(stack)
        cls.keepSecret(ALICE, WAITING)
        cls.good = stack.enter_context(ScriptedServer(wellBehaved))
        cls.silent = stack.enter_context(ScriptedServer(saying(b"", thenHold=True)))

    def setUp(self) -> None:
        """A proxy that is ready to be started; a test may change its `config` before."""
        SharedServers.setUp(self)
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.proxy = ProxyProcess(self.configuration(), self.authority)
        self.proxy.writeMapping({WAITING.name: "silent"})
        self.stack.callback(self.proxy.close)
        self.addCleanup(self.assertCleanLog)

    def configuration(self) -> Table:
        """Two listeners; the backends need no TLS."""
        destinations = {
            name: destination(server.port, "localhost", "plain", allow_plaintext_auth=True)
            for name, server in (("good", self.good), ("silent", self.silent))
        }
        return settings(self.authority, standardListeners(), destinations)
