"""Certificate and key files: whether they can be read, belong together, and are still valid."""

import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificatePublicKeyTypes,
    PublicKeyTypes,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

Read: TypeAlias = Callable[[Path], bytes]
"""Gives a file's content, or raises OSError: from the disk, or as another process has read it."""

RENEWAL = timedelta(days=14)
"""A certificate that ends within this time should have been renewed already."""


def checkPair(prefix: str, files: dict[str, Path]) -> Iterator[str]:
    """Everything wrong with a chain and its key.

    :param prefix: the path of the table whose keys name the files.
    :param files: two items, key -> file: first the chain, then the private key.
    """
    (certKey, certPath), (keyKey, keyPath) = files.items()
    chain: list[x509.Certificate] = []
    own: bytes | None = None
    try:
        chain = readChain(certPath)
    except ValueError as error:
        yield f"{prefix}.{certKey}: {error}"
    try:
        own = _readKey(keyPath)
    except ValueError as error:
        yield f"{prefix}.{keyKey}: {error}"
    if chain and own is not None:
        yield from _mismatch(chain, own, f"{prefix}.{certKey}", f"{certPath} and {keyPath}")


def checkDates(key: str, path: Path, now: datetime | None = None) -> Iterator[str]:
    """A warning if the leaf is not valid at this time, or not for long after.

    A file that cannot be read is passed over.

    :param key: the path of the configuration key that names the file.
    """
    now = now or datetime.now(UTC)
    try:
        leaf = readChain(path)[0]
    except ValueError:
        return
    if leaf.not_valid_after_utc < now:
        yield f"{key}: {path} expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; renew it"
    elif leaf.not_valid_after_utc < now + RENEWAL:
        yield f"{key}: {path} expires at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; renew it"
    if leaf.not_valid_before_utc > now:
        start = f"{leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        yield f"{key}: {path} is not valid before {start}; check the clock"


def checkSecrecy(key: str, path: Path) -> Iterator[str]:
    """A warning if others than its owner may read or change a file that holds a secret.

    Its group may be meant to. A file that cannot be looked at is passed over.

    :param key: the path of the configuration key that names the file.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return
    if mode & 0o066:
        who = "everybody" if mode & 0o006 else "its group"
        what = "read" if mode & 0o044 else "change"
        yield f"{key}: {path} holds a secret, and {who} may {what} it (mode {mode:04o}); chmod 600"


def readChain(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file, at least one.

    :raises ValueError: with what is wrong.
    """
    data = readFile(path)
    try:
        return x509.load_pem_x509_certificates(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{path} holds no PEM certificate; write a chain, leaf first") from None


def readFile(path: Path) -> bytes:
    """A file's content.

    :raises ValueError: with the reason, if it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def _readKey(path: Path) -> bytes:
    """The public half of a private key file. The library's own messages tell nothing more."""
    data = readFile(path)
    try:
        return _encoded(load_pem_private_key(data, password=None).public_key())
    except TypeError:
        raise ValueError(
            f"{path} is protected by a passphrase; write the key without one, readable only by "
            "the proxy's user"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{path} holds no usable PEM private key") from None


def _mismatch(chain: list[x509.Certificate], own: bytes, key: str, files: str) -> Iterator[str]:
    if _encoded(chain[0].public_key()) == own:
        return
    if any(_encoded(one.public_key()) == own for one in chain[1:]):
        yield f"{key}: the chain is in the wrong order ({files}); put the leaf first"
    else:
        yield f"{key}: certificate and key do not belong together ({files})"


def _encoded(key: PublicKeyTypes | CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
