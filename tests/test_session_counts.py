"""What a session leaves in the counters, and in lines that other programs read."""

from twisted.logger import LogLevel

from mailproxy.config.stores import OnError
from mailproxy.errors import MappingError
from tests.dialling import Backend
from tests.stage import LOGIN, Scene, StageCase
from tests.test_metrics import samples
from tests.test_session import REFUSED

BUSY = b"%t NO [UNAVAILABLE] later\r\n"


class CountTests(StageCase):
    """The counters, as a Prometheus server reads them."""

    def value(self, name: str, **labels: str) -> float | None:
        """One sample; None when there is none."""
        return samples(self.stage.metrics).get((f"mailproxy_{name}", frozenset(labels.items())))

    def logins(self, destination: str, result: str) -> float | None:
        """How many logins there ended so."""
        return self.value("logins_total", protocol="imap", destination=destination, result=result)

    def test_acceptedLogin(self) -> None:
        """Counted once, with its destination."""
        stage = self.begin()
        stage.bridge(stage.enter())
        self.assertEqual(self.logins("old", "accepted"), 1)

    def test_refusedLogins(self) -> None:
        """Each of them, with the destination that refused."""
        stage = self.begin()
        client = stage.enter()
        for _ in range(2):
            stage.ask(client, LOGIN)
            stage.answer(Backend(login=REFUSED))
        self.assertEqual(self.logins("old", "refused"), 2)
        self.assertIsNone(self.logins("old", "accepted"))

    def test_temporaryRefusalIsNoRefusal(self) -> None:
        """A backend that asks to come later says nothing of the password."""
        stage = self.begin()
        stage.ask(stage.enter(), LOGIN)
        stage.answer(Backend(login=BUSY))
        self.assertEqual(self.logins("old", "unavailable"), 1)
        self.assertIsNone(self.logins("old", "refused"))

    def test_loginThatReachesNoBackend(self) -> None:
        """Unavailable: at a known destination, and where the store cannot tell."""
        stage = self.begin()
        stage.source.table["ann"] = "empty"
        stage.ask(stage.enter(), LOGIN)
        self.assertEqual(self.logins("empty", "unavailable"), 1)
        stage = self.begin(Scene(onError=OnError.TEMPFAIL))
        stage.source.error = MappingError("gone")
        stage.ask(stage.enter(), LOGIN)
        self.assertEqual(
            sum(count for (name, _), count in samples(stage.metrics).items() if "logins_t" in name),
            1,
        )

    def test_bytesOfABridge(self) -> None:
        """Both directions, once it has ended; what was said before it is not counted."""
        stage = self.begin()
        client = stage.enter()
        backend = stage.bridge(client)
        stage.ask(client, b"b NOOP\r\n")
        backend.say(b"b OK\r\n")
        stage.network.pump()
        where = {"protocol": "imap", "destination": "old"}
        self.assertIsNone(self.value("bytes_total", **where, direction="in"))
        backend.hangUp()
        stage.network.pump()
        self.assertEqual(self.value("bytes_total", **where, direction="in"), 8)
        self.assertEqual(self.value("bytes_total", **where, direction="out"), 6)

    def test_noBridgeNoBytes(self) -> None:
        """A session that was never bridged has none to count."""
        stage = self.begin()
        stage.enter().hangUp()
        stage.network.pump()
        self.assertNotIn(b"mailproxy_bytes_total{", stage.metrics.render())

    def test_timeUntilABackendIsReady(self) -> None:
        """From the dial to the point where the login is next; not the login's own time."""
        stage = self.begin()
        client = stage.enter()
        stage.ask(client, LOGIN)
        stage.network.advance(1.5)
        stage.answer(Backend(login=b""))
        stage.network.advance(7.0)
        name = "backend_connect_seconds"
        self.assertEqual(self.value(f"{name}_sum", destination="old"), 1.5)
        self.assertEqual(self.value(f"{name}_count", destination="old"), 1)


class RefusalLineTests(StageCase):
    """The line of a refused login, which fail2ban reads."""

    def test_itHasTheClientsAddress(self) -> None:
        """And session, protocol, listener and destination, in this order; the name is redacted."""
        hosts = {"198.51.100.7": r"198\.51\.100\.7", "2001:db8::7": r"\[2001:db8::7\]"}
        for host, shown in hosts.items():
            stage = self.begin()
            stage.ask(stage.enter(host), LOGIN)
            stage.answer(Backend(login=REFUSED))
            (line,) = [each for each in self.logged(LogLevel.info) if "login of" in each]
            self.assertRegex(
                line,
                rf"\Asession \S+ imap door from {shown}:40000: "
                r"login of a~[0-9a-f]{8} refused by old\Z",
            )
            self.events.clear()
