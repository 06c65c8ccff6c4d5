"""The tasks of a loop: which there are, where they are, and the step that the loop is in."""

# Covered below 95 %: a tree at a Ctrl-C is in test_ctrl_c.py.

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Any

import anyio
import pytest
from harness.core import forever, settle

import nurseryio
from nurseryio import testing
from nurseryio._core.task import records
from nurseryio._observe.task_tree import (
    MOST_LINES,
    draw_tasks,
    in_order,
    interrupted_stack,
    tree_of,
)
from nurseryio.instruments import TaskInfo, TaskTree, Watchdog, task_tree
from nurseryio.testing import wait_all_tasks_blocked


def named(tree: TaskTree, name: str) -> TaskInfo:
    (found,) = (task for task in tree.tasks if task.name == name)
    return found


def me() -> int:
    return id(nurseryio.lowlevel.current_task())


# -- tasks -----------------------------------------------------------------------------


async def test_task_tree_has_each_task_after_its_parent_and_siblings_in_order_of_names() -> None:
    async def parent() -> None:
        async with nurseryio.open_nursery() as inner:
            inner.start_soon(forever, name="b")
            inner.start_soon(forever, name="a")

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(forever, name="single")
        nursery.start_soon(parent, name="parent")
        await wait_all_tasks_blocked()
        tree = task_tree()
        names = [task.name for task in tree.tasks]
        start = names.index("parent")
        assert names[start:] == ["parent", "a", "b", "single"]
        assert named(tree, "parent").parent == me()
        assert named(tree, "parent").nursery == id(nursery.cancel_scope)
        assert named(tree, "a").parent == named(tree, "parent").id
        (scope,) = named(tree, "parent").scopes
        assert scope.children == tuple(task.id for task in reversed(tree.tasks[start + 1 : -1]))
        nursery.cancel_scope.cancel()


async def test_task_tree_has_the_lines_of_the_program_at_which_a_task_waits() -> None:
    async def inner() -> None:
        await nurseryio.sleep(1000)  # here

    async def child() -> None:
        await inner()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child, name="c")
        await wait_all_tasks_blocked()
        task = named(task_tree(), "c")
        assert [place.function for place in task.places] == ["child", "inner"]
        assert task.place is task.places[-1]
        assert task.places[-1].text == "await nurseryio.sleep(1000)  # here"
        nursery.cancel_scope.cancel()


async def test_task_tree_has_the_states_new_ready_running_and_waiting() -> None:
    event = nurseryio.Event()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(event.wait, name="a")
        await wait_all_tasks_blocked()
        assert named(task_tree(), "a").state == "waiting"
        event.set()
        nursery.start_soon(forever, name="b")
        tree = task_tree()
        assert named(tree, "a").state == "ready"
        assert named(tree, "b").state == "new"
        assert [task.state for task in tree.tasks if task.id == me()] == ["running"]
        assert not [task for task in tree.tasks if task.wait is not None and task.name in "ab"]
        nursery.cancel_scope.cancel()


async def test_task_tree_says_which_tasks_are_cancelled() -> None:
    stop = threading.Event()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(nurseryio.to_thread.run_sync, stop.wait, name="thread")
        await settle()
        assert not named(task_tree(), "thread").cancelled
        nursery.cancel_scope.cancel()
        assert named(task_tree(), "thread").cancelled
        stop.set()


async def test_task_tree_has_asyncio_tasks_and_makes_no_task_record() -> None:
    task = asyncio.ensure_future(asyncio.sleep(1000))
    task.set_name("foreign")
    await wait_all_tasks_blocked()
    found = named(task_tree(), "foreign")
    assert found.kind == "asyncio task"
    assert found.parent is None
    assert task not in records
    task.cancel()
    await asyncio.wait([task])


async def test_task_tree_puts_an_asyncio_task_below_the_task_that_awaits_it() -> None:
    task = asyncio.ensure_future(forever())
    task.set_name("awaited")

    async def wait() -> None:
        await task

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wait, name="awaits")
        await wait_all_tasks_blocked()
        tree = task_tree()
        assert named(tree, "awaited").parent == named(tree, "awaits").id
        assert named(tree, "awaits").wait.tasks == (named(tree, "awaited").id,)  # type: ignore[union-attr]
        nursery.cancel_scope.cancel()


def test_tasks_that_await_each_other_in_a_circle_are_not_lost() -> None:
    def task(number: int, parent: int | None) -> TaskInfo:
        return TaskInfo(number, "t", "asyncio task", "", None, False, (), (), parent, None)

    tasks = [task(1, 2), task(2, 1), task(3, None)]
    assert [found.id for found in in_order(tasks)] == [3, 1, 2]
    assert [found.parent for found in in_order(tasks)] == [None, None, 1]
    below = [task(4, 1), task(1, 2), task(2, 1), task(5, 4)]
    assert sorted(found.id for found in in_order(below)) == [1, 2, 4, 5]
    assert sum(found.parent is None for found in in_order(below)) == 1


async def test_task_tree_has_the_lines_of_the_running_task() -> None:
    def look() -> TaskTree:
        return task_tree()

    places = next(task for task in look().tasks if task.state == "running").places
    assert [place.function for place in places][-2:] == [
        "test_task_tree_has_the_lines_of_the_running_task",
        "look",
    ]


@pytest.mark.run_only
async def test_task_tree_leaves_out_the_tasks_of_the_run_and_marks_system_tasks() -> None:
    nurseryio.lowlevel.spawn_system_task(forever, name="sleeper")
    async with nurseryio.open_nursery():
        await wait_all_tasks_blocked()
        tree = task_tree()
    assert "<init>" not in [task.name for task in tree.tasks]
    assert named(tree, "sleeper").kind == "system task"
    assert sum(task.parent is None for task in tree.tasks) == 2


async def test_a_task_that_cannot_be_shown_does_not_keep_others_from_being_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Bad:
        def __getattr__(self, _name: str) -> Any:
            raise RuntimeError("boom")

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(forever, name="bad")
        nursery.start_soon(forever, name="good")
        await wait_all_tasks_blocked()
        (bad,) = (task for task in nursery.child_tasks if task.name == "bad")
        coro, bad._coro = bad._coro, Bad()
        tree = task_tree()
        bad._coro = coro
        nursery.cancel_scope.cancel()
    wait = named(tree, "bad").wait
    assert wait is not None
    assert wait.text == "cannot be shown (RuntimeError)"
    assert named(tree, "good").state == "waiting"


# -- scopes ----------------------------------------------------------------------------


async def test_task_tree_has_the_line_that_has_set_a_deadline_while_that_is_kept() -> None:
    async def child() -> None:
        with nurseryio.move_on_after(1000), nurseryio.CancelScope() as plain:
            scopes.append(plain)
            await forever()

    scopes: list[nurseryio.CancelScope] = []
    with Watchdog(slow_step=inf, stuck_cancel=inf):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child, name="c")
            await wait_all_tasks_blocked()
            tree = task_tree()
            timed, plain = named(tree, "c").scopes
            assert plain.deadline_set is None
            assert timed.deadline_set is not None
            assert timed.deadline_set.startswith("test_task_tree.py:")
            assert timed.deadline_set.endswith(" in child()")
            assert f" s (set at {timed.deadline_set})" in str(tree)
            scopes[0].deadline = -1
            assert scopes[0].cancel_called
            _, plain = named(task_tree(), "c").scopes
            assert plain.reason is not None
            assert plain.reason.startswith("cancelled due to deadline, set at test_task_tree.py:")
            nursery.cancel_scope.cancel()


async def test_task_tree_has_the_scopes_of_a_task_outer_before_inner() -> None:
    async def child() -> None:
        with nurseryio.move_on_after(1000), nurseryio.CancelScope(shield=True):
            async with nurseryio.open_nursery():
                await forever()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child, name="c")
        await wait_all_tasks_blocked()
        timed, shield, inner = named(task_tree(), "c").scopes
        assert timed.deadline is not None
        assert 900 < timed.deadline < 1001
        assert (shield.shield, shield.deadline, shield.keeps_out) == (True, None, None)
        assert (inner.nursery, inner.body_running, inner.children) == (True, True, ())
        assert not timed.cancelled
        nursery.cancel_scope.cancel("enough")
        timed, shield, inner = named(task_tree(), "c").scopes
        assert timed.reason is not None
        assert "with reason 'enough'" in timed.reason
        assert not timed.cancelled
        assert shield.reason is None
        assert shield.keeps_out == timed.reason
        assert inner.reason is None
        (task,) = nursery.child_tasks
        task.scope._parent.shield = False  # type: ignore[union-attr]


async def test_task_tree_shows_which_scope_was_asked_to_stop() -> None:
    async with nurseryio.open_nursery() as nursery:
        with nurseryio.CancelScope() as scope, nurseryio.CancelScope():
            nursery.start_soon(nurseryio.sleep, 0)
            scope.request_stop(1000)
            me = nurseryio.lowlevel.current_task().name
            asked = [found.stop_requested for found in named(task_tree(), me).scopes]
            assert asked[-2:] == [True, False]
            assert asked.count(True) == 1
            assert "asked to stop, deadline in" in str(task_tree())


# -- other threads, signal handlers -------------------------------------------------------


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def test_task_tree_of_a_blocked_loop_has_the_stack_of_the_step_in_another_thread(
    loop_kind: str, thread: ThreadPoolExecutor
) -> None:
    loop = asyncio.get_running_loop()
    here = me()
    tree = thread.submit(task_tree, loop).result()  # the loop is blocked here
    assert [task.state for task in tree.tasks if task.id == here] == ["running"]
    if loop_kind == "uvloop":
        assert tree.blocking == ()
        return
    function = "test_task_tree_of_a_blocked_loop_has_the_stack_of_the_step_in_another_thread"
    assert function in [place.function for place in tree.blocking]
    assert tree.blocking_task == here


async def test_task_tree_does_not_show_the_stack_of_a_step_that_has_ended_meanwhile(
    thread: ThreadPoolExecutor, loop_kind: str
) -> None:
    loop = asyncio.get_running_loop()
    frames: list[Any] = []
    trees: list[TaskTree] = []

    def callback() -> None:
        frames.append(sys._getframe())
        trees.append(thread.submit(tree_of, loop, frames[0]).result())

    loop.call_soon(callback)
    await settle()
    trees.append(thread.submit(tree_of, loop, frames[0]).result())  # the loop is in a step of me()
    if loop_kind != "uvloop":  # which does not show its thread
        assert [place.function for place in trees[0].blocking] == ["callback"]
        assert (trees[1].blocking, trees[1].blocking_task) == ((), None)


async def test_task_tree_of_a_loop_blocked_by_a_callback_has_its_stack(
    loop_kind: str, thread: ThreadPoolExecutor
) -> None:
    trees: list[TaskTree] = []
    loop = asyncio.get_running_loop()

    def callback() -> None:
        trees.append(thread.submit(task_tree, loop).result())

    loop.call_soon(callback)
    await asyncio.sleep(0)
    assert trees[0].blocking_task is None
    if loop_kind != "uvloop":
        assert trees[0].blocking[0].function == "callback"


async def test_task_tree_of_an_idle_loop_has_no_stack_in_another_thread(
    thread: ThreadPoolExecutor,
) -> None:
    loop = asyncio.get_running_loop()
    began = threading.Event()

    def look() -> TaskTree:
        began.wait()
        tree = task_tree(loop)
        while tree.blocking:  # the loop has not come to its wait yet
            tree = task_tree(loop)
        return tree

    looking = loop.run_in_executor(thread, look)
    loop.call_later(0, began.set)
    assert (await looking).blocking_task is None


async def test_task_tree_in_another_thread_finds_the_only_running_loop(
    thread: ThreadPoolExecutor,
) -> None:
    nurseryio.lowlevel.current_task()
    tree = thread.submit(task_tree).result()
    assert me() in [task.id for task in tree.tasks]


async def test_task_tree_in_a_signal_handler_has_the_tasks_of_its_loop() -> None:
    trees: list[TaskTree] = []
    here = me()
    before = signal.signal(signal.SIGUSR1, lambda *_: trees.append(task_tree()))
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert here in [task.id for task in trees[0].tasks]


async def test_task_tree_in_another_thread_while_tasks_are_born_and_die(
    thread: ThreadPoolExecutor,
) -> None:
    loop, stop, seen = asyncio.get_running_loop(), threading.Event(), list[str]()

    def look() -> None:
        while not stop.is_set():
            seen.append(str(task_tree(loop)))

    async def child(lock: asyncio.Lock) -> None:
        async with lock:
            await asyncio.sleep(0)

    nurseryio.lowlevel.current_task().name = "main"
    looking = thread.submit(look)
    while len(seen) < 20 and not looking.done():
        async with nurseryio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(child, asyncio.Lock())
    stop.set()
    looking.result()
    assert all("main" in text for text in seen)


async def test_task_tree_between_any_two_lines_of_the_engine() -> None:
    sender, receiver = nurseryio.open_memory_channel[int](0)
    looking = False
    trees = 0

    def look(frame: Any, event: str, _arg: object) -> Any:
        nonlocal looking, trees
        if "nurseryio" not in frame.f_code.co_filename or "_observe" in frame.f_code.co_filename:
            return None
        if event == "line" and not looking:
            looking = True
            assert "test_task_tree_between_any" in str(task_tree())
            looking = False
            trees += 1
        return look

    async def consume() -> None:
        with nurseryio.move_on_after(1000):
            assert [item async for item in receiver] == [1]

    before = sys.gettrace()
    sys.settrace(look)
    try:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(consume)
            await sender.send(1)
            sender.close()
    finally:
        sys.settrace(before)
    assert trees > 50


def test_task_tree_where_several_loops_run_asks_which_one_is_meant() -> None:
    with ThreadPoolExecutor(2) as executor:
        both, done = threading.Barrier(3), threading.Event()

        async def main() -> None:
            both.wait()
            done.wait()

        runs = [executor.submit(nurseryio.run, main) for _ in range(2)]
        both.wait()
        try:
            with pytest.raises(
                RuntimeError, match=r"2 event loops run .* task_tree\(loop=\.\.\.\)"
            ):
                task_tree()
        finally:
            done.set()
        assert [run.result() for run in runs] == [None, None]


def test_task_tree_of_something_else_than_an_event_loop_is_refused() -> None:
    with pytest.raises(TypeError, match=r"task_tree\(\) takes an event loop, not 5: leave it out"):
        task_tree(5)  # type: ignore[arg-type]


def test_task_tree_without_a_loop_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no event loop is running in this process"):
        task_tree()


def test_interrupted_stack_of_a_loop_that_does_not_run_a_step_is_empty() -> None:
    loop = asyncio.new_event_loop()
    try:
        assert interrupted_stack(loop, None) == ()
        assert tree_of(loop).tasks == ()
    finally:
        loop.close()


# -- as text ---------------------------------------------------------------------------


async def test_draw_tasks_has_a_limit_of_lines() -> None:
    async def parent(depth: int) -> None:
        async with nurseryio.open_nursery() as inner:
            inner.start_soon(*((parent, depth - 1) if depth else (forever,)))

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(parent, MOST_LINES)
        await wait_all_tasks_blocked()
        lines = draw_tasks(asyncio.get_running_loop()).splitlines()
        assert len(lines) == MOST_LINES + 1
        assert lines[-1] == "... and more"
        nursery.cancel_scope.cancel()


@pytest.mark.costly("many tasks")
async def test_draw_tasks_folds_more_where_there_are_many_kinds_of_tasks() -> None:
    functions: dict[str, Any] = {"sleep_forever": nurseryio.sleep_forever}
    lines = [f"async def kind{number}(): await sleep_forever()" for number in range(50)]
    exec("\n".join(lines), functions)  # each at a line of its own
    async with nurseryio.open_nursery() as nursery:
        for number in range(2000):
            nursery.start_soon(functions[f"kind{number % 50}"])
        await wait_all_tasks_blocked()
        lines = draw_tasks(asyncio.get_running_loop()).splitlines()
        nursery.cancel_scope.cancel()
    assert sum("... 39 more like this" in line for line in lines) == 50
    assert len(lines) < MOST_LINES


async def test_draw_tasks_ends_with_the_deadlocks_also_where_it_is_cut() -> None:
    lock = nurseryio.Lock()

    async def want(number: int) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(number):  # no two are drawn alike
                stack.enter_context(nurseryio.CancelScope())
            await lock.acquire()

    async def parent() -> None:
        async with lock, nurseryio.open_nursery() as inner:
            for number in range(40):
                inner.start_soon(want, number, name="child")

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(parent, name="parent")
        await wait_all_tasks_blocked()
        lines = draw_tasks(asyncio.get_running_loop()).splitlines()
        nursery.cancel_scope.cancel()
    assert lines[-2:] == [
        "... and more",
        "deadlock: 'child' waits for 'parent', 'parent' waits for 'child' (40 times)",
    ]


async def test_the_task_tree_of_testing_is_the_drawing_as_a_string() -> None:
    drawing = testing.task_tree()
    assert isinstance(drawing, str)
    assert "test_the_task_tree_of_testing_is_the_drawing_as_a_string()" in drawing


def test_the_task_tree_of_testing_without_a_loop_is_an_error() -> None:
    with pytest.raises(RuntimeError):
        testing.task_tree()


# -- timeouts --------------------------------------------------------------------------


async def two_locks(around: Any) -> TaskTree:
    """The tree of two tasks that wait for each other, one of them inside ``around()``."""
    first, second = asyncio.Lock(), nurseryio.Lock()

    async def there() -> None:
        async with first:
            await settle()
            async with around(), second:
                pass

    async def back() -> None:
        async with second:
            await settle()
            async with first:
                pass

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(there, name="there")
        nursery.start_soon(back, name="back")
        await wait_all_tasks_blocked()
        tree = task_tree()
        nursery.cancel_scope.cancel()
    return tree


async def test_two_tasks_inside_a_timeout_are_not_a_deadlock() -> None:
    @contextlib.asynccontextmanager
    async def scope(seconds: float) -> AsyncIterator[None]:
        with nurseryio.move_on_after(seconds):
            yield

    def of_anyio(seconds: float) -> Any:
        @contextlib.asynccontextmanager
        async def around() -> AsyncIterator[None]:
            with anyio.CancelScope(deadline=anyio.current_time() + seconds):
                yield

        return around

    assert (await two_locks(lambda: scope(inf))).circles() != []
    assert (await two_locks(lambda: scope(9))).circles() == []
    assert (await two_locks(of_anyio(inf))).circles() != []
    assert (await two_locks(of_anyio(9))).circles() == []
    timeout: Any = getattr(asyncio, "timeout", None)  # from Python 3.11 on
    if timeout is not None:
        assert (await two_locks(lambda: timeout(None))).circles() != []
        tree = await two_locks(lambda: timeout(9))
        assert tree.circles() == []
        left = named(tree, "there").timeout
        assert left is not None and 0 < left <= 9
        assert named(tree, "back").timeout is None


async def test_a_name_whose_class_compares_and_hashes_wrongly_does_not_hide_the_tree() -> None:
    class Name(str):
        __slots__ = ()

        def __str__(self) -> str:
            return self

        def _fail(self, *_args: object) -> Any:
            raise ValueError

        __lt__ = __eq__ = __hash__ = __repr__ = __format__ = _fail  # type: ignore[assignment]

    async with nurseryio.open_nursery() as nursery:
        for name in ("one", "two"):
            nursery.start_soon(forever, name=Name(name))
        await wait_all_tasks_blocked()
        text = str(task_tree())
        nursery.cancel_scope.cancel()
    assert "─ one " in text
    assert "─ two " in text
