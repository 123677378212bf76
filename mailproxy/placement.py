"""Where a session belongs: its account found, held while it is moved, looked up, put on file.

Knows that a decision holds only under the configuration that it was made by; must not know what is
done at the destination.
"""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from mailproxy.dial import Target
from mailproxy.errors import BackendFailed, Stage
from mailproxy.logs import Logger
from mailproxy.registry import ISession
from mailproxy.resources import Resources
from mailproxy.routing import Ground, Route

Find: TypeAlias = Callable[[Resources], Awaitable[tuple[str | None, str]]]
"""Tells whose session it is; if nobody's, also where such sessions go, empty for the default."""

log = Logger()


async def place(
    session: ISession, now: Callable[[], Resources], find: Find
) -> tuple[Resources, Target]:
    """Find out whose session it is and where that account lives.

    Who waits while the configuration changes is placed by the new one: the account may be on its
    way to a destination that the old one does not know. From the answer on the session is on file,
    so that no move can miss it.

    :param now: gives what is in force.
    :returns: what the decision was made by, and the endpoint.
    :raises MappingError: when the store cannot tell and such logins are to be refused.
    :raises BackendFailed: when the destination does not serve the protocol.
    """
    while True:
        resources = now()
        identifier, route = await _decide(resources, find)
        if resources is now():
            break
    log.debug(
        "session {session}: {identifier} goes to {destination} ({ground})",
        session=session.id,
        identifier=ascii(identifier),
        destination=route.destination,
        ground=route.ground.value,
    )
    return resources, assign(session, resources, identifier, route.destination)


async def _decide(resources: Resources, find: Find) -> tuple[str | None, Route]:
    """Decide by one configuration; an account that is being moved is looked up after that."""
    identifier, elsewhere = await find(resources)
    if identifier is None:
        return None, Route(elsewhere or resources.router.default, Ground.NAMELESS)
    await resources.registry.held(identifier)
    return identifier, await resources.router.route(identifier)


def assign(
    session: ISession, resources: Resources, identifier: str | None, destination: str
) -> Target:
    """Put a session on file and find the endpoint that serves it.

    :raises BackendFailed: when there is none.
    """
    resources.registry.routed(session, identifier, destination)
    target = resources.targets.get((destination, session.protocol))
    if target is None:
        raise BackendFailed(Stage.UNSUPPORTED, f"{destination} has no {session.protocol}")
    return target
