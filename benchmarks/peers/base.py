"""What every proxy under measurement has in common: where it stands, its core, its version."""

import os
import shutil
import subprocess
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import attrs

from benchmarks import machine
from tests.integration.certificates import Authority
from tests.integration.network import freePort
from tests.integration.process import ChildServer

__all__ = ["Peer", "Place", "Server", "unprivileged"]


@attrs.frozen
class Server:
    """The server behind a proxy, on 127.0.0.1.

    :ivar hostname: the name that its certificate is for.
    """

    hostname: str
    port: int
    tls: bool


@attrs.frozen
class Place:
    """Where a proxy stands.

    :ivar clientTLS: whether clients come with TLS, from the first byte.
    :ivar sessions: how many there may be at a time.
    :ivar cores: the processors that it has.
    """

    authority: Authority
    server: Server
    clientTLS: bool
    sessions: int = 500
    cores: Sequence[int] = machine.PROXY


class Peer(ChildServer):
    """One proxy; a subclass says how it is configured and run.

    :ivar certificate: what it shows to clients: ECDSA on P-256.
    :ivar caFile: the authority that the server's certificate is from.

    :cvar title: what it is called in tables.
    :cvar package: the Debian package that has it.
    :cvar binary: its program.
    :cvar forks: whether it has a process for each session.
    :cvar backendTLS: whether it can speak TLS to the server behind it.
    :cvar group: what it can exchange keys with.
    """

    title: ClassVar[str]
    package: ClassVar[str]
    binary: ClassVar[str]
    forks: ClassVar[bool] = False
    backendTLS: ClassVar[bool] = True
    group: ClassVar[str] = "X25519"

    def __init__(self, place: Place) -> None:
        self.place = place
        self.port = freePort()
        self.certificate = place.authority.issue("localhost", "127.0.0.1")
        super().__init__(self.title.lower())
        # Some read it as a user without rights, who cannot enter the authority's own folder.
        self.caFile = self.folder / "ca.pem"
        self.caFile.write_bytes(place.authority.caFile.read_bytes())

    @abstractmethod
    def program(self) -> Sequence[str]:
        """The program and its arguments; it must not fork into the background."""

    def command(self) -> Sequence[str]:
        """Run it on its processors."""
        return [*machine.pinned(self.place.cores), *self.program()]

    def ports(self) -> Sequence[int]:
        """Its one port."""
        return [self.port]

    @classmethod
    def find(cls) -> str | None:
        """Where its program is; None when it is not installed."""
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
        return shutil.which(cls.binary, path=path)

    @classmethod
    def version(cls) -> str:
        """Of its Debian package."""
        command = ["dpkg-query", "--show", "--showformat=${Version}", cls.package]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def unprivileged(line: str) -> str:
    """A line of a configuration that gives up root's rights; none where there are none."""
    return line if os.geteuid() == 0 else ""
