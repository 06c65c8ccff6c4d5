"""A server that loses no work when it is stopped.

Each line of a client is a job: a number of milliseconds. The server answers "done" after that time.
SIGTERM and Ctrl-C stop it in this order: it accepts no more connections, closes those that stay
idle, and finishes the jobs that it has begun, for at most ten seconds. The log, which is a service,
ends last. A second signal ends everything at once.

    python graceful_server.py [port]
"""

from __future__ import annotations

import sys
from functools import partial

import nurseryio

# Seconds: for the work that was begun, and for a request that is on its way.
GRACE_PERIOD = 10
LINGER = 1


async def write_log(lines: nurseryio.MemoryReceiveChannel[str]) -> None:
    async for line in lines:
        print(line, flush=True)


async def receive_line(stream: nurseryio.SocketStream, buffer: bytearray) -> bytes | None:
    """Receive a line; None at the end of the connection, or if the server is to stop."""
    while b"\n" not in buffer:
        data = b""
        with nurseryio.move_on_at_stop(delay=LINGER):
            data = await stream.receive_some()
        if not data:
            return None
        buffer += data
    line, _, rest = bytes(buffer).partition(b"\n")
    buffer[:] = rest
    return line


async def serve_client(
    log: nurseryio.MemorySendChannel[str], stream: nurseryio.SocketStream
) -> None:
    buffer = bytearray()
    done = 0
    try:
        while (line := await receive_line(stream, buffer)) is not None:
            await nurseryio.sleep(int(line) / 1000)
            await stream.send_all(b"done\n")
            done += 1
    except nurseryio.BrokenResourceError:
        pass  # the client has gone
    await log.send(f"jobs done: {done}")


async def main(port: int) -> None:
    log, lines = nurseryio.open_memory_channel[str](100)
    async with nurseryio.open_service_nursery(grace_period=1) as services:
        services.start_soon(write_log, lines)
        with nurseryio.stop_on_signals(grace_period=GRACE_PERIOD) as scope:
            handler = partial(serve_client, log)
            async with nurseryio.open_nursery() as nursery:
                listeners = await nursery.start(
                    partial(nurseryio.serve_tcp, handler, port, host="127.0.0.1")
                )
                await log.send(f"listening on port {listeners[0].socket.getsockname()[1]}")
        await log.send("cut short" if scope.cancelled_caught else "all jobs are finished")
        log.close()


if __name__ == "__main__":
    nurseryio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 0)
