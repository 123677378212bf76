"""The accounts of the integration tests, and strangers' addresses from documentation ranges."""

import attrs

from tests.integration.dovecot import Account

ALICE = Account("alice@example.org", b"wonderland")
HELPDESK = Account("helpdesk", b"opens all doors", master=True)

ODD = (
    Account("odd1@example.org", b'with space " quote \\ backslash \\" {5}'),
    Account("odd2@example.org", "pässwörd ☃:colon".encode()),
    Account("odd3@example.org", b"latin-1 \xe4\xf6\xff"),
    Account("odd4@example.org", b" "),
    Account("odd5@example.org", b"percent % dollar $ tilde ~"),
)
"""Passwords that a careless proxy spoils: quoting, UTF-8, other 8-bit bytes, hardly anything."""

STRANGER = ("192.0.2.7", 40007)
"""A client's address and port, to be named in a PROXY header."""

VIP = ("198.51.100.1", 993)
"""The address that such a client connected to."""


def at(name: str, account: Account = ALICE) -> Account:
    """The account's namesake in the domain of the destination `name`: there its tests keep it."""
    local, _, _ = account.name.partition("@")
    return attrs.evolve(account, name=f"{local}@{name}.example")
