"""Towers of task groups and scopes of several libraries, and acts on them.

This module has the kinds of layer, the :class:`Tower` built of them, and the acts: each does one
thing to a new tower and checks the result. The tests decide which towers are built.

A tower waits until something is done to it. Each layer that may have children has one, which waits
beside what is inside the layer; the way of waiting changes from level to level. Levels count from
the outside, from 0; the level after the last layer is the innermost body.

Rules that hold whatever is done:

1. No task of a layer runs when the layer has been left.
2. An error arrives once, whatever it has passed.
3. A task's count of cancel requests is the same again when a layer is left in good order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio

import nurseryio
from harness.core import HAS_COUNTS, cancelling, leaves, validate


async def settle() -> None:
    """Let everything happen that goes on without waiting, in towers of up to five layers."""
    for _ in range(40):
        await asyncio.sleep(0)
    validate()


class Layer:
    """One block: ``async with layer: ...``."""

    block: Any
    # Whether it may have children, and can be cancelled by its own means.
    has_children = True
    can_cancel = True
    spawn: Callable[..., object]
    cancel: Callable[[], object]
    # Whether the block says by an error that it was cancelled.
    reports = False
    # Whether the block ends if a child of it is cancelled natively.
    sensitive = False

    async def __aenter__(self) -> Layer:
        await self.block.__aenter__()
        return self

    async def __aexit__(self, *details: Any) -> Any:
        return await self.block.__aexit__(*details)


class NurseryLayer(Layer):
    def __init__(self) -> None:
        self.block = nurseryio.open_nursery()
        self.spawn = self.block.start_soon
        self.cancel = self.block.cancel_scope.cancel


class GroupLayer(Layer):
    can_cancel = False

    def __init__(self) -> None:
        self.block = asyncio.TaskGroup()  # type: ignore[attr-defined,unused-ignore]
        self.spawn = lambda function, *args: self.block.create_task(function(*args))


class AnyioLayer(Layer):
    sensitive = True

    def __init__(self) -> None:
        self.block = anyio.create_task_group()
        self.spawn = self.block.start_soon
        self.cancel = self.block.cancel_scope.cancel


class TimeoutLayer(Layer):
    has_children = False
    reports = True

    def __init__(self) -> None:
        self.block = asyncio.timeout(None)  # type: ignore[attr-defined,unused-ignore]
        self.cancel = lambda: self.block.reschedule(asyncio.get_running_loop().time())


class ScopeLayer(Layer):
    has_children = False

    def __init__(self) -> None:
        self.block = nurseryio.CancelScope()
        self.cancel = self.block.cancel

    async def __aenter__(self) -> Layer:
        self.block.__enter__()
        return self

    async def __aexit__(self, *details: Any) -> Any:
        return self.block.__exit__(*details)


KINDS: dict[str, type[Layer]] = {
    "nursery": NurseryLayer,
    "TaskGroup": GroupLayer,
    "anyio": AnyioLayer,
    "timeout": TimeoutLayer,
    "scope": ScopeLayer,
}


class Tower:
    """Layers of these kinds, one inside the other, in a separate task.

    ``async with Tower(kinds, spread) as tower:`` builds it. At the end of the block every task that
    still waits is released; then the tower must end well, if it was not asked for its errors
    before, and leave nothing behind.

    Args:
        kinds: the names of the layers' kinds, outermost first.
        spread: whether the inside of a layer is a child of it, if it has children; else all layers
            are in one task.
    """

    def __init__(self, kinds: tuple[str, ...], spread: bool) -> None:
        self.kinds = kinds
        self.spread = spread
        self.layers: list[Layer] = []
        # For each level the task that is inside it.
        self.hosts: list[asyncio.Task[Any]] = []
        # The levels at which a task waits, and those whose layer was left in good order.
        self.waiting: set[int] = set()
        self.left: set[int] = set()
        self._fates = [Fate(level) for level in range(len(kinds) + 1)]
        self._problems: list[str] = []

    async def __aenter__(self) -> Tower:
        self._task = asyncio.ensure_future(self._enter(0))
        self._asked = False
        await settle()
        assert self.waiting == self.with_children(len(self.kinds)) | {len(self.kinds)}
        return self

    async def __aexit__(self, etype: Any, exc: Any, tb: Any) -> None:
        for fate in self._fates:
            fate.end(None)
        if exc is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            return
        errors = await self.errors()
        assert self._asked or not errors, errors
        assert not self._problems
        assert not self.waiting
        assert all(host.done() for host in self.hosts)

    async def errors(self) -> list[str]:
        """The end of the tower: each error as text, or that its task was cancelled."""
        await asyncio.wait([self._task], timeout=10)
        assert self._task.done(), f"does not end: {self._task!r}"
        if self._task.cancelled():
            return ["cancelled"]
        error = self._task.exception()
        return [] if error is None else [repr(leaf) for leaf in leaves(error)]

    async def ends_with(self, *either: str) -> None:
        """Check that the tower ends by itself, with one of these and nothing else."""
        errors = await self.errors()
        assert len(errors) == 1 and errors[0] in either, errors
        self._asked = True

    def with_children(self, level: int) -> set[int]:
        """The levels outside of ``level`` whose layers have children."""
        return {n for n in range(level) if KINDS[self.kinds[n]].has_children}

    def parent_of(self, level: int) -> int | None:
        """The level whose layer's child is inside ``level``; None for the tower's own task."""
        while level and self.hosts[level] is self.hosts[level - 1]:
            level -= 1
        return level - 1 if level else None

    def fail(self, level: int) -> None:
        """Have who waits at a level raise."""
        self._fates[level].end(ValueError(level))

    async def _enter(self, level: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.hosts.append(task)
        if level == len(self.kinds):
            await self._wait(level)
            return
        before = cancelling()
        layer = KINDS[self.kinds[level]]()
        self.layers.append(layer)
        try:
            async with layer:
                if layer.has_children:
                    layer.spawn(self._wait, level)
                if self.spread and layer.has_children:
                    layer.spawn(self._enter, level + 1)
                else:
                    await self._enter(level + 1)
        finally:
            if lost := [inner for inner in self.waiting if inner >= level]:
                self._problems.append(f"{lost} still wait when level {level} has been left")
        self.left.add(level)
        if cancelling() != before:
            self._problems.append(f"cancelling() is {cancelling()} when level {level} is left")
        if level:  # it is the body of what is outside, which goes on
            await self._fates[level - 1].over.wait()

    async def _wait(self, level: int) -> None:
        self.waiting.add(level)
        try:
            await self._fates[level].wait()
        finally:
            self.waiting.discard(level)


class Fate:
    """The end of the task at a level, awaited by means of asyncio, nurseryio or anyio."""

    def __init__(self, level: int) -> None:
        self.over: Any = (asyncio.Event, nurseryio.Event, anyio.Event)[level % 3]()
        self._error: Exception | None = None

    def end(self, error: Exception | None) -> None:
        """Tell those who wait."""
        self._error = self._error or error
        self.over.set()

    async def wait(self) -> None:
        """Wait until released; raise the error if there is one."""
        await self.over.wait()
        if self._error is not None:
            raise self._error


# -- what is done to a tower, and what must come of it --------------------------


async def each_act(kinds: tuple[str, ...], spread: bool) -> None:
    """Do everything that can be done, at each level, to a new tower each time."""
    async with Tower(kinds, spread):
        pass
    for level in range(len(kinds) + 1):
        await cancel_natively(Tower(kinds, spread), level)
    await fail(Tower(kinds, spread), len(kinds))
    for level, kind in enumerate(kinds):
        if KINDS[kind].has_children:
            await fail(Tower(kinds, spread), level)
        if KINDS[kind].can_cancel:
            await cancel(Tower(kinds, spread), level)
            if HAS_COUNTS:
                await cancel_both_ways(Tower(kinds, spread), level, natively_first=True)
                await cancel_both_ways(Tower(kinds, spread), level, natively_first=False)


async def fail(tower: Tower, level: int) -> None:
    """The task at a level raises: everything ends, and the error arrives once."""
    async with tower:
        tower.fail(level)
        await tower.ends_with(f"ValueError({level})")
        assert not tower.left


async def cancel(tower: Tower, level: int) -> None:
    """A layer is cancelled by its own means: it ends, what is around it goes on."""
    async with tower:
        layer = tower.layers[level]
        layer.cancel()
        if layer.reports:
            await tower.ends_with("TimeoutError()")
        else:
            await settle()
            assert level in tower.left
            assert tower.waiting == tower.with_children(level)


async def cancel_natively(tower: Tower, level: int) -> None:
    """The task inside a level is cancelled natively: it ends as cancelled, its siblings go on.

    Siblings in an anyio task group do not go on: that is how anyio works.
    """
    async with tower:
        tower.hosts[level].cancel()
        parent = tower.parent_of(level)
        if parent is None:
            await tower.ends_with("cancelled")
            return
        await settle()
        if tower.layers[parent].sensitive:
            assert parent in tower.left
            assert tower.waiting == tower.with_children(parent)
        else:
            assert tower.waiting == tower.with_children(parent + 1)


async def cancel_both_ways(tower: Tower, level: int, natively_first: bool) -> None:
    """A layer by its own means and the tower's task natively, in one tick: none is forgotten."""
    async with tower:
        layer = tower.layers[level]
        if natively_first:
            tower.hosts[0].cancel()
        layer.cancel()
        if not natively_first:
            tower.hosts[0].cancel()
        if layer.reports and tower.hosts[level] is not tower.hosts[0]:
            # Two tasks: the timeout may be an error of its task already, and errors go first.
            await tower.ends_with("cancelled", "TimeoutError()")
        else:
            await tower.ends_with("cancelled")
