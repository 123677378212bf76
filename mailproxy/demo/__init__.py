"""`twistd -n mailproxy --demo`: everything that it takes to see one account move, on loopback.

`imap` and `http` are what the two servers speak, `mail` lies on them, `files` is what the proxy
reads (certificate, token, mapping, configuration), `guide` what is printed; `stage` puts all of it
together. The proxy itself is then started from the written configuration, as from any other.
"""

from mailproxy.demo.stage import DemoSetup, prepare, prepareTemporary

__all__ = ["DemoSetup", "prepare", "prepareTemporary"]
