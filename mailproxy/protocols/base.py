"""What the conversations of all protocols are made of: commands, logins and their results.

Knows no conversation's order (`server`, `client`) and no protocol's words.
"""

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

import attrs

from mailproxy.config.model import Dialogue
from mailproxy.errors import Refusal
from mailproxy.origin import Address
from mailproxy.sasl import Credentials, Mechanism
from mailproxy.stream import Creator

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
    TEMPORARY = "put off"


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


@attrs.frozen
class Advertised:
    """What an operator lets us promise before any backend is known.

    :ivar mechanisms: offered SASL mechanisms, in order.
    :ivar cleartext: whether secrets may come over an unencrypted leg.
    :ivar capabilities: the words that the protocol's own list begins with.
    :ivar banner: text of the greeting.
    """

    mechanisms: tuple[Mechanism, ...] = ()
    cleartext: bool = False
    capabilities: tuple[bytes, ...] = ()
    banner: bytes = b""

    @classmethod
    def of(cls, table: Dialogue, banner: str, words: Sequence[str] = ()) -> Self:
        """Read a protocol's table: what all of them have, and its own words."""
        return cls(
            mechanisms=tuple(Mechanism[name] for name in table.sasl),
            cleartext=table.allow_plain_auth_without_tls,
            capabilities=tuple(word.encode() for word in words),
            banner=banner.encode(),
        )


@attrs.frozen
class ServerSettings:
    """What holds for the clients of one listener.

    :ivar maxAttempts: failed logins before we close.
    :ivar context: makes TLS for STARTTLS; None where it is not offered.
    :ivar trusts: whether a peer at this address is believed when it speaks for its client.
    :ivar hostname: what we call ourselves; None: the address that the client connected to.
    """

    advertised: Advertised
    maxAttempts: int
    context: Creator | None
    trusts: Callable[[Address], bool]
    hostname: bytes | None = None
