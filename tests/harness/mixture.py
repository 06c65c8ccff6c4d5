"""Random programs in which nurseryio, asyncio and anyio are mixed, and the invariants of each.

This module makes a program from a seed, runs it, and judges it. The test decides how many are run.

A program is a tree of nested blocks (nurseries, task groups, scopes, shields, timeouts) whose tasks
wait for ever, yield, raise and clean up. While it runs, blocks are cancelled by their own means and
tasks natively, in random iterations of the loop. No real time passes. In the end the main task is
cancelled natively, once.

The invariants:

1. The program ends.
2. No task of a block runs when the block has been left.
3. No error arrives twice, in handlers and at the program's end.
4. Every error arrives, if it was not replaced by a ``CancelledError`` raised in a ``finally``.
5. The main task ends as cancelled only if it was cancelled natively, and its ``cancelling()`` is
   the number of those requests.
6. The library's own records are consistent after each iteration of the loop.

An anyio task group that meets a native cancel and an error at once drops one of the two, and so
does asyncio's before Python 3.13; later ones mislead an anyio scope around them. In programs that
have such groups 4 and 5 are not asked for, and in the end all tasks are cancelled again and again.
Half of the programs are without anyio's groups.

Every test also checks that no task, timer or report to the exception handler is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel

import nurseryio
from harness.core import HAS_COUNTS, leaves, validate
from nurseryio._asyncio.compat import COUNTS_GO_STALE

# Turns of the loop in which something may be cancelled, and those that the end may take.
BUSY_TURNS = 40
TURNS_TO_END = 400

GROUPS = ["nursery", "nursery"]
SCOPES = ["scope", "scope", "shield", "anyio scope", "anyio shield"]
if HAS_COUNTS:
    GROUPS.append("TaskGroup")
# Before 3.13 a TaskGroup that has failed may leave a request behind, which leads a timeout astray.
BALANCED = HAS_COUNTS and not COUNTS_GO_STALE
if BALANCED:
    SCOPES.append("timeout")
ANYIO_GROUP = "anyio group"
WAITS = ["future", "ours", "anyio", "task", "gather"]
YIELDS = ["asyncio", "ours", "anyio"]


@dataclass
class Node:
    """One construct of a program."""

    kind: str
    number: int
    body: list[Node] = field(default_factory=list)
    children: list[list[Node]] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self, indent: str = "") -> list[str]:
        """The program as text."""
        text = [f"{indent}{self.number}: {self.kind}"]
        for child in self.children:
            text.append(f"{indent}  child:")
            text += [line for node in child for line in node.lines(indent + "    ")]
        return text + [line for node in self.body for line in node.lines(indent + "  ")]


class Maker:
    """Makes a program from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.number = 0
        self.groups = [*GROUPS, ANYIO_GROUP] if seed % 2 else GROUPS

    def node(self, kind: str) -> Node:
        self.number += 1
        return Node(kind, self.number)

    def block(self, depth: int, shielded: bool = False) -> list[Node]:
        """A few statements. Behind a shield nothing waits for ever."""
        chosen = self.random.randint(1, 2 if depth else 3)
        return [self.statement(depth, shielded) for _ in range(chosen)]

    def statement(self, depth: int, shielded: bool) -> Node:
        random = self.random
        what = random.random()
        if depth >= 4 or what < 0.25:
            if random.random() < 0.15:
                return self.node("raise")
            if shielded or random.random() < 0.4:
                return self.node("yield " + random.choice(YIELDS))
            return self.node("wait " + random.choice(WAITS))
        if what < 0.6:
            node = self.node(random.choice(self.groups))
            for _ in range(random.randint(1, 3)):
                node.children.append(self.block(depth + 1, shielded))
            if random.random() < 0.6:
                node.body = self.block(depth + 1, shielded)
            return node
        if what < 0.85:
            node = self.node(random.choice(SCOPES))
            node.body = self.block(depth + 1, shielded or "shield" in node.kind)
            return node
        node = self.node(random.choice(["handler", "cleanup"]))
        node.body = self.block(depth + 1, shielded)
        return node


def numbers(errors: list[BaseException]) -> list[int]:
    """The numbers of the nodes that have raised these errors."""
    return [error.args[0] for error in errors if type(error) is ValueError]


class Program:
    """A program that runs. The seed decides what it does, and what is done to it.

    Attributes:
        root: the program as a tree, which its text shows.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        maker = Maker(seed)
        self.random = random.Random(seed)
        self.root = maker.node("program")
        self.root.body = maker.block(0)
        self.tasks: list[asyncio.Task[Any]] = []
        self.cancels: list[Callable[[], object]] = []
        self.raised: list[int] = []
        self.arrived: list[BaseException] = []
        self.replaced: set[int] = set()
        self.problems: list[str] = []
        text = str(self.root)
        misled = "TaskGroup" in text and ": anyio" in text
        self.lenient = not BALANCED or misled or ANYIO_GROUP in text

    # -- running --

    async def run(self) -> None:
        """Run it and judge it; the failure shows the program."""
        main = asyncio.ensure_future(self.task(self.root.body))
        natively = 0
        for _ in range(self.random.randint(3, BUSY_TURNS)):
            await asyncio.sleep(0)
            validate()
            if self.random.random() < 0.25 and self.cancels:
                for cancel in self.random.choices(self.cancels, k=self.random.choice([1, 1, 2])):
                    cancel()
            if self.tasks and self.random.random() < 0.08:
                task = self.random.choice(self.tasks)
                natively += task.cancel() and task is main
        natively += main.cancel()
        for turn in range(TURNS_TO_END):
            if main.done():
                break
            if self.lenient and turn % 50 == 49:
                for task in self.tasks:
                    task.cancel()
            await asyncio.sleep(0)
            validate()
        await self.judge(main, natively)

    async def judge(self, main: asyncio.Task[Any], natively: int) -> None:
        problems = self.problems
        if not main.done():
            problems.append(f"1: does not end: {main!r}")
            while not main.done():
                for task in self.tasks:
                    task.cancel()
                await asyncio.wait([main], timeout=0.1)
        error = None if main.cancelled() else main.exception()
        if error is not None:
            self.arrived.append(error)
        arrived = Counter(number for error in self.arrived for number in numbers(leaves(error)))
        if twice := arrived - Counter(self.raised):
            problems.append(f"3: arrived twice: {list(twice)}")
        if not self.lenient:
            if lost := set(self.raised) - set(arrived) - self.replaced:
                problems.append(f"4: lost: {lost}")
            if main.cancelled() and not natively:
                problems.append("5: cancelled by nobody")
            count = main.cancelling()  # type: ignore[attr-defined,unused-ignore]
            if count != natively:
                problems.append(f"5: cancelling() is {count}, not {natively}")
        assert not problems, "\n".join([f"seed {self.seed}", *problems, str(self.root)])

    def note_replaced(self, error: BaseException) -> None:
        """Note the errors that a cancellation in ``error`` has replaced."""
        for leaf in leaves(error):
            seen: list[BaseException] = []
            earlier: BaseException | None = leaf
            while earlier is not None and earlier not in seen:
                seen.append(earlier)
                if len(seen) > 1:
                    self.replaced.update(numbers(leaves(earlier)))
                earlier = earlier.__cause__ or earlier.__context__

    # -- the constructs --

    async def task(self, body: list[Node]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        try:
            await self.block(body)
        except BaseException as exc:
            self.note_replaced(exc)
            raise
        finally:
            self.tasks.remove(task)

    async def block(self, body: list[Node]) -> None:
        for node in body:
            kind, _, how = node.kind.partition(" ")
            if node.children:
                await self.group(node)
            elif node.kind in SCOPES:
                await self.scope(node)
            else:
                await self.simple(node, kind, how)

    async def group(self, node: Node) -> None:
        alive: set[int] = set()

        async def child(index: int) -> None:
            alive.add(index)
            try:
                await self.task(node.children[index])
            finally:
                alive.discard(index)

        try:
            if node.kind == "nursery":
                async with nurseryio.open_nursery() as nursery:
                    await self.inside(node, child, nursery.start_soon, nursery.cancel_scope.cancel)
            elif node.kind == ANYIO_GROUP:
                async with anyio.create_task_group() as group:
                    await self.inside(node, child, group.start_soon, group.cancel_scope.cancel)
            else:
                async with asyncio.TaskGroup() as native:  # type: ignore[attr-defined,unused-ignore]

                    def spawn(function: Any, index: int) -> None:
                        coro = function(index)
                        try:
                            native.create_task(coro)
                        except RuntimeError:  # an eager child has failed already
                            coro.close()
                            raise

                    await self.inside(node, child, spawn, None)
        finally:
            if alive:
                self.problems.append(f"2: children {alive} run after {node.number} was left")

    async def inside(self, node: Node, child: Any, spawn: Any, cancel: Any) -> None:
        for index in range(len(node.children)):
            spawn(child, index)
        with self.cancellable(cancel):
            await self.block(node.body)

    async def scope(self, node: Node) -> None:
        shield = node.kind.endswith("shield")
        if node.kind in ("scope", "shield"):
            with nurseryio.CancelScope(shield=shield) as ours:
                with self.cancellable(ours.cancel):
                    await self.block(node.body)
        elif node.kind == "timeout":
            now = asyncio.get_running_loop().time()
            async with asyncio.timeout(None) as native:  # type: ignore[attr-defined,unused-ignore]
                with self.cancellable(lambda: native.expired() or native.reschedule(now)):
                    await self.block(node.body)
        else:
            with anyio.CancelScope(shield=shield) as theirs:
                with self.cancellable(theirs.cancel):
                    await self.block(node.body)

    @contextlib.contextmanager
    def cancellable(self, cancel: Callable[[], object] | None) -> Any:
        """While entered, the block may be cancelled by its own means."""
        if cancel is None:
            yield
            return
        self.cancels.append(cancel)
        try:
            yield
        finally:
            self.cancels.remove(cancel)

    async def simple(self, node: Node, kind: str, how: str) -> None:
        if kind == "raise":
            self.raised.append(node.number)
            raise ValueError(node.number)
        if kind == "wait":
            await self.wait(how)
        elif kind == "yield":
            await self.give_way(how)
        elif kind == "handler":
            await self.handler(node)
        else:
            await self.cleanup(node)

    async def handler(self, node: Node) -> None:
        try:
            await self.block(node.body)
        except Exception as exc:
            self.arrived.append(exc)
            self.note_replaced(exc)

    async def cleanup(self, node: Node) -> None:
        try:
            await self.block(node.body)
        finally:
            shield: Any = (anyio, nurseryio)[node.number % 2].CancelScope(shield=True)
            try:
                with shield:
                    for _ in range(node.number % 4):
                        await asyncio.sleep(0)
            except BaseException as exc:
                self.note_replaced(exc)
                raise

    async def wait(self, how: str) -> None:
        future = asyncio.get_running_loop().create_future()
        if how == "future":
            await future
        elif how == "ours":
            await nurseryio.sleep_forever()
        elif how == "anyio":
            await anyio.sleep_forever()
        elif how == "task":
            await asyncio.ensure_future(nurseryio.sleep_forever())
        else:
            await asyncio.gather(future, nurseryio.sleep_forever())

    async def give_way(self, how: str) -> None:
        if how == "asyncio":
            await asyncio.sleep(0)
        elif how == "ours":
            await nurseryio.lowlevel.checkpoint()
        else:
            await anyio.lowlevel.checkpoint()
