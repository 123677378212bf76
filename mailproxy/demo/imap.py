"""The demonstration's IMAP server: Twisted's own, over read-only mailboxes in memory.

Knows mailboxes, messages and logins; knows nothing of ports, TLS or the proxy.
"""

from collections.abc import Iterable, Mapping, Sequence
from email.message import Message
from email.parser import BytesParser
from io import BytesIO
from typing import Any, BinaryIO, cast

import attrs
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.mail import imap4
from zope.interface import implementer

from mailproxy.demo.mail import ACCOUNTS, messagesFor

_UID_VALIDITY = 1


@implementer(imap4.IMessage, imap4.IMessageFile)
@attrs.frozen
class DemoMessage:
    """One message; its UID is its number in the mailbox, from 1.

    :ivar content: the whole message, with CRLF line ends.
    """

    uid: int
    content: bytes = attrs.field(repr=False)

    def open(self) -> BinaryIO:
        """Return the whole message as a file."""
        return BytesIO(self.content)

    def getBodyFile(self) -> BinaryIO:
        """Return what follows the header's empty line."""
        return BytesIO(self.content.partition(b"\r\n\r\n")[2])

    def getHeaders(self, negate: bool, *names: bytes | str) -> Mapping[str, str]:
        """Return the named header fields, or all but those, by their lower-case names.

        Twisted hands over a client's names as bytes, its own as text.
        """
        wanted = {
            (name if isinstance(name, str) else name.decode("latin-1")).lower() for name in names
        }
        return {
            name.lower(): str(value)
            for name, value in self._parsed().items()
            if (name.lower() in wanted) is not negate
        }

    def getSize(self) -> int:
        """Return the whole message's length in bytes."""
        return len(self.content)

    def getUID(self) -> int:
        """Return the UID."""
        return self.uid

    def getFlags(self) -> Sequence[str]:
        """Return no flags: nothing is ever stored."""
        return []

    def getInternalDate(self) -> bytes:
        """Return the date of the message's own header."""
        return str(self._parsed()["Date"]).encode("ascii")

    def isMultipart(self) -> bool:
        """Return False: every message is one plain text."""
        return False

    def getSubPart(self, part: int) -> None:
        """Refuse: there are no parts."""
        raise TypeError("the message has no parts")

    def _parsed(self) -> Message:
        return BytesParser().parsebytes(self.content, headersonly=True)


@implementer(imap4.IMailbox)
class DemoMailbox:
    """A read-only mailbox; nothing in it changes, so nobody is ever told of a change."""

    def __init__(self, contents: Iterable[bytes]) -> None:
        self._messages = [DemoMessage(uid, content) for uid, content in enumerate(contents, 1)]

    def getFlags(self) -> Sequence[str]:
        """Return the flags that a message may carry."""
        return ["\\Seen"]

    def getHierarchicalDelimiter(self) -> str:
        """Return what separates the levels of a mailbox's name."""
        return "/"

    def getUIDValidity(self) -> int:
        """Return a constant: the UIDs are the same at each start."""
        return _UID_VALIDITY

    def getUIDNext(self) -> int:
        """Return the UID after the last."""
        return len(self._messages) + 1

    def getUID(self, message: int) -> int:
        """Return the UID of the message with that number."""
        return self._messages[message - 1].uid

    def getMessageCount(self) -> int:
        """Return how many messages there are."""
        return len(self._messages)

    def getRecentCount(self) -> int:
        """Return 0: nothing ever arrives."""
        return 0

    def getUnseenCount(self) -> int:
        """Return how many messages lack the flag Seen: all."""
        return len(self._messages)

    def isWriteable(self) -> bool:
        """Return False."""
        return False

    def requestStatus(self, names: Iterable[str]) -> Mapping[str, int]:
        """Return the counts that a STATUS command names."""
        found = imap4.statusRequestHelper(self, names)
        return cast("Mapping[str, int]", found)

    def addListener(self, listener: object) -> None:
        """Ignore the listener: there will be no news."""

    def removeListener(self, listener: object) -> None:
        """Ignore the listener."""

    def fetch(self, messages: Any, uid: bool) -> Iterable[tuple[int, DemoMessage]]:
        """Return the chosen messages with their numbers; numbers and UIDs are the same here."""
        messages.last = len(self._messages)
        numbers = range(1, len(self._messages) + 1)
        return [(number, self._messages[number - 1]) for number in numbers if number in messages]

    def addMessage(self, message: BinaryIO, flags: Iterable[bytes], date: bytes) -> None:
        """Refuse: the mailbox is read-only."""
        raise imap4.ReadOnlyMailbox("addMessage")

    def expunge(self) -> None:
        """Refuse: the mailbox is read-only."""
        raise imap4.ReadOnlyMailbox("expunge")

    def store(self, messages: Any, flags: Sequence[str], mode: int, uid: bool) -> None:
        """Refuse: the mailbox is read-only."""
        raise imap4.ReadOnlyMailbox("store")

    def destroy(self) -> None:
        """Refuse: the mailbox is read-only."""
        raise imap4.ReadOnlyMailbox("destroy")


@implementer(IRealm)
@attrs.frozen
class DemoRealm:
    """Gives each account its INBOX on one server."""

    server: str

    def requestAvatar(
        self, avatarId: bytes | tuple[()], mind: object, *interfaces: object
    ) -> tuple[Any, ...]:
        """Return the account that has just logged in; nobody is let in without a name."""
        name = bytes(avatarId).decode("ascii")
        account = imap4.MemoryAccount(name)
        inbox = DemoMailbox(messagesFor(name, self.server))
        account.addMailbox("INBOX", inbox)
        return imap4.IAccount, account, lambda: None


class DemoIMAPFactory(ServerFactory):
    """Builds the IMAP sessions of one server."""

    noisy = False

    def __init__(self, server: str) -> None:
        passwords = InMemoryUsernamePasswordDatabaseDontUse(
            **{name: password.encode("ascii") for name, password in ACCOUNTS.items()}
        )
        self._portal = Portal(DemoRealm(server), [passwords])

    def buildProtocol(self, addr: IAddress | None) -> imap4.IMAP4Server:
        """Return a session that offers LOGIN and PLAIN."""
        session = imap4.IMAP4Server()
        session.challengers = {
            b"LOGIN": imap4.LOGINCredentials,
            b"PLAIN": imap4.PLAINCredentials,
        }
        session.portal = cast("None", self._portal)  # its class declares only the default
        session.factory = self
        return session
