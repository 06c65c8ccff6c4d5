"""The network rows: one server process for each library, one raw client for all.

What is measured is the server's time per operation (CPU time of its process) and, beside it, what
the client saw (operations and megabytes per second by the wall clock). The client is blocking
sockets and nothing else, the same code for every server. The base of the ratios is the raw
`asyncio.Protocol` on the same loop.
"""
