"""What the same session reads like in each protocol that has a login."""

from base64 import b64encode

import attrs

from mailproxy.protocols.base import Advertised
from mailproxy.sasl import Mechanism
from tests.dialling import Scripted
from tests.stage import BEARER, PASSWORD

PLAIN = b64encode(b"\0ann\0" + PASSWORD)
TOKEN = b64encode(BEARER)
PROMISES = Advertised(tuple(Mechanism), True, (b"ID", b"SASL-IR"), b"ready")


@attrs.frozen
class Words:
    """One protocol's session.

    :ivar greeting: how ours begins.
    :ivar hello: what the client says before its first login, and `helloed` how that is answered.
    :ivar login: the client's, `%u` standing for its SASL message; `bearer` that of its token.
    :ivar noop: a command that we answer by `nooped`.
    :ivar backend: its greeting; `extensions` its answer to the first question, by prefix.
    :ivar auth: how the login reads at the backend, up to the SASL message.
    :ivar accepted: the backend's answer; likewise `refused`, `later` and `challenge`.
    :ivar hidden: how we word a refusal; likewise `hiddenLater`.
    :ivar unavailable: all that a client hears that cannot be served, behind its login.
    :ivar tooMany: what a client hears behind its last refusal.
    :ivar answer: the client's answer to a challenge, and `nonsense` one that is none.
    """

    protocol: str
    greeting: bytes
    hello: bytes
    helloed: bytes
    login: bytes
    noop: bytes
    nooped: bytes
    backend: bytes
    extensions: tuple[bytes, bytes] | None
    auth: bytes
    accepted: bytes
    refused: bytes
    later: bytes
    hidden: bytes
    hiddenLater: bytes
    unavailable: bytes
    tooMany: bytes
    bearer: bytes
    challenge: bytes
    nonsense: bytes

    def makeBackend(self, answer: bytes) -> Scripted:
        """A backend that answers the login so."""
        more = [self.extensions] if self.extensions else []
        return Scripted(self.backend, *more, (self.auth, answer))


_LATER = b"Temporarily unavailable, try again later.\r\n"

IMAP = Words(
    protocol="imap",
    greeting=b"* OK [CAPABILITY ",
    hello=b"",
    helloed=b"",
    login=b"a AUTHENTICATE PLAIN %u\r\n",
    noop=b"n NOOP\r\n",
    nooped=b"n OK Completed.\r\n",
    backend=b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=OAUTHBEARER] hi\r\n",
    extensions=None,
    auth=b"P1 AUTHENTICATE ",
    accepted=b"* OK news\r\nP1 OK in\r\n",
    refused=b"P1 NO [AUTHENTICATIONFAILED] db7: no\r\n",
    later=b"P1 NO [INUSE] db7: later\r\n",
    hidden=b"a NO [AUTHENTICATIONFAILED] Authentication failed.\r\n",
    hiddenLater=b"a NO [UNAVAILABLE] " + _LATER,
    unavailable=b"a NO [UNAVAILABLE] %b* BYE [UNAVAILABLE] %b" % (_LATER, _LATER),
    tooMany=b"* BYE Too many failures.\r\n",
    bearer=b"a AUTHENTICATE OAUTHBEARER %b\r\n" % TOKEN,
    challenge=b"+ e30=\r\n",
    nonsense=b"!\r\n",
)

POP3 = Words(
    protocol="pop3",
    greeting=b"+OK ",
    hello=b"",
    helloed=b"",
    login=b"AUTH PLAIN %u\r\n",
    noop=b"NOOP\r\n",
    nooped=b"+OK\r\n",
    backend=b"+OK hi\r\n",
    extensions=(b"CAPA", b"+OK\r\nSASL PLAIN OAUTHBEARER\r\n.\r\n"),
    auth=b"AUTH ",
    accepted=b"+OK in\r\n",
    refused=b"-ERR [AUTH] db7: no\r\n",
    later=b"-ERR [SYS/TEMP] db7: later\r\n",
    hidden=b"-ERR [AUTH] Authentication failed.\r\n",
    hiddenLater=b"-ERR [SYS/TEMP] " + _LATER,
    unavailable=b"-ERR [SYS/TEMP] " + _LATER,
    tooMany=b"",
    bearer=b"AUTH OAUTHBEARER %b\r\n" % TOKEN,
    challenge=b"+ e30=\r\n",
    nonsense=b"!\r\n",
)

SUBMISSION = Words(
    protocol="submission",
    greeting=b"220 [192.0.2.1] ESMTP ",
    hello=b"EHLO there\r\n",
    helloed=b"250-",
    login=b"AUTH PLAIN %u\r\n",
    noop=b"NOOP\r\n",
    nooped=b"250 2.0.0 OK\r\n",
    backend=b"220 hi\r\n",
    extensions=(b"EHLO there", b"250-mail\r\n250 AUTH PLAIN OAUTHBEARER\r\n"),
    auth=b"AUTH ",
    accepted=b"235-2.7.0 news\r\n235 2.7.0 in\r\n",
    refused=b"535-5.7.8 db7:\r\n535 5.7.8 no\r\n",
    later=b"454 4.7.0 db7: later\r\n",
    hidden=b"535 5.7.8 Authentication failed.\r\n",
    hiddenLater=b"454 4.7.0 Temporary authentication failure.\r\n",
    unavailable=b"421 4.3.2 " + _LATER,
    tooMany=b"421 4.7.0 Too many errors.\r\n",
    bearer=b"AUTH OAUTHBEARER %b\r\n" % TOKEN,
    challenge=b"334 e30=\r\n",
    nonsense=b"!\r\n",
)

MANAGESIEVE = Words(
    protocol="managesieve",
    greeting=b'"IMPLEMENTATION" ',
    hello=b"",
    helloed=b"",
    login=b'AUTHENTICATE "PLAIN" "%u"\r\n',
    noop=b"NOOP\r\n",
    nooped=b'OK "Completed."\r\n',
    backend=b'"SASL" "PLAIN OAUTHBEARER"\r\nOK\r\n',
    extensions=None,
    auth=b"AUTHENTICATE ",
    accepted=b'OK (SASL "YQ==") {2}\r\nin\r\n',
    refused=b'NO "db7: no"\r\n',
    later=b'NO (TRYLATER) "db7: later"\r\n',
    hidden=b'NO "Authentication failed."\r\n',
    hiddenLater=b'NO (TRYLATER) "Temporarily unavailable, try again later."\r\n',
    unavailable=(
        b'NO (TRYLATER) "Temporarily unavailable, try again later."\r\n'
        b'BYE (TRYLATER) "Temporarily unavailable, try again later."\r\n'
    ),
    tooMany=b'BYE "Too many failures."\r\n',
    bearer=b'AUTHENTICATE "OAUTHBEARER" "%b"\r\n' % TOKEN,
    challenge=b'"e30="\r\n',
    nonsense=b"(no string)\r\n",
)

ALL = (IMAP, POP3, SUBMISSION, MANAGESIEVE)
