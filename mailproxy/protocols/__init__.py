"""The conversations before a bridge, one module of words per protocol.

`server` and `client` fix the order of both conversations once: ours with a client, and ours with a
backend; `base` has what they exchange. Each protocol supplies four small classes: the two
conversations and the factories that listen and connect.
"""
