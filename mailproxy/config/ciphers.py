"""Cipher suites: the standard (IANA) names that a configuration uses, and OpenSSL's own.

TLS 1.3 calls suites the same in both. For TLS 1.2 the two spellings are put together here from
key exchange and cipher, for every suite with a certificate that a current OpenSSL can offer
(no anonymous, pre-shared-key, SRP, DSS or null suites: this proxy cannot use them).

Offered are OpenSSL's defaults with forward secrecy; the others are known, so that a configuration
which removes them keeps working, but are never offered.
"""

import difflib
from collections.abc import Iterable

import attrs

TLS13_OFFERED = (
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
)
_TLS13_KNOWN = (*TLS13_OFFERED, "TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256")

_KEY_EXCHANGES = {
    "ECDHE_ECDSA": "ECDHE-ECDSA-",
    "ECDHE_RSA": "ECDHE-RSA-",
    "DHE_RSA": "DHE-RSA-",
    "RSA": "",
}
_GCM = {
    "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
}
_CHACHA = {"CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305"}
_CBC_SHA1 = {"AES_256_CBC_SHA": "AES256-SHA", "AES_128_CBC_SHA": "AES128-SHA"}
_CBC_SHA256 = {"AES_256_CBC_SHA256": "AES256-SHA256", "AES_128_CBC_SHA256": "AES128-SHA256"}
_CBC_SHA384 = {"AES_256_CBC_SHA384": "AES256-SHA384", "AES_128_CBC_SHA256": "AES128-SHA256"}
_CCM = {
    "AES_256_CCM": "AES256-CCM",
    "AES_128_CCM": "AES128-CCM",
    "AES_256_CCM_8": "AES256-CCM8",
    "AES_128_CCM_8": "AES128-CCM8",
}
_ARIA = {
    "ARIA_256_GCM_SHA384": "ARIA256-GCM-SHA384",
    "ARIA_128_GCM_SHA256": "ARIA128-GCM-SHA256",
}
_CAMELLIA_SHA1 = {
    "CAMELLIA_256_CBC_SHA": "CAMELLIA256-SHA",
    "CAMELLIA_128_CBC_SHA": "CAMELLIA128-SHA",
}
_CAMELLIA_SHA256 = {
    "CAMELLIA_256_CBC_SHA256": "CAMELLIA256-SHA256",
    "CAMELLIA_128_CBC_SHA256": "CAMELLIA128-SHA256",
}
_CAMELLIA_SHA384 = {
    "CAMELLIA_256_CBC_SHA384": "CAMELLIA256-SHA384",
    "CAMELLIA_128_CBC_SHA256": "CAMELLIA128-SHA256",
}
_IRREGULAR = {  # OpenSSL leaves RSA out of these two
    "TLS_ECDHE_RSA_WITH_ARIA_256_GCM_SHA384": "ECDHE-ARIA256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_ARIA_128_GCM_SHA256": "ECDHE-ARIA128-GCM-SHA256",
}


def _suites(exchange: str, *ciphers: dict[str, str]) -> dict[str, str]:
    return {
        f"TLS_{exchange}_WITH_{standard}": _KEY_EXCHANGES[exchange] + own
        for group in ciphers
        for standard, own in group.items()
    }


_OFFERED = {
    **_suites("ECDHE_ECDSA", _GCM, _CHACHA),
    **_suites("ECDHE_RSA", _GCM, _CHACHA),
    **_suites("DHE_RSA", _GCM, _CHACHA),
    **_suites("ECDHE_ECDSA", _CBC_SHA384, _CBC_SHA1),
    **_suites("ECDHE_RSA", _CBC_SHA384, _CBC_SHA1),
    **_suites("DHE_RSA", _CBC_SHA256, _CBC_SHA1),
}
TLS12_OFFERED = tuple(_OFFERED)

_KNOWN = {
    **{name: name for name in _TLS13_KNOWN},
    **_OFFERED,
    **_suites("ECDHE_ECDSA", _CCM, _ARIA, _CAMELLIA_SHA384),
    **_suites("ECDHE_RSA", _CAMELLIA_SHA384),
    **_suites("DHE_RSA", _CCM, _ARIA, _CAMELLIA_SHA256, _CAMELLIA_SHA1),
    **_suites("RSA", _GCM, _CCM, _ARIA, _CBC_SHA256, _CBC_SHA1, _CAMELLIA_SHA256, _CAMELLIA_SHA1),
    **_IRREGULAR,
}

_GROUPS = (
    "X25519MLKEM768",
    "SecP256r1MLKEM768",
    "SecP384r1MLKEM1024",
    "X25519",
    "X448",
    "secp256r1",
    "secp384r1",
    "secp521r1",
    "P-256",
    "P-384",
    "P-521",
    "prime256v1",
    "brainpoolP256r1tls13",
    "brainpoolP384r1tls13",
    "brainpoolP512r1tls13",
    "ffdhe2048",
    "ffdhe3072",
    "ffdhe4096",
    "ffdhe6144",
    "ffdhe8192",
)


@attrs.frozen
class Suites:
    """The suites to offer, by OpenSSL's names, best first; a version without any is not spoken."""

    tls13: tuple[str, ...]
    tls12: tuple[str, ...]


def openSSLName(ianaName: str) -> str:
    """OpenSSL's name of a suite.

    :raises ValueError: for a name that no supported suite has, with the nearest one that exists.
    """
    try:
        return _KNOWN[ianaName]
    except KeyError:
        raise ValueError(_unknown(ianaName, _KNOWN, "standard cipher suite name")) from None


def knownSuites() -> tuple[str, ...]:
    """Every standard name that may stand in `disable_cipher_suites`."""
    return tuple(_KNOWN)


def checkGroup(name: str) -> str:
    """Let a key exchange group pass if OpenSSL has had one of that name.

    :raises ValueError: for any other.
    """
    if name.lower() not in {known.lower() for known in _GROUPS}:
        raise ValueError(_unknown(name, _GROUPS, "key exchange group"))
    return name


def remaining(disabled: Iterable[str], minimum: str = "1.2") -> Suites:
    """What is left to offer when some suites are removed.

    :param disabled: standard names.
    :param minimum: the oldest TLS version spoken: with "1.3" no 1.2 suite is offered.
    :raises ValueError: for an unknown name, or when nothing is left.
    """
    removed = {openSSLName(name) for name in disabled}
    tls13 = tuple(name for name in TLS13_OFFERED if name not in removed)
    older = _OFFERED.values() if minimum == "1.2" else ()
    tls12 = tuple(name for name in older if name not in removed)
    if not tls13 and not tls12:
        raise ValueError(f"no suite of TLS {minimum} or newer is left; remove fewer")
    return Suites(tls13, tls12)


def _unknown(name: str, choices: Iterable[str], kind: str) -> str:
    near = difflib.get_close_matches(name, choices, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f'"{name}" is not a {kind}{meant}'
