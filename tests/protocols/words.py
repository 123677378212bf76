"""What one protocol says: the values that its tests, and those of the contracts, are made of.

Each protocol's test modules hold its own; here is only what there is to say.
"""

from base64 import b64encode
from collections.abc import Mapping

import attrs

from mailproxy.errors import Refusal
from mailproxy.origin import Origin
from mailproxy.protocols.base import Verdict
from mailproxy.protocols.client import ProxyClientFactory
from mailproxy.protocols.server import ProxyServer, ProxyServerFactory
from mailproxy.sasl import Credentials


@attrs.frozen
class Exchange:
    """One protocol's spelling; `%b` stands for what is filled in.

    :ivar command: begins the exchange, without its line end; takes the mechanism.
    :ivar string: base64 as the client writes it, in the command and in an answer.
    :ivar challenge: base64 as the server writes it, with its line end.
    """

    command: bytes
    string: bytes = b"%b"
    challenge: bytes = b"+ %b\r\n"

    def begin(self, mechanism: bytes, initial: bytes | None = None) -> bytes:
        """The client's first line; `initial` as it stands on the wire, None for none."""
        line = self.command % mechanism
        return line + (b"" if initial is None else b" " + self.string % initial) + b"\r\n"

    def send(self, mechanism: bytes, message: bytes) -> bytes:
        """The client's first line with its message, not yet in base64."""
        return self.begin(mechanism, b64encode(message))

    def ask(self, message: bytes = b"") -> bytes:
        """The server's challenge, not yet in base64."""
        return self.challenge % b64encode(message)

    def answer(self, text: bytes) -> bytes:
        """The client's line that answers, `text` as it stands on the wire: base64, or `*`."""
        return self.string % text + b"\r\n"


@attrs.frozen
class Introduction:
    """How another proxy says who its client is.

    :ivar line: what it says of a client at 2001:db8::7, and `answer` what it hears.
    :ivar origin: what we then believe.
    :ivar forged: the same of one at 192.0.2.66, where nobody is believed; `refusal` its answer.
    :ivar malformed: lines that say nothing.
    """

    line: bytes
    answer: bytes
    origin: Origin
    forged: bytes
    refusal: bytes
    malformed: tuple[bytes, ...]


def byXCLIENT(words: bytes, answer: bytes, origin: Origin, refusal: bytes) -> Introduction:
    """An introduction by XCLIENT."""
    return Introduction(
        line=b"XCLIENT %b\r\n" % words,
        answer=answer,
        origin=origin,
        forged=b"XCLIENT ADDR=192.0.2.66\r\n",
        refusal=refusal,
        malformed=(
            b"XCLIENT ADDR\r\n",
            b"XCLIENT TTL=3 X\r\n",
            b"XCLIENT ADDR=+ZZ\r\n",
            b"XCLIENT TTL=2 SESSION=a+\r\n",
            b"XCLIENT TTL=2 HELO=+0\r\n",
        ),
    )


@attrs.frozen
class ServerWords:
    """What one protocol's clients say before a login, and what they hear. All with line ends.

    :ivar hello: what a client has to say before it logs in.
    :ivar noop: a command that does nothing, and `done` its answer.
    :ivar bad: the answer to a mistake: to each of `unknown`, and to each of `miswritten`, which
        are attempts to begin an exchange.
    :ivar quit: the client's good-bye, and `bye` ours.
    :ivar startTLS: asks for TLS, and `go` its answer. `injected`: what an attacker may put behind.
    :ivar again: what we say by ourselves once TLS is on.
    :ivar refusals: how each reason to refuse an exchange reads.
    :ivar farewells: how we end a dialogue, by reason.
    :ivar unavailable: the answer to a login that cannot be served, and the end.
    :ivar tag: what the final line of a backend's answer is marked with for the client.
    :ivar accepted: a backend's preambles and final replies without line end; likewise `refused`;
        `later` has final replies only.
    :ivar keys: what the configuration calls the greeting's text, and the advertised words.
    :ivar advertised: these words by default.
    """

    server: type[ProxyServer]
    factory: type[ProxyServerFactory]
    exchange: Exchange
    noop: bytes
    done: bytes
    bad: bytes
    unknown: tuple[bytes, ...]
    miswritten: tuple[bytes, ...]
    quit: bytes
    bye: bytes
    startTLS: bytes
    go: bytes
    injected: tuple[bytes, ...]
    refusals: Mapping[Refusal, bytes]
    farewells: Mapping[Refusal, bytes]
    unavailable: bytes
    accepted: tuple[tuple[bytes, bytes], ...]
    refused: tuple[bytes, bytes]
    later: tuple[bytes, ...]
    introduction: Introduction
    protocol: str
    keys: tuple[str, str]
    advertised: tuple[bytes, ...]
    hello: bytes = b""
    again: bytes = b""
    tag: bytes = b""

    def passedOn(self, preamble: bytes, reply: bytes) -> bytes:
        """What the client hears of a backend's answer."""
        return preamble + self.tag + reply + b"\r\n"


@attrs.frozen
class ClientWords:
    """What we say to one protocol's backends, and what these say. All with line ends.

    :ivar tag: what our first command, and the final line of its answer, is marked with.
    :ivar garbage: greetings that are none of this protocol.
    :ivar full: greetings that ask to come again later.
    :ivar all: the capabilities of a backend that takes every mechanism.
    :ivar offer: the capability that offers TLS.
    :ivar startTLS: how we ask for it, `consent` and `dissent` the backend's answers.
    :ivar injected: what an attacker may put behind the consent.
    :ivar again: what we ask inside TLS.
    :ivar accepted: preambles and final replies, without tag and line end, that let a client in.
    :ivar verdicts: final replies that do not, and what each is taken for; the first is a refusal.
    :ivar nonsense: lines that are no answer to a login.
    :ivar useless: capabilities of a backend that cannot take these credentials.
    """

    factory: type[ProxyClientFactory]
    exchange: Exchange
    garbage: tuple[bytes, ...]
    full: tuple[bytes, ...]
    all: tuple[bytes, ...]
    offer: bytes
    startTLS: bytes
    consent: bytes
    dissent: bytes
    injected: bytes
    again: bytes
    accepted: tuple[tuple[bytes, bytes], ...]
    verdicts: tuple[tuple[bytes, Verdict], ...]
    nonsense: tuple[bytes, ...]
    useless: tuple[tuple[bytes, Credentials], ...]
    tag: bytes = b""

    def answer(self, preamble: bytes, reply: bytes) -> bytes:
        """A backend's whole answer to a login."""
        return preamble + self.tag + reply + b"\r\n"
