"""A Trio program: an echo server; its argument is the port."""

import sys
from itertools import count

import nurseryio as trio

PORT = int(sys.argv[1])
CONNECTIONS = count()


async def echo_server(server_stream):
    ident = next(CONNECTIONS)
    print(f"echo_server {ident}: has started")
    try:
        async for data in server_stream:
            print(f"echo_server {ident}: got {data!r}")
            await server_stream.send_all(data)
        print(f"echo_server {ident}: the connection is closed")
    except Exception as exc:
        print(f"echo_server {ident}: has crashed: {exc!r}")


async def main():
    await trio.serve_tcp(echo_server, PORT)


trio.run(main)
