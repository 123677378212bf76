"""The conversations before a bridge, one module of words per protocol.

`base` fixes the order of both conversations once: ours with a client (`ProxyServer`), and ours with
a backend (`ProxyClient`). Each protocol supplies four small classes: the two conversations and the
factories that listen and connect.
"""
