"""One line a minute for all workers, in the words of a proxy that serves alone."""

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from mailproxy.control import IControl
from mailproxy.errors import MailProxyError
from mailproxy.proxy import REPORT_INTERVAL, Proxy
from mailproxy.workers.handle import State

__all__ = ["Report"]


class Report(Service):
    """Logs the sum of the workers' counts."""

    def __init__(self, control: IControl, clock: IReactorTime) -> None:
        self._control = control
        self._reports = LoopingCall(self._report)
        self._reports.clock = clock

    def startService(self) -> None:
        """Begin to report."""
        super().startService()
        self._reports.start(REPORT_INTERVAL, now=False)

    def stopService(self) -> None:
        """Report no more."""
        super().stopService()
        self._reports.stop()

    def _report(self) -> None:
        Deferred.fromCoroutine(self._say())

    async def _say(self) -> None:
        try:
            stats, destinations = await self._control.stats(), await self._control.destinations()
        except MailProxyError as error:
            Proxy.log.warn("there are no counts to report: {error}", error=error)
            return
        for each in stats["workers"]:
            if each["state"] == State.SILENT.value:
                text = "worker {worker} does not answer: these counts are without its share"
                Proxy.log.warn(text, worker=each["worker"])
        down = [each["destination"] for each in destinations if each["down"]]
        Proxy.log.info(
            "sessions: {active}, lookups from memory: {hits}, from the store: {misses}, "
            "remembered: {entries}, down: {down}",
            active=stats["active_connections"],
            hits=stats["cache_hits"],
            misses=stats["cache_misses"],
            entries=stats["cache_entries"],
            down=", ".join(down) or "none",
        )
