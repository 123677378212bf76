"""Proxies with two workers, for tests of what holds for several processes."""

from typing import Any, ClassVar

from tests.integration.accounts import ALICE
from tests.integration.lifecycle import LifecycleTestCase
from tests.integration.proxy import ProxyProcess
from tests.integration.wire import LineClient

PATIENCE = 40.0
"""Seconds for a worker to be there again; a loaded machine needs some for each interpreter."""


class TwoWorkers:
    """Makes the proxies of a test case have two workers, whatever their configuration says."""

    def setUp(self) -> None:
        """Say so before anything is started."""
        self.patch(ProxyProcess, "threads", 2)  # type: ignore[attr-defined]
        super().setUp()  # type: ignore[misc]


class FleetCase(TwoWorkers, LifecycleTestCase):
    """A proxy with two workers, whose processes the test may kill.

    :cvar grace: its `shutdown_grace`.
    """

    grace: ClassVar[str] = "2s"

    def setUp(self) -> None:
        """Start it, with everybody mapped to the backend that echoes."""
        super().setUp()
        self.proxy.config["server"] |= {"log_level": "info", "shutdown_grace": self.grace}
        self.proxy.start()
        self.assertServing(2)

    def stats(self) -> dict[str, Any]:
        """What management says."""
        answer = self.api("GET", "/stats")
        return dict(answer.json()) if answer.status == 200 else {}

    def workers(self) -> list[int]:
        """The process ids of the workers that serve."""
        found = self.stats().get("workers", [])
        return [each["pid"] for each in found if each["state"] == "serving"]

    def assertServing(self, count: int) -> None:
        """So many workers serve before long."""
        self.assertEventually(lambda: len(self.workers()) == count, "no worker", PATIENCE)

    def crowd(self, count: int) -> list[LineClient]:
        """Sessions of the same account, on both workers."""
        return [self.loggedIn(ALICE, "imap") for _ in range(count)]

    def lives(self, client: LineClient) -> bool:
        """Whether a bridged session is still there."""
        try:
            client.send(b"x\r\n")
            return client.readLine() == b"* echo x"
        except (EOFError, OSError):
            return False
