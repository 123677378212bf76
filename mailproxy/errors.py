"""Every way in which a session, a lookup or a start can fail.

An error is for the log. A `Refusal` is what a client may be told, and only a protocol words it:
no host, path or exception text ever stands in a reply.
"""

import enum
from collections.abc import Sequence


class MailProxyError(Exception):
    """The base of every error that this package raises on purpose."""


class PeerGone(MailProxyError):
    """The other side closed its connection, or it was lost, while we waited for it."""


class ProtocolError(MailProxyError):
    """The other side broke the rules of its protocol."""


class LimitExceeded(ProtocolError):
    """The other side sent more than the dialogue before a login may hold."""


class InvalidIdentifier(MailProxyError):
    """An account name that no store, log or backend may see."""


class Stage(enum.Enum):
    """How far a backend connection came before it failed."""

    BREAKER = "circuit open"
    LOOP = "loop"
    LOCAL = "local"
    RESOLVE = "resolve"
    CONNECT = "connect"
    TIMEOUT = "timeout"
    TLS = "tls"
    GREETING = "greeting"
    PREPARE = "prepare"
    LOGIN = "login"
    ANSWER = "answer"
    UNSUPPORTED = "unsupported"

    @property
    def reachesHost(self) -> bool:
        """Whether the host itself answered: failures before that point need no second witness."""
        return self not in _CONNECT_STAGES


_CONNECT_STAGES = frozenset({Stage.RESOLVE, Stage.CONNECT, Stage.TIMEOUT})


class BackendFailed(MailProxyError):
    """A backend could not be used; the client's login was neither accepted nor refused.

    :ivar stage: how far the connection came.
    :ivar retry: whether another attempt may help and cannot do harm: the backend has not seen
        the login yet.
    """

    def __init__(self, stage: Stage, detail: str, *, retry: bool = False) -> None:
        super().__init__(f"{stage.value}: {detail}")
        self.stage = stage
        self.retry = retry


class CircuitOpen(BackendFailed):
    """A destination is refused at once because it has failed too often.

    :ivar retryAfter: seconds until the next probe is allowed.
    """

    def __init__(self, destination: str, retryAfter: float) -> None:
        super().__init__(Stage.BREAKER, f"{destination} is down")
        self.retryAfter = retryAfter


class MappingError(MailProxyError):
    """A store could not tell, or could not write, the destination of an identifier."""


class ReadOnlyMapping(MailProxyError):
    """The mapping source takes no writes."""


class UnknownDestination(MailProxyError):
    """A destination was named that the configuration does not declare."""


class BadParameter(MailProxyError):
    """A management call's parameters are not as they must be; the text is for its caller."""


class Unanswered(MailProxyError):
    """A worker process has not answered, so that the whole answer is not known; says which one."""


class ConfigError(MailProxyError):
    """A configuration that cannot be run.

    :ivar problems: one line each, `table.key: what is wrong and what would be right`.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class CommandError(MailProxyError):
    """An operator's command came to nothing; the text is one line for the operator.

    :ivar problems: the same, one line for each thing that is wrong.
    """

    def __init__(self, text: str, problems: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.problems = tuple(problems) or (text,)


class BadUsage(CommandError):
    """A command line, or a file that it names, cannot be used."""


class Unreachable(CommandError):
    """No proxy that can be trusted has answered."""


class NotDone(CommandError):
    """A proxy has answered, and what was asked for has not come about."""


class CallRefused(NotDone):
    """The management API has answered a call with an error.

    :ivar status: the HTTP status.
    """

    def __init__(self, status: int, text: str, problems: Sequence[str] = ()) -> None:
        super().__init__(text, problems)
        self.status = status


class Refusal(enum.Enum):
    """Why a client is not served; each protocol has its own words for each."""

    AUTHENTICATION = "login refused"
    TEMPORARY = "backend asks to try later"
    UNAVAILABLE = "temporarily unavailable"
    PRIVACY = "secrets need TLS"
    MECHANISM = "mechanism not offered"
    ENCODING = "malformed SASL message"
    CANCELLED = "cancelled by the client"
    TOO_BIG = "line, literal or dialogue too long"
    TOO_MANY = "too many failed logins or mistakes"
    TIMEOUT = "no login in time"
    SHUTDOWN = "shutting down"
