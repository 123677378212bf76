"""Mail messages for tests, and a Maildir to put them in behind a server's back."""

import base64
import itertools
import os
import random
from pathlib import Path

import attrs

_serial = itertools.count(1)


def message(subject: str, body: str = "Nothing to see here.", to: str = "you@example.org") -> bytes:
    """A small message; its subject tells which server keeps it."""
    head = (
        "From: Test <test@example.org>\r\n"
        f"To: {to}\r\n"
        f"Subject: {subject}\r\n"
        "Date: Mon, 06 Jan 2025 10:00:00 +0000\r\n"
        f"Message-ID: <{next(_serial)}.{os.getpid()}@test.example.org>\r\n"
        "\r\n"
    )
    return f"{head}{body}\r\n".encode()


def bigMessage(size: int, seed: int = 0) -> bytes:
    """Exactly `size` bytes (at least 1000), the same for the same `seed` on every machine.

    No two lines are alike, so a lost, repeated or moved part cannot go unnoticed.
    """
    head = (
        "From: Test <test@example.org>\r\n"
        "To: you@example.org\r\n"
        f"Subject: big {size} {seed}\r\n"
        "Date: Mon, 06 Jan 2025 10:00:00 +0000\r\n"
        f"Message-ID: <big.{size}.{seed}@test.example.org>\r\n"
        "\r\n"
    ).encode("ascii")
    noise = random.Random(seed).randbytes(size * 3 // 4)
    text = base64.encodebytes(noise).replace(b"\n", b"\r\n")
    return (head + text)[: size - 4].rstrip(b"\r").ljust(size - 2, b".") + b"\r\n"


@attrs.frozen
class Maildir:
    """A mailbox in the Maildir++ layout, owned by the user that the mail server uses."""

    root: Path
    uid: int
    gid: int

    def deliver(self, content: bytes, folder: str = "INBOX") -> None:
        """Add `content`, byte for byte, as a new message; a server turns a bare LF into CRLF."""
        box = self.root if folder == "INBOX" else self.root / f".{folder}"
        for part in ("tmp", "new", "cur"):
            self._makeFolder(box / part)
        name = f"1736157600.M{next(_serial)}P{os.getpid()}.test"
        draft = box / "tmp" / name
        draft.write_bytes(content)
        os.chown(draft, self.uid, self.gid)
        draft.rename(box / "new" / name)

    def _makeFolder(self, path: Path) -> None:
        """Make `path` and its missing parents, each owned by the mail user."""
        if path.is_dir():
            return
        self._makeFolder(path.parent)
        path.mkdir(mode=0o700)
        os.chown(path, self.uid, self.gid)
