"""The certificate for clients that no configured one is for: self-signed, and the same for all.

Who has accepted it once should not be asked again: it is made when it is first needed, and stays
until its time is nearly over. Knows how it goes from one process to another; must not know which
clients are shown it. Its key is never on the disk.
"""

import datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mailproxy.tls.contexts import KeyPair

__all__ = ["GENERATED", "Spare"]

GENERATED = "mailproxy.invalid"
"""The name that stands in a generated certificate: one that can be nobody's."""

_NOWHERE = Path("generated")
"""Stands for the file that there is none of."""


_LEFT = datetime.timedelta(days=30)
"""The rest of its time in which one is replaced when it is asked for: at a reload as a rule."""


class Spare:
    """One generated pair, from its first use on."""

    def __init__(self) -> None:
        self._pair: KeyPair | None = None

    def pair(self) -> KeyPair:
        """Give the pair, which is made now if there is none that will do for a while."""
        found = self._pair
        if found is None or found.certificate.not_valid_after_utc < _now() + _LEFT:
            found = self._pair = KeyPair.generate(GENERATED)
        return found

    def written(self) -> bytes | None:
        """Write it for another process, in PEM; None when it was never needed."""
        if self._pair is None:
            return None
        key = self._pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return self._pair.certificate.public_bytes(Encoding.PEM) + key

    def take(self, written: bytes | None) -> None:
        """Have the one that another process has made; None: it has made none."""
        if written is not None:
            self._pair = KeyPair.load(_NOWHERE, _NOWHERE, lambda path: written)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
