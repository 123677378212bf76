"""What a Dovecot serves beside IMAP: POP3, ManageSieve, submission and LMTP."""

from collections.abc import Mapping
from typing import Protocol

import attrs

from tests.integration.network import freePort


@attrs.frozen
class ServicePorts:
    """One protocol's ports.

    :ivar open: begins without TLS; STARTTLS is there unless the server has none.
    :ivar secure: TLS from the first byte.
    :ivar openProxied: the same as `open`, and a PROXY header comes first; `secureProxied` likewise.
    """

    open: int
    secure: int
    openProxied: int
    secureProxied: int

    @classmethod
    def free(cls) -> "ServicePorts":
        """Four ports that nobody uses."""
        return cls(freePort(), freePort(), freePort(), freePort())

    def port(self, tls: str, *, proxied: bool = False) -> int:
        """The port for a TLS mode as the proxy's configuration names it."""
        if tls == "implicit":
            return self.secureProxied if proxied else self.secure
        return self.openProxied if proxied else self.open

    def ports(self, *, tls: bool) -> tuple[int, ...]:
        """All four, or the two without TLS."""
        everywhere = (self.open, self.openProxied)
        return (*everywhere, self.secure, self.secureProxied) if tls else everywhere


class Server(Protocol):
    """A mail server whose protocols have doors."""

    hostname: str
    doors: Mapping[str, ServicePorts]


@attrs.frozen
class _Service:
    """Dovecot's names: in `protocols`, of the first process, of its two listeners."""

    protocol: str
    process: str
    open: str
    secure: str


_SERVICES = {
    "pop3": _Service("pop3", "pop3-login", "pop3", "pop3s"),
    "managesieve": _Service("sieve", "managesieve-login", "sieve", "sieves"),
    "submission": _Service("submission", "submission-login", "submission", "submissions"),
    "lmtp": _Service("lmtp", "lmtp", "lmtp", "lmtps"),
}


def serviceSettings(doors: Mapping[str, ServicePorts], *, tls: bool) -> str:
    """The lines of the configuration for these protocols; IMAP's listeners are said elsewhere."""
    others = {name: each for name, each in doors.items() if name in _SERVICES}
    names = " ".join(_SERVICES[each].protocol for each in others)
    parts = [f"protocols = imap {names}\n"]
    parts += [_oneService(_SERVICES[name], each, tls=tls) for name, each in others.items()]
    if "managesieve" in doors:
        parts.append("plugin {\n  sieve = file:~/sieve;active=~/.dovecot.sieve\n}\n")
    return "".join(parts)


def relaySettings(port: int) -> str:
    """Where a submission service sends mail on to: a plain SMTP server on loopback."""
    return f"submission_relay_host = 127.0.0.1\nsubmission_relay_port = {port}\n"


def _oneService(names: _Service, doors: ServicePorts, *, tls: bool) -> str:
    """Both pairs of listeners; a port 0 closes one that has no TLS to offer."""
    secure, secureProxied = (doors.secure, doors.secureProxied) if tls else (0, 0)
    implicit = "ssl = yes\n" if tls else ""
    listeners = [
        listenerSettings(names.open, doors.open, ""),
        listenerSettings(f"{names.open}-proxied", doors.openProxied, "haproxy = yes\n"),
        listenerSettings(names.secure, secure, implicit),
        listenerSettings(f"{names.secure}-proxied", secureProxied, f"haproxy = yes\n{implicit}"),
    ]
    reuse = "" if names.process == "lmtp" else "service_count = 0\n"
    return f"service {names.process} {{\n{reuse}{''.join(listeners)}}}\n"


def listenerSettings(name: str, port: int, flags: str) -> str:
    """One socket; port 0 closes it, which the standard `imaps` needs when there is no TLS."""
    return f"inet_listener {name} {{\nport = {port}\n{flags}}}\n"
