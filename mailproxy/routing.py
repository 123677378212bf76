"""From an identifier to the destination that its account lives on.

Knows the declared destinations, the default, and what a failed lookup is to mean; must not know
how a store is asked, nor anything of a backend but its name.
"""

import enum
from collections.abc import Collection

import attrs

from mailproxy.config.stores import OnError
from mailproxy.errors import MappingError
from mailproxy.identity import redact
from mailproxy.logs import Logger
from mailproxy.mapping.cache import MappingCache


class Ground(enum.Enum):
    """Why a destination was chosen."""

    MAPPED = "mapped"
    ABSENT = "not mapped"
    NAMELESS = "no identifier"
    UNDECLARED = "mapped to an undeclared destination"
    STALE = "store failed, last known answer"
    FAILED = "store failed"


@attrs.frozen
class Route:
    """A decision.

    :ivar ground: what it rests on.
    """

    destination: str
    ground: Ground

    @property
    def toDefault(self) -> bool:
        """Whether the account has no place of its own."""
        return self.ground not in (Ground.MAPPED, Ground.STALE)


class Router:
    """Routes identifiers by one set of destinations."""

    log = Logger()

    def __init__(
        self, cache: MappingCache, destinations: Collection[str], default: str, onError: OnError
    ) -> None:
        self.cache, self.destinations, self.default = cache, frozenset(destinations), default
        self._onError = onError

    async def route(self, identifier: str | None) -> Route:
        """Decide where a login goes; None is a login that names nobody.

        :raises MappingError: when the store cannot tell and the operator wants such logins refused.
        """
        if identifier is None:
            return Route(self.default, Ground.NAMELESS)
        try:
            destination = await self.cache.lookup(identifier)
        except MappingError as error:
            return self._withoutStore(identifier, error)
        return self.judge(identifier, destination)

    async def preview(self, identifier: str) -> Route:
        """Decide as `route` would now, without filling the cache."""
        try:
            return self.judge(identifier, await self.cache.inquire(identifier))
        except MappingError as error:
            return self._withoutStore(identifier, error)

    def judge(self, identifier: str, destination: str | None) -> Route:
        """Make a decision of what the store says."""
        if destination is None:
            return Route(self.default, Ground.ABSENT)
        if destination in self.destinations:
            return Route(destination, Ground.MAPPED)
        self.log.warn(
            "{identifier} is mapped to {destination}, which is not declared: the default is used",
            identifier=redact(identifier),
            destination=ascii(destination),
        )
        return Route(self.default, Ground.UNDECLARED)

    def _withoutStore(self, identifier: str, error: MappingError) -> Route:
        """Decide when the store could not tell.

        A moved account that were sent to its old mailbox would have its mail split, so the last
        known answer goes before the default.
        """
        if self._onError is OnError.TEMPFAIL:
            raise error
        known = self.cache.stale(identifier) if self._onError is OnError.STALE else None
        if known is not None and known.destination in self.destinations:
            return Route(str(known.destination), Ground.STALE)
        return Route(self.default, Ground.FAILED)
