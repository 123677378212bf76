"""Which classes serve each protocol that a listener can speak.

Knows names and classes; must not know how the classes work together.
"""

from collections.abc import Mapping

from mailproxy.http.connection import HTTPConnection
from mailproxy.http.server import HTTPServerFactory
from mailproxy.http.upstream import HTTPClientFactory
from mailproxy.passage import Passage
from mailproxy.protocols.imap import IMAPClientFactory, IMAPServerFactory
from mailproxy.protocols.managesieve import ManageSieveClientFactory, ManageSieveServerFactory
from mailproxy.protocols.passthrough import (
    LMTPClientFactory,
    PassThroughServerFactory,
    SMTPClientFactory,
)
from mailproxy.protocols.pop3 import POP3ClientFactory, POP3ServerFactory
from mailproxy.protocols.submission import SubmissionClientFactory, SubmissionServerFactory
from mailproxy.proxy import ProtocolClasses

__all__ = ["PROTOCOLS"]

PROTOCOLS: Mapping[str, ProtocolClasses] = {
    "imap": ProtocolClasses(IMAPServerFactory, IMAPClientFactory),
    "pop3": ProtocolClasses(POP3ServerFactory, POP3ClientFactory),
    "submission": ProtocolClasses(SubmissionServerFactory, SubmissionClientFactory),
    "managesieve": ProtocolClasses(ManageSieveServerFactory, ManageSieveClientFactory),
    "smtp": ProtocolClasses(PassThroughServerFactory, SMTPClientFactory, Passage),
    "lmtp": ProtocolClasses(PassThroughServerFactory, LMTPClientFactory, Passage),
    "http": ProtocolClasses(HTTPServerFactory, HTTPClientFactory, HTTPConnection),
}
