"""Where the proxy's management API is, which token opens it, and what its certificate must be.

Each of the three is looked for in an order of its own, and the configuration file is read only if
it is needed:

- URL: `--url`, else `admin.bind` of the file that `--config` or `PROXY_CONFIG` names.
- Token: `--token-file`, else `PROXY_ADMIN_TOKEN`, else the file's `bearer_token_file` or
  `bearer_token`.
- Certificate: anything with `--insecure`; else one for the URL's host, from an authority in `--ca`
  or known to the system; but where the URL is the file's and there is no `--ca`, the very one that
  the file says the proxy presents.

Mistakes elsewhere in the file are no concern here: it is the running proxy that counts.
"""

import argparse
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from mailproxy.config.bind import SocketAddress, tcpAddress
from mailproxy.config.certificates import readChain, readFile
from mailproxy.config.draft import Draft, draft
from mailproxy.config.model import Admin, Certificate
from mailproxy.errors import BadUsage

__all__ = ["CONFIG_VARIABLE", "TOKEN_VARIABLE", "Place", "Trust", "findProxy"]

CONFIG_VARIABLE = "PROXY_CONFIG"
TOKEN_VARIABLE = "PROXY_ADMIN_TOKEN"  # noqa: S105 - a variable's name
_NO_URL = "where is the proxy? Write --url https://HOST:PORT"
_NO_TOKEN = f"what is the token? Write --token-file FILE, set {TOKEN_VARIABLE}"
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@attrs.frozen
class Trust:
    """What the proxy's certificate must be.

    :ivar authorities: trusted besides the system's own.
    :ivar pin: SHA-256 of the only certificate that will do; None: any that is for the URL's host.
    :ivar origin: the file that the pin was taken from.
    :ivar insecure: anything goes.
    :ivar lacking: the file that names no certificate for us, so that the proxy makes its own.
    """

    authorities: tuple[x509.Certificate, ...] = ()
    pin: bytes | None = None
    origin: Path | None = None
    insecure: bool = False
    lacking: Path | None = None


@attrs.frozen
class Place:
    """A proxy's management API.

    :ivar url: `https://HOST:PORT`, without a slash at its end.
    :ivar tokenOrigin: where the token was found, in words.
    """

    url: str
    token: str = attrs.field(repr=False)
    tokenOrigin: str
    trust: Trust


def findProxy(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Place:
    """Find the proxy that a command is for.

    :raises BadUsage: when the command line, the variables and the file do not tell.
    """
    source = _Source(arguments.config or environment.get(CONFIG_VARIABLE))
    url = _checkURL(arguments.url) if arguments.url else source.url()
    token, origin = _findToken(arguments.token_file, environment, source)
    return Place(url, token, origin, _findTrust(arguments, source))


def _checkURL(text: str) -> str:
    try:
        parts = urlsplit(text)
        sound = bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.scheme != "https" or parts.username or parts.query or parts.fragment:
        raise BadUsage(f"--url {text}: write https://HOST:PORT")
    return text.rstrip("/")


def _findToken(
    given: str | None, environment: Mapping[str, str], source: "_Source"
) -> tuple[str, str]:
    """Find the token, and say where it was."""
    if given:
        token, origin = _readToken(Path(given)), given
    elif token := environment.get(TOKEN_VARIABLE, "").strip():
        origin = TOKEN_VARIABLE
    else:
        token, origin = source.token()
    if not re.fullmatch("[!-~]+", token):
        raise BadUsage(f"{origin}: there is no token, or one that is not printable ASCII")
    return token, origin


def _readToken(path: Path) -> str:
    try:
        return readFile(path).decode("utf-8", "replace").strip()
    except ValueError as error:
        raise BadUsage(f"{error}; write --token-file or set {TOKEN_VARIABLE}") from error


def _findTrust(arguments: argparse.Namespace, source: "_Source") -> Trust:
    if arguments.insecure:
        return Trust(insecure=True)
    if arguments.ca:
        try:
            return Trust(authorities=tuple(readChain(Path(arguments.ca))))
        except ValueError as error:
            raise BadUsage(f"--ca: {error}") from error
    return Trust() if arguments.url else source.trust()


class _Source:
    """A configuration file, read when somebody asks.

    :ivar path: None when none was named.
    """

    def __init__(self, path: str | None) -> None:
        self.path = Path(path) if path else None
        self._draft: Draft | None = None

    def url(self) -> str:
        """Say where the proxy listens for management; a wildcard is reached on loopback."""
        address = tcpAddress(self._admin(_NO_URL).address)
        if address is None or address.port == 0:
            raise BadUsage(f"{self.path}: admin.bind does not tell host and port; write --url")
        return f"https://{_netloc(address)}"

    def token(self) -> tuple[str, str]:
        """Return the file's token, and where it was."""
        admin = self._admin(_NO_TOKEN)
        if admin.bearer_token_file is not None:
            return _readToken(admin.bearer_token_file), str(admin.bearer_token_file)
        written = admin.bearer_token
        return written.get_secret_value().strip() if written is not None else "", str(self.path)

    def trust(self) -> Trust:
        """Return what is presented to a client that names no host, as one on an address does not.

        Without such a certificate the proxy makes one that only `--insecure` can accept.
        """
        shown = _presented(self._read(_NO_URL).certificates)
        if shown is None:
            return Trust(lacking=self.path)
        try:
            leaf = readChain(shown.cert)[0]
        except ValueError as error:
            raise BadUsage(f"{error}; write --ca or --insecure") from error
        return Trust(pin=leaf.fingerprint(SHA256()), origin=shown.cert)

    def _admin(self, question: str) -> Admin:
        admin = self._read(question).admin
        if admin is None:
            raise BadUsage(f"{self.path}: has no sound [admin] table; {question}")
        return admin

    def _read(self, question: str) -> Draft:
        """Read the file; without one there is a question to the operator."""
        if self.path is None:
            raise BadUsage(f"{question}, or --config FILE, or set {CONFIG_VARIABLE}")
        if self._draft is None:
            context = {"base": self.path.absolute().parent}
            self._draft = draft(_parse(self.path), context)
        return self._draft


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(readFile(path).decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadUsage(f"{path}: is not TOML: {error}") from error
    except ValueError as error:
        raise BadUsage(str(error)) from error


def _netloc(address: SocketAddress) -> str:
    host = _LOOPBACK.get(address.host, address.host)
    return f"[{host}]:{address.port}" if address.isIPv6 else f"{host}:{address.port}"


def _presented(certificates: Mapping[str, Certificate]) -> Certificate | None:
    """Choose as the proxy does: the default one, one for every name, or the only one."""
    for one in certificates.values():
        if one.default:
            return one
    for one in certificates.values():
        if "*" in (one.subjects or ()):
            return one
    return next(iter(certificates.values())) if len(certificates) == 1 else None
