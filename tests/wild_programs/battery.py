"""The battery: the checks that hold in every program, whatever tool is installed around it.

The programs beside this file are run as ``python with_TOOL.py KIND HOST [--first] [STEP...]``. Each
installs one tool and runs the steps below, then those of its own. Each step runs on a fresh loop,
under the kind of loop and the host that the command line names (see ``harness/matrix.py``). A line
is printed for each step. The exit code is 0 if all steps passed.

With ``--first``, the tool is installed before nurseryio is imported, and for good. Without it, the
tool is installed and uninstalled inside each step, on a loop that runs already.

A step that takes longer than ``LIMIT`` ends the program: the tasks and the stack are printed.
"""

from __future__ import annotations

import asyncio
import contextvars
import faulthandler
import functools
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from harness import matrix

import nurseryio
from nurseryio import from_thread, open_nursery, to_thread
from nurseryio.lowlevel import checkpoint, current_task

# Seconds that a step may take; the longest takes one.
LIMIT = 10

Step = Callable[["Tool"], Awaitable[None]]


class Tool:
    """The facts about a tool that the battery needs. Subclasses say how it is installed.

    Attributes:
        loop_errors: what the loops' exception handlers and destructors reported in this step.
        own_steps: steps for this tool alone.
        names_tasks: whether the tool may name a task after its coroutine, whatever name it was
            to have.
    """

    own_steps: tuple[Step, ...] = ()
    names_tasks: bool = False

    def __init__(self) -> None:
        self.loop_errors: list[str] = []

    @asynccontextmanager
    async def installed(self) -> AsyncIterator[None]:
        """The tool is installed on the running loop in the body, and uninstalled afterwards."""
        yield

    def coroutine_name(self, task: asyncio.Task[Any]) -> str:
        """The name under which the tool shows what a task runs."""
        return str(getattr(task.get_coro(), "__qualname__", None))

    def task_name(self, task: asyncio.Task[Any]) -> str:
        """The task's name, without what the tool adds to it."""
        return task.get_name()

    def check_uninstalled(self) -> None:
        """Called in a child that was started after the tool was uninstalled."""
        assert asyncio.get_running_loop().get_task_factory() is None
        assert asyncio_task().__class__.__name__ == "Task"


# -- helpers --------------------------------------------------------------------


def asyncio_task() -> asyncio.Task[Any]:
    """The running asyncio task."""
    task = asyncio.current_task()
    assert task is not None
    return task


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group and in groups in it; a bare error alone."""
    inner = getattr(error, "exceptions", None)
    return [error] if inner is None else [leaf for e in inner for leaf in leaves(e)]


@contextmanager
def raises_once(expected: BaseException) -> Iterator[None]:
    """The body raises a group, and all that it holds is this very error, once."""
    try:
        yield
    except BaseException as error:
        assert hasattr(error, "exceptions"), f"no group, but {error!r}"
        found = leaves(error)
        assert len(found) == 1 and found[0] is expected, f"{found!r}, not once {expected!r}"
    else:
        raise AssertionError(f"{expected!r} did not come out")


@contextmanager
def in_time(most: float, cpu_share: float = 0.3) -> Iterator[None]:
    """The body may take this many seconds, and this share of one core."""
    began, used = time.monotonic(), time.process_time()
    yield
    took, used = time.monotonic() - began, time.process_time() - used
    assert took < most, f"took {took:.2f} s, not less than {most} s"
    assert used < max(cpu_share * took, 0.1), f"used {used:.2f} s of CPU time in {took:.2f} s"


# -- the steps ------------------------------------------------------------------

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


async def each_child_runs_once(tool: Tool) -> None:
    """Named and unnamed, functions and other callables, in a copy of the spawner's context."""
    log: list[tuple[str, str]] = []

    async def child(tag: str) -> None:
        log.append((tag, variable.get()))
        variable.set(tag)
        await asyncio.sleep(0)
        await checkpoint()
        log.append((tag, variable.get()))

    class Callable_:
        async def __call__(self) -> None:
            await child("callable")

    async with tool.installed():
        variable.set("spawner")
        async with open_nursery() as nursery:
            nursery.start_soon(child, "unnamed")
            nursery.start_soon(child, "named", name="a name")
            nursery.start_soon(child, "named by function", name=child)
            nursery.start_soon(functools.partial(child, "partial"))
            nursery.start_soon(Callable_())
            assert log == [], "start_soon() ran the child"
            assert len(nursery.child_tasks) == 5
        assert nursery.child_tasks == frozenset()
        tags = ["unnamed", "named", "named by function", "partial", "callable"]
        expected = [(tag, "spawner") for tag in tags] + [(tag, tag) for tag in tags]
        assert sorted(log) == sorted(expected), log
        assert variable.get() == "spawner"


async def names_are_the_childs(tool: Tool) -> None:
    """The asyncio task, the tool and the library call a child by its function's name."""
    seen: dict[str, tuple[str, str, str]] = {}

    async def some_child(tag: str) -> None:
        for moment in ("first step", "later"):
            task = asyncio_task()
            seen[f"{tag}, {moment}"] = (
                tool.coroutine_name(task),
                tool.task_name(task),
                current_task().name,
            )
            assert "_run_child" not in repr(task), repr(task)
            assert current_task().asyncio_task is task
            assert current_task().coro.__name__ == "some_child"
            await checkpoint()

    def check(tag: str, name: str | None, trio_name: str | None) -> None:
        for moment in ("first step", "later"):
            shown = seen[f"{tag}, {moment}"]
            assert shown[0] == some_child.__qualname__, (tag, moment, shown)
            assert shown[1] != "None", (tag, moment, shown)
            given = tool.names_tasks and shown[1] == some_child.__qualname__
            assert name is None or given or shown[1] == name, (tag, moment, shown)
            assert trio_name is None or shown[2].endswith(trio_name), (tag, moment, shown)

    async with tool.installed():
        async with open_nursery() as nursery:
            nursery.start_soon(some_child, "unnamed")
            nursery.start_soon(some_child, "named", name="a name")
            nursery.start_soon(functools.partial(some_child, "partial"))
        check("unnamed", some_child.__qualname__, some_child.__qualname__)
        check("named", "a name", "a name")
        check("partial", None, None)


async def start_works(tool: Tool) -> None:
    """start(): a value, and errors before, after and without started()."""
    log: list[str] = []
    early, late = KeyError("before started()"), KeyError("after started()")

    async def service(how: str, *, task_status: Any = nurseryio.TASK_STATUS_IGNORED) -> None:
        log.append(f"{how} begins")
        await checkpoint()
        if how == "early":
            raise early
        if how != "mute":
            name = tool.coroutine_name(asyncio_task())
            assert name == service.__qualname__, f"before started(): {name}"
            task_status.started(how)
            name = tool.coroutine_name(asyncio_task())
            assert name == service.__qualname__, f"after started(): {name}"
            await checkpoint()
        if how == "late":
            raise late
        log.append(f"{how} ends")

    async with tool.installed():
        async with open_nursery() as nursery:
            assert await nursery.start(service, "good") == "good"
            assert await nursery.start(service, "named", name="a name") == "named"
            try:
                await nursery.start(service, "early")
            except KeyError as error:
                assert error is early
            try:
                await nursery.start(service, "mute")
            except RuntimeError as error:
                assert "without calling" in str(error)
            with nurseryio.move_on_after(0.05) as scope:
                await nursery.start(sleeps_before_started)
            assert scope.cancelled_caught
        with raises_once(late):
            async with open_nursery() as nursery:
                await nursery.start(service, "late")
                await nurseryio.sleep_forever()
    expected = [f"{how} begins" for how in ("good", "named", "early", "mute", "late")]
    expected += [f"{how} ends" for how in ("good", "named", "mute")]
    assert sorted(log) == sorted(expected), log


async def sleeps_before_started(*, task_status: Any) -> None:
    await nurseryio.sleep_forever()


async def an_error_comes_out_once(tool: Tool) -> None:
    """In a group of one, after the siblings were cancelled; named, unnamed, at once and later."""
    async with tool.installed():
        for name in (None, "a name"):
            for wait in (0, 2):
                error = KeyError(f"{name} after {wait} steps")
                log: list[str] = []

                async def sibling(log: list[str] = log) -> None:
                    try:
                        await nurseryio.sleep_forever()
                    finally:
                        log.append("sibling ended")

                async def failing(error: BaseException = error, wait: int = wait) -> None:
                    for _ in range(wait):
                        await checkpoint()
                    raise error

                with raises_once(error), in_time(2):
                    async with open_nursery() as nursery:
                        nursery.start_soon(sibling)
                        nursery.start_soon(failing, name=name)
                        nursery.start_soon(sibling)
                assert log == ["sibling ended"] * 2, log


async def cancel_ends_children(tool: Tool) -> None:
    """A deadline ends children in all kinds of waits, also those that clean up, without a spin."""
    began, ended = [], []

    async def cleaning() -> None:
        with nurseryio.CancelScope(shield=True):
            await nurseryio.sleep(0.3)

    async def child(wait: Callable[[], Awaitable[object]]) -> None:
        began.append(wait)
        try:
            await wait()
        except BaseException as error:
            assert isinstance(error, asyncio.CancelledError), error
            raise
        finally:
            await cleaning()
            ended.append(wait)

    async def nested() -> None:
        async with open_nursery() as inner:
            inner.start_soon(child, nurseryio.sleep_forever)

    async with tool.installed():
        loop = asyncio.get_running_loop()
        waits: list[Callable[[], Awaitable[object]]] = [
            nurseryio.sleep_forever,
            nurseryio.Event().wait,
            asyncio.Event().wait,
            functools.partial(asyncio.sleep, 3600),
            loop.create_future,
        ] * 4
        with in_time(3), nurseryio.move_on_after(0.1) as scope:
            async with open_nursery() as nursery:
                for number, wait in enumerate(waits):
                    nursery.start_soon(child, wait, name="a name" if number % 2 else None)
                nursery.start_soon(nested)
        assert scope.cancelled_caught
        assert len(began) == len(ended) == len(waits) + 1, (len(began), len(ended))


async def cancel_before_the_first_step(tool: Tool) -> None:
    """Children run to their first checkpoint even if the nursery is cancelled already."""
    log = []

    async def child(number: int) -> None:
        log.append(number)
        await checkpoint()
        log.append(-1)

    async with tool.installed():
        for when in ("after", "before"):
            with in_time(2):
                async with open_nursery() as nursery:
                    if when == "before":
                        nursery.cancel_scope.cancel()
                    nursery.start_soon(child, 1)
                    nursery.start_soon(child, 2, name="a name")
                    nursery.cancel_scope.cancel()
            assert sorted(log) == [1, 2], (when, log)
            log.clear()


async def a_native_cancel_ends_one_child(tool: Tool) -> None:
    """task.cancel() before the first step and later: that child ends, and nothing else."""
    log = []

    async def victim() -> None:
        log.append("victim")
        await nurseryio.sleep_forever()

    async def sibling() -> None:
        for _ in range(5):
            await checkpoint()
        log.append("sibling")

    async with tool.installed():
        for steps in (0, 3):
            with in_time(2):
                async with open_nursery() as nursery:
                    nursery.start_soon(victim)
                    (task,) = nursery.child_tasks
                    nursery.start_soon(sibling)
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    task.asyncio_task.cancel()
            assert log == (["victim", "sibling"] if steps else ["sibling"]), (steps, log)
            log.clear()


async def children_come_from_threads_and_callbacks(tool: Tool) -> None:
    """start_soon() called where no task runs, by a thread and by a callback of the loop."""
    log = []

    async def child(tag: str) -> None:
        await checkpoint()
        log.append(tag)

    async def in_the_loop() -> None:
        await checkpoint()
        log.append("run by a thread")

    async with tool.installed():
        async with open_nursery() as nursery:

            def thread() -> None:
                from_thread.run_sync(nursery.start_soon, child, "from a thread")
                from_thread.run(in_the_loop)

            asyncio.get_running_loop().call_soon(nursery.start_soon, child, "from a callback")
            await to_thread.run_sync(thread)
        assert sorted(log) == ["from a callback", "from a thread", "run by a thread"], log


async def tasks_of_asyncio_use_nurseries(tool: Tool) -> None:
    """Tasks that asyncio makes open nurseries, with timeouts of asyncio around them."""
    log = []
    error = KeyError("from a child of a task of asyncio")

    async def child(tag: str) -> None:
        await checkpoint()
        log.append(tag)

    async def opens(tag: str) -> str:
        async with open_nursery() as nursery:
            nursery.start_soon(child, tag)
        return tag

    async def sleeps() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep_forever)

    async def fails() -> None:
        raise error

    async def opens_and_fails() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(fails)

    async def gathers() -> None:
        assert await asyncio.gather(opens("gather"), opens("gather")) == ["gather"] * 2

    async with tool.installed():
        task = asyncio.create_task(opens("create_task"))
        assert await task == "create_task"
        async with open_nursery() as nursery:
            nursery.start_soon(gathers)
        with in_time(2):
            try:
                await asyncio.wait_for(sleeps(), 0.1)
            except asyncio.TimeoutError:
                log.append("timeout")
        with raises_once(error):
            await asyncio.create_task(opens_and_fails())
        if sys.version_info >= (3, 11):
            async with asyncio.TaskGroup() as group:
                group.create_task(opens("TaskGroup"))
            with raises_once(error):
                async with asyncio.TaskGroup() as group:
                    group.create_task(opens_and_fails())
                    group.create_task(sleeps())
            log.remove("TaskGroup")
    assert log == ["create_task", "gather", "gather", "timeout"], log


async def many_children_hand_over(tool: Tool) -> None:
    """Children wake each other through a channel and a lock."""
    send, receive = nurseryio.open_memory_channel[int](0)
    lock = nurseryio.Lock()
    received = []

    async def sender(number: int) -> None:
        async with lock:
            await send.send(number)

    async def receiver() -> None:
        async with receive:
            async for number in receive:
                received.append(number)

    async with tool.installed():
        async with open_nursery() as nursery:
            nursery.start_soon(receiver)
            async with send, open_nursery() as senders:
                for number in range(200):
                    senders.start_soon(sender, number)
        assert sorted(received) == list(range(200)), received


async def uninstalling_restores(tool: Tool) -> None:
    """Children from before the tool, from within and from after it all end as they should."""
    log = []
    error = KeyError("of a child that outlives the tool")

    async def child(tag: str) -> None:
        log.append(f"{tag} begins")
        try:
            await nurseryio.sleep_forever()
        finally:
            log.append(f"{tag} ends")

    async def later() -> None:
        tool.check_uninstalled()
        assert asyncio_task().get_coro().__qualname__ == later.__qualname__  # type: ignore[union-attr]
        log.append("later")

    async def fails(event: nurseryio.Event) -> None:
        await event.wait()
        raise error

    event = nurseryio.Event()
    with raises_once(error), in_time(2):
        async with open_nursery() as nursery:
            nursery.start_soon(child, "before")
            async with tool.installed():
                nursery.start_soon(child, "within")
                nursery.start_soon(fails, event)
                await asyncio.sleep(0.01)
            async with open_nursery() as after:
                after.start_soon(later)
            event.set()
    expected = ["before begins", "before ends", "later", "within begins", "within ends"]
    assert sorted(log) == expected, log


STEPS: tuple[Step, ...] = (
    each_child_runs_once,
    names_are_the_childs,
    start_works,
    an_error_comes_out_once,
    cancel_ends_children,
    cancel_before_the_first_step,
    a_native_cancel_ends_one_child,
    children_come_from_threads_and_callbacks,
    tasks_of_asyncio_use_nurseries,
    many_children_hand_over,
    uninstalling_restores,
)


# -- running them ---------------------------------------------------------------


def run_battery(tool: Tool) -> None:
    """Run the steps as the command line says, and exit."""
    kind, host, *asked = [arg for arg in sys.argv[1:] if not arg.startswith("--")]
    steps = {step.__name__: step for step in (*STEPS, *tool.own_steps)}
    sys.unraisablehook = lambda report: tool.loop_errors.append(
        f"unraisable: {report.exc_value!r} in {report.object!r}"
    )
    signal.signal(signal.SIGALRM, give_up)
    failed = False
    for name in asked or steps:
        print(f"{name}: ", end="", flush=True)
        signal.alarm(LIMIT)
        faulthandler.dump_traceback_later(LIMIT + 5, exit=True)
        try:
            run_step(tool, steps[name], matrix.Case(kind, host))
        except BaseException:
            failed = True
            print("FAILED", flush=True)
            traceback.print_exc()
        else:
            print("ok", flush=True)
    signal.alarm(0)
    faulthandler.cancel_dump_traceback_later()
    sys.stderr.flush()
    sys.exit(failed)


def run_step(tool: Tool, step: Step, case: matrix.Case) -> None:
    """Run a step on a fresh loop; nothing may be reported behind its back."""

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: tool.loop_errors.append(repr(context))
        )
        await step(tool)

    tool.loop_errors.clear()
    matrix.run_case(case, main)
    gc.collect()
    assert not tool.loop_errors, tool.loop_errors


def give_up(_signum: int, frame: Any) -> None:
    """The step hangs: show where its tasks are, and end the program."""
    print(f"HANGS: did not end within {LIMIT} s", flush=True)
    traceback.print_stack(frame)
    try:
        for task in asyncio.all_tasks():
            task.print_stack(file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(3)
