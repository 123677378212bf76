"""TLS on both legs: who we are to a client, and who a backend is to us.

A *context* holds what many connections share: certificate, versions, suites, groups, trust. It is
built once, at start and at each reload. A *creator* hands Twisted one connection per transport:
`ServerTLS` picks a context by the client's server name; `BackendTLS` is one destination's, with its
own rule for what the certificate must be and its own session to resume.
"""

from mailproxy.tls.backend import BackendOptions, BackendTLS
from mailproxy.tls.failures import CertificateRefused, describe
from mailproxy.tls.server import ServerTLS

__all__ = ["BackendOptions", "BackendTLS", "CertificateRefused", "ServerTLS", "describe"]
