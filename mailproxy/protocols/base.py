"""What the conversations of all protocols are made of: commands, logins and their results.

Knows no conversation's order (`server`, `client`) and no protocol's words.
"""

import enum
from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from mailproxy.errors import Refusal
from mailproxy.sasl import Credentials

Challenge = Callable[[bytes], Awaitable[bytes | None]]
"""Passes a backend's SASL challenge on and gives the answer, both without base64; None when there
is none and the backend is to cancel."""


@attrs.frozen
class Command:
    """One command of a client.

    :ivar tag: what its reply is marked with; empty where the protocol has no tags.
    :ivar verb: in upper case.
    :ivar arguments: what follows the verb, in the protocol's own form.
    """

    tag: bytes
    verb: bytes
    arguments: Any = attrs.field(default=b"", repr=False)


class Dismissed(Exception):
    """The conversation with a client is over.

    :ivar refusal: what it is to be told; None when it has said good-bye itself.
    :ivar command: the one that waits for an answer, if one does.
    """

    def __init__(self, refusal: Refusal | None, command: Command | None = None) -> None:
        super().__init__(refusal)
        self.refusal, self.command = refusal, command


@attrs.frozen
class Login:
    """A client's complete login, to be answered by `accept` or `reject`."""

    command: Command
    credentials: Credentials


class Verdict(enum.Enum):
    """What a backend says of a login."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    TEMPORARY = "temporary"


@attrs.frozen
class AuthResult:
    """A backend's answer to a login.

    :ivar preamble: whole lines that came before the final reply, with their ends.
    :ivar reply: the final reply, without a tag and without its line end.
    """

    verdict: Verdict
    preamble: bytes
    reply: bytes

    @property
    def accepted(self) -> bool:
        """Whether the client is in."""
        return self.verdict is Verdict.ACCEPTED
