"""The calls of the management API, each a few lines over `IControl`.

Knows paths, parameters, and which answer an error deserves; must not know the proxy, nor how a
token is judged.
"""

# Werkzeug's router asks for this codec at its first request; in a chroot, or as another user, its
# file may be out of reach by then.
import encodings.idna  # noqa: F401
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias, TypeVar

import attrs
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from zope.interface import implementer

from mailproxy.control import IControl
from mailproxy.errors import (
    BadParameter,
    ConfigError,
    InvalidIdentifier,
    MailProxyError,
    MappingError,
    ReadOnlyMapping,
    Unanswered,
    UnknownDestination,
)
from mailproxy.identity import redact
from mailproxy.logs import Logger
from mailproxy.management.answers import Answer, asJSON, lines, write
from mailproxy.management.guard import Guard, Verdict
from mailproxy.management.openapi import document
from mailproxy.management.query import parse, wholeNumber
from mailproxy.metrics import CONTENT_TYPE
from mailproxy.registry import LONGEST_HOLD

__all__ = ["CALLS", "Call", "ManagementAPI"]

T = TypeVar("T")

Run: TypeAlias = Callable[..., Coroutine[Deferred[Any], Any, Answer]]
"""Asks the control, which is the first argument; a call's parameters follow by name."""


@attrs.frozen
class Call:
    """One call.

    :ivar run: the first line of its docstring is what the call's description says.
    :ivar required: its query parameters, passed to `run` by name.
    :ivar optional: more of them, left out when they are absent.
    :ivar needsToken: whether it is for operators alone.
    """

    method: str
    path: str
    run: Run
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    needsToken: bool = True


async def _healthz(_: IControl) -> Answer:
    """Answer that the proxy runs."""
    return lines(200, "ok")


async def _stats(control: IControl) -> Answer:
    """Count lookups and live sessions."""
    return asJSON(await control.stats())


async def _metrics(control: IControl) -> Answer:
    """Write all counts in Prometheus's text format."""
    return Answer(200, (await control.metrics()).encode("utf-8"), CONTENT_TYPE)


async def _openAPI(_: IControl) -> Answer:
    """Describe this API."""
    return asJSON(document(CALLS))


async def _destinations(control: IControl) -> Answer:
    """Tell the health of each destination."""
    return asJSON(await control.destinations())


async def _reset(control: IControl, destination: str) -> Answer:
    """Forget a destination's failures.

    Here the destination is what is asked for, hence 404.
    """
    try:
        await control.resetDestination(destination)
    except UnknownDestination:
        return lines(404, _UNDECLARED)
    return lines(200, "reset")


async def _mapping(control: IControl, identifier: str) -> Answer:
    """Tell where an account goes.

    A store that cannot tell is 503: neither the question nor the proxy is at fault, and asking
    again may help. A write that failed is 500, as it leaves something for the operator to do.
    """
    try:
        return asJSON(await control.mapping(identifier))
    except MappingError as error:
        return lines(503, f"the mapping store could not tell: {error}")


async def _map(control: IControl, identifier: str, destination: str) -> Answer:
    """Write where an account lives."""
    await control.setMapping(identifier, destination)
    return lines(200, "mapped")


async def _unmap(control: IControl, identifier: str) -> Answer:
    """Remove an account's mapping."""
    removed = await control.removeMapping(identifier)
    return lines(200, "removed" if removed else "absent")


async def _reloadMappings(control: IControl) -> Answer:
    """Read the mapping store again."""
    await control.reloadMappings()
    return lines(200, "reloaded")


async def _invalidate(control: IControl, identifier: str | None = None) -> Answer:
    """Forget what is remembered of an account; of all, without one."""
    await control.invalidate(identifier)
    return lines(200, "invalidated")


async def _connections(
    control: IControl,
    identifier: str | None = None,
    destination: str | None = None,
    protocol: str | None = None,
) -> Answer:
    """List live sessions, all that fit."""
    return asJSON(await control.connections(identifier, destination, protocol))


async def _kick(control: IControl, identifier: str) -> Answer:
    """End an account's sessions."""
    return lines(200, f"kicked {await control.kick(identifier)}")


async def _delay(control: IControl, identifier: str, seconds: str) -> Answer:
    """Let an account's new logins wait; 0 seconds let them go on."""
    number = wholeNumber("seconds", seconds, int(LONGEST_HOLD))
    await control.delay(identifier, number)
    return lines(200, f"delayed {number}")


async def _reload(control: IControl) -> Answer:
    """Read the configuration again; what only a restart can change is named."""
    later = await control.reload()
    note = f"needs a restart: {', '.join(later)}" if later else None
    return asJSON({"reloaded": True, "note": note})


CALLS = (
    Call("GET", "/healthz", _healthz, needsToken=False),
    Call("GET", "/stats", _stats),
    Call("GET", "/metrics", _metrics),
    Call("GET", "/openapi.json", _openAPI),
    Call("GET", "/destinations", _destinations),
    Call("POST", "/destinations/reset", _reset, ("destination",)),
    Call("GET", "/mappings", _mapping, ("identifier",)),
    Call("PUT", "/mappings", _map, ("identifier", "destination")),
    Call("DELETE", "/mappings", _unmap, ("identifier",)),
    Call("POST", "/mappings/reload", _reloadMappings),
    Call("POST", "/cache/invalidate", _invalidate, optional=("identifier",)),
    Call("POST", "/config/reload", _reload),
    Call("GET", "/connections", _connections, optional=("identifier", "destination", "protocol")),
    Call("POST", "/connections/kick", _kick, ("identifier",)),
    Call("POST", "/connections/delay", _delay, ("identifier", "seconds")),
)
"""Every call; HEAD is allowed where GET is."""

_UNDECLARED = "destination: not declared in the configuration"

_ERRORS: tuple[tuple[type[MailProxyError], Callable[[MailProxyError], Answer]], ...] = (
    (BadParameter, lambda error: lines(400, str(error))),
    (InvalidIdentifier, lambda error: lines(400, f"identifier: {error}")),
    (UnknownDestination, lambda _: lines(400, _UNDECLARED)),
    (ConfigError, lambda error: lines(400, *str(error).splitlines())),
    (ReadOnlyMapping, lambda _: lines(501, "the mapping store takes no writes")),
    (MappingError, lambda error: lines(500, f"the mapping store failed: {error}")),
    (Unanswered, lambda error: lines(503, str(error))),
)
"""What a call may fail with, and the answer. Any other error is a mistake of ours."""


class ManagementAPI:
    """Serves the calls to those whom the guard lets through."""

    log = Logger()

    def __init__(self, control: IControl, guard: Guard) -> None:
        self._control, self._guard = control, guard

    def resource(self) -> IResource:
        """Make the root of a site."""
        app = Klein()
        for call in CALLS:
            self._addRoute(app, call)
        app.handle_errors(HTTPException)(self._unrouted)
        app.handle_errors(Exception)(self._failed)
        return _Gate(app.resource(), self._guard)

    def _addRoute(self, app: Klein, call: Call) -> None:
        def serve(request: IRequest) -> Deferred[None]:
            answering = Deferred.fromCoroutine(self._answer(call, request))
            return _outliving(answering).addCallback(write, request)

        endpoint = f"{call.method} {call.path}"
        app.route(call.path, methods=[call.method], endpoint=endpoint, strict_slashes=False)(serve)

    async def _answer(self, call: Call, request: IRequest) -> Answer:
        """Run a call; one that may change something leaves a line in the log. Never fails."""
        answer = await self._run(call, request.uri)
        if call.method != "GET":
            told = _told(request)
            what = "".join(f" {_TOLD[name]}" for name in told)
            text = "management: {client} {method} {path}" + what + ": {status}"
            self.log.info(
                text,
                client=getattr(request.getClientAddress(), "host", "local"),
                method=call.method,
                path=call.path,
                **told,
                status=answer.status,
            )
        return answer

    async def _run(self, call: Call, uri: bytes) -> Answer:
        try:
            parameters = parse(uri, call.required, call.optional) if call.needsToken else {}
            return await call.run(self._control, **parameters)
        except Exception as error:  # the top of a call
            for kind, answer in _ERRORS:
                if isinstance(error, kind):
                    return answer(error)
            self.log.failure("{method} {path} failed", method=call.method, path=call.path)
            return _OURS

    def _unrouted(self, request: IRequest, failure: Failure) -> None:
        """Answer a request that is no call; redirections, which Werkzeug knows, are none either."""
        if isinstance(failure.value, MethodNotAllowed):
            allowed = ", ".join(sorted(failure.value.valid_methods or ()))
            write(lines(405, "method not allowed", allow=allowed), request)
        else:
            write(_UNKNOWN, request)

    def _failed(self, request: IRequest, failure: Failure) -> None:
        self.log.failure("an answer could not be given", failure=failure)
        write(_OURS, request)


_OURS = lines(500, "internal error")
_UNKNOWN = lines(404, "not found")
_OPEN_PATHS = frozenset(
    path
    for call in CALLS
    if not call.needsToken
    for path in (call.path.encode("ascii"), call.path.encode("ascii") + b"/")
)


@implementer(IResource)
class _Gate(Resource):
    """Lets requests through to the calls.

    The token comes first: without it a caller learns nothing of paths or parameters. What Klein
    cannot read (a path that is not UTF-8, a `Host` that is no name) is kept from it.
    """

    isLeaf = True

    def __init__(self, calls: IResource, guard: Guard) -> None:
        super().__init__()
        self._calls, self._guard = calls, guard

    def render(self, request: IRequest) -> Any:
        """Answer at once, or pass the request on."""
        answer = self._refusal(request)
        if answer is None:
            request.requestHeaders.setRawHeaders(b"host", [b"localhost"])
            return self._calls.render(request)
        write(answer, request)
        request.finish()
        return NOT_DONE_YET

    def _refusal(self, request: IRequest) -> Answer | None:
        """Say why a request is not passed on; None when it is."""
        refusal = None if request.path in _OPEN_PATHS else self._judge(request)
        if refusal is not None:
            return refusal
        if not (request.method.isalpha() and request.method.isupper()):
            return lines(400, "methods are written in capital letters")
        return None if _isReadable(request.postpath) else _UNKNOWN

    def _judge(self, request: IRequest) -> Answer | None:
        """Hold the token against the guard; several headers are as good as a wrong one."""
        client = str(getattr(request.getClientAddress(), "host", "local"))
        values = request.requestHeaders.getRawHeaders(b"authorization")
        match self._guard.judge(client, None if values is None else b", ".join(values)):
            case Verdict.ALLOWED:
                return None
            case Verdict.LOCKED:
                seconds = str(self._guard.retryAfter(client))
                return lines(429, "too many wrong tokens; try again later", retry_after=seconds)
        return lines(401, "a valid token is needed", www_authenticate="Bearer")


_TOLD = {"account": "{account}", "destination": "{destination}", "seconds": "{seconds} s"}
"""How the log writes what a call has named."""


def _told(request: IRequest) -> dict[str, str]:
    """What a call has named, for the log."""
    found = {name: _first(request, name.encode()) for name in ("destination", "seconds")}
    told = {name: value for name, value in found.items() if value is not None}
    account = _first(request, b"identifier")
    return told if account is None else {"account": redact(account), **told}


def _first(request: IRequest, name: bytes) -> str | None:
    """A query parameter for the log, however it is written."""
    values = request.args.get(name) if request.args else None
    return values[0].decode("utf-8", "replace") if values else None


def _isReadable(segments: Sequence[bytes]) -> bool:
    """Whether a path is text; one that begins with two slashes is not, to Werkzeug, what it is."""
    try:
        return b"/".join(segments).decode("utf-8")[:1] != "/"
    except UnicodeDecodeError:
        return False


def _outliving(work: Deferred[T]) -> Deferred[T]:
    """Wait for work that goes on when nobody waits any more.

    Klein cancels what it waits for when the client leaves; a write half done would then be kept by
    the store while the cache still holds the old answer.
    """
    waiter: Deferred[T] = Deferred()
    work.chainDeferred(waiter)
    return waiter
