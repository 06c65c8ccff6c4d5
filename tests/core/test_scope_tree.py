"""The scope tree as a pure model: flags pushed down, shields, moves and cut-off parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from nurseryio import CancelReason
from nurseryio._core import scope_tree
from nurseryio._core.scope_tree import ROOT, Node


class FakeTask:
    """The fields of a task that the scope tree uses."""

    def __init__(self, base: Node = ROOT) -> None:
        self.base = self.scope = base


class FakeNest:
    """The fields of a nursery that the scope tree uses."""

    def __init__(self) -> None:
        self._children: list[FakeTask] = []


def enter(task: FakeTask, shield: bool = False, nursery: bool = False) -> Node:
    node = Node()
    node._parent, node._task = task.scope, task
    node._nursery = FakeNest() if nursery else None
    node._called, node._shielded, node._abandoned = False, shield, False
    node._effective, node._reason = scope_tree.should_be_effective(node), None
    task.scope = node
    return node


def spawn(node: Node) -> FakeTask:
    child = FakeTask(node)
    assert node._nursery is not None
    node._nursery._children.append(child)  # type: ignore[attr-defined]
    return child


def cancel(node: Node, reason: CancelReason | None = None) -> list[Any]:
    node._called = True
    node._reason = reason
    return scope_tree.recalculate(node)


def shield(node: Node, on: bool) -> list[Any]:
    node._shielded = on
    return scope_tree.recalculate(node)


@pytest.fixture
def task() -> FakeTask:
    return FakeTask()


def test_the_root_scope_is_never_cancelled_and_has_no_parent() -> None:
    assert not ROOT._effective
    assert ROOT._parent is None
    assert list(scope_tree.chain(ROOT, None)) == [ROOT]
    assert not scope_tree.new_root()._effective


def test_a_cancel_reaches_the_task_inside(task: FakeTask) -> None:
    outer, inner = enter(task), enter(task)
    assert cancel(outer) == [task]
    assert outer._effective and inner._effective


def test_a_cancel_of_an_inner_scope_leaves_the_outer_one_alone(task: FakeTask) -> None:
    outer, inner = enter(task), enter(task)
    assert cancel(inner) == [task]
    assert inner._effective and not outer._effective


def test_a_second_cancel_changes_no_task(task: FakeTask) -> None:
    outer, inner = enter(task), enter(task)
    cancel(inner)
    assert cancel(outer) == []
    assert cancel(inner) == []


def test_a_shield_stops_a_cancel_from_outside_but_not_its_own(task: FakeTask) -> None:
    outer, inner = enter(task), enter(task, shield=True)
    assert cancel(outer) == []
    assert not inner._effective
    assert cancel(inner) == [task]


def test_scopes_below_a_shield_below_a_cancelled_scope_are_not_cancelled(task: FakeTask) -> None:
    outer, _, below = enter(task), enter(task, shield=True), enter(task)
    assert cancel(outer) == []
    assert not below._effective


def test_shield_set_to_false_lets_a_cancel_in_and_set_to_true_keeps_it_out(
    task: FakeTask,
) -> None:
    outer, inner = enter(task), enter(task, shield=True)
    cancel(outer)
    assert shield(inner, False) == [task]
    assert inner._effective
    assert shield(inner, True) == [task]
    assert not inner._effective


def test_nested_shields_are_taken_away_one_by_one(task: FakeTask) -> None:
    outer, middle, inner = enter(task), enter(task, shield=True), enter(task, shield=True)
    cancel(outer)
    assert shield(inner, False) == []
    assert shield(middle, False) == [task]
    assert inner._effective


def test_a_cancel_reaches_children_and_their_children(task: FakeTask) -> None:
    nursery = enter(task, nursery=True)
    child = spawn(nursery)
    grandchild = spawn(enter(child, nursery=True))
    assert sorted(map(id, cancel(nursery))) == sorted(map(id, [task, child, grandchild]))


def test_a_cancel_does_not_reach_children_of_a_nursery_outside_the_scope(task: FakeTask) -> None:
    nursery = enter(task, nursery=True)
    child = spawn(nursery)
    inner = enter(task)
    assert cancel(inner) == [task]
    assert not child.scope._effective


def test_a_shielded_child_is_not_cancelled(task: FakeTask) -> None:
    nursery = enter(task, nursery=True)
    child, shielded = spawn(nursery), spawn(nursery)
    enter(shielded, shield=True)
    assert sorted(map(id, cancel(nursery))) == sorted(map(id, [task, child]))


def test_children_below_a_tasks_shield_are_not_cancelled(task: FakeTask) -> None:
    outer = enter(task)
    enter(task, shield=True)
    child = spawn(enter(task, nursery=True))
    assert cancel(outer) == []
    assert not child.scope._effective


def test_the_first_cancel_reason_is_passed_down_and_kept(task: FakeTask) -> None:
    outer, inner = enter(task), enter(task)
    first, second = CancelReason("deadline"), CancelReason("explicit")
    cancel(outer, first)
    assert inner._reason is first
    inner._called = True
    assert scope_tree.recalculate(inner) == []
    assert inner._reason is first
    own = enter(FakeTask())
    cancel(own, second)
    assert own._reason is second


def test_ten_thousand_nested_scopes_do_not_meet_the_recursion_limit(task: FakeTask) -> None:
    outermost = enter(task)
    for _ in range(10_000):
        enter(task)
    assert cancel(outermost) == [task]
    assert task.scope._effective
    top = enter(FakeTask(), nursery=True)
    node = top
    for _ in range(10_000):
        node = enter(spawn(node), nursery=True)
    assert len(cancel(top)) == 10_001
    assert len(scope_tree.abandon(top)) == 10_001


def test_reparenting_a_task_below_a_cancelled_scope_cancels_it(task: FakeTask) -> None:
    old, new = enter(task, nursery=True), enter(FakeTask(), nursery=True)
    child = spawn(old)
    inner = enter(child)
    cancel(new)
    inner._parent = new
    assert scope_tree.recalculate_chain(child, new) == [child]
    assert inner._effective


def test_reparenting_a_task_with_a_shield_does_not_cancel_it(task: FakeTask) -> None:
    old, new = enter(task, nursery=True), enter(FakeTask(), nursery=True)
    child = spawn(old)
    inner = enter(child, shield=True)
    cancel(new)
    inner._parent = new
    assert scope_tree.recalculate_chain(child, new) == []


def test_reparenting_a_task_moves_its_children_along(task: FakeTask) -> None:
    old, new = enter(task, nursery=True), enter(FakeTask(), nursery=True)
    child = spawn(old)
    inner = enter(child, nursery=True)
    grandchild = spawn(inner)
    stranger = spawn(new)
    cancel(new)
    inner._parent = new
    assert sorted(map(id, scope_tree.recalculate_chain(child, new))) == sorted(
        map(id, [child, grandchild])
    )
    assert stranger.scope._effective


def test_chain_and_encloses_walk_from_inner_to_outer_scopes(task: FakeTask) -> None:
    outer, inner = enter(task), enter(task)
    assert list(scope_tree.chain(inner, None)) == [inner, outer, ROOT]
    assert list(scope_tree.chain(inner, outer)) == [inner]
    assert list(scope_tree.chain(outer, outer)) == []
    assert scope_tree.encloses(outer, inner) and scope_tree.encloses(inner, inner)
    assert not scope_tree.encloses(inner, outer)


def test_abandon_cancels_a_misnested_part_of_the_scope_tree_for_good_and_nothing_else(
    task: FakeTask,
) -> None:
    healthy = enter(task, nursery=True)
    sibling = spawn(healthy)
    outer, inner = enter(task, nursery=True), enter(task, shield=True)
    child = spawn(outer)
    assert sorted(map(id, scope_tree.abandon(outer))) == sorted(map(id, [task, child]))
    assert outer._parent is None
    assert all(node._abandoned and node._effective for node in (outer, inner))
    assert not healthy._effective and not healthy._abandoned and not sibling.scope._effective


def test_abandon_does_not_return_a_task_that_has_left_the_scope(task: FakeTask) -> None:
    node = enter(task)
    task.scope = ROOT
    assert scope_tree.abandon(node) == []


# -- rule 2 under any order of events -------------------------------------------


class Forest:
    """Tasks and nodes that change at random, and what rule 2 says of them."""

    def __init__(self) -> None:
        self.tasks = [FakeTask()]
        self.nodes: list[Node] = []

    def do(self, what: str, number: int) -> None:
        task = self.tasks[number % len(self.tasks)]
        node = self.nodes[number % len(self.nodes)] if self.nodes else None
        before = {t: t.scope._effective for t in self.tasks}
        affected: list[Any] = []
        if what in ("enter", "enter shield", "enter nest"):
            node = enter(task, shield=what == "enter shield", nursery=what == "enter nest")
            before[task] = node._effective  # a task that enters looks for itself
            self.nodes.append(node)
        elif what == "spawn" and node is not None and node._nursery is not None:
            self.tasks.append(spawn(node))
            before[self.tasks[-1]] = node._effective
        elif what == "cancel" and node is not None:
            affected = cancel(node)
        elif what == "shield" and node is not None:
            affected = shield(node, not node._shielded)
        flipped = {t for t, effective in before.items() if t.scope._effective != effective}
        assert len(affected) == len(set(affected))
        assert set(affected) == flipped

    def check(self) -> None:
        for node in self.nodes:
            parent = node._parent
            assert parent is not None
            rule = node._called or (not node._shielded and parent._effective)
            assert node._effective == rule


events = st.sampled_from(
    ["enter", "enter shield", "enter nest", "spawn", "spawn", "cancel", "shield"]
)


@hypothesis.given(st.lists(st.tuples(events, st.integers(0, 30)), max_size=40))
def test_rule_2_holds_and_exactly_the_tasks_whose_effective_cancel_changed_are_returned(
    steps: list[tuple[str, int]],
) -> None:
    forest = Forest()
    for what, number in steps:
        forest.do(what, number)
        forest.check()


def test_recalculate_asks_a_scope_whether_its_deadline_has_passed() -> None:
    class Timed(Node):
        __slots__ = ("asked",)

        def _is_called(self) -> bool:
            self.asked = True
            return True

    def fields() -> Iterator[str]:
        yield from ("_parent", "_nursery", "_reason")

    task = FakeTask()
    node = Timed()
    for name in fields():
        setattr(node, name, None)
    node._parent, node._task, task.scope = ROOT, task, node
    node._called = node._shielded = node._effective = node._abandoned = False
    assert scope_tree.recalculate(node) == [task]
    assert node.asked and node._effective
