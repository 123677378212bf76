"""From a login to the identifier that it is routed by.

Knows credentials, token formats and the rules for account names; must not know who asks, where
the account lives, or any store.
"""

import json
import re
import secrets
from base64 import urlsafe_b64decode
from hashlib import blake2s
from typing import Any

import attrs

from mailproxy.errors import InvalidIdentifier
from mailproxy.sasl import Credentials

MAX_IDENTIFIER = 512
"""Bytes of UTF-8 that an identifier may have."""

_USUAL_CLAIMS = ("email", "preferred_username", "upn", "unique_name", "sub")
_redactionKey = secrets.token_bytes(16)


@attrs.frozen
class IdentityRules:
    """How an operator wants account names read.

    :ivar separators: what ends the mailbox's name in a master user's login.
    :ivar lowercase: whether names are compared in lower case.
    :ivar claim: the JWT claim that is tried first.
    """

    separators: tuple[str, ...] = ("%",)
    lowercase: bool = False
    claim: str = "email"

    def identify(self, credentials: Credentials) -> str | None:
        """Tell whose session a login asks for; None when only an opaque token is given.

        :raises InvalidIdentifier: when the name may not be used.
        """
        named = credentials.authorization or credentials.user
        if named:
            return self.normalize(_text(named))
        return self.fromToken(credentials.token or b"")

    def fromToken(self, token: bytes) -> str | None:
        """Find the address in a bearer token without verifying it: the backend does that.

        :raises InvalidIdentifier: when the name found may not be used.
        """
        address = _sessionWarrant(token) or self._claimed(token)
        return self.normalize(address) if address else None

    def normalize(self, name: str) -> str:
        """Cut a master user off, apply the letter case rule, and refuse what may not be used.

        :raises InvalidIdentifier: empty, too long, or holding a control character, space or quote.
        """
        cuts = [at for at in map(name.find, self.separators) if at >= 0]
        name = name[: min(cuts)] if cuts else name
        if self.lowercase:
            name = name.lower()
        _validate(name)
        return name

    def rename(self, identifier: str) -> str:
        """Tell what an account is called by these rules that others have named."""
        try:
            return self.normalize(identifier)
        except InvalidIdentifier:
            return identifier  # by these it could not have logged in

    def _claimed(self, token: bytes) -> str | None:
        """Read the first claim of a JWT (RFC 7519) that holds an address."""
        claims = _claims(token)
        for claim in (self.claim, *_USUAL_CLAIMS):
            value = claims.get(claim)
            if isinstance(value, str) and "@" in value:
                return value
        return None


def _text(name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidIdentifier("not UTF-8") from None


def _validate(name: str) -> None:
    if not name:
        raise InvalidIdentifier("empty")
    if len(name.encode("utf-8", "surrogatepass")) > MAX_IDENTIFIER:
        raise InvalidIdentifier(f"over {MAX_IDENTIFIER} bytes")
    if _UNUSABLE.search(name) is not None:
        raise InvalidIdentifier("holds a control character, space or double quote")


_UNUSABLE = re.compile(r'["\s\x00-\x1f\x7f-\x9f\ud800-\udfff]')
"""With control characters and spaces, lone surrogates, which JSON may hold and UTF-8 may not."""


def _sessionWarrant(token: bytes) -> str | None:
    """Read `sw1.BODY.FOOTER`, whose footer is the address in base64url without padding."""
    match token.split(b"."):
        case [b"sw1", _, footer]:
            return _decoded(footer)
    return None


def _claims(token: bytes) -> dict[str, Any]:
    """Read the payload of a JWT; empty when it is none."""
    parts = token.split(b".")
    payload = _decoded(parts[1]) if len(parts) == 3 else None
    try:
        claims = json.loads(payload or "")
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _decoded(part: bytes) -> str | None:
    """Decode base64url without padding (RFC 7515, section 2) into text; None when it is neither."""
    try:
        return urlsafe_b64decode(part + b"=" * (-len(part) % 4)).decode("utf-8")
    except ValueError:
        return None


def redactionKey(key: bytes | None = None) -> bytes:
    """Tell the key of this process, after taking another process's if one is given."""
    global _redactionKey
    _redactionKey = key or _redactionKey
    return _redactionKey


def redact(identifier: str | None) -> str:
    """Write an identifier for a log: a short prefix and a hash that is stable in this process."""
    if identifier is None:
        return "-"
    data = identifier.encode("utf-8", "surrogatepass")
    digest = blake2s(data, digest_size=4, key=_redactionKey).hexdigest()
    prefix = identifier[: min(3, len(identifier) // 3)]
    return f"{prefix.encode('ascii', 'backslashreplace').decode('ascii')}~{digest}"
