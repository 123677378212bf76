"""From a file to a `Config`, or to every mistake in it at once."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from mailproxy.config.certificates import checkDates, checkPair, checkSecrecy, readFile
from mailproxy.config.checks import checkTables
from mailproxy.config.draft import Draft, draft
from mailproxy.config.model import (
    Admin,
    Config,
    Destination,
    LogLevel,
    Normalize,
    SourceKind,
    TLSMode,
)
from mailproxy.config.patterns import shadowed
from mailproxy.config.problems import describe, keyPath
from mailproxy.config.table import Table, byLine, checkTable, readTable
from mailproxy.config.values import CREDENTIAL_BEARING, PROTOCOLS, shown
from mailproxy.errors import ConfigError
from mailproxy.logs import escaped

ADMIN_VARIABLE = "PROXY_ADMIN_TOKEN"
LOG_VARIABLE = "PROXY_LOG"


def load(path: Path, environment: Mapping[str, str]) -> Config:
    """Read and check a configuration file and the files that it names.

    Relative paths in it count from its own directory.

    :param environment: may hold `PROXY_ADMIN_TOKEN` and `PROXY_LOG`; both beat the file.
    :raises ConfigError: with every problem found.
    """
    raw = _parse(path)
    context = {"base": path.absolute().parent}
    parts = draft(raw, context)
    problems: list[str] = []
    try:
        config = Config.model_validate(raw, context=context)
    except ValidationError as error:
        problems += describe(error, Config)
    problems += checkTables(parts)
    problems += _checkFiles(parts)
    problems += _checkEnvironment(parts.admin, environment)
    if problems:
        # Raised out here, so that the validation error is not kept: it may hold secrets.
        raise ConfigError([escaped(problem) for problem in dict.fromkeys(problems)])
    return _withEnvironment(config, environment)


def warnings(config: Config) -> list[str]:
    """What does not stop the start, but somebody should look at; the form is that of problems."""
    return [
        *_certificateWarnings(config),
        *_secrecyWarnings(config),
        *_otherWarnings(config),
        *_routeWarnings(config),
    ]


def _parse(path: Path) -> dict[str, Any]:
    try:
        data = readFile(path)
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    try:
        return tomllib.loads(data.decode("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntaxProblem(path, str(error))]) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: is not UTF-8"]) from error
    except RecursionError as error:
        raise ConfigError([f"{path}: tables or lists are nested too deeply"]) from error
    except ValueError as error:
        raise ConfigError([f"{path}: {error}"]) from error


def _syntaxProblem(path: Path, message: str) -> str:
    found = re.fullmatch(r"(.*) \(at line ([0-9]+), column ([0-9]+)\)", message, re.DOTALL)
    if found is None:
        return f"{path}: is not TOML: {message}"
    return f"{path}:{found[2]}: is not TOML: {found[1]} (column {found[3]})"


def _checkFiles(parts: Draft) -> Iterator[str]:
    for name, one in parts.certificates.items():
        yield from checkPair(
            keyPath(("tls", "certificate", name)), {"cert": one.cert, "key": one.key}
        )
    for name, destination in parts.destinations.items():
        cert, key = destination.tls_client_cert, destination.tls_client_key
        if cert is not None and key is not None:
            files = {"tls_client_cert": cert, "tls_client_key": key}
            yield from checkPair(keyPath(("destination", name)), files)
    yield from _checkMappingFile(parts)


def _checkMappingFile(parts: Draft) -> Iterator[str]:
    mapping = parts.mapping
    if mapping is None or mapping.kind is not SourceKind.FILE or mapping.file is None:
        return
    path = mapping.file.path
    try:
        table, problems = readTable(readFile(path), str(path))
    except ValueError as error:
        yield f"mapping.file.path: {error}"
        return
    # A broken destination is not blamed for what it lacks.
    declared = dict.fromkeys(parts.declared, frozenset(PROTOCOLS))
    declared |= _declaredProtocols(parts.destinations)
    problems += checkTable(table, declared, _mapped(parts.served), str(path))
    yield from (f"mapping.file.path: {problem}" for problem in byLine(problems))


def checkMapping(config: Config, table: Table, name: str = "mapping file") -> list[str]:
    """What keeps a mapping table from being used with a sound configuration.

    :param name: what stands before the line number: the file's path.
    """
    served = frozenset(listener.protocol for listener in config.listener.values())
    return checkTable(table, _declaredProtocols(config.destination), _mapped(served), name)


def unmatched(config: Config, table: Table) -> list[str]:
    """Warn of a mapping table's entries that no login will ever find."""
    lowercase = config.mapping.normalize is Normalize.LOWERCASE
    separators = tuple(config.routing.master_user_separators)

    def isReached(identifier: str) -> bool:
        found = identifier.lower() if lowercase else identifier
        return found == identifier and not any(map(identifier.__contains__, separators))

    count = len(table.entries) - sum(map(isReached, table.entries))
    if not count:
        return []
    entries = "1 entry is" if count == 1 else f"{count} entries are"
    rules = "mapping.normalize and routing.master_user_separators"
    return [f"mapping.file.path: {entries} never found: by {rules} no identifier is written so"]


def unmatchedInFile(config: Config) -> list[str]:
    """Warn of the mapping file as `unmatched` does; the file has been read and found sound."""
    if config.mapping.kind is not SourceKind.FILE or config.mapping.file is None:
        return []
    table, _ = readTable(readFile(config.mapping.file.path))
    return unmatched(config, table)


def lacking(config: Config, destination: str) -> list[str]:
    """The protocols that listeners serve to mapped accounts and a declared destination lacks."""
    served = frozenset(listener.protocol for listener in config.listener.values())
    declared = config.destination[destination].protocol
    return [protocol for protocol in _mapped(served) if protocol not in declared]


def _declaredProtocols(destinations: Mapping[str, Destination]) -> dict[str, frozenset[str]]:
    return {name: frozenset(one.protocol) for name, one in destinations.items()}


def _mapped(served: frozenset[str]) -> list[str]:
    """Of the protocols that listeners serve, those whose sessions are routed by the mapping."""
    return [one for one in PROTOCOLS if one in served & CREDENTIAL_BEARING]


def _checkEnvironment(admin: Admin | None, environment: Mapping[str, str]) -> Iterator[str]:
    level = environment.get(LOG_VARIABLE)
    if level and level not in list(LogLevel):
        yield f"{LOG_VARIABLE}: {shown(level)} is not one of {', '.join(LogLevel)}"
    if admin is None:
        return
    try:
        source, token = _token(admin, environment)
    except ValueError as error:
        yield f"admin.bearer_token_file: {error}"
        return
    if not token:
        yield (
            f"{source}: there is no token; write bearer_token_file or bearer_token, "
            f"or set {ADMIN_VARIABLE}"
        )
    elif not re.fullmatch("[!-~]+", token):
        yield f"{source}: the token must be printable ASCII without spaces, on one line"
    elif len(token) < admin.min_token_len:
        yield (
            f"{source}: the token has {len(token)} characters; "
            f"admin.min_token_len asks for {admin.min_token_len}"
        )


def _token(admin: Admin, environment: Mapping[str, str]) -> tuple[str, str]:
    """The token in force, and the key or variable that it comes from.

    :raises ValueError: if its file cannot be read.
    """
    if token := environment.get(ADMIN_VARIABLE, "").strip():
        return ADMIN_VARIABLE, token
    if admin.bearer_token_file is not None:
        data = readFile(admin.bearer_token_file)
        return "admin.bearer_token_file", data.decode("utf-8", "replace").strip()
    written = admin.bearer_token.get_secret_value() if admin.bearer_token is not None else ""
    return "admin.bearer_token", written.strip()


def _withEnvironment(config: Config, environment: Mapping[str, str]) -> Config:
    changes: dict[str, Any] = {}
    if level := environment.get(LOG_VARIABLE):
        changes["server"] = config.server.model_copy(update={"log_level": LogLevel(level)})
    if config.admin is not None:
        _, token = _token(config.admin, environment)
        changes["admin"] = config.admin.model_copy(update={"bearer_token": SecretStr(token)})
    return config.model_copy(update=changes)


def _certificateWarnings(config: Config) -> Iterator[str]:
    certificates = config.tls.certificate
    for name, one in certificates.items():
        yield from checkDates(keyPath(("tls", "certificate", name, "cert")), one.cert)
    for name, destination in config.destination.items():
        if destination.tls_client_cert is not None:
            key = keyPath(("destination", name, "tls_client_cert"))
            yield from checkDates(key, destination.tls_client_cert)
    encrypted = any(one.tls is not TLSMode.PLAIN for one in config.listener.values())
    if not certificates and (encrypted or config.admin is not None):
        yield (
            "tls.certificate: there is none; clients are shown a self-signed one "
            "that they do not trust"
        )
    if len(certificates) > 1 and not any(
        one.default or "*" in (one.subjects or ()) for one in certificates.values()
    ):
        yield (
            "tls.certificate: none is the default; clients that ask for another name are shown "
            "a self-signed one; set default = true in one"
        )


def _secrecyWarnings(config: Config) -> Iterator[str]:
    for name, one in config.tls.certificate.items():
        yield from checkSecrecy(keyPath(("tls", "certificate", name, "key")), one.key)
    for name, destination in config.destination.items():
        if destination.tls_client_key is not None:
            key = keyPath(("destination", name, "tls_client_key"))
            yield from checkSecrecy(key, destination.tls_client_key)
    if config.admin is not None and config.admin.bearer_token_file is not None:
        yield from checkSecrecy("admin.bearer_token_file", config.admin.bearer_token_file)


def _otherWarnings(config: Config) -> Iterator[str]:
    for name, destination in config.destination.items():
        if destination.tls_allow_invalid_certs:
            yield (
                f"{keyPath(('destination', name, 'tls_allow_invalid_certs'))}: anybody on the way "
                "can read the passwords sent there; use tls_pinned_cert_sha256 instead"
            )
    sql = config.mapping.sql
    if sql is not None and (sql.upsert_query is None) != (sql.delete_query is None):
        yield "mapping.sql: writing needs both upsert_query and delete_query; it stays read-only"


def _routeWarnings(config: Config) -> Iterator[str]:
    globs = [route.match for route in config.http.route]
    for place, before in shadowed(globs):
        yield (
            f"{keyPath(('http', 'route', place, 'match'))}: {shown(globs[place])} is never "
            f"reached, since #{before + 1} ({shown(globs[before])}) takes its requests; "
            "move it up or remove it"
        )
