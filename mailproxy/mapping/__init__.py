"""Where an account's destination is looked up: the stores, and the cache in front of them.

A *source* is a store that answers for one identifier at a time (`interfaces`): a file, a Redis
database or an SQL database. The *cache* asks each question once and remembers the answer for a
while. Identifiers come here normalized; what an absent mapping means is decided by routing.
"""
