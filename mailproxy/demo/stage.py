"""Set the stage for the demonstration: the files and the two servers, ready to be started."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import attrs
from twisted.application.service import MultiService, Service
from twisted.application.strports import service as endpointService
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.interfaces import IReactorCore, IReactorTime

from mailproxy.demo.files import CERTIFICATE, KEY, LOOPBACK, choosePorts, writeFiles
from mailproxy.demo.guide import instructions
from mailproxy.demo.http import DemoSite
from mailproxy.demo.imap import DemoIMAPFactory

SERVER_NAMES = ("legacy", "new")
_DIRECTORY = "mailproxy-demo"


@attrs.frozen
class DemoSetup:
    """A demonstration that has not been started.

    :ivar configPath: the configuration for the proxy.
    :ivar service: the two servers; not started, no parent.
    :ivar instructions: what to print once everything listens.
    """

    configPath: Path
    service: MultiService
    instructions: str


class DirectoryRemoval(Service):
    """Removes a directory and all that is in it when it is stopped."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def stopService(self) -> None:
        """Remove the directory; that it is gone already is no error."""
        super().stopService()
        shutil.rmtree(self._directory, ignore_errors=True)


def prepare(directory: Path, reactor: IReactorCore) -> DemoSetup:
    """Write the demonstration's files into an existing directory and build its servers.

    Ports are chosen now and bound when the service starts.
    """
    ports = choosePorts()
    configPath = writeFiles(directory, ports)
    servers = makeServers(reactor, directory, ports)
    return DemoSetup(configPath, servers, instructions(directory, ports))


def prepareTemporary(reactor: IReactorCore) -> DemoSetup:
    """Do as `prepare` in a new directory, which goes when the service is stopped."""
    directory = _makeDirectory(Path(tempfile.gettempdir()))
    setup = prepare(directory, reactor)
    DirectoryRemoval(directory).setServiceParent(setup.service)
    return setup


def makeServers(reactor: IReactorCore, directory: Path, ports: Mapping[str, int]) -> MultiService:
    """Return both servers, IMAP and HTTP over TLS on loopback; a port in use ends their start."""
    servers = MultiService()
    for name in SERVER_NAMES:
        for port, factory in (
            (ports[name], DemoIMAPFactory(name)),
            (ports[f"{name}_web"], DemoSite(name, IReactorTime(reactor))),
        ):
            place = _endpoint(directory, port)
            endpointService(place, factory, reactor).setServiceParent(servers)
    return servers


def _endpoint(directory: Path, port: int) -> str:
    """Describe a port with TLS, in an endpoint string."""
    return ":".join(
        (
            "ssl",
            str(port),
            f"interface={LOOPBACK}",
            f"certKey={quoteStringArgument(str(directory / CERTIFICATE))}",
            f"privateKey={quoteStringArgument(str(directory / KEY))}",
        )
    )


def _makeDirectory(parent: Path) -> Path:
    """Return a new private directory: the name that the documentation shows, if it is free."""
    directory = parent / _DIRECTORY
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        return Path(tempfile.mkdtemp(prefix=_DIRECTORY + "-", dir=parent))
    return directory
