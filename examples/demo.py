"""An ordinary asyncio application with an echo server and its clients in nurseries.

    make demo, or: python examples/demo.py

The application is started by asyncio.run() and has tasks of its own, one made with
asyncio.create_task() and three in an asyncio.TaskGroup. Beside them it starts an echo server in a
nursery and runs four clients against it. Two do their work, one is cancelled by a timeout, one
by a cancel scope. Then everything is shut down, and the application shows that nothing is left.

The same happens on asyncio's own event loop and on uvloop.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import socket
import time
from functools import partial

import nurseryio

began = time.perf_counter()


def tell(line):
    print(f"{time.perf_counter() - began:6.2f} s  {line}")


# -- the asyncio side: code without nurseries -----------------------------------


async def heartbeat(beats):
    while True:
        beats.append(time.perf_counter())
        await asyncio.sleep(0.05)


async def job(number):
    await asyncio.sleep(0.2 * number)
    tell(f"asyncio job {number}: done")


async def jobs():
    if not hasattr(asyncio, "TaskGroup"):
        tell("asyncio jobs: this Python has no asyncio.TaskGroup, so asyncio.gather runs them")
        await asyncio.gather(*map(job, (1, 2, 3)))
        return
    async with asyncio.TaskGroup() as group:
        for number in (1, 2, 3):
            group.create_task(job(number))
    tell("asyncio jobs: the TaskGroup is complete")


# -- the server -----------------------------------------------------------------


class EchoServer:
    """Sends back all received data, in a task for each client."""

    def __init__(self):
        self.ends = []

    async def handle(self, stream):
        end = "cancelled"
        try:
            async for data in stream:
                await stream.send_all(data)
            end = "left by its client"
        finally:
            self.ends.append(end)

    async def serve(self, task_status):
        await nurseryio.serve_tcp(self.handle, 0, host="127.0.0.1", task_status=task_status)


# -- the clients ----------------------------------------------------------------


async def talk(name, port, messages):
    """Send some messages, one at a time, and receive each one back."""
    async with await nurseryio.open_tcp_stream("127.0.0.1", port) as stream:
        for number in range(messages):
            message = f"{name}, message {number}".encode()
            await stream.send_all(message)
            answer = b""
            while len(answer) < len(message):
                answer += await stream.receive_some()
            assert answer == message
            await nurseryio.sleep(0.1)
    tell(f"{name}: {messages} messages sent and received")


async def impatient(name, port):
    with nurseryio.move_on_after(0.35) as scope:
        await talk(name, port, messages=1000)
    tell(f"{name}: stopped by its timeout: {scope.cancelled_caught}")


async def stoppable(name, port, scope):
    with scope:
        await talk(name, port, messages=1000)
    tell(f"{name}: stopped by its scope: {scope.cancelled_caught}")


# -- the application ------------------------------------------------------------


async def main():
    beats = []
    beating = asyncio.create_task(heartbeat(beats))
    server = EchoServer()

    async with nurseryio.open_nursery() as background:
        [listener] = await background.start(server.serve)
        port = listener.socket.getsockname()[1]
        tell("server: listening")

        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(jobs)
            nursery.start_soon(partial(talk, "client 1", port, messages=3))
            nursery.start_soon(partial(talk, "client 2", port, messages=5))
            nursery.start_soon(impatient, "client 3", port)
            scope = nurseryio.CancelScope()
            nursery.start_soon(stoppable, "client 4", port, scope)
            # Any code may cancel a scope, for example an asyncio callback.
            asyncio.get_running_loop().call_later(0.45, scope.cancel, "no longer needed")
        tell("all clients and jobs have ended; one more client, and the server shuts down")

        async with await nurseryio.open_tcp_stream("127.0.0.1", port) as late:
            await late.send_all(b"hello")
            await late.receive_some()
            background.cancel_scope.cancel("shutting down")

    tell("server: gone; its connections were " + ", ".join(server.ends))
    # The server does not listen any more, so its port is free at once.
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
    tell("server: its port is free")

    beating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await beating
    longest = max(after - before for before, after in itertools.pairwise(beats))
    tell(f"asyncio heartbeat: {len(beats)} beats, at most {longest:.2f} s between two")
    tell(f"tasks left: {len(asyncio.all_tasks()) - 1}")


if __name__ == "__main__":
    print("On asyncio's own event loop")
    asyncio.run(main())
    if importlib.util.find_spec("uvloop"):
        import uvloop

        print("On uvloop")
        began = time.perf_counter()
        uvloop.run(main())
    else:
        print("uvloop is not installed, so that was all: python -m pip install uvloop")
