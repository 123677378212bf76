"""Logins in requests, and the line of one that its backend has refused.

Knows which refusals are a login's; must not know how a request is served. The line's words are
those of a mail session's refused login: etc/fail2ban reads both.
"""

from mailproxy.http.messages import Request, Response
from mailproxy.identity import redact
from mailproxy.logs import Logger
from mailproxy.registry import ISession

_UNAUTHORIZED = 401
_WHOLE = (b"basic", b"bearer")
"""Schemes that say all at once; in others a 401 may be a step of the dialogue (RFC 9110, 11.4)."""

log = Logger(namespace="mailproxy.http.logins")


def isRefused(request: Request, response: Response) -> bool:
    """Whether an answer refuses the credentials that its request has brought."""
    if response.status != _UNAUTHORIZED:
        return False
    scheme, _, given = (request.fields.first(b"authorization") or b"").partition(b" ")
    return scheme.lower() in _WHOLE and bool(given.strip())


def noteRefused(session: ISession) -> None:
    """Write the line."""
    log.info(
        "session {session} {protocol} {listener} from {client}: login of {identifier} refused by "
        "{destination}",
        session=session.id,
        protocol=session.protocol,
        listener=session.listener,
        client=session.client,
        identifier=redact(session.identifier),
        destination=session.destination,
    )
