"""`twistd -n mailproxy --demo`: everything that it takes to see one account move, on loopback.

`servers` holds the two small mail servers, `files` what the proxy reads (certificate, token,
mapping, configuration), `guide` what is printed; `stage` puts them together. The proxy itself is
then started from the written configuration, as from any other.
"""

from mailproxy.demo.stage import DemoSetup, prepare, prepareTemporary

__all__ = ["DemoSetup", "prepare", "prepareTemporary"]
