"""The reason for two tasks in the echo client: with one, client and server wait for each other.

If a client sends everything before it receives anything, it gets stuck as soon as the message is
larger than the buffers between the two sides. Here that happens on purpose, and a timeout ends it.
A second client receives while it sends, and gets the whole message back.
"""

from functools import partial

import nurseryio

SIZE = 10_000_000
PATIENCE = 1.0


async def echo(stream):
    try:
        async for data in stream:
            await stream.send_all(data)
    except nurseryio.BrokenResourceError:
        print("echo: the client has gone in the middle of it all")


async def receive(stream, size):
    left = size
    while left:
        data = await stream.receive_some(left)
        if not data:
            raise RuntimeError("the server has gone")
        left -= len(data)


async def step_runner(port):
    """Sends all, then receives all."""
    stream = await nurseryio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        print(f"one task: sending {SIZE} bytes, and then receiving")
        with nurseryio.move_on_after(PATIENCE) as patience:
            await stream.send_all(bytes(SIZE))
            print("one task: everything is sent")
            await receive(stream, SIZE)
            print("one task: everything has come back")
        if patience.cancelled_caught:
            print("one task: deadlock, still sending when the time was up")


async def two_tasks(port):
    """Receives while it sends."""
    stream = await nurseryio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        print(f"two tasks: sending {SIZE} bytes, and receiving meanwhile")
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(SIZE))
            nursery.start_soon(receive, stream, SIZE)
        print("two tasks: everything has come back")


async def main():
    async with nurseryio.open_nursery() as nursery:
        # start() returns when the server is listening; with port 0 the system chooses a port.
        [listener] = await nursery.start(partial(nurseryio.serve_tcp, echo, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        await step_runner(port)
        await two_tasks(port)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    nurseryio.run(main)
