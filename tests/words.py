"""What the same session reads like in each protocol that has a login.

What we say on either leg is in the tests of each protocol; a backend's own words are added here.
"""

from base64 import b64encode

import attrs

from mailproxy.protocols.base import Advertised
from mailproxy.sasl import Mechanism
from tests.dialling import Scripted
from tests.protocols import (
    test_imap,
    test_imap_client,
    test_managesieve,
    test_managesieve_client,
    test_pop3,
    test_pop3_client,
    test_submission,
    test_submission_client,
)
from tests.protocols.words import ClientWords, ServerWords
from tests.stage import BEARER, PASSWORD

PLAIN = b64encode(b"\0ann\0" + PASSWORD)
TOKEN = b64encode(BEARER)
PROMISES = Advertised(tuple(Mechanism), True, (b"ID", b"SASL-IR"), b"ready")


@attrs.frozen
class Words:
    """One protocol's session.

    :ivar server: what a client says to us, and hears.
    :ivar client: what we say to a backend.
    :ivar greeting: how ours begins, and `helloed` how the client's is answered.
    :ivar backend: its greeting; `extensions` its answer to the first question, by prefix.
    :ivar accepted: the backend's answer; likewise `refused` and `later`.
    :ivar nonsense: a client's answer to a challenge that is none.
    """

    server: ServerWords
    client: ClientWords
    greeting: bytes
    backend: bytes
    accepted: bytes
    refused: bytes
    later: bytes
    extensions: tuple[bytes, bytes] | None = None
    helloed: bytes = b""
    nonsense: bytes = b"!\r\n"

    @property
    def protocol(self) -> str:
        """What the configuration calls it."""
        return self.server.protocol

    def logIn(self, text: bytes = PLAIN, mechanism: bytes = b"PLAIN") -> bytes:
        """A client's login, its message in base64 already."""
        return self.server.exchange.begin(mechanism, text)

    def bear(self) -> bytes:
        """A client's login with its token."""
        return self.logIn(TOKEN, b"OAUTHBEARER")

    def passedOn(self, answer: bytes) -> bytes:
        """What the client hears of a backend's answer."""
        return answer.replace(self.client.tag, self.server.tag) if self.client.tag else answer

    def makeBackend(self, answer: bytes) -> Scripted:
        """A backend that answers the login so."""
        more = [self.extensions] if self.extensions else []
        login, _, _ = self.client.exchange.command.partition(b"%b")
        return Scripted(self.backend, *more, (login, answer))


IMAP = Words(
    test_imap.WORDS,
    test_imap_client.WORDS,
    greeting=b"* OK [CAPABILITY ",
    backend=b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=OAUTHBEARER] hi\r\n",
    accepted=b"* OK news\r\nP1 OK in\r\n",
    refused=b"P1 NO [AUTHENTICATIONFAILED] db7: no\r\n",
    later=b"P1 NO [INUSE] db7: later\r\n",
)

POP3 = Words(
    test_pop3.WORDS,
    test_pop3_client.WORDS,
    greeting=b"+OK ",
    backend=b"+OK hi\r\n",
    extensions=(b"CAPA", b"+OK\r\nSASL PLAIN OAUTHBEARER\r\n.\r\n"),
    accepted=b"+OK in\r\n",
    refused=b"-ERR [AUTH] db7: no\r\n",
    later=b"-ERR [SYS/TEMP] db7: later\r\n",
)

SUBMISSION = Words(
    test_submission.WORDS,
    test_submission_client.WORDS,
    greeting=b"220 [192.0.2.1] ESMTP ",
    helloed=b"250-",
    backend=b"220 hi\r\n",
    extensions=(b"EHLO there", b"250-mail\r\n250 AUTH PLAIN OAUTHBEARER\r\n"),
    accepted=b"235-2.7.0 news\r\n235 2.7.0 in\r\n",
    refused=b"535-5.7.8 db7:\r\n535 5.7.8 no\r\n",
    later=b"454 4.7.0 db7: later\r\n",
)

MANAGESIEVE = Words(
    test_managesieve.WORDS,
    test_managesieve_client.WORDS,
    greeting=b'"IMPLEMENTATION" ',
    backend=b'"SASL" "PLAIN OAUTHBEARER"\r\nOK\r\n',
    accepted=b'OK (SASL "YQ==") {2}\r\nin\r\n',
    refused=b'NO "db7: no"\r\n',
    later=b'NO (TRYLATER) "db7: later"\r\n',
    nonsense=b"(no string)\r\n",
)

ALL = (IMAP, POP3, SUBMISSION, MANAGESIEVE)
