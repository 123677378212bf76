"""The calls as they are made, and what each way to fail is called."""

import json
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from treq.testing import StringStubbingResource, StubTreq
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionRefusedError, DNSLookupError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface.verify import verifyObject

from mailproxy.cli.client import PATIENCE, ManagementClient, TrustPolicy
from mailproxy.cli.place import Place, Trust
from mailproxy.errors import CallRefused, CommandError, MappingError, Unreachable
from mailproxy.tls.failures import CertificateRefused
from mailproxy.tls.spare import GENERATED
from tests.cli.support import URL, ProxyCase
from tests.management.support import TOKEN


class Network:
    """Fails every request in the same way, or leaves it open."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    def request(self, method: str, url: str, **options: Any) -> Deferred[Any]:
        """Note the request."""
        self.asked.append((method, url, options))
        return Deferred() if self.error is None else fail(self.error)


class ClientCase(ProxyCase):
    """Calls that fail."""

    def problem(self, work: Any, kind: type[CommandError] = Unreachable) -> str:
        """Return the one line that a call fails with."""
        text = str(self.failureResultOf(self.begin(work), kind).value)
        self.assertEqual(len(text.splitlines()), 1)
        return text


class CallTests(ClientCase):
    """What reaches the proxy, and what comes back."""

    def test_everyCallReachesTheControl(self) -> None:
        """With its parameters, whatever characters they hold."""
        name = "ä+b&c=d%e/é@example.org"
        client = self.client
        for work, asked in (
            (client.stats(), ("stats",)),
            (client.destinations(), ("destinations",)),
            (client.resetDestination("new"), ("resetDestination", "new")),
            (client.mapping(name), ("mapping", name)),
            (client.setMapping(name, "new"), ("setMapping", name, "new")),
            (client.removeMapping(name), ("removeMapping", name)),
            (client.reloadMappings(), ("reloadMappings",)),
            (client.invalidate(None), ("invalidate", None)),
            (client.invalidate(name), ("invalidate", name)),
            (client.connections(), ("connections", None, None, None)),
            (client.connections(name, "new", "imap"), ("connections", name, "new", "imap")),
            (client.kick(name), ("kick", name)),
            (client.delay(name, 7), ("delay", name, 7)),
        ):
            self.successResultOf(self.begin(work))
            self.assertEqual(self.world.asked[-1], asked)

    def test_answersAreRead(self) -> None:
        """Numbers and words as what they mean."""
        self.world.begin("ann", "old")
        self.world.table["ann"] = "old"
        ask = self.client
        self.assertEqual(self.finish(ask.kick("ann")), 1)
        self.assertEqual(self.finish(ask.kick("ann")), 0)
        self.assertIs(self.finish(ask.removeMapping("ann")), True)
        self.assertIs(self.finish(ask.removeMapping("ann")), False)

    def test_theConfigurationIsReloaded(self) -> None:
        """The answer tells what needs a restart."""
        facts = {"reloaded": True, "note": "needs a restart: admin"}
        seen: list[tuple[bytes, str]] = []

        def answer(method: bytes, url: str, *_: Any) -> tuple[int, dict[bytes, bytes], bytes]:
            seen.append((method, url))
            return 200, {}, json.dumps(facts).encode()

        client = self.clientOf(StubTreq(StringStubbingResource(answer)))
        self.assertEqual(self.finish(client.reload()), facts)
        self.assertEqual(seen, [(b"POST", f"{URL}/config/reload")])

    def test_redirectionsAreNotFollowed(self) -> None:
        """The token is for this proxy; whoever redirects is none."""
        network = Network()
        self.begin(self.clientOf(network).stats())
        [(_, _, options)] = network.asked
        self.assertIs(options["allow_redirects"], False)


class RefusalTests(ClientCase):
    """The proxy answers, with an error."""

    def test_aRefusalIsPassedOn(self) -> None:
        """In the API's own words, and with its status."""
        self.world.failures["setMapping"] = [MappingError("disk full")]
        work = self.begin(self.client.setMapping("ann", "new"))
        error = self.failureResultOf(work, CallRefused).value
        self.assertEqual((error.status, str(error)), (500, "the mapping store failed: disk full"))

    def test_aWrongTokenNamesItsOrigin(self) -> None:
        """So that the operator knows which one to look at; the token itself is not shown."""
        client = self.clientOf(self.treq, token="wrong-token")
        text = self.problem(client.stats(), CallRefused)
        self.assertEqual(text, "the proxy does not take the token of the test")

    def test_aLockTellsItsEnd(self) -> None:
        """And that the right token does not open it before."""
        wrong = self.clientOf(self.treq, token="wrong")
        for _ in range(3):
            self.problem(wrong.stats(), CallRefused)
        text = self.problem(self.client.stats(), CallRefused)
        self.assertIn("locked out", text)
        self.assertIn("try again in 60 s", text)

    def test_aCallThatIsNotThereIsNamed(self) -> None:
        """A proxy of another version may lack it."""
        text = self.problem(self.client._call("POST", "/nothing"), CallRefused)
        self.assertEqual(text, "this proxy has no call POST /nothing")

    def test_severalCausesAreOneLine(self) -> None:
        """A configuration may be wrong in many places."""
        answer: Any = (400, {}, b"server.threads: too many\nadmin: missing\n")
        stub = StubTreq(StringStubbingResource(lambda *_: answer))
        text = self.problem(self.clientOf(stub).reload(), CallRefused)
        self.assertEqual(text, "server.threads: too many; admin: missing")
        work = self.begin(self.clientOf(stub).reload())
        problems = self.failureResultOf(work, CallRefused).value.problems
        self.assertEqual(problems, ("server.threads: too many", "admin: missing"))


class StrangerTests(ClientCase):
    """Somebody answers who is no mailproxy."""

    def test_strangeAnswersAreTold(self) -> None:
        """Pages, redirections, JSON of another shape, or none."""
        for status, body in (
            (200, b"<html>"),
            (200, b"7"),
            (200, b"[7]"),
            (200, b"\xff"),
            (302, b""),
            (404, b"<!DOCTYPE html>"),
        ):
            stub = StubTreq(StringStubbingResource(lambda *_, a=(status, {}, body): a))
            text = self.problem(self.clientOf(stub).destinations())
            self.assertIn("does not answer as a mailproxy", text)
        stub = StubTreq(StringStubbingResource(lambda *_: (200, {}, b"kicked all")))
        self.assertIn("does not answer", self.problem(self.clientOf(stub).kick("ann")))


class NobodyTests(ClientCase):
    """Nobody answers."""

    def test_eachReasonHasItsWords(self) -> None:
        """Behind the URL, in one line."""
        refused = CertificateRefused("it is for 'x', not for proxy.example")
        for error, words in (
            (ConnectionRefusedError(), "connection refused"),
            (DNSLookupError(), "host is not found"),
            (ResponseNeverReceived([Failure(refused)]), "not trusted: it is for 'x'"),
            (
                ResponseNeverReceived([Failure(SSL.Error([("", "", "wrong version number")]))]),
                "TLS failed: the peer does not speak TLS",
            ),
            (ResponseNeverReceived([Failure(ConnectionDone())]), "without an answer"),
        ):
            text = self.problem(self.clientOf(Network(error)).stats())
            self.assertTrue(text.startswith(f"{URL}: "), text)
            self.assertIn(words, text)

    def test_whatHelpsAgainstACertificateIsSaid(self) -> None:
        """And nothing that cannot: nobody vouches for one that the proxy has made itself."""
        made = Trust(lacking=Path("proxy.toml"))
        own = "configure one (default = true), or write --insecure"
        for reason, trust, has, lacks in (
            ("it is self-signed", Trust(), ("--ca FILE", own), ()),
            ("it is self-signed", made, ("proxy.toml has none", own), ("--ca",)),
            ("it is for 'x', not for y", Trust(), ("in --url",), ("--ca", own)),
            (f"it is for '{GENERATED}', not for y", Trust(), (own,), ("--ca",)),
            ("its issuer is not trusted here", Trust(), ("--ca FILE",), (own,)),
            ("its issuer is not trusted here", Trust((Any,)), ("--ca either",), (own,)),  # type: ignore[arg-type]
        ):
            network = Network(ResponseNeverReceived([Failure(CertificateRefused(reason))]))
            client = ManagementClient(network, Place(URL, TOKEN, "", trust), self.clock)
            text = self.problem(client.stats())
            for words in has:
                self.assertIn(words, text)
            for words in lacks:
                self.assertNotIn(words, text)

    def test_aProxyThatSaysNothingIsGivenUp(self) -> None:
        """After a while."""
        waiting = self.begin(self.clientOf(Network()).stats())
        self.clock.advance(PATIENCE - 1)
        self.assertNoResult(waiting)
        self.clock.advance(1)
        text = str(self.failureResultOf(waiting, Unreachable).value)
        self.assertIn("no answer in time", text)

    def test_aCancellationIsOne(self) -> None:
        """In whatever it comes wrapped: it must not look like a proxy that is gone."""
        waiting = self.begin(self.clientOf(Network()).stats())
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        wrapped = ResponseNeverReceived([Failure(CancelledError()), Failure(ConnectionDone())])
        work = self.begin(self.clientOf(Network(wrapped)).stats())
        self.failureResultOf(work, CancelledError)


class PolicyTests(ProxyCase):
    """Whom we trust."""

    def test_eachHostHasItsChecks(self) -> None:
        """They are built once and check the host's own name."""
        policy = TrustPolicy(Trust())
        verifyObject(IPolicyForHTTPS, policy)
        creator = policy.creatorForNetloc(b"proxy.example", 8443)
        verifyObject(IOpenSSLClientConnectionCreator, creator)
        self.assertIs(policy.creatorForNetloc(b"proxy.example", 8443), creator)
        self.assertIsNot(policy.creatorForNetloc(b"other.example", 8443), creator)
