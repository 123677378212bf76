"""The live sessions of this process: found by account, kicked, counted; and logins on hold.

Knows sessions by their interface only; must not know protocols, nor why somebody looks.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import Attribute, Interface

from mailproxy.logs import Logger

__all__ = ["LONGEST_HOLD", "ISession", "Registry"]

LONGEST_HOLD = 120.0
"""Seconds that logins of an identifier can be held."""


class ISession(Interface):
    """A live session, as management sees it."""

    id = Attribute("str: unique among the live sessions of all processes.")
    protocol = Attribute('str: as the listener\'s, "imap" for one.')
    listener = Attribute("str: the listener's name.")
    client = Attribute('str: the client\'s "host:port".')
    since = Attribute("float: when it was accepted, in seconds since the epoch.")
    identifier = Attribute("str | None: the account; set by `Registry.routed`.")
    destination = Attribute("str | None: where it is routed; set by `Registry.routed`.")
    received = Attribute("int: bytes that came from the client.")
    sent = Attribute("int: bytes that went to the client.")

    def kick() -> None:
        """End the session soon; called more than once, or too late, it does nothing."""

    def shutDown(*, bridged: bool) -> None:
        """End the session because the process stops: if it is bridged, only if `bridged`."""


class _Hold:
    """Logins of one identifier that wait for the same moment."""

    def __init__(self, timer: IDelayedCall) -> None:
        self.timer = timer
        self.waiters: dict[Deferred[None], None] = {}

    def wait(self) -> Deferred[None]:
        """Join those who wait; a waiter that is cancelled is forgotten."""
        waiter: Deferred[None] = Deferred(self._leave)
        self.waiters[waiter] = None
        return waiter

    def _leave(self, waiter: Deferred[None]) -> None:
        self.waiters.pop(waiter, None)

    def release(self) -> None:
        """Let everybody go on; one may cancel another when it hears."""
        if self.timer.active():
            self.timer.cancel()
        waiters, self.waiters = self.waiters, {}
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)


class Registry:
    """Every live session, from its acceptance to its end."""

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._filed: dict[str, _File] = {}
        self._byIdentifier: dict[str, dict[str, None]] = {}
        self._byDestination: dict[str, dict[str, None]] = {}
        self._holds: dict[str, _Hold] = {}

    def add(self, session: ISession) -> None:
        """Take a session in when it is accepted."""
        self._file(session, session.identifier, session.destination)

    def remove(self, session: ISession) -> None:
        """Take a session out when it has ended; one that is not there is passed over."""
        if session.id in self._filed:
            self._unfile(session)
            del self._filed[session.id]

    def routed(self, session: ISession, identifier: str | None, destination: str | None) -> None:
        """Note a session's account and destination, also in the session itself.

        Called as soon as the destination is chosen, and again when it changes: None and None
        after a refused login. A session that has ended meanwhile is only noted in itself.
        """
        session.identifier = identifier
        session.destination = destination
        if session.id in self._filed:
            self._unfile(session)
            self._file(session, identifier, destination)

    def rename(self, rule: Callable[[str], str]) -> None:
        """File the live sessions anew, under the names that accounts have from now on."""
        for session, identifier, destination in list(self._filed.values()):
            if identifier is not None and (name := rule(identifier)) != identifier:
                self.routed(session, name, destination)

    def find(
        self,
        identifier: str | None = None,
        destination: str | None = None,
        protocol: str | None = None,
    ) -> list[ISession]:
        """The sessions that match everything that is given, those noted first at the front."""
        if identifier is not None:
            chosen: Iterable[str] = self._byIdentifier.get(identifier, {})
        elif destination is not None:
            chosen = self._byDestination.get(destination, {})
        else:
            chosen = self._filed
        found = (self._filed[each] for each in chosen)
        return [
            session
            for session, _, place in found
            if destination in (None, place) and protocol in (None, session.protocol)
        ]

    def kick(self, identifier: str) -> int:
        """End every session of an account; returns how many there were."""
        sessions = self.find(identifier=identifier)
        for session in sessions:
            try:
                session.kick()
            except Exception:  # the others must go all the same
                self.log.failure("session {id} could not be kicked", id=session.id)
        return len(sessions)

    def count(self) -> int:
        """How many sessions are live."""
        return len(self._filed)

    def countBy(self) -> Mapping[tuple[str, str | None], int]:
        """How many sessions are live per protocol and destination (None: not routed yet)."""
        return Counter((session.protocol, place) for session, _, place in self._filed.values())

    def hold(self, identifier: str, seconds: float) -> None:
        """Let new logins of an identifier wait.

        :param seconds: from now, cut at `LONGEST_HOLD`; 0 or less lets them go on at once. Who
            waits already waits for the new moment.
        """
        if seconds <= 0:
            self._release(identifier)
            return
        seconds = min(seconds, LONGEST_HOLD)
        hold = self._holds.get(identifier)
        if hold is None:
            timer = self._clock.callLater(seconds, self._release, identifier)
            self._holds[identifier] = _Hold(timer)
        else:
            hold.timer.reset(seconds)

    def held(self, identifier: str) -> Deferred[None]:
        """Wait until an identifier is not on hold, which may be now; may be cancelled."""
        hold = self._holds.get(identifier)
        if hold is None:
            return succeed(None)
        return hold.wait()

    def _release(self, identifier: str) -> None:
        hold = self._holds.pop(identifier, None)
        if hold is not None:
            hold.release()

    def _file(self, session: ISession, identifier: str | None, destination: str | None) -> None:
        """Put a session into the indexes; where it stands is noted, whatever becomes of it."""
        self._filed[session.id] = session, identifier, destination
        if identifier is not None:
            self._byIdentifier.setdefault(identifier, {})[session.id] = None
        if destination is not None:
            self._byDestination.setdefault(destination, {})[session.id] = None

    def _unfile(self, session: ISession) -> None:
        """Take a session out of the indexes; one that is filed again keeps its turn."""
        _, identifier, destination = self._filed[session.id]
        _drop(self._byIdentifier, identifier, session.id)
        _drop(self._byDestination, destination, session.id)


def _drop(index: dict[str, dict[str, None]], key: str | None, session: str) -> None:
    """Take a session out of an index, and with its last session the index's key."""
    if key is None:
        return
    index[key].pop(session)
    if not index[key]:
        del index[key]


_File: TypeAlias = tuple[ISession, str | None, str | None]
"""A session with the account and the destination that it is filed under."""
