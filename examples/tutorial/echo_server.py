"""A server that sends back all received data, with one task for each client.

    python echo_server.py [PORT]

Ctrl-C ends it. Start some clients while it runs: python echo_client.py [PORT]
"""

import sys
from itertools import count

import nurseryio

PORT = 12345

numbers = count()


async def echo_server(stream):
    number = next(numbers)
    print(f"echo_server {number}: a client has come")
    try:
        async for data in stream:
            print(f"echo_server {number}: received {len(data)} bytes, sending them back")
            await stream.send_all(data)
        print(f"echo_server {number}: the client has gone")
    except Exception as error:
        # An error of one client must not end the server, which serves the others. Cancellations
        # and Ctrl-C are not an Exception: they pass, and end the whole server.
        print(f"echo_server {number}: broken off: {error!r}")


async def main(port=PORT):
    print(f"main: waiting for clients on port {port}")
    await nurseryio.serve_tcp(echo_server, port)


if __name__ == "__main__":
    nurseryio.run(main, *map(int, sys.argv[1:2]))
