"""A TLS 1.3 client that changes its keys when a test says so.

OpenSSL does that by a function that its binding for Python lacks. So what the client says from then
on is made here: one update of its keys (RFC 8446, section 4.6.3), and records under the new ones.
"""

from typing import Any, cast

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL

from tests.support import Peer
from tests.tls.handshake import OtherEnd, only

_HANDSHAKE, _DATA = b"\x16", b"\x17"
_UPDATE_REQUESTED = b"\x18\x00\x00\x01\x01"
_SUITE = b"TLS_AES_128_GCM_SHA256"


class KeyChanger:
    """Makes such clients.

    :ivar creator: what they start TLS with; they must have said nothing by OpenSSL before their
        first update, and say nothing by it afterwards.
    """

    def __init__(self) -> None:
        self.creator = OtherEnd(only(SSL.TLS1_3_VERSION), self._configure)
        self._secrets: dict[SSL.Connection, bytes] = {}
        self._counts: dict[SSL.Connection, int] = {}

    def _configure(self, context: SSL.Context) -> None:
        context.set_tls13_ciphersuites(_SUITE)
        context.set_keylog_callback(self._note)

    def _note(self, connection: SSL.Connection, line: bytes) -> None:
        label, _, secret = line.split()
        if label == b"CLIENT_TRAFFIC_SECRET_0":
            self._secrets[connection] = bytes.fromhex(secret.decode())

    def update(self, peer: Peer) -> bytes:
        """Change a client's keys, and ask for the same: the record that says so."""
        connection = cast(Any, peer.transport.getHandle())
        count = self._counts.get(connection, 0)
        record = self._seal(connection, count, _UPDATE_REQUESTED + _HANDSHAKE)
        self._secrets[connection] = _expand(self._secrets[connection], b"traffic upd", 32)
        self._counts[connection] = 0
        return record

    def record(self, peer: Peer, data: bytes) -> bytes:
        """Say something with the new keys: the record."""
        connection = cast(Any, peer.transport.getHandle())
        count = self._counts[connection]
        self._counts[connection] += 1
        return self._seal(connection, count, data + _DATA)

    def _seal(self, connection: SSL.Connection, count: int, inner: bytes) -> bytes:
        """Protect a record (RFC 8446, section 5.2)."""
        secret = self._secrets[connection]
        key, start = _expand(secret, b"key", 16), _expand(secret, b"iv", 12)
        nonce = (int.from_bytes(start) ^ count).to_bytes(12)
        head = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2)
        return head + AESGCM(key).encrypt(nonce, inner, head)


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """Derive a key (RFC 8446, section 7.1)."""
    name = b"tls13 " + label
    information = size.to_bytes(2) + bytes([len(name)]) + name + b"\x00"
    return HKDFExpand(SHA256(), size, information).derive(secret)
