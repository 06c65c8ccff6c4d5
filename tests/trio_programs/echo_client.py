"""A Trio program: an echo client with a sender and a receiver; its argument is the port."""

import sys

import nurseryio as trio

PORT = int(sys.argv[1])


async def sender(client_stream):
    print("sender: has started")
    while True:
        data = b"be kind to your event loop"
        print(f"sender: sends {data!r}")
        await client_stream.send_all(data)
        await trio.sleep(1)


async def receiver(client_stream):
    print("receiver: has started")
    async for data in client_stream:
        print(f"receiver: got {data!r}")
    print("receiver: the connection is closed")
    sys.exit()


async def parent():
    print(f"parent: connects to 127.0.0.1:{PORT}")
    client_stream = await trio.open_tcp_stream("127.0.0.1", PORT)
    async with client_stream:
        async with trio.open_nursery() as nursery:
            print("parent: starts the sender")
            nursery.start_soon(sender, client_stream)

            print("parent: starts the receiver")
            nursery.start_soon(receiver, client_stream)


trio.run(parent)
