"""The scopes that a task has open, as they are seen at the ends of its steps.

The engine has no hook for scopes, because entering and leaving one is a hot path. So an instrument
compares: the scopes that are open at the end of a step with those at the end of the step before.

Rule: a scope is kept until the comparison has found that it was left. So its address cannot be
reused meanwhile, and the instrument can read how it ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from .._core.scope_tree import chain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._core.scope_tree import Node
    from .._core.task import Task

DataT = TypeVar("DataT")


class OpenScopes(Generic[DataT]):
    """The scopes of one task, each with data of the instrument.

    Attributes:
        known: the scopes that the last comparison has found open, outer before inner.
    """

    __slots__ = ("_innermost", "known")

    def __init__(self) -> None:
        self.known: dict[Node, DataT] = {}
        self._innermost: Node | None = None

    def changed(self, task: Task) -> bool:
        """Whether the task may have entered or left scopes since the last comparison.

        If the innermost scope is the same object, so are all scopes around it.
        """
        return task.scope is not self._innermost

    def left(self, task: Task) -> Iterator[tuple[Node, DataT]]:
        """Remove the scopes that the task has left, inner before outer."""
        self._innermost = task.scope
        there = set(open_in(task))
        for node in reversed([node for node in self.known if node not in there]):
            yield node, self.known.pop(node)

    def entered(self, task: Task) -> Iterator[Node]:
        """The scopes that the task has entered, outer before inner. The caller adds them."""
        for node in reversed(open_in(task)):
            if node not in self.known:
                yield node

    def all_left(self) -> Iterator[tuple[Node, DataT]]:
        """Remove all scopes, inner before outer, because the task has ended."""
        while self.known:
            yield self.known.popitem()


def open_in(task: Task) -> list[Node]:
    """The scopes that are open in a task, inner before outer, those of nurseries among them."""
    return [node for node in chain(task.scope, task._base()) if node._task is task]
