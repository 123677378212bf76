"""Real servers and real clients over loopback sockets.

`process` runs any server as a child; `dovecot` and `proxy` are such servers; `wire` and `clients`
talk to them; `certificates`, `tokens` and `messages` make what they need. `packages.txt` lists the
Debian packages: a test whose program is missing is skipped and says which package has it.
"""
