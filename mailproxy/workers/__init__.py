"""All cores: one parent that serves no client, and worker processes that do nothing else.

The *parent* has bound the sockets, reads and checks the configuration, answers management and
hears signals. A *worker* is a process of its own with a proxy in it; parent and worker speak over
a pair of sockets (`wire`). Down goes what the parent has checked, with the files that it has read;
what comes up is plain JSON, for a worker reads what strangers send.

A *fleet* is all workers (`fleet`), each at its *seat*; the parent's end of one is a *handle*
(`handle`), the other end is in the worker itself (`worker`). Management asks a `FleetControl`
(`control`), which asks the workers and adds their answers up (`merge`). A changed configuration
comes into use in all workers or in none (`adopter`).
"""
