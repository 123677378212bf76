"""A client's words in each protocol, up to the login and a little further.

A `Dialogue` lets one test speak all of them. It knows what a client sends and how the kinds of
answers look; it must not know which server answers.
"""

import re
import ssl
from abc import ABC, abstractmethod
from base64 import b64decode
from typing import ClassVar

from tests.integration.dovecot import Account
from tests.integration.wire import LineClient, base64Of, plain


class Dialogue(ABC):
    """One protocol.

    :cvar accepted: how the answer to a good login begins; the other patterns likewise.
    :cvar temporary: a backend that asks to try later.
    :cvar unavailable: no backend to ask.
    :cvar private: a secret that came in the clear.
    :cvar unknown: a mechanism that is not offered.
    :cvar hidden: the whole answer to a refused login where the backend's words are hidden.
    :cvar exchange: begins a SASL exchange; takes the mechanism.
    :cvar upgrade: asks for TLS, and how the consent begins.
    :cvar noop: does nothing.
    """

    protocol: ClassVar[str]
    accepted: ClassVar[bytes]
    refused: ClassVar[bytes]
    temporary: ClassVar[bytes]
    unavailable: ClassVar[bytes]
    private: ClassVar[bytes]
    unknown: ClassVar[bytes]
    hidden: ClassVar[bytes]
    exchange: ClassVar[bytes]
    upgrade: ClassVar[tuple[bytes, bytes]]
    noop: ClassVar[bytes] = b"NOOP"

    def greet(self, client: LineClient) -> bytes:
        """Read the greeting, say hello where that is usual; what the server said."""
        return client.readLine()

    def ask(self, client: LineClient, line: bytes) -> bytes:
        """Send a line and read the answer."""
        client.send(line + b"\r\n")
        return self.answer(client)

    def answer(self, client: LineClient) -> bytes:
        """Read one answer; LF between its lines, if it may have more than one."""
        return client.readLine()

    def startTLS(self, client: LineClient, context: ssl.SSLContext) -> bytes:
        """Upgrade; what the server says after it."""
        self.requestTLS(client)
        client.startTLS(context)
        return self.secured(client)

    def requestTLS(self, client: LineClient) -> None:
        """Ask for TLS and read the consent."""
        command, consent = self.upgrade
        assert self.ask(client, command).startswith(consent), "no TLS"

    def secured(self, client: LineClient) -> bytes:
        """Say or read what comes after the handshake."""
        return b""

    def authenticate(
        self, client: LineClient, mechanism: str, initial: bytes | None = None
    ) -> bytes:
        """Begin a SASL exchange, the message not yet in base64; the answer, which may ask."""
        words = [self.exchange % mechanism.encode()]
        if initial is not None:
            words.append(self.written(initial))
        return self.ask(client, b" ".join(words))

    def reply(self, client: LineClient, message: bytes) -> bytes:
        """Answer a challenge, the message not yet in base64."""
        return self.ask(client, self.written(message))

    def written(self, message: bytes) -> bytes:
        """A SASL message as a client writes it."""
        return base64Of(message)

    @abstractmethod
    def challenge(self, answer: bytes) -> bytes | None:
        """What an answer asks, base64 removed; None if it is final."""

    def idle(self, client: LineClient) -> bytes:
        """Do nothing; the answer."""
        return self.ask(client, self.noop)

    def logIn(self, client: LineClient, account: Account) -> bytes:
        """Log in by PLAIN with an initial response, any bytes for a password."""
        return self.authenticate(client, "PLAIN", plain(account.name, account.password))


class IMAP(Dialogue):
    """The mail of a folder."""

    protocol = "imap"
    accepted = rb"a OK "
    refused = rb"a NO \[AUTHENTICATIONFAILED\] "
    temporary = unavailable = rb"a NO \[UNAVAILABLE\] "
    private = rb"a NO \[PRIVACYREQUIRED\] "
    unknown = rb"a NO "
    hidden = b"a NO [AUTHENTICATIONFAILED] Authentication failed."
    exchange = b"a AUTHENTICATE %b"
    upgrade = (b"s STARTTLS", b"s OK")
    noop = b"n NOOP"

    def answer(self, client: LineClient) -> bytes:
        """Read on to a tagged line, or one that asks."""
        while (line := client.readLine()).startswith(b"* "):
            pass
        return line

    def challenge(self, answer: bytes) -> bytes | None:
        """A line that begins with `+`."""
        return b64decode(answer[2:]) if answer.startswith(b"+") else None


class POP3(Dialogue):
    """The mail of an inbox."""

    protocol = "pop3"
    accepted = rb"\+OK"
    refused = rb"-ERR \[AUTH\] "
    temporary = unavailable = rb"-ERR \[SYS/TEMP\] "
    private = rb"-ERR "
    unknown = rb"-ERR "
    hidden = b"-ERR [AUTH] Authentication failed."
    exchange = b"AUTH %b"
    upgrade = (b"STLS", b"+OK")

    def challenge(self, answer: bytes) -> bytes | None:
        """A line that begins with `+` and a space."""
        return b64decode(answer[2:]) if answer.startswith(b"+ ") else None

    def list(self, client: LineClient, line: bytes) -> list[bytes]:
        """Send a line and read the lines up to the dot, which is not among them."""
        assert self.ask(client, line).startswith(b"+OK"), line
        return client.readUntil(b".")[:-1]


class Submission(Dialogue):
    """Mail to be sent."""

    protocol = "submission"
    accepted = rb"235[ -]"
    refused = rb"5[23]5 5\.7\."
    temporary = rb"454 4\.7\.0 "
    unavailable = rb"421 4\.3\.2 "
    private = rb"538 5\.7\.11 "
    unknown = rb"504 5\.5\.4 "
    hidden = b"535 5.7.8 Authentication failed."
    exchange = b"AUTH %b"
    upgrade = (b"STARTTLS", b"220 ")
    name: ClassVar[bytes] = b"client.example"
    """What the client calls itself."""

    def greet(self, client: LineClient) -> bytes:
        """Read 220 and say EHLO; the whole answer to it."""
        self.answer(client)
        return self.ask(client, b"EHLO " + self.name)

    def secured(self, client: LineClient) -> bytes:
        """Say EHLO again."""
        return self.ask(client, b"EHLO " + self.name)

    def answer(self, client: LineClient) -> bytes:
        """Read a reply, all lines of it."""
        lines = [client.readLine()]
        while lines[-1][3:4] == b"-":
            lines.append(client.readLine())
        return b"\n".join(lines)

    def challenge(self, answer: bytes) -> bytes | None:
        """A reply of code 334."""
        return b64decode(answer[4:]) if answer.startswith(b"334 ") else None


class ManageSieve(Dialogue):
    """Scripts."""

    protocol = "managesieve"
    accepted = rb"OK"
    refused = rb"NO (?!\()"
    temporary = unavailable = rb"NO \(TRYLATER\) "
    private = rb"NO \(ENCRYPT-NEEDED\) "
    unknown = rb"NO "
    hidden = b'NO "Authentication failed."'
    exchange = b'AUTHENTICATE "%b"'
    upgrade = (b"STARTTLS", b"OK")

    def greet(self, client: LineClient) -> bytes:
        """Read the capability block."""
        return b"\n".join(client.readUntil(b"OK"))

    def secured(self, client: LineClient) -> bytes:
        """The block comes again by itself."""
        return self.greet(client)

    def written(self, message: bytes) -> bytes:
        """A string; long messages are literals."""
        text = base64Of(message)
        return b'"%b"' % text if len(text) < 1000 else b"{%d+}\r\n%b" % (len(text), text)

    def answer(self, client: LineClient) -> bytes:
        """Read a response, literals and all."""
        answer = client.readLine()
        while found := re.search(rb"\{(\d+)\}\Z", answer):
            answer += b"\n" + client.readExactly(int(found[1])) + client.readLine()
        return answer

    def challenge(self, answer: bytes) -> bytes | None:
        """A string alone, quoted or a literal."""
        found = re.match(rb'"(.*)"\Z|\{\d+\}\n(.*)\Z', answer)
        return b64decode(found[1] or found[2] or b"") if found else None
