"""A changed configuration, taken into use as a whole or not at all.

Knows when something is read anew and what is refused; must not know how it comes into use, nor in
how many processes.
"""

from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from mailproxy.adoption import Adopter
from mailproxy.config import warnings
from mailproxy.config.changes import inForce, needRestart, unserved
from mailproxy.config.model import Config
from mailproxy.errors import ConfigError
from mailproxy.logs import Logger, setLevel
from mailproxy.mapping.file import InThread

WATCH_INTERVAL = 60.0
"""Seconds between two looks at the certificates' files."""


@attrs.frozen
class _State:
    """A file, as it was when it was looked at; None when it could not be."""

    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> "_State | None":
        """Look at a file."""
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


@attrs.frozen
class _Plan:
    """What is to be adopted.

    :ivar later: the keys that have changed and need a restart.
    :ivar warnings: what somebody should look at.
    """

    config: Config
    later: list[str]
    warnings: list[str]

    @classmethod
    def make(cls, old: Config, wanted: Config) -> "_Plan":
        """Tell what can be had of a new configuration.

        :raises ConfigError: when an open listener could not be served.
        """
        config = inForce(old, wanted)
        if problems := unserved(config):
            raise ConfigError(problems)
        return cls(config, needRestart(old, wanted), warnings(config))


class Reloader(Service):
    """Reads the configuration again when asked, and certificates when their files have changed.

    :param read: reads and checks the whole configuration; blocks.
    :param inThread: runs what blocks.
    """

    log = Logger()

    def __init__(
        self, adopter: Adopter, read: Callable[[], Config], inThread: InThread, clock: IReactorTime
    ) -> None:
        self._adopter, self._read, self._inThread = adopter, read, inThread
        self._turn = DeferredLock()
        self._seen = _certificateFiles(adopter.config)
        self._watch = LoopingCall(self._look)
        self._watch.clock = clock

    def startService(self) -> None:
        """Begin to watch the certificates."""
        super().startService()
        self._watch.start(WATCH_INTERVAL, now=False)

    def stopService(self) -> Deferred[None]:
        """Watch no more, and let go of what has been replaced."""
        super().stopService()
        if self._watch.running:
            self._watch.stop()
        return self._adopter.close()

    def reload(self) -> Deferred[list[str]]:
        """Take the configuration file as it is now into use.

        :returns: the keys that have changed and need a restart. Fails with ConfigError, naming
            every problem; then nothing has changed.
        """
        return self._turn.run(lambda: Deferred.fromCoroutine(self._reload()))

    async def _reload(self) -> list[str]:
        old = self._adopter.config
        plan = await self._inThread(lambda: _Plan.make(old, self._read()))
        seen = _certificateFiles(plan.config)
        await self._adopt(plan, sameStore=False)
        self._seen = seen
        setLevel(plan.config.server.log_level)
        if plan.later:
            self.log.info("reloaded; needs a restart: {later}", later=", ".join(plan.later))
        else:
            self.log.info("reloaded; nothing needs a restart")
        return plan.later

    async def _adopt(self, plan: _Plan, *, sameStore: bool) -> None:
        """Prepare everything, then use it; tell what somebody should look at."""
        adoption = await self._adopter.prepare(plan.config, sameStore=sameStore)
        await adoption.adopt()
        for text in plan.warnings:
            self.log.warn("{text}", text=text)

    # Certificates

    def _look(self) -> Deferred[None]:
        renewed = self._turn.run(lambda: Deferred.fromCoroutine(self._renew()))
        return renewed.addErrback(
            lambda failure: self.log.failure("changed certificates met a bug", failure)
        )

    async def _renew(self) -> None:
        """Take certificates into use whose files have changed: pairs that fit, or none."""
        config = self._adopter.config
        seen = _certificateFiles(config)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            plan = await self._inThread(lambda: _Plan(config, [], warnings(config)))
            await self._adopt(plan, sameStore=True)
        except ConfigError as error:
            for problem in error.problems:
                self.log.warn("changed certificates are not used: {problem}", problem=problem)
            return
        self.log.info("certificates have changed and are in use")


def _certificateFiles(config: Config) -> dict[Path, _State | None]:
    """The state of each file that a certificate is read from, for clients or for backends."""
    files = [path for each in config.tls.certificate.values() for path in (each.cert, each.key)]
    for each in config.destination.values():
        files += filter(None, (each.tls_client_cert, each.tls_client_key))
    return {path: _State.of(path) for path in files}
