"""The small values that configuration keys hold: durations, networks, pins, names, patterns.

Each parser takes what TOML gave and raises ValueError with a message for the person who wrote it:
what is wrong, then what would be right. No message ever quotes a secret.
"""

import enum
import ipaddress
import json
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    Strict,
    ValidationInfo,
    WithJsonSchema,
)

from mailproxy.config.table import isStorable
from mailproxy.logs import escaped

PROTOCOLS = ("imap", "pop3", "managesieve", "submission", "smtp", "lmtp", "http")
INTERACTIVE = frozenset({"imap", "pop3", "managesieve", "submission"})
PASS_THROUGH = frozenset({"smtp", "lmtp"})
CREDENTIAL_BEARING = INTERACTIVE | {"http"}
MECHANISMS = ("PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Section(BaseModel):
    """A TOML table: its fields are its keys, others are mistakes, and nobody changes it later."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class TLSMode(enum.StrEnum):
    """When TLS begins on a socket: at once, by the protocol's own command, never."""

    IMPLICIT = "implicit"
    STARTTLS = "starttls"
    PLAIN = "plain"


class ProxyProtocol(enum.StrEnum):
    """Whether a listener takes PROXY headers from trusted peers, or serves nobody without one."""

    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"


class Forwarding(enum.StrEnum):
    """How a backend is told who the client is."""

    PROXY = "proxy"
    XCLIENT = "xclient"
    NONE = "none"


class Forwarded(enum.StrEnum):
    """What an HTTP listener does with forwarding headers that a client sends."""

    TRUST = "trust"
    OFF = "off"


class LogLevel(enum.StrEnum):
    """The least important kind of event that is still logged."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class MinVersion(enum.StrEnum):
    """The oldest TLS version that is spoken."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


def shown(value: object) -> str:
    """A TOML value as it may stand in a message: short, on one line, a table only by kind."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        short = value if len(value) <= 60 else value[:57] + "..."
        return escaped(json.dumps(short, ensure_ascii=False))
    return str(value).lower() if isinstance(value, bool) else str(value)


_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = "^[0-9]+(ms|s|m|h|d)$"
_LONGEST = 3650 * 86400


def parseDuration(value: object) -> float:
    """Seconds from `30s`, `500ms`, `5m`, `1h` or `7d`; at most ten years: timers take that."""
    found = re.fullmatch(_DURATION[1:-1], value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            f"{shown(value)} is not a duration; write a whole number and ms, s, m, h or d"
        )
    unit = found[1]
    digits = found[0][: -len(unit)].lstrip("0")
    seconds = int(digits or "0") * _UNITS[unit] if len(digits) <= 15 else _LONGEST + 1
    if seconds > _LONGEST:
        raise ValueError(f"{shown(value)} is too long; at most 3650d")
    return float(seconds)


def formatDuration(seconds: float) -> str:
    """The shortest text that `parseDuration` reads back as the same number of seconds."""
    milliseconds = round(seconds * 1000)
    for unit, size in (("d", 86400000), ("h", 3600000), ("m", 60000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def _positiveDuration(value: object) -> float:
    seconds = parseDuration(value)
    if seconds == 0:
        raise ValueError(f"{shown(value)} would end everything at once; write more than 0")
    return seconds


def lasting(default: str, description: str) -> Any:
    """A field that holds a duration; its default stands in the JSON Schema as it would be typed."""
    return Field(
        default=parseDuration(default),
        description=description,
        json_schema_extra={"default": default},
    )


def _parseNetwork(value: object) -> Network:
    try:
        return ipaddress.ip_network(str(value), strict=True)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise ValueError(
            f"{shown(value)} is not a network; write it as 192.0.2.0/24 or 2001:db8::/32"
        ) from None
    raise ValueError(f"{shown(value)} has bits set behind its mask; write {meant}")


def _parseAddress(value: object) -> Address:
    try:
        return ipaddress.ip_address(str(value))
    except ValueError:
        raise ValueError(f"{shown(value)} is not an IP address") from None


def _parsePin(value: object) -> bytes:
    digits = value.replace(":", "") if isinstance(value, str) else ""
    if not re.fullmatch("[0-9a-fA-F]{64}", digits):
        raise ValueError(
            f"{shown(value)} is not a SHA-256 fingerprint; write 64 hex digits, colons are ignored"
        )
    return bytes.fromhex(digits)


_LABEL = re.compile("(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def isIPAddress(text: str) -> bool:
    """Whether a host is an IP literal rather than a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _checkHostName(value: str) -> str:
    labels = value.removesuffix(".").split(".")
    named = all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()
    if not named or len(value) > 253:
        raise ValueError(
            f"{shown(value)} is not a host name; write it in letters, digits, - and dots "
            "(an international one in its xn-- form)"
        )
    return value


def _checkHost(value: str) -> str:
    if isIPAddress(value):
        if "%" in value:
            raise ValueError(f"{shown(value)} has a zone; write an address that needs none")
        return value
    if value.startswith("[") and value.endswith("]") and isIPAddress(value[1:-1]):
        raise ValueError(f"{shown(value)} needs no brackets; write {value[1:-1]}")
    return _checkHostName(value)


def _checkSubject(value: str) -> str:
    if value != "*":
        _checkHostName(value.removeprefix("*."))
    return value


def _checkName(value: str) -> str:
    if not isStorable(value):
        raise ValueError(
            f"{shown(value)} cannot be a name; write one without spaces, quotes or a leading #"
        )
    return value


def _checkProtocol(value: str) -> str:
    if value not in PROTOCOLS:
        raise ValueError(f"{shown(value)} is not one of {', '.join(PROTOCOLS)}")
    return value


def _checkPrintable(value: str) -> str:
    if not re.fullmatch("[ -~]+", value):
        raise ValueError(f"{shown(value)} must be printable ASCII on one line, and not empty")
    return value


def _checkSeparator(value: str) -> str:
    if not value:
        raise ValueError("a separator cannot be empty; write one or more characters")
    return value


def _splitWords(value: Any) -> Any:
    return value.split() if isinstance(value, str) else value


def _checkWord(value: str) -> str:
    if not value or " " in value:
        raise ValueError(f"{shown(value)} is not one word")
    return value


def _checkMechanisms(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in MECHANISMS:
            raise ValueError(f"{shown(name)} is not one of {', '.join(MECHANISMS)}")
        if names.count(name) > 1:
            raise ValueError(f"{shown(name)} stands there twice; write it once")
    return names


def _resolve(path: Path, info: ValidationInfo) -> Path:
    if path == Path() or "\0" in str(path):
        raise ValueError(f"{shown(str(path))} is not the name of a file")
    base = info.context.get("base") if isinstance(info.context, dict) else None
    return path if base is None else Path(base) / path


def _schema(pattern: str | None = None, **more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **({"pattern": pattern} if pattern else {}), **more})


_ON_JSON = PlainSerializer(str, return_type=str, when_used="json")

Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Field(ge=0)]
Positive = Annotated[int, Strict(), Field(ge=1)]
Port = Annotated[int, Strict(), Field(ge=1, le=65535)]
_DURATION_TEXT = PlainSerializer(formatDuration, return_type=str, when_used="json")
Duration = Annotated[float, PlainValidator(parseDuration), _DURATION_TEXT, _schema(_DURATION)]
PositiveDuration = Annotated[
    float, PlainValidator(_positiveDuration), _DURATION_TEXT, _schema(_DURATION)
]
CIDR = Annotated[Network, PlainValidator(_parseNetwork), _ON_JSON, _schema()]
IPAddress = Annotated[Address, PlainValidator(_parseAddress), _ON_JSON, _schema()]
Pin = Annotated[
    bytes,
    PlainValidator(_parsePin),
    PlainSerializer(bytes.hex, return_type=str, when_used="json"),
    _schema("^:*([0-9a-fA-F]:*){64}$"),
]
Host = Annotated[str, AfterValidator(_checkHost)]
HostName = Annotated[str, AfterValidator(_checkHostName)]
Subject = Annotated[str, AfterValidator(_checkSubject)]
Name = Annotated[str, AfterValidator(_checkName)]
ProtocolName = Annotated[str, AfterValidator(_checkProtocol), _schema(enum=list(PROTOCOLS))]
Printable = Annotated[str, AfterValidator(_checkPrintable)]
Separator = Annotated[str, AfterValidator(_checkSeparator)]
_Word = Annotated[Printable, AfterValidator(_checkWord)]
Words = Annotated[tuple[_Word, ...], BeforeValidator(_splitWords)]
Mechanisms = Annotated[
    tuple[str, ...],
    BeforeValidator(_splitWords),
    AfterValidator(_checkMechanisms),
    WithJsonSchema({"type": "array", "items": {"enum": list(MECHANISMS)}, "uniqueItems": True}),
]
FilePath = Annotated[Path, AfterValidator(_resolve)]
