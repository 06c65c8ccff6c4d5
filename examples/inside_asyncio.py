"""The tutorial's programs inside an asyncio application, on a loop that is running already.

The programs are unchanged. Each alone is started by nurseryio.run(); an asyncio program just
awaits them. Meanwhile a task that asyncio started continues its work.
"""

import asyncio
import contextlib
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "tutorial"))

import blocking_call
import echo_client
import echo_server
import flow_control
import missing_await
import tasks_intro
import timeouts

import nurseryio
from nurseryio.instruments import Tracer


async def tick():
    """An ordinary asyncio task, which does not use nurseries."""
    while True:
        await asyncio.sleep(0.5)
        print("asyncio task: still at work")


async def tasks_with_trace():
    """An instrument can be added to a running loop, and sees all tasks of the loop."""
    tracer = Tracer(hooks=["task_spawned", "task_scheduled", "task_exited"])
    nurseryio.lowlevel.add_instrument(tracer)
    await tasks_intro.parent()
    nurseryio.lowlevel.remove_instrument(tracer)


async def serve_for(seconds, task_status):
    """The echo server, for a limited time."""
    serve = partial(nurseryio.serve_tcp, host="127.0.0.1", task_status=task_status)
    with nurseryio.move_on_after(seconds):
        await serve(echo_server.echo_server, 0)
    print("the echo server has ended")


async def echo_client_and_server():
    """The client calls sys.exit() when the server ends; this function catches SystemExit."""
    try:
        async with nurseryio.open_nursery() as nursery:
            [listener] = await nursery.start(serve_for, 1.5)
            await echo_client.parent(listener.socket.getsockname()[1])
    except SystemExit:
        print("the echo client has called sys.exit()")


PROGRAMS = [
    tasks_intro.parent,
    tasks_with_trace,
    echo_client_and_server,
    flow_control.main,
    timeouts.main,
    missing_await.main,
    blocking_call.main,
]


async def main():
    ticking = asyncio.create_task(tick())
    for program in PROGRAMS:
        print(f"--- {program.__module__}.{program.__name__}")
        await program()
    ticking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ticking
    print(f"--- tasks left: {len(asyncio.all_tasks()) - 1}")


if __name__ == "__main__":
    asyncio.run(main())
