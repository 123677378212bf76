"""The management API: HTTPS, one bearer token, a table of calls.

A *call* is a method, a path and its query parameters, and says what to ask the control (`api`). The
*guard* decides whose request is heard at all (`guard`). An *answer* is a short text or JSON
(`answers`). The *site* bounds what a connection may cost (`site`).
"""

from mailproxy.management.api import ManagementAPI
from mailproxy.management.guard import Guard
from mailproxy.management.site import makeFactory, makeSite

__all__ = ["Guard", "ManagementAPI", "makeFactory", "makeSite"]
