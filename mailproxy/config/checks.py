"""What must hold between keys and tables. Each rule is one small generator of problems.

Reads no file: see `certificates` for key material and `load` for the mapping file and the token.
"""

import re
from collections.abc import Iterator
from itertools import combinations

from mailproxy.config.bind import Bind, clashes
from mailproxy.config.draft import Draft, Lead
from mailproxy.config.model import (
    Destination,
    Forwarding,
    ProxyProtocol,
    SourceKind,
    SQLStore,
    TLSMode,
)
from mailproxy.config.problems import keyPath
from mailproxy.config.values import (
    CREDENTIAL_BEARING,
    INTERACTIVE,
    PASS_THROUGH,
    isIPAddress,
    shown,
)

DEFAULT_FALLBACK = "default"
"""A route's `fallback` that means the default destination, whatever its name."""

_MUTE = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|--[^\n]*|/\*.*?\*/""", re.DOTALL)
"""What holds no parameter in SQL: strings, quoted names and comments."""

_MYSQL_MUTE = re.compile(
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`|(?:\#|--(?=\s|\Z))[^\n]*|/\*(?!M?!).*?\*/""",
    re.DOTALL,
)
"""The same in MySQL's and MariaDB's SQL; what stands in `/*! */` is no comment to them."""


def checkTables(draft: Draft) -> Iterator[str]:
    """Every problem between sound tables."""
    for rule in _RULES:
        yield from rule(draft)


def _listenersExist(draft: Draft) -> Iterator[str]:
    if not draft.hasListeners:
        yield "listener: there is none; declare at least one [listener.NAME]"


def _listenersTrust(draft: Draft) -> Iterator[str]:
    for name, listener in draft.listeners.items():
        if listener.proxy_protocol is not ProxyProtocol.OFF and not listener.proxy_trusted:
            yield (
                f"{keyPath(('listener', name, 'proxy_trusted'))}: is empty while proxy_protocol is "
                f"{listener.proxy_protocol}; list the networks of your load balancers"
            )


def _listenersHaveFittingTLS(draft: Draft) -> Iterator[str]:
    for name, listener in draft.listeners.items():
        if listener.tls is TLSMode.STARTTLS and listener.protocol in PASS_THROUGH | {"http"}:
            yield (
                f"{keyPath(('listener', name, 'tls'))}: starttls cannot be used with "
                f"{listener.protocol}; write implicit or plain"
            )


def _addressesDiffer(draft: Draft) -> Iterator[str]:
    binds: list[tuple[str, str, Bind]] = [
        (keyPath(("listener", name, "bind")), text, bind)
        for name, listener in draft.listeners.items()
        for text, bind in zip(listener.bind, listener.addresses, strict=True)
    ]
    if draft.admin is not None:
        binds.append(("admin.bind", draft.admin.bind, draft.admin.address))
    for (firstKey, firstText, first), (key, text, second) in combinations(binds, 2):
        if clashes(first, second):
            yield (
                f"{key}: {shown(text)} is taken by {firstKey} ({shown(firstText)}); "
                "give each an address of its own"
            )


def _destinationsKeepSecrets(draft: Draft) -> Iterator[str]:
    for name, destination in draft.destinations.items():
        for protocol, endpoint in destination.protocol.items():
            unsafe = endpoint.tls is TLSMode.PLAIN and not destination.allow_plaintext_auth
            if unsafe and protocol in CREDENTIAL_BEARING:
                yield (
                    f"{_endpoint(name, protocol)}.tls: plain would send credentials unencrypted; "
                    "write implicit or starttls, or set the destination's "
                    "allow_plaintext_auth = true"
                )


def _destinationsHaveFittingTLS(draft: Draft) -> Iterator[str]:
    for name, destination in draft.destinations.items():
        endpoint = destination.protocol.get("http")
        if endpoint is not None and endpoint.tls is TLSMode.STARTTLS:
            yield (
                f"{_endpoint(name, 'http')}.tls: starttls cannot be used with http; "
                "write implicit or plain"
            )


def _destinationsHaveFittingForwarding(draft: Draft) -> Iterator[str]:
    for name, destination in draft.destinations.items():
        endpoint = destination.protocol.get("http")
        if endpoint is not None and endpoint.forwarding is Forwarding.XCLIENT:
            yield (
                f"{_endpoint(name, 'http')}.forwarding: xclient cannot be used with http; write "
                "proxy or none (the destination's forwarded = true adds header fields)"
            )


def _destinationsCanBeVerified(draft: Draft) -> Iterator[str]:
    for name, destination in draft.destinations.items():
        if (
            isIPAddress(destination.host)
            and _usesTLS(destination)
            and not destination.tls_server_name
        ):
            yield (
                f"{keyPath(('destination', name, 'tls_server_name'))}: missing; host is the IP "
                f"address {destination.host}, so write the name in the backend's certificate"
            )


def _clientCertificatesArePairs(draft: Draft) -> Iterator[str]:
    for name, destination in draft.destinations.items():
        pair = {
            "tls_client_cert": destination.tls_client_cert,
            "tls_client_key": destination.tls_client_key,
        }
        absent = [key for key, path in pair.items() if path is None]
        if len(absent) == 1:
            (present,) = pair.keys() - set(absent)
            path = keyPath(("destination", name, absent[0]))
            yield f"{path}: missing; {present} needs it (write both or neither)"


def _defaultServes(draft: Draft) -> Iterator[str]:
    if draft.routing is None:
        return
    default = draft.routing.default_destination
    if default not in draft.declared:
        yield _undeclared("routing.default_destination", default, draft)
    if draft.default is None:
        return
    for name, listener in draft.listeners.items():
        if listener.protocol in INTERACTIVE - draft.default.protocol.keys():
            yield (
                f'{keyPath(("listener", name, "protocol"))}: the default destination "{default}" '
                f"does not declare {listener.protocol}; add "
                f"[{_endpoint(default, listener.protocol)}]"
            )


def _passThroughServes(draft: Draft) -> Iterator[str]:
    if draft.routing is None:
        return
    key = "routing.smtp_passthrough_destination"
    name = draft.routing.smtp_passthrough_destination
    served = draft.served & PASS_THROUGH
    if name is None:
        if served:
            yield f"{key}: missing; a listener serves {' and '.join(sorted(served))}"
    elif name not in draft.declared:
        yield _undeclared(key, name, draft)
    elif served and name in draft.destinations:
        needed = {"smtp"} | served
        for protocol in sorted(needed - draft.destinations[name].protocol.keys()):
            yield (
                f'{key}: "{name}" does not declare {protocol}; add [{_endpoint(name, protocol)}]'
            )


def _routesLeadSomewhere(draft: Draft) -> Iterator[str]:
    for index, lead in draft.leads.items():
        for key, name in _targets(lead):
            path = keyPath(("http", "route", index, key))
            if name not in draft.declared:
                yield _undeclared(path, name, draft)
            elif "http" in draft.served and not _speaksHTTP(draft, name):
                yield f'{path}: "{name}" does not declare http; add [{_endpoint(name, "http")}]'


def _targets(lead: Lead) -> Iterator[tuple[str, str]]:
    if lead.destination is not None:
        yield "destination", lead.destination
    if lead.fallback is not None and lead.fallback != DEFAULT_FALLBACK:
        yield "fallback", lead.fallback


def _routesSayOneThing(draft: Draft) -> Iterator[str]:
    for index, lead in draft.leads.items():
        path = keyPath(("http", "route", index))
        written = lead.keys & {"destination", "extract"}
        # Of a route with unknown keys, one of them was to be what is missing.
        if len(written) == 2 or (not written and lead.keys <= {"match", "fallback"}):
            yield f"{path}: write either destination or extract"
        elif written == {"destination"} and "fallback" in lead.keys:
            yield f"{path}: fallback is of use with extract only; remove it"


def _httpListenersAreRouted(draft: Draft) -> Iterator[str]:
    if "http" not in draft.served:
        return
    if not draft.hasRoutes:
        yield "http.route: there is none, but a listener serves http; add [[http.route]]"
    extracting = any("extract" in lead.keys for lead in draft.leads.values())
    if extracting and draft.routing is not None and draft.default is not None:
        default = draft.routing.default_destination
        if "http" not in draft.default.protocol:
            yield (
                f'http.route: extract needs http on the default destination "{default}"; '
                f"add [{_endpoint(default, 'http')}]"
            )


def _sourceHasItsSection(draft: Draft) -> Iterator[str]:
    mapping = draft.mapping
    if mapping is None or mapping.kind is SourceKind.PLUGIN:
        return
    if getattr(mapping, mapping.kind) is None:
        yield f'mapping.{mapping.source}: missing; source = "{mapping.source}" needs this table'


def _statementsTakeTheirParameters(draft: Draft) -> Iterator[str]:
    sql = draft.mapping.sql if draft.mapping else None
    if sql is None:
        return
    statements = (("query", sql.query, 1), ("upsert_query", sql.upsert_query, 2))
    for key, statement, count in (*statements, ("delete_query", sql.delete_query, 1)):
        if statement is not None and not _takes(sql, statement, count):
            marks = ["$1", "$2"] if _isPostgreSQL(sql) else ["?", "?"]
            yield (
                f"mapping.sql.{key}: must have {count} bind parameter{'s' * (count > 1)}, "
                f"written {' and '.join(marks[:count])}"
            )


def _takes(sql: SQLStore, statement: str, count: int) -> bool:
    code = (_MYSQL_MUTE if sql.scheme == "mysql" else _MUTE).sub(" ", statement)
    if _isPostgreSQL(sql):
        return set(re.findall(r"\$[0-9]+", code)) == {f"${one + 1}" for one in range(count)}
    return code.count("?") == count


def _isPostgreSQL(sql: SQLStore) -> bool:
    return sql.scheme in ("postgres", "postgresql")


def _suitesAreLeft(draft: Draft) -> Iterator[str]:
    if draft.protocols is not None:
        try:
            _ = draft.protocols.suites
        except ValueError as error:
            yield f"tls.protocols.disable_cipher_suites: {error}"


def _oneCertificateIsDefault(draft: Draft) -> Iterator[str]:
    defaults = [name for name, one in draft.certificates.items() if one.default]
    for name in defaults[1:]:
        path = keyPath(("tls", "certificate", name, "default"))
        yield f'{path}: "{defaults[0]}" is the default already; choose one'


_RULES = (
    _listenersExist,
    _listenersTrust,
    _listenersHaveFittingTLS,
    _addressesDiffer,
    _destinationsKeepSecrets,
    _destinationsHaveFittingTLS,
    _destinationsHaveFittingForwarding,
    _destinationsCanBeVerified,
    _clientCertificatesArePairs,
    _defaultServes,
    _passThroughServes,
    _routesSayOneThing,
    _routesLeadSomewhere,
    _httpListenersAreRouted,
    _sourceHasItsSection,
    _statementsTakeTheirParameters,
    _suitesAreLeft,
    _oneCertificateIsDefault,
)


def _endpoint(destination: str, protocol: str) -> str:
    return keyPath(("destination", destination, "protocol", protocol))


def _undeclared(key: str, name: str, draft: Draft) -> str:
    known = ", ".join(sorted(draft.declared)) or "none"
    return f'{key}: destination "{name}" is not declared; declared are: {known}'


def _usesTLS(destination: Destination) -> bool:
    return any(one.tls is not TLSMode.PLAIN for one in destination.protocol.values())


def _speaksHTTP(draft: Draft, name: str) -> bool:
    """A broken destination gets the benefit of the doubt: it is complained of already."""
    destination = draft.destinations.get(name)
    return destination is None or "http" in destination.protocol
