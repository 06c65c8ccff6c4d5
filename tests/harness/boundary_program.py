"""A small program that uses each part of the engine once. It can run without one private name.

``python boundary_program.py NAME MODULES COMPILED`` takes away a name (see ``lost_names``), and
then does each step. It prints JSON: the steps that were done, the error that ended the program, and
how many threads of the default executor were found, and how many of these idle.
"""

# Imports are inside functions: the name must be lost before asyncio or nurseryio is imported.

from __future__ import annotations

import faulthandler
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

PATIENCE = 60  # seconds, for the whole program


def import_nurseryio() -> None:
    import nurseryio

    assert nurseryio.run


def nursery_in_an_app() -> None:
    import asyncio

    import nurseryio

    made = []

    def factory(loop: Any, coro: Any, **options: Any) -> Any:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **options)

    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(asyncio.sleep, 0)
            nursery.start_soon(asyncio.sleep, 0, name="named")
        asyncio.get_running_loop().set_task_factory(factory)
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(asyncio.sleep, 0)
        assert len(made) == 1

    asyncio.run(main())


def scopes_and_foreign_awaits() -> None:
    import asyncio

    import nurseryio

    async def main() -> None:
        with nurseryio.move_on_after(0.01) as scope:
            await asyncio.get_running_loop().create_future()
        assert scope.cancelled_caught
        with nurseryio.CancelScope() as scope:
            scope.cancel()
            await asyncio.gather(asyncio.sleep(9), asyncio.Event().wait())
        assert scope.cancelled_caught
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(asyncio.sleep, 9)
            nursery.start_soon(nurseryio.sleep_forever)
            await asyncio.sleep(0)
            nursery.cancel_scope.cancel()
        task = asyncio.ensure_future(nurseryio.sleep_forever())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())
    nurseryio.run(main)


def virtual_time() -> None:
    import nurseryio
    from nurseryio.testing import DeadlockError, MockClock, wait_all_tasks_blocked

    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 1000)
            await wait_all_tasks_blocked()
            assert nurseryio.current_time() < 1000
        await nurseryio.sleep(1000)

    nurseryio.run(main, clock=MockClock(autojump_threshold=0))
    try:
        nurseryio.run(nurseryio.sleep_forever, clock=MockClock(autojump_threshold=0))
    except DeadlockError:
        return
    raise AssertionError("no deadlock was reported")


def channels_and_streams() -> None:
    import nurseryio

    async def echo(stream: Any) -> None:
        async for data in stream:
            await stream.send_all(data)

    async def main() -> None:
        send, receive = nurseryio.open_memory_channel[int](0)
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(send.send, 1)
            assert await receive.receive() == 1
        async with nurseryio.open_nursery() as nursery:
            serve = nurseryio.serve_tcp
            listeners = await nursery.start(lambda **kw: serve(echo, 0, host="127.0.0.1", **kw))
            stream = await nurseryio.testing.open_stream_to_socket_listener(listeners[0])
            async with stream:
                await stream.send_all(b"data")
                assert await stream.receive_some() == b"data"
            nursery.cancel_scope.cancel()

    nurseryio.run(main)


def instruments() -> None:
    import nurseryio

    class Counting(nurseryio.abc.Instrument):
        steps = 0

        def before_task_step(self, task: Any) -> None:
            self.steps += 1

    counting = Counting()

    async def main() -> None:
        await nurseryio.lowlevel.checkpoint()

    nurseryio.run(main, instruments=[counting])
    assert counting.steps


def fork() -> None:
    import nurseryio

    async def main() -> int:
        with warnings.catch_warnings():
            # Python warns of the thread of faulthandler, which the child does not need.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            os._exit(7)
        await nurseryio.sleep(0.01)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert nurseryio.run(main) == 7


def signals() -> None:
    import asyncio
    import signal

    import nurseryio

    async def main(number: int, app: bool) -> None:
        async with nurseryio.open_nursery() as nursery:
            if app:
                got = asyncio.Event()
                asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, got.set)
            with nurseryio.open_signal_receiver(signal.SIGUSR2) as receiver:
                nursery.start_soon(nurseryio.to_thread.run_sync, os.kill, os.getpid(), number)
                if number == signal.SIGUSR1:
                    await got.wait()
                elif number == signal.SIGUSR2:
                    assert await receiver.__anext__() == number
                else:
                    await nurseryio.sleep_forever()

    asyncio.run(main(signal.SIGUSR1, True))
    nurseryio.run(main, signal.SIGUSR2, True)
    try:
        nurseryio.run(main, signal.SIGINT, False)
    except KeyboardInterrupt:
        return
    raise AssertionError("no KeyboardInterrupt")


def executor() -> None:
    import asyncio

    import nurseryio
    from nurseryio._asyncio import loop_parts
    from nurseryio.testing import MockClock

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, int)
        await nurseryio.sleep(1000)
        threads = loop_parts.executor_threads(loop), loop_parts.idle_executor_threads(loop)
        report["threads"], report["idle"] = map(len, threads)

    nurseryio.run(main, clock=MockClock(autojump_threshold=0))


report: dict[str, Any] = {"done": [], "error": None}

STEPS = [
    import_nurseryio,
    nursery_in_an_app,
    fork,
    scopes_and_foreign_awaits,
    virtual_time,
    channels_and_streams,
    instruments,
    signals,
    executor,
]


def main() -> None:
    from harness import lost_names

    name, modules, compiled = sys.argv[1:]
    lost_names.lose(name, tuple(filter(None, modules.split(","))), compiled == "compiled")
    done: list[str] = report["done"]
    for step in STEPS:
        try:
            step()
        except BaseException as error:
            report["error"] = [type(error).__name__, str(error)]
            import traceback

            traceback.print_exc()
            break
        done.append(step.__name__)
    print(json.dumps(report))


if __name__ == "__main__":
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (1, 2)]
    main()
