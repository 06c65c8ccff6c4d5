"""``task_tree()``: the tasks of a loop with their nurseries, and what each of them waits for.

This module also has :func:`draw_tasks`, for reports that other modules of the library make.

Rule 1: looking changes nothing: a task that does not have a record does not get one.

Rule 2: the tasks that :func:`nurseryio.run` makes for itself are left out.

Rule 3: a task that cannot be shown does not prevent the other tasks from being shown.

Rule 4: the functions may be called in any thread, and in a signal handler. The loop may change the
tree meanwhile, so everything is copied before it is looked at.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from .._asyncio import compat, display
from .._asyncio.compat import running_loop_or_none
from .._base.call_stack import place_in, place_of
from .._base.forked import in_child
from .._base.util import safe_repr
from .._core.loop_state import all_states
from .._core.task import await_chain, await_frames, records
from .._nursery.origins import origin_of
from .ages import cancelled_for, held_for, waited_for
from .asyncio_waits import awaited_tasks
from .drawing import circle_lines
from .holders import Holders, timeouts_around
from .open_scopes import open_in
from .places import places_of, stack_of
from .tree_data import ScopeInfo, TaskInfo, TaskTree
from .wait_parts import Wait, name_of_task
from .waits import operation_of, wait_of

if TYPE_CHECKING:
    from types import FrameType

    from .._asyncio.compat import Loop
    from .._core.scope_tree import Node
    from .._core.task import Task
    from .places import Place
    from .wait_parts import Frames

# The most lines of a drawing that goes into a report or an error.
MOST_LINES = 200
# How many tasks of a kind it has, if it would be longer with the number before.
FEWER_OF_A_KIND = (None, 3, 1)


def task_tree(loop: Loop | None = None) -> TaskTree:
    """Return the tasks of an event loop: who waits for what, where, and what is cancelled.

    ``print(task_tree())`` draws the tree. Each task has one line: its name, what it waits for, and
    the line of the program at which it waits. The scopes and nurseries that are open in the task
    are drawn below it, the nurseries with their children. A task that asyncio code has started is
    drawn below the task that awaits it if Python knows that task (from 3.14 on), else at the end.

    May be called in any thread, also while the loop is blocked, and in a signal handler. If a task
    or a callback is running while another thread calls this, the drawing begins with the stack of
    that step.

    Args:
        loop: The event loop. None stands for the loop that runs in this thread or, if none does,
            for the only one that runs in this process.

    Returns:
        The tree, as data. ``str()`` of it is the drawing.

    Raises:
        RuntimeError: ``loop`` is not given, and there is no such loop, or more than one.
        TypeError: ``loop`` is not an event loop.

    Checkpoint: no, this is not an async function.

    Trio: none.
    """
    if loop is None:
        loop = _the_loop()
    elif not hasattr(loop, "call_soon"):  # a loop need not be of asyncio's class
        raise TypeError(
            f"task_tree() takes an event loop, not {safe_repr(loop)}: leave it out for the loop "
            "of this thread, or pass what asyncio.get_running_loop() returns in the program's task"
        )
    return seen_from_here(loop)


def seen_from_here(loop: Loop, frame: FrameType | None = None) -> TaskTree:
    """The tree of a loop; with the step that it is in, if that is not the caller's.

    Args:
        loop: The event loop.
        frame: The innermost frame of the step, if this thread has interrupted it.
    """
    return tree_of(loop, _frame_elsewhere(loop) if frame is None else frame)


def draw_tasks(loop: Loop, frame: FrameType | None = None) -> str:
    """The drawing of :func:`seen_from_here`, as :func:`draw` limits it."""
    return draw(seen_from_here(loop, frame))


def draw(tree: TaskTree) -> str:
    """The drawing of a tree, with at most ``MOST_LINES`` lines, and then the deadlocks.

    If it would have more, fewer tasks of a kind are drawn.
    """
    lines: list[str] = []
    for most in FEWER_OF_A_KIND:
        lines = list(islice(tree.lines(most), MOST_LINES + 1))
        if len(lines) <= MOST_LINES:
            return "\n".join(lines)
    return "\n".join([*lines[:-1], "... and more", *circle_lines(tree)])


def running_loops() -> list[Loop]:
    """The loops of this process that run now, in any thread; see :func:`display.loops_of_threads`.

    A loop of another library that asyncio does not run is seen if it has used nurseryio.
    """
    found = [state.loop for state in all_states()]
    found += [loop for loop in _loops_of_threads() if loop not in found]
    here = running_loop_or_none()
    if here is not None and here not in found:
        found.append(here)
    return [loop for loop in found if loop is here or _runs(loop)]


def _loops_of_threads() -> list[Loop]:
    return display.loops_of_threads(list(sys._current_frames().values()))


def _runs(loop: Loop) -> bool:
    return loop.is_running() and loop not in _inherited


# In a forked child the loops of the parent, which do not run there and say that they do.
_inherited: WeakSet[Loop] = WeakSet()


@in_child
def _inherit() -> None:
    _inherited.update(state.loop for state in all_states())
    _inherited.update(_loops_of_threads())


def _the_loop() -> Loop:
    loop = running_loop_or_none()
    if loop is not None:
        return loop
    loops = running_loops()  # this thread runs none
    if len(loops) == 1:
        return loops[0]
    if not loops:
        raise RuntimeError("no event loop is running in this process")
    raise RuntimeError(
        f"{len(loops)} event loops run in this process: give the one that is meant, "
        "task_tree(loop=...)"
    )


def tree_of(loop: Loop, frame: FrameType | None = None) -> TaskTree:
    """The tree of a loop.

    Args:
        loop: The event loop.
        frame: The innermost frame of the step that the loop is in, if it was interrupted.
    """
    running = _running_task(loop)
    if frame is not None and not _is_still_in(loop, frame):
        frame = None  # the loop goes on: its stack may be that of a step before
    found = {task: records.get(task) for task in asyncio.all_tasks(loop)}
    state = next((task._state for task in found.values() if task is not None), None)
    root = None if state is None or state.run is None else state.run.root_task
    if root is not None:
        found.pop(root.asyncio_task, None)
    builder = _Builder(loop, found, running, root, sys._getframe() if frame is None else frame)
    try:
        infos = in_order(builder.infos())
    finally:
        builder.forget_frames()
    stack = interrupted_stack(loop, frame) if frame is not None else ()
    number = builder.numbers.get(running) if stack and running is not None else None
    return TaskTree(safe_repr(loop), tuple(infos), stack, number)


class _Builder:
    """Looks at each task of a loop.

    Args:
        loop: The event loop.
        found: Its asyncio tasks, each with its record, None if it does not have one.
        running: The asyncio task that is running, if there is one.
        root: The record of the task that ``run()`` has made for itself.
        innermost: The innermost frame of the running task.
    """

    def __init__(
        self,
        loop: Loop,
        found: dict[Any, Task | None],
        running: Any,
        root: Task | None,
        innermost: FrameType,
    ) -> None:
        self._loop = loop
        self._now = loop.time()
        self._found = found
        self._running = running
        self._root = root
        self._innermost: FrameType | None = innermost
        self.numbers = {task: id(record or task) for task, record in found.items()}
        # Of asyncio tasks that another task awaits: its number.
        self._parents: dict[Any, int] = {}
        self._frames: dict[Any, Frames] = {}
        # By the ids of the tasks: the coroutines that each is in.
        self._chains: dict[int, list[tuple[Any, FrameType]]] = {}
        self._holders: Holders | None = None

    def infos(self) -> list[TaskInfo]:
        """The data of each task."""
        for task, record in self._found.items():
            with suppress(Exception):
                self._note_who_awaits(task, record)
        self._holders = self._find_holders()
        return [self._info(task, record) for task, record in self._found.items()]

    def forget_frames(self) -> None:
        """Break the reference cycles: a frame may be that of a function which has this object."""
        self._innermost = self._holders = None
        self._frames.clear()
        self._chains.clear()

    def _find_holders(self) -> Holders:
        tasks = {self.numbers[task]: record or task for task, record in self._found.items()}
        running = None
        if self._running in self._found:
            frames = [frame for frame, _ in self._frames.get(self._running, ())]
            running = (self.numbers[self._running], frames)
        return Holders(self._chains, lambda number: name_of_task(tasks[number]), running)

    def _note_who_awaits(self, asyncio_task: Any, task: Task | None) -> None:
        coro = _coro_of(asyncio_task, task)
        if asyncio_task is self._running:
            self._frames[asyncio_task] = _running_frames(coro, self._innermost)
            self._chains[self.numbers[asyncio_task]] = []
            return
        self._chains[self.numbers[asyncio_task]] = chain = list(await_chain(coro))
        self._frames[asyncio_task] = frames = [(frame, frame.f_lineno) for _, frame in chain]
        future = compat.waiter(asyncio_task)
        if future is not None:
            for awaited in awaited_tasks(operation_of(frames), future):
                self._parents.setdefault(awaited, self.numbers[asyncio_task])
        for by in display.awaiting(asyncio_task):
            if by in self.numbers:
                self._parents[asyncio_task] = self.numbers[by]

    def _info(self, asyncio_task: Any, task: Task | None) -> TaskInfo:
        nursery = None if task is None else task._parent_nursery
        if nursery is not None:
            above = nursery._parent_task
            parent = None if above is self._root else id(above)
        else:
            parent = self._parents.get(asyncio_task)
        try:
            state, wait = self._doing(asyncio_task, task)
            scopes = () if task is None else _scopes(task, self._now)
            places = places_of(self._frames.get(asyncio_task, ()))
            timeout = self._timeout(asyncio_task, wait, scopes)
        except Exception as error:
            state, scopes, places, timeout = "", (), (), None
            wait = Wait("unknown", f"cannot be shown ({type(error).__name__})")
        if task is None or (nursery is None and not any(scope.nursery for scope in scopes)):
            kind = "asyncio task"
        else:
            kind = "system task" if task._extra.is_system else "task"
        return TaskInfo(
            id=self.numbers[asyncio_task],
            name=name_of_task(asyncio_task if task is None else task),
            kind=kind,
            state=state,
            wait=wait,
            cancelled=task is not None and task.scope._effective,
            places=places,
            scopes=scopes,
            parent=parent,
            nursery=None if nursery is None else id(nursery.cancel_scope),
            timeout=timeout,
        )

    def _timeout(
        self, asyncio_task: Any, wait: Wait | None, scopes: tuple[ScopeInfo, ...]
    ) -> float | None:
        """The seconds until the earliest timeout of asyncio around a task.

        It is asked for where it matters: at tasks that may be in a deadlock, or around one.
        """
        for_others = wait is not None and (wait.tasks or wait.any_of)
        if not for_others and not any(scope.nursery for scope in scopes):
            return None
        chain = self._chains.get(self.numbers[asyncio_task], [])
        left = (display.seconds_left(each, self._now) for each in timeouts_around(chain))
        return min((seconds for seconds in left if seconds is not None), default=None)

    def _doing(self, asyncio_task: Any, task: Task | None) -> tuple[str, Wait | None]:
        """The state of a task, and what it waits for."""
        if asyncio_task is self._running or compat.is_running(asyncio_task):
            return "running", None
        if not compat.has_run(_coro_of(asyncio_task, task)):
            return "new", None
        future = compat.waiter(asyncio_task)
        if future is None or future.done():
            return "ready", None
        wait = wait_of(asyncio_task, task, self._frames[asyncio_task], self._holders)
        calls = 0 if task is not None and task.scope._effective else compat.cancelling(asyncio_task)
        if calls:
            # A native cancellation that the task has swallowed, or still cleans up after.
            wait = replace(
                wait,
                text=f"{wait.text} (although its cancel() was called)",
                details={**wait.details, "cancelling": calls},
            )
        return "waiting", self._with_age(asyncio_task, wait)

    def _with_age(self, asyncio_task: Any, wait: Wait) -> Wait:
        waited = waited_for(self._loop, asyncio_task)
        if waited is None:
            return wait
        held = None
        if wait.kind == "lock" and wait.tasks:
            held = held_for(self._loop, asyncio_task, wait.tasks[0])
        return replace(wait, waited=waited, held=held)


def _coro_of(asyncio_task: Any, task: Task | None) -> Any:
    """The coroutine of the program's function. A task factory may run another one around it."""
    return asyncio_task.get_coro() if task is None else task.coro


def _running_frames(coro: Any, innermost: FrameType | None) -> Frames:
    """The frames of a running coroutine, outermost first. It does not show them itself."""
    frames = list(stack_of(innermost))
    outermost = getattr(coro, "cr_frame", None)
    for index, (frame, _) in enumerate(frames):
        if frame is outermost:
            return frames[index:]
    return list(await_frames(coro))


def in_order(infos: list[TaskInfo]) -> list[TaskInfo]:
    """Sort the tasks so that each comes after its parent, and siblings in the order of names.

    Of tasks that await each other in a circle, one loses its parent.
    """
    below: dict[int | None, list[TaskInfo]] = {}
    there = {info.id: info for info in infos}
    for info in sorted(infos, key=lambda info: (info.kind == "asyncio task", info.name)):
        below.setdefault(info.parent if info.parent in there else None, []).append(info)
    found: list[TaskInfo] = []
    stack = list(reversed(below.pop(None, [])))
    while stack or below:
        if not stack:
            # All that are left are in circles, or below one.
            info = next(iter(below.values()))[0]
            above: set[int | None] = set()
            while info.id not in above:
                above.add(info.id)
                info = there[info.parent]  # type: ignore[index]
            below[info.parent].remove(info)
            stack.append(replace(info, parent=None, nursery=None))
        info = stack.pop()
        found.append(info)
        stack.extend(reversed(below.pop(info.id, [])))
    return found


def _scopes(task: Task, now: float) -> tuple[ScopeInfo, ...]:
    return tuple(scope_info(node, now) for node in reversed(open_in(task)))


def sentence_of(node: Node) -> str:
    """Why the code in a cancelled scope is cancelled, in one line."""
    reason = node._reason
    if reason is None:
        return "cancelled"
    place = None if reason.stack is None else place_in(reason.stack)
    if place is None:
        return reason._sentence()
    return f"{reason._sentence()}{', set' if reason.source == 'deadline' else ','} at {place}"


def scope_info(node: Node, now: float) -> ScopeInfo:
    """The data of an open scope; ``now`` is the loop's time."""
    nursery: Any = node._nursery
    parent = node._parent
    deadline = getattr(node, "_deadline", inf)
    out = node._shielded and parent is not None and parent._effective
    calls = origin_of(getattr(node, "_entry", None))
    task: Any = node._task
    called = node._called and task is not None
    return ScopeInfo(
        id=id(node),
        nursery=nursery is not None,
        body_running=nursery is not None and nursery._body_running,
        children=() if nursery is None else tuple(map(id, list(nursery._children))),
        cancelled=node._called,
        reason=sentence_of(node) if node._effective and node._reason is not None else None,
        shield=node._shielded,
        keeps_out=None if not out or parent is None else sentence_of(parent),
        deadline=None if deadline == inf else deadline - now,
        deadline_set=place_of(calls) if calls else None,
        cancelled_for=cancelled_for(task._state.loop, node) if called else None,
        stop_requested=getattr(node, "_stop", False),
    )


# -- the step that is running -------------------------------------------------------


def _running_task(loop: Loop) -> Any:
    try:
        return asyncio.current_task(loop)
    except RuntimeError:
        return None


def interrupted_stack(loop: Loop, innermost: FrameType | None) -> tuple[Place, ...]:
    """The stack of the step that a loop is in; empty if it is waiting for input and output.

    Args:
        loop: The event loop.
        innermost: The innermost frame of its thread.
    """
    frames = list(stack_of(innermost))
    for index in reversed(range(len(frames))):
        if frames[index][0].f_code is compat.CALLBACK_CODE:
            return places_of(frames[index + 1 :])
    running = _running_task(loop)
    if running is None or innermost is None:
        return ()
    # A loop that is not asyncio's own has no such frame.
    coro = _coro_of(running, records.get(running))
    return places_of(_running_frames(coro, innermost))


def _is_still_in(loop: Loop, innermost: FrameType) -> bool:
    """Whether a loop is still in the step that a stack was taken of."""
    now = _frame_elsewhere(loop)
    return now is None or _callback_in(now) is _callback_in(innermost)


def _callback_in(innermost: FrameType) -> FrameType | None:
    """The frame that calls the innermost callback of a loop; each callback has its own."""
    for frame, _ in reversed(list(stack_of(innermost))):
        if frame.f_code is compat.CALLBACK_CODE:
            return frame
    return None


def _frame_elsewhere(loop: Loop) -> FrameType | None:
    """The innermost frame of the loop's thread, if that is another thread than this one."""
    ident = display.loop_thread(loop)
    if ident is None or ident == threading.get_ident() or not loop.is_running():
        return None
    return sys._current_frames().get(ident)
