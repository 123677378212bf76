"""The proxies that are measured: mailproxy, and what Debian has that does the same work.

`base` says what they have in common. Each stands in front of one server, takes TLS from its clients
or not, and has one core where it can be told so.
"""
