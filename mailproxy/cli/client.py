"""The management API from its caller's side: one method per call, and each failure in one line.

Knows HTTPS, the calls and what their answers mean; must not know any command. Methods are named as
those of `IControl`, whose answers they bring.
"""

import json
from collections.abc import Iterator
from typing import Any, TypeAlias
from urllib.parse import urlencode

import attrs
import treq
from OpenSSL import SSL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    ConnectionRefusedError,
    DNSLookupError,
)
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IReactorTime
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
)
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from mailproxy.cli.place import Place, Trust
from mailproxy.config.model import TLSProtocols
from mailproxy.errors import CallRefused, Unreachable
from mailproxy.tls import BackendOptions, BackendTLS
from mailproxy.tls.failures import CertificateRefused, describe
from mailproxy.tls.spare import GENERATED
from mailproxy.waiting import TimedOut, within

__all__ = [
    "PATIENCE",
    "SILENT",
    "Facts",
    "ManagementClient",
    "Sender",
    "TrustPolicy",
    "makeSender",
]

Facts: TypeAlias = dict[str, Any]

SILENT = 503
"""The status of a look that a worker process has not answered."""

PATIENCE = 15.0
"""Seconds for one call, connection included; less than the API itself gives a request."""

_CONNECT_PATIENCE = 5.0
_IDLE = 10
"""Seconds that a connection waits for the next call: less than the API keeps it open."""


Sender: TypeAlias = Any
"""What sends requests as treq's client does; there is one in memory, too."""


@implementer(IPolicyForHTTPS)
class TrustPolicy:
    """Makes TLS connections to the management API that are what a `Trust` asks for."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._creators: dict[bytes, BackendTLS] = {}

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """Make what speaks to this host; its certificate is checked whatever the port is."""
        if hostname not in self._creators:
            options = BackendOptions(
                serverName=hostname.decode("ascii").strip("[]"),
                protocols=TLSProtocols(),
                pin=self._trust.pin,
                allowInvalid=self._trust.insecure,
                authorities=self._trust.authorities,
            )
            self._creators[hostname] = BackendTLS(options)
        return self._creators[hostname]


def makeSender(reactor: Any, trust: Trust, parallel: int) -> Sender:
    """Make what sends the requests of a command.

    :param parallel: how many connections are kept for further calls.
    """
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = parallel
    pool.cachedConnectionTimeout = _IDLE
    policy = TrustPolicy(trust)
    return HTTPClient(Agent(reactor, policy, connectTimeout=_CONNECT_PATIENCE, pool=pool))


@attrs.frozen
class _Reply:
    """An answer's status, its `Retry-After` and its body."""

    status: int
    retryAfter: str
    body: bytes


class ManagementClient:
    """Calls one proxy's management API.

    Every method raises `Unreachable` when nobody whom we trust answers, and `CallRefused` when the
    answer is an error.
    """

    def __init__(self, sender: Sender, place: Place, clock: IReactorTime) -> None:
        self._sender, self._place, self._clock = sender, place, clock

    async def stats(self) -> Facts:
        """Count lookups and live sessions."""
        return await self._object("GET", "/stats")

    async def destinations(self) -> list[Facts]:
        """Tell the health of each destination."""
        return await self._list("/destinations")

    async def resetDestination(self, destination: str) -> None:
        """Forget a destination's failures."""
        await self._call("POST", "/destinations/reset", destination=destination)

    async def mapping(self, identifier: str) -> Facts:
        """Tell where an account would go now."""
        return await self._object("GET", "/mappings", identifier=identifier)

    async def setMapping(self, identifier: str, destination: str) -> None:
        """Write where an account lives."""
        await self._call("PUT", "/mappings", identifier=identifier, destination=destination)

    async def removeMapping(self, identifier: str) -> bool:
        """Remove an account's mapping; tells whether there was one."""
        return await self._text("DELETE", "/mappings", identifier=identifier) == "removed"

    async def reloadMappings(self) -> None:
        """Have the store read again."""
        await self._call("POST", "/mappings/reload")

    async def reload(self) -> Facts:
        """Have the configuration read again; tells what has to wait for a restart."""
        return await self._object("POST", "/config/reload")

    async def invalidate(self, identifier: str | None) -> None:
        """Drop what is remembered of an account; of all, for None."""
        await self._call("POST", "/cache/invalidate", identifier=identifier)

    async def connections(
        self,
        identifier: str | None = None,
        destination: str | None = None,
        protocol: str | None = None,
    ) -> list[Facts]:
        """List live sessions, all that fit."""
        filters = {"identifier": identifier, "destination": destination, "protocol": protocol}
        return await self._list("/connections", **filters)

    async def kick(self, identifier: str) -> int:
        """End an account's sessions; tells how many."""
        text = await self._text("POST", "/connections/kick", identifier=identifier)
        word, _, number = text.partition(" ")
        if word != "kicked" or not number.isdecimal():
            raise self._strange()
        return int(number)

    async def delay(self, identifier: str, seconds: int) -> None:
        """Let an account's new logins wait so long; 0 lets them go on at once."""
        await self._call("POST", "/connections/delay", identifier=identifier, seconds=str(seconds))

    # How a call is made

    async def _object(self, method: str, path: str, **query: str | None) -> Facts:
        """Make a call that answers with a JSON object."""
        facts = self._parse(await self._call(method, path, **query))
        if not isinstance(facts, dict):
            raise self._strange()
        return facts

    async def _list(self, path: str, **query: str | None) -> list[Facts]:
        """Ask for a JSON list of objects."""
        facts = self._parse(await self._call("GET", path, **query))
        if not isinstance(facts, list) or not all(isinstance(each, dict) for each in facts):
            raise self._strange()
        return facts

    def _parse(self, body: bytes) -> object:
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise self._strange() from error

    async def _text(self, method: str, path: str, **query: str | None) -> str:
        return _oneLine(await self._call(method, path, **query))

    async def _call(self, method: str, path: str, **query: str | None) -> bytes:
        """Make a call; a parameter that is None is left out."""
        given = {name: value for name, value in query.items() if value is not None}
        url = f"{self._place.url}{path}" + (f"?{urlencode(given)}" if given else "")
        try:
            reply = await within(self._clock, PATIENCE, self._exchange(method, url))
        except _FAILURES as error:
            _passCancelling(error)
            raise Unreachable(f"{self._place.url}: {self._wording(error)}") from error
        if reply.status == 200:
            return reply.body
        raise self._refusal(reply, f"{method} {path}")

    async def _exchange(self, method: str, url: str) -> _Reply:
        """Send a request and read the whole answer; a redirection is not followed."""
        headers = {"Authorization": f"Bearer {self._place.token}"}
        response = await self._sender.request(method, url, headers=headers, allow_redirects=False)
        wait = response.headers.getRawHeaders("retry-after", ["?"])[0]
        return _Reply(response.code, wait, await treq.content(response))

    def _refusal(self, reply: _Reply, call: str) -> Unreachable | CallRefused:
        """Say what an answer means that is not 200."""
        text, problems = _oneLine(reply.body), _lines(reply.body)
        if reply.status == 401:
            text = f"the proxy does not take the token of {self._place.tokenOrigin}"
        elif reply.status == 429:
            text = (
                "locked out after too many wrong tokens; try again in "
                f"{reply.retryAfter} s, the right token does not help before"
            )
        elif reply.status in (404, 405) and text in ("not found", "method not allowed"):
            text = f"this proxy has no call {call}"
        elif reply.status < 400 or "<" in text[:1]:
            return self._strange()
        if reply.status == 400:
            return CallRefused(400, text or "refused", problems)
        return CallRefused(reply.status, text or f"answered with status {reply.status}")

    def _strange(self) -> Unreachable:
        return Unreachable(f"{self._place.url}: does not answer as a mailproxy's management API")

    def _wording(self, error: BaseException) -> str:
        """Say in a few words why there was no answer."""
        for cause in _causes(error):
            if isinstance(cause, CertificateRefused):
                return self._mistrust(cause)
            for kind, words in _WORDS:
                if isinstance(cause, kind):
                    return words
            if isinstance(cause, SSL.Error):
                return f"TLS failed: {describe(cause)}"
            if isinstance(cause, ConnectError):
                return f"cannot connect: {cause.osError or type(cause).__name__}"
        return "closed the connection without an answer"

    def _mistrust(self, refused: CertificateRefused) -> str:
        """Say why the certificate will not do, and what would help."""
        text = describe(refused).removeprefix("certificate verify failed: ")
        trust = self._place.trust
        if trust.pin is not None:
            return (
                f"certificate not trusted: it is not the one in {trust.origin}; has the proxy been "
                "reloaded since that changed? Else write --ca FILE"
            )
        if trust.lacking is not None:
            text = f"{trust.lacking} has none for clients that name no host, so the proxy made one"
            return f"certificate not trusted: {text}; {_OWN_HELP}"
        if text.startswith("it is for "):
            advice = "write one of its names in --url"
        elif trust.authorities:
            advice = "it does not come from --ca either"
        else:
            advice = "write --ca FILE to name whom to trust"
        if GENERATED in text or "self-signed" in text:
            advice += f"; if the proxy made it, since none is configured: {_OWN_HELP}"
        return f"certificate not trusted: {text}; {advice}"


_OWN_HELP = "configure one (default = true), or write --insecure on the proxy's own host"
"""Against a certificate that the proxy has made itself: nobody can verify one."""


_FAILURES = (
    TimedOut,
    CancelledError,
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    DNSLookupError,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    SSL.Error,
)
"""What can come between a request and its answer."""

_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (ConnectionRefusedError, "connection refused: nobody listens there"),
    (DNSLookupError, "its host is not found"),
    (TimedOut, "no answer in time"),
)


def _passCancelling(error: BaseException) -> None:
    """Let a cancellation pass as one, in whatever it came wrapped."""
    if any(isinstance(one, CancelledError | ConnectingCancelledError) for one in _causes(error)):
        raise CancelledError from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Go through an error and all that its wrappings hold, TLS's own before what followed it."""
    reasons = getattr(error, "reasons", None)
    if not isinstance(reasons, list):
        yield error
        return
    for reason in reasons:
        yield from _causes(reason.value)


def _oneLine(body: bytes) -> str:
    """Make one line of an answer's text, whose lines are problems of their own."""
    return "; ".join(_lines(body))


def _lines(body: bytes) -> list[str]:
    return body.decode("utf-8", "replace").strip().splitlines()
