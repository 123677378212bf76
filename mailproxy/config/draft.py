"""The sound parts of a configuration that may have mistakes elsewhere.

So that mistakes between tables are found together with those inside them: of a table with mistakes
the sound keys are kept; one that lacks a required key is left out, its name known as declared.
"""

from collections.abc import Mapping as Dictionary
from typing import Any, TypeVar

import attrs
from pydantic import BaseModel, ValidationError

from mailproxy.config.model import (
    Admin,
    Certificate,
    Destination,
    Listener,
    Mapping,
    Routing,
    TLSProtocols,
)
from mailproxy.config.table import isStorable

_Model = TypeVar("_Model", bound=BaseModel)
_Raw = Dictionary[str, Any]


_ESSENTIAL = frozenset({"bearer_token", "bearer_token_file"})
"""Keys without which a table says something else; one with a table inside it is another."""


@attrs.frozen
class Lead:
    """Where a route leads: told even of one whose pattern, say, is a mistake.

    :ivar keys: what is written in the route's table.
    """

    destination: str | None
    fallback: str | None
    keys: frozenset[str]


@attrs.frozen
class Draft:
    """What can be relied on; None, or absent from a dictionary, is what is broken.

    :ivar declared: the names of all destinations, sound or not.
    :ivar hasListeners: whether any listener is declared, sound or not.
    :ivar leads: by the route's place, counted from 0.
    :ivar hasRoutes: whether any route is declared, sound or not.
    """

    listeners: Dictionary[str, Listener]
    hasListeners: bool
    destinations: Dictionary[str, Destination]
    declared: frozenset[str]
    certificates: Dictionary[str, Certificate]
    protocols: TLSProtocols | None
    routing: Routing | None
    mapping: Mapping | None
    leads: Dictionary[int, Lead]
    hasRoutes: bool
    admin: Admin | None

    @property
    def served(self) -> frozenset[str]:
        """The protocols of all sound listeners."""
        return frozenset(listener.protocol for listener in self.listeners.values())

    @property
    def default(self) -> Destination | None:
        """The default destination, if it is declared and sound."""
        return self.destinations.get(self.routing.default_destination) if self.routing else None


def draft(raw: _Raw, context: _Raw) -> Draft:
    """Validate each table by itself and keep those that are sound.

    :param raw: the file as TOML gives it.
    :param context: what path values are resolved by.
    """
    tls = _table(raw, "tls")
    http = raw.get("http", {})
    routes = http.get("route", []) if isinstance(http, dict) else None
    return Draft(
        listeners=_sound(Listener, _table(raw, "listener"), context),
        hasListeners=bool(raw.get("listener")),
        destinations=_sound(Destination, _table(raw, "destination"), context),
        declared=frozenset(_table(raw, "destination")),
        certificates=_sound(Certificate, _table(tls, "certificate"), context),
        protocols=_try(TLSProtocols, tls.get("protocols", {}), context),
        routing=_try(Routing, raw.get("routing"), context),
        mapping=_try(Mapping, raw.get("mapping"), context),
        leads=leads(routes),
        hasRoutes=routes != [],
        admin=_try(Admin, raw.get("admin"), context),
    )


def leads(routes: object) -> dict[int, Lead]:
    """Find where routes lead.

    :param routes: `http.route` as TOML gives it; what is no route in it is left out.
    """
    listed = enumerate(routes if isinstance(routes, list) else ())
    return {place: _lead(route) for place, route in listed if isinstance(route, dict)}


def _lead(route: _Raw) -> Lead:
    return Lead(_name(route, "destination"), _name(route, "fallback"), frozenset(route))


def _name(table: _Raw, key: str) -> str | None:
    value = table.get(key)
    return value if isinstance(value, str) and isStorable(value) else None


def _table(raw: _Raw, key: str) -> _Raw:
    value = raw.get(key)
    return value if isinstance(value, dict) else {}


def _sound(model: type[_Model], tables: _Raw, context: _Raw) -> dict[str, _Model]:
    tried = {name: _try(model, value, context) for name, value in tables.items()}
    return {name: value for name, value in tried.items() if value is not None}


def _try(model: type[_Model], value: object, context: _Raw) -> _Model | None:
    """Validate a table; of one with mistakes, what is left without the keys that hold them."""
    try:
        return model.model_validate(value, context=dict(context))
    except ValidationError as error:
        places = [each["loc"] for each in error.errors()]
        broken = {place[0] for place in places if place}
        deep = any(len(place) > 1 and isinstance(place[1], str) for place in places)
        if not isinstance(value, dict) or deep or broken - value.keys() or broken & _ESSENTIAL:
            return None
        return _try(model, {key: value[key] for key in value.keys() - broken}, context)
