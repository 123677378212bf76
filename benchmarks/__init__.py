"""What the proxy costs: CPU time and memory beside other proxies that do the same work, in one run.

The words: a *peer* is a proxy that is measured; a *line* is a way to the server, through a proxy
or straight; a *load* is work of one kind; a *run* is a load on one line; a *round* is every load on
every line in turn. What the runs come to is a *figure*, a row of a table; a *section* is a table.

`traffic` makes connections cheap, `work` has the loads, `meter` reads costs, `rounds` brings them
together; `peers` and `servers` are what is put up; `sections` says what is measured, `figures` and
`report` what came of it.
"""
