"""Who has mail in the demonstration, and what it says.

Both servers know every account; a message names the server that it lies on, so whoever reads it
sees where the login went.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from types import MappingProxyType

ACCOUNTS: Mapping[str, str] = MappingProxyType(
    {"anna": "apple", "ben": "banana", "carol": "cherry"}
)
"""Each account's password; the demonstration listens on loopback only."""

_FIRST = datetime(2024, 5, 6, 9, 30, tzinfo=UTC)
_SUBJECTS = ("You are on the {server} server", "Lunch on {server}?")
_BODY = (
    "Dear {account},\n\nthis message lies on the server {server}.\n"
    "Your login came through mailproxy, which asked its mapping where you live.\n"
)


def messagesFor(account: str, server: str) -> Sequence[bytes]:
    """Return the account's messages on that server, oldest first, with CRLF line ends."""
    return [
        _message(account, server, subject, _FIRST + timedelta(hours=3 * index))
        for index, subject in enumerate(_SUBJECTS)
    ]


def _message(account: str, server: str, subject: str, when: datetime) -> bytes:
    message = EmailMessage()
    message["From"] = f"postmaster@{server}.example.org"
    message["To"] = f"{account}@example.org"
    message["Date"] = format_datetime(when)
    message["Subject"] = subject.format(server=server)
    message["Message-ID"] = f"<{when:%Y%m%d%H}.{account}@{server}.example.org>"
    message.set_content(_BODY.format(account=account, server=server))
    return message.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
