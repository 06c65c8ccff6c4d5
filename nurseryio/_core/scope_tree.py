"""The scope tree: which code is cancelled, and how a cancel or a shield reaches the scopes inside.

This is a pure model, with no asyncio in it.

Rule 1: every entered scope is a :class:`Node`. It knows its parent and the task that entered it. A
task knows only its innermost node. Nothing points downwards except a nursery's node, which knows
the nursery and so the child tasks.

Rule 2: ``effective`` says whether code directly inside a node is cancelled. It always equals
``called or (not shielded and parent.effective)``. :func:`recalculate` *pushes* it down the tree
whenever one of the three changes. So a checkpoint looks at one attribute only, at any nesting
depth.

Rule 3: entering and leaving a node change one pointer. All other work is done for rare events: a
cancel, a shield that changes, a node that gets another parent. These walk
task -> nodes inside the changed one -> nurseries at those nodes -> child tasks. They walk top down
and with an explicit stack, because a thousand levels must not meet the recursion limit.

Rule 4: functions here only change flags, and return the tasks whose state has flipped. ``delivery``
acts on those tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .._base.errors import CancelReason


class TreeTask(Protocol):
    """The part of a task that the tree uses: its innermost node."""

    scope: Node


class TreeNursery(Protocol):
    """The part of a nursery that the tree uses: the tasks whose chains start at its node."""

    @property
    def _children(self) -> Iterable[Any]: ...


class Node:
    """One level of the scope tree."""

    __slots__ = (
        "_abandoned",
        "_called",
        "_effective",
        "_nursery",
        "_task",
        "_parent",
        "_reason",
        "_shielded",
    )

    # Valid from entry to exit. The tree's root is the only node without a parent.
    _parent: Node | None
    # The task that entered this node; None before entry and after exit.
    _task: TreeTask | None
    # The nursery whose own scope this is; None for a plain scope.
    _nursery: TreeNursery | None
    _called: bool
    _shielded: bool
    # Invariant while entered: rule 2 of this file.
    _effective: bool
    # The reason: set by the first cause that makes the node effective, never overwritten.
    _reason: CancelReason | None
    # True once an outer node was left while this one was still open.
    _abandoned: bool

    def _is_called(self) -> bool:
        """Whether the node itself is cancelled. A scope also notices here that its time is up."""
        return self._called


def new_root() -> Node:
    """The node at the top of every chain: never cancelled, never left."""
    root = Node()
    root._parent = root._task = root._nursery = root._reason = None
    root._called = root._effective = root._abandoned = False
    root._shielded = True
    return root


ROOT = new_root()


def should_be_effective(node: Node) -> bool:
    """Rule 2, computed from the node's own flags and its parent's pushed one."""
    if node._is_called():
        return True
    parent = node._parent
    return parent is not None and not node._shielded and parent._effective


def recalculate(node: Node, everything: bool = False) -> list[TreeTask]:
    """Recompute ``effective`` in the subtree of an entered node that has changed.

    Args:
        node: the node.
        everything: walk the whole subtree and return all its tasks; for a change that an error
            stopped half-way.

    Returns:
        The tasks whose innermost node has become effective or stopped being so.
    """
    flipped: list[TreeTask] = []
    if (_update(node) or everything) and node._task is not None:
        _descend(node._task, node, flipped, everything=everything)
    return flipped


def recalculate_chain(task: TreeTask, base: Node) -> list[TreeTask]:
    """Like :func:`recalculate` for one task, after ``base`` became the node outside its chain."""
    flipped: list[TreeTask] = []
    _descend(task, base, flipped, members=False)
    return flipped


def _update(node: Node) -> bool:
    new = should_be_effective(node)
    if new == node._effective:
        return False
    node._effective = new
    if new and node._reason is None and node._parent is not None:
        node._reason = node._parent._reason
    return True


def _descend(
    task: TreeTask,
    node: Node,
    flipped: list[TreeTask],
    members: bool = True,
    everything: bool = False,
) -> None:
    """Push the change of ``node`` down ``task``'s chain, then into the nurseries met there."""
    todo: list[tuple[TreeTask, Node]] = []
    if task.scope is node:
        flipped.append(task)
    else:
        todo.append((task, node))
    if members and node._nursery is not None:
        _collect_children(node._nursery, node, flipped, todo)
    while todo:
        task, node = todo.pop()
        for inner in reversed(list(chain(task.scope, node))):
            if not _update(inner) and not everything:
                break
            if inner._nursery is not None:
                _collect_children(inner._nursery, inner, flipped, todo)
        else:
            flipped.append(task)


def _collect_children(
    nursery: TreeNursery, node: Node, flipped: list[TreeTask], todo: list[tuple[TreeTask, Node]]
) -> None:
    """Sort the children at ``node``: one without a node inside flips, the others go to ``todo``."""
    for child in nursery._children:
        if child.scope is node:
            flipped.append(child)
        else:
            todo.append((child, node))


def chain(inner: Node, outer: Node | None) -> Iterator[Node]:
    """The nodes from ``inner`` outwards, up to but without ``outer``."""
    node: Node | None = inner
    while node is not None and node is not outer:
        yield node
        node = node._parent


def encloses(outer: Node, inner: Node) -> bool:
    """Whether ``inner`` is ``outer`` or lies inside it."""
    return any(node is outer for node in chain(inner, None))


def abandon(node: Node) -> list[TreeTask]:
    """Cut off everything inside ``node``, which is being left while inner nodes are still open.

    The inner part stays cancelled for good, so that it unwinds. Its nodes are marked, so that
    leaving them later neither reports an error again nor changes the rest of the tree.

    Returns:
        The tasks inside. The caller passes all of them to ``deliver_changes``.
    """
    affected: list[TreeTask] = []
    node._parent = None
    node._abandoned = node._called = node._effective = True
    todo: list[tuple[TreeTask, Node]] = []
    if node._task is not None:
        todo.append((node._task, node))
    if node._nursery is not None:
        todo.extend((child, node) for child in node._nursery._children)
    while todo:
        task, outer = todo.pop()
        if not encloses(outer, task.scope):
            continue
        for inner in chain(task.scope, outer):
            inner._abandoned = inner._effective = True
            if inner._nursery is not None:
                todo.extend((child, inner) for child in inner._nursery._children)
        affected.append(task)
    return affected
