"""The management API as an OpenAPI document, made of its table of calls.

Knows how OpenAPI says things and what each call's JSON holds; must not know how a call is run.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias

from mailproxy import __version__
from mailproxy.registry import LONGEST_HOLD

__all__ = ["Described", "document"]

Facts: TypeAlias = dict[str, Any]


class Described(Protocol):
    """What the document needs to know of a call; see `api.Call`."""

    @property
    def method(self) -> str:
        """The HTTP method."""

    @property
    def path(self) -> str:
        """The path."""

    @property
    def run(self) -> Callable[..., object]:
        """What runs it; its docstring says what for."""

    @property
    def required(self) -> tuple[str, ...]:
        """Its query parameters."""

    @property
    def optional(self) -> tuple[str, ...]:
        """More of them."""

    @property
    def needsToken(self) -> bool:
        """Whether it is for operators alone."""


def document(calls: Iterable[Described]) -> Facts:
    """Describe the calls (OpenAPI 3.1)."""
    paths: dict[str, Facts] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call)
    return {
        "openapi": "3.1.0",
        "info": {"title": "mailproxy management", "version": __version__},
        "security": [{"token": []}],
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(call: Described) -> Facts:
    text = inspect.getdoc(call.run) or ""
    described: Facts = {
        "summary": text.partition("\n")[0],
        "operationId": _operationID(call),
        "parameters": [_parameter(name, True) for name in call.required]
        + [_parameter(name, False) for name in call.optional],
        "responses": _responses(call),
    }
    return described if call.needsToken else {**described, "security": []}


def _operationID(call: Described) -> str:
    """Name an operation: `PUT /mappings` is `put_mappings`."""
    words = [call.method.lower(), *call.path.strip("/").replace(".", "_").split("/")]
    return "_".join(words)


def _parameter(name: str, required: bool) -> Facts:
    return {"name": name, "in": "query", "required": required, "schema": _PARAMETERS[name]}


def _responses(call: Described) -> Facts:
    """What it answers, by status; whatever goes wrong is told in text."""
    key = f"{call.method} {call.path}"
    # A call without parameters refuses every one that is given.
    statuses = {400, 401, 429, 503, *_FAILURES.get(key, ())} if call.needsToken else set()
    failures = {
        str(status): {"description": _STATUSES[status], "content": _TEXT}
        for status in sorted(statuses)
    }
    return {"200": {"description": "Done.", "content": _content(key)}, **failures}


def _content(key: str) -> Facts:
    if key in _SHAPES:
        return {"application/json": {"schema": _SHAPES[key]}}
    return _TEXT


def _object(**properties: Facts) -> Facts:
    """An object that has all of these; more may come with a later version."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: Facts) -> Facts:
    return {"type": "array", "items": items}


_TEXT: Facts = {"text/plain": {"schema": {"type": "string"}}}
_STRING: Facts = {"type": "string"}
_NULLABLE: Facts = {"type": ["string", "null"]}
_NUMBER: Facts = {"type": "number"}
_FLAG: Facts = {"type": "boolean"}
_COUNT: Facts = {"type": "integer", "minimum": 0}

_NAME: Facts = {"type": "string", "minLength": 1}
_PARAMETERS: Mapping[str, Facts] = {
    "identifier": {**_NAME, "description": "An account, written as a client would."},
    "destination": {**_NAME, "description": "A destination's name in the configuration."},
    "protocol": {**_NAME, "description": "A protocol's name in the configuration."},
    "seconds": {"type": "integer", "minimum": 0, "maximum": int(LONGEST_HOLD)},
}

_STATUSES: Mapping[int, str] = {
    400: "A parameter is missing, unknown or not as it must be; or a reload met mistakes.",
    401: "The token is missing or wrong.",
    404: "The configuration does not declare it.",
    429: "Locked out after too many wrong tokens; Retry-After says for how long.",
    500: "The mapping store failed.",
    501: "The mapping store takes no writes.",
    503: "The mapping store could not tell, or a worker process has not answered.",
}

_FAILURES: Mapping[str, tuple[int, ...]] = {
    "POST /destinations/reset": (404,),
    "PUT /mappings": (500, 501),
    "DELETE /mappings": (500, 501),
    "POST /mappings/reload": (500,),
}
"""What a call may answer besides what any call may."""

_SHAPES: Mapping[str, Facts] = {
    "GET /stats": _object(
        cache_hits=_COUNT,
        cache_misses=_COUNT,
        hit_rate_pct=_NUMBER,
        cache_entries=_COUNT,
        active_connections=_COUNT,
        connections=_list(_object(protocol=_STRING, destination=_NULLABLE, active=_COUNT)),
        workers=_list(
            _object(
                worker=_COUNT,
                pid={"type": ["integer", "null"]},
                state=_STRING,
                since={"type": ["number", "null"]},
            )
        ),
        worker_restarts=_COUNT,
    ),
    "GET /openapi.json": {"type": "object"},
    "POST /config/reload": _object(reloaded=_FLAG, note=_NULLABLE),
    "GET /destinations": _list(
        _object(
            destination=_STRING,
            consecutive_failures=_COUNT,
            failure_sources=_COUNT,
            host_level_failure=_FLAG,
            down=_FLAG,
        )
    ),
    "GET /mappings": _object(
        identifier=_STRING,
        normalized=_STRING,
        destination=_STRING,
        routed_to_default=_FLAG,
        cached=_FLAG,
        ground=_STRING,
        source=_STRING,
        endpoints={"type": "object", "additionalProperties": {"type": "object"}},
    ),
    "GET /connections": _list(
        _object(
            id=_STRING,
            protocol=_STRING,
            listener=_STRING,
            client=_STRING,
            identifier=_NULLABLE,
            destination=_NULLABLE,
            since=_NUMBER,
            bytes_received=_COUNT,
            bytes_sent=_COUNT,
        )
    ),
}
"""What the answers in JSON hold; every other answer is text."""
