"""A mail proxy that moves a live mail system one account at a time.

Read the modules in the order in which a connection meets them: `listener`, `proxyheader`,
`transport` and `tls`, `stream`, `session`, `protocols`, `identity`, `routing` and `mapping`,
`dial`, `bridge`; for requests, `http` takes the place of the conversation.

The nouns: a *listener* is a socket that we accept on; a *destination* is a named backend, an
*endpoint* its port and TLS mode for one protocol; an *identifier* is the account name used for
routing, a *mapping* its destination; a session has two *legs*, the client's and the backend's;
the *bridge* is the two streams joined.
"""

__version__ = "0.1.0"
