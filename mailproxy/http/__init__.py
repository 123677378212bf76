"""HTTP/1.1, request by request: each goes to the destination of its own account.

A *message* is a head and a body. A head is read strictly (`heads`), then understood as a request or
a response (`messages`); a body is what its *framing* says it is (`bodies`). Nothing is passed on as
it stood: heads and framing are written anew (`forward`). A *leg* carries messages (`leg`, `server`,
`upstream`). The *rules* say whose request it is and where it goes (`rules`, `globs`). An *exchange*
is one request and its answer (`exchange`): its body comes from the client (`intake`) and goes to a
backend (`delivery`). Exchanges follow each other on a client's connection (`connection`), whose
waits share one timer (`deadline`).
"""
