"""Ctrl-C pressed once and again, before and after the end of the main task."""

# Covered below 95 %: a few states at the second Ctrl-C have no test (a run that was given up, an
# error in place of a press).

from __future__ import annotations

import asyncio
import contextlib
import gc
import linecache
import signal
import sys
import traceback
import types
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import matrix, programs, pypy

import nurseryio
from nurseryio._core.delivery import MAX_SWALLOWED_CANCELS
from nurseryio.lowlevel import (
    Abort,
    checkpoint,
    current_task,
    enable_ki_protection,
    reschedule,
    wait_task_rescheduled,
)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


# -- early ----------------------------------------------------------------------


class Early(nurseryio.abc.Instrument):
    """CtrlC Ctrl-C in a hook."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self.press)

    def press(self, *args: nurseryio.lowlevel.Task) -> None:
        if all("begun_early" in task.name for task in args):
            press()


@pytest.mark.parametrize("kind", matrix.KINDS)
@pytest.mark.parametrize("hook", ["before_run", "task_spawned", "before_task_step"])
def test_early_keyboard_interrupt_is_neither_lost_nor_an_internal_error(
    hook: str, kind: str
) -> None:
    async def begun_early() -> None:
        await nurseryio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(
            begun_early, instruments=[Early(hook)], loop_factory=lambda: matrix.new_loop(kind)
        )


def test_keyboard_interrupt_is_raised_at_once_in_a_sync_function_that_makes_the_coroutine() -> None:
    async def main() -> None:
        raise AssertionError("must not run")

    def make() -> Awaitable[None]:
        press()
        return main()

    with pytest.raises(KeyboardInterrupt) as caught:
        nurseryio.run(make)
    assert "make" in [entry.name for entry in caught.traceback]


# -- where the program was ------------------------------------------------------


def lines_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


async def wait_on_an_event() -> None:
    await nurseryio.Event().wait()


async def wait_in_asyncio() -> None:
    await asyncio.sleep(60)


async def wait_for_a_child() -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wait_on_an_event)


async def wait_for_a_grandchild() -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wait_for_a_child)


@pypy.needs_whole_tracebacks
@pytest.mark.parametrize(
    "wait, places",
    [
        (wait_on_an_event, ["wait_on_an_event"]),
        (wait_in_asyncio, ["wait_in_asyncio"]),
        (wait_for_a_child, ["wait_for_a_child", "wait_on_an_event"]),
        (wait_for_a_grandchild, ["wait_for_a_grandchild", "wait_for_a_child", "wait_on_an_event"]),
    ],
)
def test_keyboard_interrupt_traceback_shows_where_the_program_was(
    wait: Callable[[], Awaitable[None]], places: list[str]
) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_later(0.01, press)
        await wait()

    with pytest.raises(KeyboardInterrupt) as caught:
        nurseryio.run(main)
    names = [entry.name for entry in caught.traceback]
    assert [name for name in names if name.startswith(("main", "wait_"))] == ["main", *places]


def test_keyboard_interrupt_traceback_is_kept_if_the_main_task_swallows_cancelled() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(press)
        try:
            await wait_in_asyncio()
        except asyncio.CancelledError:
            pass

    with pytest.raises(KeyboardInterrupt) as caught:
        nurseryio.run(main)
    assert "wait_in_asyncio" in [entry.name for entry in caught.traceback]


def test_keyboard_interrupt_has_the_error_of_the_main_task_as_its_context() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(press)
        try:
            await asyncio.sleep(60)
        finally:
            raise KeyError("cleanup")

    with pytest.raises(KeyboardInterrupt) as caught:
        nurseryio.run(main)
    assert repr(caught.value.__context__) == "KeyError('cleanup')"


@pytest.mark.parametrize("where", ["child", "nursery", "event", "asyncio"])
def test_keyboard_interrupt_has_a_note_with_the_task_tree(where: str) -> None:
    async def sleeper() -> None:
        await nurseryio.sleep(60)

    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(sleeper, name="the sleeper")
            await checkpoint()
            await checkpoint()
            if where == "child":
                press()
            asyncio.get_running_loop().call_soon(press)
            if where == "event":
                await wait_on_an_event()
            if where == "asyncio":
                await wait_in_asyncio()

    with pytest.raises(KeyboardInterrupt) as caught:
        nurseryio.run(main)
    (note,) = caught.value.__notes__
    assert note.startswith("When Ctrl-C was pressed, there were tasks:\n")
    assert "─ the sleeper at test_ctrl_c.py:" in note
    assert "<init>" not in note


def test_two_keyboard_interrupts_of_children_are_raised_as_one() -> None:
    async def presser() -> None:
        press()

    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(presser)
            nursery.start_soon(presser)

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main)


def garbage_of(main: Callable[[], Awaitable[None]]) -> int:
    """The number of objects that only the collector can free after a run."""
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            nurseryio.run(main)
        return gc.collect()
    finally:
        gc.enable()


@pypy.needs_reference_counting
@pytest.mark.parametrize("wait", [wait_on_an_event, wait_in_asyncio, wait_for_a_child])
@pytest.mark.parametrize("callback", [press, sys.exit])
def test_neither_keyboard_interrupt_nor_system_exit_leaves_cyclic_garbage(
    callback: Callable[[], object], wait: Callable[[], Awaitable[None]]
) -> None:
    async def quiet() -> None:
        pass

    async def main() -> None:
        asyncio.get_running_loop().call_soon(callback)
        await wait()

    garbage_of(quiet)
    # The run itself is a circle: a loop and what belongs to it.
    assert garbage_of(main) <= garbage_of(quiet) + 2


# -- again ----------------------------------------------------------------------


def test_a_program_may_catch_keyboard_interrupt_as_often_as_ctrl_c_is_pressed() -> None:
    caught = 0

    async def main() -> None:
        nonlocal caught
        for _ in range(5):
            asyncio.get_running_loop().call_soon(press)
            try:
                await wait_on_an_event()
            except KeyboardInterrupt:
                caught += 1
        for _ in range(5):
            asyncio.get_running_loop().call_soon(press)
            try:
                async with nurseryio.open_nursery() as nursery:
                    nursery.start_soon(wait_on_an_event)
            except BaseException as error:
                assert "KeyboardInterrupt" in repr(error)
                caught += 1

    nurseryio.run(main)
    assert caught == 10


@pytest.mark.parametrize("kind", matrix.KINDS)
def test_the_second_ctrl_c_cancels_everything_for_good(kind: str) -> None:
    record = []

    async def sibling() -> None:
        try:
            await nurseryio.sleep(60)
        finally:
            record.append("sibling cleaned up")

    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(sibling)
            loop = asyncio.get_running_loop()
            loop.call_soon(press)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                record.append("swallowed")
            loop.call_soon(signal.raise_signal, signal.SIGINT)  # in no code of the user's
            await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt) as caught:
        nurseryio.run(main, loop_factory=lambda: matrix.new_loop(kind))
    assert record == ["swallowed", "sibling cleaned up"]
    assert "main" in [entry.name for entry in caught.traceback]


def test_the_second_ctrl_c_is_raised_in_ki_protected_user_code() -> None:
    record = []

    @enable_ki_protection
    async def main() -> None:
        press()
        record.append("not the first")
        press()
        record.append("not here")

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main)
    assert record == ["not the first"]


def test_keyboard_interrupt_is_not_lost_if_an_abort_function_fails() -> None:
    def fail(_raise_cancel: object) -> Abort:
        raise KeyError("abort")

    async def main() -> None:
        asyncio.get_running_loop().call_soon(press)
        with pytest.raises(KeyError, match="abort"):
            await wait_task_rescheduled(fail)

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main)


def test_keyboard_interrupt_is_not_lost_if_an_abort_function_reschedules() -> None:
    async def main() -> None:
        task = current_task()

        def reschedule_too(_raise_cancel: object) -> Abort:
            reschedule(task)
            return Abort.SUCCEEDED

        asyncio.get_running_loop().call_soon(press)
        await wait_task_rescheduled(reschedule_too)
        await nurseryio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main)


# -- in the middle of something ---------------------------------------------------


@pytest.fixture
def profiled() -> Iterator[Callable[[str, str, Callable[[], object]], None]]:
    """Calls a function once, as a signal might do, where a profile event is first met."""

    def at(event: str, name: str, call: Callable[[], object]) -> None:
        def profile(frame: types.FrameType, what: str, arg: Any) -> None:
            place = arg.__name__ if what.startswith("c_") else frame.f_code.co_name
            if (what, place) == (event, name):
                sys.setprofile(None)
                call()

        sys.setprofile(profile)

    yield at
    sys.setprofile(None)


def press_twice() -> None:
    press()
    press()


def press_twice_in_another_handler() -> None:
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.parametrize("waits", ["event", "sleep(0)"])
@pytest.mark.parametrize("how", ["drawing", "at once", "another handler"])
def test_ctrl_c_twice_in_quick_succession_loses_no_callback_of_the_loop(
    how: str, waits: str, profiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    getline = linecache.getline

    def press_and_get_line(*args: Any) -> str:
        if not drawn:
            drawn.append(True)
            press()
        return getline(*args)

    async def child(event: nurseryio.Event) -> None:
        if waits == "event":
            await event.wait()
        while True:
            await checkpoint()

    async def main() -> None:
        event = nurseryio.Event()
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child, event)
            await checkpoint()
            await checkpoint()
            event.set()
            if how == "drawing":
                monkeypatch.setattr(linecache, "getline", press_and_get_line)
                profiled("c_return", "popleft", press)
            elif how == "at once":
                profiled("c_return", "popleft", press_twice)
            else:
                profiled("c_return", "popleft", press_twice_in_another_handler)
            await nurseryio.sleep_forever()

    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: press_twice())
    try:
        with pytest.raises(KeyboardInterrupt):
            nurseryio.run(main)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert bool(drawn) == (how == "drawing")


@pytest.mark.skipif("uvloop" not in matrix.KINDS, reason="it is about uvloop")
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("which", [1, 2, 3])
def test_keyboard_interrupt_is_not_raised_in_the_standard_library_below_the_loop(
    which: int, times: int, profiled: Any
) -> None:
    # uvloop calls socket.socketpair() whenever it begins to run.
    left = which

    def press_there() -> None:
        nonlocal left
        left -= 1
        if left:
            profiled("call", "socketpair", press_there)
            return
        for _ in range(times):
            press()

    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 0.01)

    profiled("call", "socketpair", press_there)
    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main, loop_factory=lambda: matrix.new_loop("uvloop"))


@pytest.mark.parametrize("kind", matrix.KINDS)
@pytest.mark.parametrize("busy_with", ["nursery", "sleep", "asyncio"])
def test_a_cancel_scope_does_not_swallow_keyboard_interrupt(busy_with: str, kind: str) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(press)
        for _ in range(100):
            with nurseryio.move_on_after(60):
                if busy_with == "nursery":
                    async with nurseryio.open_nursery():
                        pass
                elif busy_with == "sleep":
                    await nurseryio.sleep(0)
                else:
                    await asyncio.sleep(0)
        raise AssertionError("not interrupted")

    with pytest.raises(KeyboardInterrupt) as caught:
        nurseryio.run(main, loop_factory=lambda: matrix.new_loop(kind))
    assert caught.value.__context__ is None


@pypy.needs_nested_signals
def test_ctrl_c_while_the_first_keyboard_interrupt_is_raised_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = []
    getline = linecache.getline

    def press_and_get_line(*args: Any) -> str:
        if not record:
            record.append("pressed again")
            press()
        return getline(*args)

    async def main() -> None:
        monkeypatch.setattr(linecache, "getline", press_and_get_line)
        try:
            press()
        except KeyboardInterrupt as error:
            (note,) = error.__notes__
            assert "there were tasks" in note
            record.append("first")
        try:
            await wait_on_an_event()
        except KeyboardInterrupt:
            record.append("second")

    nurseryio.run(main)
    assert record == ["pressed again", "first", "second"]


class HangingName:
    """The name of a task that is drawn for ever."""

    def __str__(self) -> str:
        while True:
            press()


@pytest.mark.parametrize("on_the_spot", [True, False])
def test_ctrl_c_ends_a_task_tree_drawing_that_hangs(on_the_spot: bool) -> None:
    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep_forever, name=HangingName())
            await checkpoint()
            if on_the_spot:
                press()
            asyncio.get_running_loop().call_soon(press)

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main)


@pytest.mark.parametrize("kind", matrix.KINDS)
def test_keyboard_interrupt_is_not_raised_inside_start_soon(kind: str, profiled: Any) -> None:
    # Task.__init__() adds the task to a WeakSet, which is Python code. The task is registered
    # with asyncio by then, and has a step to make.
    problems: list[Any] = []
    runs = []

    async def child() -> None:
        runs.append(True)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, what: problems.append(what))
        async with nurseryio.open_nursery() as nursery:
            profiled("call", "add", press)
            nursery.start_soon(child)
            sys.setprofile(None)
            runs.append(False)
            await nurseryio.sleep(0)
        press()

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main, loop_factory=lambda: matrix.new_loop(kind))
    gc.collect()
    assert problems == []
    assert runs[:1] == [False]


# -- programs -------------------------------------------------------------------

STUBBORN = """
import asyncio, sys, threading, time
import nurseryio
from nurseryio.lowlevel import spawn_system_task

async def stubborn():
    # Printed when the task waits: until then Ctrl-C is raised in it.
    asyncio.get_running_loop().call_soon(print, "begun")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_soon(print, "swallowed")

async def generator():
    try:
        yield
    finally:
        await stubborn()

main_over = threading.Event()

async def system():
    try:
        await nurseryio.sleep_forever()
    finally:
        main_over.set()

def sleep_on():
    main_over.wait(3600)
    print("begun")
    threading.Event().wait(3600)

async def spin():
    print("begun")
    while True:
        pass

async def main():
    global keep
    how = sys.argv[1]
    if how == "main":
        await stubborn()
    elif how == "child":
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(stubborn)
    elif how == "task":
        keep = asyncio.create_task(stubborn(), name="stubborn task")
    elif how == "spinning":
        keep = asyncio.create_task(spin(), name="spinning task")
        await nurseryio.sleep_forever()
    elif how == "system":
        spawn_system_task(stubborn)
    elif how == "generator":
        keep = generator()
        await keep.__anext__()
    elif how == "thread":
        spawn_system_task(system)
        asyncio.get_running_loop().run_in_executor(None, sleep_on)
    await asyncio.sleep(0.01)

try:
    nurseryio.run(main)
except KeyboardInterrupt:
    print("KeyboardInterrupt")
    sys.stdout.flush()
    import os
    os._exit(7)
"""


@pytest.mark.parametrize("loop", programs.LOOPS)
@pytest.mark.parametrize(
    "how, waits_for",
    [
        ("task", "tasks of asyncio code:\nasyncio task stubborn task at "),
        ("system", "tasks:\nsystem task __main__.stubborn at "),
        ("generator", "async generators to be closed:\n__main__.generator"),
        ("thread", ""),
    ],
)
def test_after_the_main_task_the_first_ctrl_c_says_what_run_waits_for_and_the_second_ends_it(
    tmp_path: Path, how: str, waits_for: str, loop: str
) -> None:
    file = tmp_path / "program.py"
    file.write_text(STUBBORN, encoding="utf-8")
    with programs.started(file, how, loop=loop) as program:
        program.read_until("begun")
        if how in ("task", "system"):
            program.read_until("swallowed")
        program.interrupt_and_wait_for("Press Ctrl-C again to end at once.")
        program.interrupt()
        program.end()
    assert program.returncode == 7
    assert program.lines[-1] == "KeyboardInterrupt"
    assert f"Ctrl-C: run() waits for {waits_for}" in program.errors


@pytest.mark.parametrize("loop", programs.LOOPS)
@pytest.mark.parametrize("how", ["main", "child"])
def test_the_third_ctrl_c_ends_a_program_that_swallows_the_second(
    tmp_path: Path, how: str, loop: str
) -> None:
    file = tmp_path / "program.py"
    file.write_text(STUBBORN, encoding="utf-8")
    with programs.started(file, how, loop=loop) as program:
        program.read_until("begun")
        program.interrupt()
        # A child is cancelled again each time until patience is lost. Before that, Ctrl-C might be
        # raised in its code.
        for _ in range(1 if how == "main" else MAX_SWALLOWED_CANCELS + 1):
            program.read_until("swallowed")
        program.interrupt_and_wait_for("Press Ctrl-C again to end at once.")
        program.interrupt()
        program.end()
    assert program.returncode == 7
    assert f"__main__.{'main' if how == 'main' else 'stubborn'} at program.py" in program.errors


@pytest.mark.parametrize("loop", programs.LOOPS)
def test_the_second_ctrl_c_ends_an_asyncio_task_that_spins(tmp_path: Path, loop: str) -> None:
    file = tmp_path / "program.py"
    file.write_text(STUBBORN, encoding="utf-8")
    with programs.started(file, "spinning", loop=loop) as program:
        program.read_until("begun")
        program.interrupt()
        program.interrupt_until_it_ends()
    assert program.returncode == 7
