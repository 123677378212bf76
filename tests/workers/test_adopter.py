"""A configuration comes into use in all workers or in none."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

from mailproxy.config.model import Config
from mailproxy.errors import ConfigError, Unanswered
from mailproxy.workers.fleet import ANSWER_PATIENCE, START_PATIENCE
from mailproxy.workers.vigil import LOOKS
from tests.config.support import Issued, changed
from tests.stage import Watched
from tests.test_proxy import TEXT
from tests.workers.support import FleetCase

CERTIFICATE = """[tls.certificate.main]
cert = "main.pem"
key = "main.key"
"""

RENEWED = Issued("mail.example.com", "imap.example.com")


class AdoptionCase(FleetCase):
    """A fleet whose configuration changes."""

    def prepare(self, config: Config, **more: Any) -> Deferred[Any]:
        """Let all prepare."""
        prepared = self.house.adopter.prepare(config, **more)
        self.network.pump()
        return prepared

    def adopt(self, config: Config, **more: Any) -> None:
        """And adopt."""
        self.result(self.successResultOf(self.prepare(config, **more)).adopt())

    def banners(self) -> list[bytes]:
        """What clients of each worker are greeted with."""
        greetings = [self.enter(number) for number in range(len(self.house.workers))]
        self.network.pump()
        return [client.take().rpartition(b"] ")[2].strip() for client in greetings]

    def shown(self) -> set[bytes]:
        """The fingerprints that clients of workers, and of management, are shown."""
        proxies = [self.house.proxy, *(self.proxyOf(number) for number in (0, 1))]
        found = [each.serverConnectionForTLS(None).get_certificate() for each in proxies]  # type: ignore[arg-type]
        return {bytes(each.digest("sha256")) for each in found if each is not None}

    def other(self) -> Config:
        """A configuration with another banner."""
        return self.load(changed(("hello", "good day"), base=TEXT))


class ReloadTests(AdoptionCase):
    """All or none."""

    def test_allAdopt(self) -> None:
        """Nobody before everybody is ready; the parent, too."""
        prepared = self.successResultOf(self.prepare(self.other()))
        self.assertEqual(self.banners(), [b"hello"] * 2)
        self.result(prepared.adopt())
        self.assertEqual(self.banners(), [b"good day"] * 2)
        self.assertEqual(self.house.adopter.config.capabilities.imap.banner, "good day")

    def test_discardedByAll(self) -> None:
        """And the next one works."""
        self.successResultOf(self.prepare(self.other())).discard()
        self.assertEqual(self.banners(), [b"hello"] * 2)
        self.adopt(self.other())
        self.assertEqual(self.banners(), [b"good day"] * 2)

    def test_refusedByOneIsRefusedByAll(self) -> None:
        """A file that goes bad between two workers' looks at it."""
        source: Any = self.proxyOf(1).runtime.source
        self.patch(source, "revise", lambda check: 1 // 0)
        self.assertFailure(self.prepare(self.other()), RuntimeError)
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(self.banners(), [b"hello"] * 2)

    def assertFailure(self, prepared: Deferred[Any], kind: type[Exception]) -> Any:
        """It fails so."""
        return self.failure(prepared, kind)

    def test_mistakeIsTold(self) -> None:
        """With its lines, as one process would."""
        other = self.other()
        self.write("accounts", "ann nowhere\n")
        error = self.assertFailure(self.prepare(other), ConfigError)
        self.assertIn("accounts:1", error.problems[0])
        self.assertEqual(self.banners(), [b"hello"] * 2)
        self.write("accounts", "ann new\n")
        self.adopt(self.other())

    def test_fileThatChangesUnderTheirEyes(self) -> None:
        """No two workers may go on with different mappings."""
        path = self.directory / "accounts"

        def editing(original: Any) -> Any:
            def revise(check: Any) -> Any:
                before = path.read_text()
                path.write_text(f"{before}x{len(before)} old\n")
                return original(check)

            return revise

        for number in (0, 1):
            source: Any = self.proxyOf(number).runtime.source
            self.patch(source, "revise", editing(source.revise))
        error = self.assertFailure(self.prepare(self.other()), ConfigError)
        self.assertIn("try again", error.problems[0])
        self.assertEqual(self.banners(), [b"hello"] * 2)

    def test_hangingWorkerIsReplaced(self) -> None:
        """Within seconds; the others adopt, and the next one begins with what holds then."""
        self.silence(1)
        prepared = self.prepare(self.other())
        self.pass_(LOOKS)
        self.assertNoResult(prepared)
        self.pass_(1)
        self.result(self.successResultOf(prepared).adopt())
        self.pass_(1)
        self.assertEqual(self.fleet.restarts, 1)
        self.assertEqual(self.banners(), [b"good day"] * 2)

    def test_workerThatComesToNoEnd(self) -> None:
        """It lives, and hangs on its disk: it is named, and nobody has changed anything."""
        source: Any = self.proxyOf(1).runtime.source
        self.patch(source, "revise", lambda check: Deferred())
        prepared = self.prepare(self.other())
        self.pass_(int(START_PATIENCE) - 1)
        self.assertNoResult(prepared)
        self.pass_(1)
        error = self.assertFailure(prepared, Unanswered)
        self.assertEqual(str(error), "worker 2 (process 1001) does not answer")
        self.assertEqual(self.banners(), [b"hello"] * 2)

    def test_hangingBetweenBothSteps(self) -> None:
        """Who has prepared and does not adopt is replaced, too; the others wait for nobody."""
        prepared = self.successResultOf(self.prepare(self.other()))
        self.silence(0)
        adopted = prepared.adopt()
        self.network.pump()
        self.assertEqual(self.banners()[1], b"good day")
        self.network.advance(ANSWER_PATIENCE)
        self.result(adopted)
        self.pass_(1)
        self.assertEqual(self.banners(), [b"good day"] * 2)

    def test_workerThatDiesMeanwhile(self) -> None:
        """The others adopt, and the next one begins with what holds then."""
        prepared = self.successResultOf(self.prepare(self.other()))
        self.house.processes[1].die("signal 9")
        adopted = prepared.adopt()
        self.network.pump()
        self.successResultOf(adopted)
        self.network.advance(1)
        self.assertEqual(self.banners(), [b"good day"] * 2)

    def test_workerThatBeginsMeanwhile(self) -> None:
        """What it has begun with is replaced before it serves."""
        self.house.processes[1].die("signal 9")
        prepared = self.successResultOf(self.prepare(self.other()))
        self.network.advance(1)
        self.assertEqual(len(self.fleet.serving), 1)
        self.result(prepared.adopt())
        self.network.advance(0)
        self.assertEqual(len(self.fleet.serving), 2)
        self.assertEqual(self.banners(), [b"good day"] * 2)

    def test_workerThatDoesNotAdoptIsReplaced(self) -> None:
        """A bug in one may not leave it behind."""
        prepared = self.successResultOf(self.prepare(self.other()))
        self.house.workers[1]._adoption = None
        self.result(prepared.adopt())
        self.network.advance(1)
        self.assertEqual(self.fleet.restarts, 1)
        self.assertEqual(self.banners(), [b"good day"] * 2)

    def test_lookerWhoLeaves(self) -> None:
        """Nobody waits for what is prepared: it is forgotten, and the turn is free."""
        for process in self.house.processes:
            process.worker.peer.transport.stopReading()  # type: ignore[union-attr]
        prepared = self.house.adopter.prepare(self.other())
        prepared.addErrback(lambda failure: None)
        prepared.cancel()
        for process in self.house.processes:
            process.worker.peer.transport.startReading()  # type: ignore[union-attr]
        self.network.pump()
        self.adopt(self.other())
        self.assertEqual(self.banners(), [b"good day"] * 2)


class CertificateTests(AdoptionCase):
    """Files of certificates."""

    def test_whatTheParentHasReadIsUsed(self) -> None:
        """A file that has changed, or is out of reach, does not matter to a worker."""
        before = self.shown()
        self.assertEqual(len(before), 1)
        self.write("main.pem", b"")
        self.write("main.key", b"")
        self.house.processes[1].die("signal 9")
        self.network.advance(1)
        self.assertEqual(self.shown(), before)

    def test_renewedInAll(self) -> None:
        """The mapping is left alone."""
        before = self.shown()
        self.write("main.pem", RENEWED.leaf)
        self.write("main.key", RENEWED.key)
        self.write("accounts", "nonsense")
        self.adopt(self.house.adopter.config, sameStore=True)
        after = self.shown()
        self.assertEqual((len(after), after & before), (1, set()))

    def test_pairThatDoesNotFit(self) -> None:
        """It is found in the parent, before any worker hears of it."""
        before = self.shown()
        self.write("main.pem", RENEWED.leaf)
        prepared = self.prepare(self.house.adopter.config, sameStore=True)
        self.failure(prepared, ConfigError)
        self.assertEqual(self.shown(), before)


class GeneratedTests(AdoptionCase):
    """The certificate that is shown where none is configured."""

    text = changed((CERTIFICATE, ""), base=TEXT)

    def test_allShowTheSame(self) -> None:
        """Management too; a worker that is started later, and after a reload."""
        before = self.shown()
        self.assertEqual(len(before), 1)
        self.house.processes[1].die("signal 9")
        self.network.advance(1)
        self.assertEqual(self.shown(), before)
        self.adopt(self.load(changed(("hello", "good day"), base=self.text)))
        self.assertEqual(self.shown(), before)

    def test_neededLater(self) -> None:
        """It is made by the reload that takes the last certificate away, and comes back."""
        own = self.load(TEXT)
        before = self.shown()
        self.adopt(own)
        self.assertNotEqual(self.shown(), before)
        self.adopt(self.load(self.text))
        self.assertEqual(self.shown(), before)


class WarningTests(Watched, AdoptionCase):
    """What is to be said of certificates is said by the parent alone."""

    text = TEXT.replace(CERTIFICATE, CERTIFICATE + CERTIFICATE.replace("main]", "other]"))

    def setUp(self) -> None:
        """Listen to the log."""
        Watched.setUp(self)
        AdoptionCase.setUp(self)

    def test_saidOnce(self) -> None:
        """However many workers there are."""
        said = [text for text in self.logged(LogLevel.warn) if "an earlier certificate" in text]
        self.assertEqual(len(said), len(set(said)), said)
        self.assertTrue(said)


class SecretTests(AdoptionCase):
    """What workers are not told."""

    text = TEXT + '\n[admin]\nbind = "127.0.0.1:8443"\nbearer_token = "' + "t" * 40 + '"\n'

    def test_tokenStaysWithTheParent(self) -> None:
        """Whoever takes a worker over cannot speak to management."""
        self.assertIsNotNone(self.house.adopter.config.admin)
        for number in (0, 1):
            self.assertIsNone(self.proxyOf(number).runtime.config.admin)
