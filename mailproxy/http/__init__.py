"""HTTP/1.1, request by request: each goes to the destination of its own account.

A *message* is a head and a body. h11 reads and writes both, on both legs; what it would take and
two programs could read in two ways is refused before (`heads`, `bodies`), and which of its events
are sound is decided behind it (`messages`). Nothing is passed on as it stood: heads and framing are
made anew (`forward`). A *leg* carries messages (`leg`, `server`, `upstream`). The *rules* say whose
request it is and where it goes (`rules`, `globs`). An *exchange* is one request and its answer
(`exchange`): its body comes from the client (`intake`) and goes to a backend (`delivery`), and what
the client hears is written by a *reply* (`reply`).
Exchanges follow each other on a client's connection (`connection`), whose waits share one timer
(`deadline`).
"""
