"""The scopes that a task has open, compared from one look to the next."""

from __future__ import annotations

import nurseryio
from nurseryio import CancelScope
from nurseryio._core.scope_tree import Node
from nurseryio._observe.open_scopes import OpenScopes, open_in
from nurseryio.lowlevel import Task, current_task


def look(scopes: OpenScopes[int], task: Task) -> tuple[list[Node], list[Node]]:
    """The scopes left and entered since the look before."""
    left = [node for node, _ in scopes.left(task)]
    entered = list(scopes.entered(task))
    for node in entered:
        scopes.known[node] = len(scopes.known)
    return left, entered


async def test_open_scopes_are_seen_entered_outer_first_and_left_inner_first() -> None:
    scopes: OpenScopes[int] = OpenScopes()
    task = current_task()
    look(scopes, task)
    with CancelScope() as outer:
        with CancelScope() as inner:
            assert look(scopes, task) == ([], [outer, inner])
            assert look(scopes, task) == ([], [])
            with CancelScope() as innermost:
                assert look(scopes, task) == ([], [innermost])
        assert look(scopes, task) == ([innermost, inner], [])
        async with nurseryio.open_nursery() as nursery:
            assert look(scopes, task) == ([], [nursery.cancel_scope])
    assert look(scopes, task) == ([nursery.cancel_scope, outer], [])


async def test_a_scope_at_the_address_of_one_that_was_left_is_another_one() -> None:
    scopes: OpenScopes[int] = OpenScopes()
    task = current_task()
    look(scopes, task)
    with CancelScope():
        look(scopes, task)
    with CancelScope() as scope:
        left, entered = look(scopes, task)
        assert len(left) == 1
        assert entered == [scope]


async def test_open_scopes_of_a_child_end_at_its_nursery() -> None:
    found: list[list[Node]] = []

    async def child() -> None:
        with CancelScope():
            found.append(open_in(current_task()))

    with CancelScope():
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child)
    assert [len(nodes) for nodes in found] == [1]


async def test_all_open_scopes_are_left_at_the_end_of_a_task() -> None:
    scopes: OpenScopes[int] = OpenScopes()
    with CancelScope() as outer, CancelScope() as inner:
        look(scopes, current_task())
        left = [node for node, _ in scopes.all_left()]
    assert left[:2] == [inner, outer]
    assert not scopes.known


async def test_open_scopes_have_changed_when_the_innermost_is_another_one() -> None:
    scopes: OpenScopes[int] = OpenScopes()
    task = current_task()
    assert scopes.changed(task)
    look(scopes, task)
    assert not scopes.changed(task)
    with CancelScope():
        assert scopes.changed(task)
        look(scopes, task)
        assert not scopes.changed(task)
        with CancelScope():
            pass
        assert not scopes.changed(task)  # it was not there at any look
    assert scopes.changed(task)
    with CancelScope():
        assert scopes.changed(task)  # not the one that was left
