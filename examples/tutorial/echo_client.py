"""A client for the echo server: one task sends, and another one receives.

    python echo_client.py [PORT]

Start echo_server.py first. End the server, and watch how the client ends: its receiver calls
sys.exit(), the sender is cancelled, the connection is closed, and the exit code is 0.
"""

import sys

import nurseryio

PORT = 12345


async def sender(stream):
    print("sender: here")
    while True:
        data = b"concurrency is easier with fewer surprises"
        print(f"sender: sending {data!r}")
        await stream.send_all(data)
        await nurseryio.sleep(1)


async def receiver(stream):
    print("receiver: here")
    async for data in stream:
        print(f"receiver: received {data!r}")
    print("receiver: connection closed")
    sys.exit()


async def parent(port=PORT):
    print(f"parent: connecting to port {port}")
    stream = await nurseryio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        async with nurseryio.open_nursery() as nursery:
            print("parent: starting the sender")
            nursery.start_soon(sender, stream)
            print("parent: starting the receiver")
            nursery.start_soon(receiver, stream)


if __name__ == "__main__":
    nurseryio.run(parent, *map(int, sys.argv[1:2]))
