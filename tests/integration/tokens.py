"""Access tokens that a backend can verify without asking anybody: JWT signed with ES256."""

import base64
import json
import time
from collections.abc import Mapping

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

_COORDINATE = 32
"""Bytes of r and of s in an ES256 signature (RFC 7518, section 3.4)."""


class TokenIssuer:
    """Signs tokens with a key of its own.

    :ivar publicKey: the key to verify them with, in PEM.
    """

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.publicKey = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def mint(self, email: str, *, lifetime: int = 3600, **claims: object) -> str:
        """A token for the account `email`, valid for `lifetime` seconds (negative: expired).

        Further `claims` are added; one that is `None` leaves the standard claim out.
        """
        now = int(time.time())
        standard = {"email": email, "sub": email, "iat": now - 1, "exp": now + lifetime}
        payload = {
            name: value for name, value in {**standard, **claims}.items() if value is not None
        }
        signed = f"{_segment({'alg': 'ES256', 'typ': 'JWT'})}.{_segment(payload)}"
        der = self._key.sign(signed.encode("ascii"), ec.ECDSA(hashes.SHA256()))
        r, s = utils.decode_dss_signature(der)
        raw = r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")
        return f"{signed}.{_base64url(raw)}"


def _segment(value: Mapping[str, object]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode("utf-8"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
