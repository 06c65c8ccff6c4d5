"""One server file per way of writing it, the same three services in each.

Rules of the folder. A file has `async def serve(kind, ssl_context, announce)`, which listens on a
free port of 127.0.0.1, calls `announce(port)` and serves until it is cancelled. The kinds are:

- `echo`: send back what comes, until end of file.
- `sink`: read until end of file, then answer with the count as eight bytes and close.
- `source`: read a count of eight bytes, send that many bytes in pieces of `PIECE`, close.
- `caller`: read a port and a count, eight bytes each, connect so many times to that port, closing
  each connection, then answer with the count as eight bytes and close.

Back-pressure is honoured by every one of them.
"""

PIECE = bytes(65536)
"""What a source sends at a time, and the most that a stream server reads at a time."""
