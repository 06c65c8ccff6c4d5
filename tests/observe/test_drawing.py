"""The drawing of a task tree as lines of text."""

from __future__ import annotations

import dataclasses

import pytest

import nurseryio
from nurseryio.instruments import Place, ScopeInfo, TaskInfo, TaskTree, Wait, task_tree
from nurseryio.testing import wait_all_tasks_blocked

PLACE = Place("/srv/app.py", 7, "work", "await x()")


def a_task(number: int, parent: int | None = None, **fields: object) -> TaskInfo:
    task = TaskInfo(
        id=number,
        name=f"t{number}",
        kind="task",
        state="waiting",
        wait=Wait("event", "waits for an Event to be set"),
        cancelled=False,
        places=(PLACE,),
        scopes=(),
        parent=parent,
        nursery=None if parent is None else parent * 100,
    )
    return dataclasses.replace(task, **fields)  # type: ignore[arg-type]


def a_scope(number: int, **fields: object) -> ScopeInfo:
    scope = ScopeInfo(number, False, False, (), False, None, False, None, None)
    return dataclasses.replace(scope, **fields)  # type: ignore[arg-type]


def lines(*tasks: TaskInfo, **fields: object) -> list[str]:
    tree = dataclasses.replace(TaskTree("", tasks), **fields)  # type: ignore[arg-type]
    return str(tree).splitlines()


WAITS = "at app.py:7 in work(), waits for an Event to be set: await x()"


def test_a_task_is_drawn_as_a_sentence() -> None:
    assert lines(a_task(1)) == [f"t1 {WAITS}"]
    assert lines(a_task(1, kind="system task")) == [f"system task t1 {WAITS}"]
    assert lines(a_task(1, wait=None, state="new", places=())) == ["t1 has not begun"]
    assert lines(a_task(1, wait=None, state="running", places=())) == ["t1 is running"]
    assert lines(a_task(1, wait=None, state="ready", places=())) == ["t1 is ready to run"]


def test_characters_that_control_a_terminal_or_cannot_be_encoded_are_drawn_as_escapes() -> None:
    name = "a\n└─ b \x1b[31m \x9b \u2028 \ud800 \xe9\t日"
    shown = r"a\n└─ b \x1b[31m \x9b \u2028 \ud800 é" "\t日"
    assert lines(a_task(1, name=name))[0].startswith(f"{shown} at ")
    drawn = lines(a_task(1, scopes=(a_scope(2, cancelled=True, reason="why\n"),)))
    assert drawn[-1].endswith(r"scope, why\n")


def test_a_task_that_waits_although_it_is_cancelled_is_marked() -> None:
    (line,) = lines(a_task(1, cancelled=True, places=()))
    assert line == "t1 waits for an Event to be set (although it is cancelled)"
    assert "although" not in lines(a_task(1, cancelled=True, state="new", wait=None))[0]


def test_a_task_says_for_how_long_it_has_waited_if_that_is_known() -> None:
    wait = Wait("lock", "waits for a lock that 'b' holds", waited=4.25)
    (line,) = lines(a_task(1, wait=wait, places=(), cancelled=True))
    assert line == (
        "t1 waits for a lock that 'b' holds, for at least 4.2 s (although it is cancelled)"
    )
    (line,) = lines(a_task(1, wait=dataclasses.replace(wait, held=9.0), places=()))
    assert line == "t1 waits for a lock that 'b' holds (for at least 9.0 s), for at least 4.2 s"


def test_a_scope_says_where_its_deadline_was_set_and_since_when_it_is_cancelled() -> None:
    scope = a_scope(5, deadline=2.5, deadline_set="app.py:7 in work()")
    assert lines(a_task(1, scopes=(scope,)))[1:] == [
        "└─ scope, deadline in 2.50 s (set at app.py:7 in work())"
    ]
    scope = a_scope(5, cancelled=True, reason="cancelled due to x", cancelled_for=6.0, shield=True)
    assert lines(a_task(1, scopes=(scope,)))[1:] == [
        "└─ scope, cancelled due to x, at least 6.0 s ago, shield"
    ]


def test_scopes_are_drawn_below_their_task_and_children_below_their_nursery() -> None:
    top = a_task(1, scopes=(a_scope(5, deadline=2.5), a_scope(100, nursery=True, children=(2, 3))))
    assert lines(top, a_task(2, 1), a_task(3, 1)) == [
        f"t1 {WAITS}",
        "├─ scope, deadline in 2.50 s",
        "└─ nursery",
        f"   ├─ t2 {WAITS}",
        f"   └─ t3 {WAITS}",
    ]


def test_the_line_of_a_scope_says_what_is_cancelled_and_what_a_shield_keeps_out() -> None:
    scopes = (
        a_scope(1, cancelled=True, reason="cancelled due to deadline", deadline=-1.0),
        a_scope(2, reason="cancelled due to deadline"),
        a_scope(3, shield=True, keeps_out="cancelled due to deadline"),
        a_scope(4, shield=True),
        a_scope(5, deadline=-2.0),
        a_scope(6, stop_requested=True, deadline=2.0),
        a_scope(7, nursery=True, cancelled=True, stop_requested=True),
    )
    assert lines(a_task(1, scopes=scopes))[1:] == [
        "├─ scope, cancelled due to deadline",
        "├─ scope, cancelled due to deadline, from outside",
        "├─ scope, its shield without a deadline keeps a cancellation out "
        "(cancelled due to deadline)",
        "├─ scope, shield without a deadline",
        "├─ scope, deadline passed 2.00 s ago",
        "├─ scope, asked to stop, deadline in 2.00 s",
        "└─ nursery, cancelled",
    ]


def test_children_that_do_the_same_at_the_same_line_are_folded() -> None:
    top = a_task(1, scopes=(a_scope(100, nursery=True),))
    children = [a_task(number, 1) for number in range(2, 10_002)]
    drawn = lines(top, *children)
    assert len(drawn) == 13
    assert drawn[-1] == "   └─ ... 9,990 more like this at app.py:7 in work(): await x()"
    assert len(lines(top, *children[:11])) == 13  # one task is not folded
    tree = TaskTree("", (top, *children))
    assert len(list(tree.lines(most=2))) == 5


def test_tasks_that_wait_for_something_else_or_have_scopes_are_not_folded_with_others() -> None:
    top = a_task(1, scopes=(a_scope(100, nursery=True),))
    other = Wait("lock", "waits for a lock")
    children = [
        a_task(number, 1, wait=other) if number % 2 else a_task(number, 1)
        for number in range(2, 62)
    ]
    scoped = [a_task(number, 1, scopes=(a_scope(number),)) for number in range(62, 82)]
    drawn = lines(top, *children, *scoped)
    assert sum("20 more like this" in line for line in drawn) == 2
    assert sum(line.endswith("─ scope") for line in drawn) == 10
    assert sum("10 more like this" in line for line in drawn) == 1


def test_tasks_with_nurseries_are_folded_if_all_that_is_below_them_is_alike() -> None:
    def handler(number: int, *children: TaskInfo) -> list[TaskInfo]:
        scopes = (a_scope(number, nursery=True),)
        return [a_task(number, 1, scopes=scopes, nursery=100), *children]

    top = a_task(1, scopes=(a_scope(100, nursery=True),))
    tasks = [top]
    for number in range(1000, 2000, 2):
        tasks += handler(number, a_task(number + 1, number, nursery=number))
    waits_for_a_lock = Wait("lock", "waits for a lock that 'b' holds")
    tasks += handler(5000, a_task(5001, 5000, nursery=5000, wait=waits_for_a_lock))
    drawn = lines(*tasks)
    assert sum("490 more like this" in line for line in drawn) == 1
    assert sum("waits for a lock" in line for line in drawn) == 1
    assert len(drawn) == 2 + 10 * 3 + 1 + 3


def test_tasks_at_the_top_are_folded() -> None:
    assert lines(*(a_task(number) for number in range(20)))[-1].startswith("... 10 more like this")


def test_a_task_whose_parent_is_gone_is_drawn_at_the_top() -> None:
    assert lines(a_task(2, 99)) == [f"t2 {WAITS}"]


def test_the_stack_of_the_step_that_the_loop_is_in_comes_first() -> None:
    places = (PLACE, Place("/srv/app.py", 9, "slow", "time.sleep(9)"))
    drawn = lines(a_task(1), blocking=places, blocking_task=1)
    assert drawn[:3] == [
        "the loop is in a step of task 't1':",
        "   app.py:7 in work(): await x()",
        "   app.py:9 in slow(): time.sleep(9)",
    ]
    assert lines(blocking=places)[0] == "the loop is in a step of a callback:"


def test_tasks_that_wait_for_each_other_are_named_as_a_deadlock_at_the_end() -> None:
    first = a_task(1, wait=Wait("lock", "waits", {}, (2,)))
    second = a_task(2, wait=Wait("lock", "waits", {}, (1,)))
    assert lines(first, second)[-1] == "deadlock: 't1' waits for 't2', 't2' waits for 't1'"
    alone = a_task(1, wait=Wait("lock", "waits", {}, (1,)))
    assert lines(alone)[-1] == "deadlock: 't1' waits for itself"


def test_circles_that_read_alike_are_counted_and_others_are_limited() -> None:
    def pair(number: int, name: str) -> list[TaskInfo]:
        there, back = Wait("lock", "w", {}, (number + 1,)), Wait("lock", "w", {}, (number,))
        first = a_task(number, wait=there, name=name)
        return [first, a_task(number + 1, wait=back, name=f"{name}'s")]

    alike = [task for number in (1, 3, 5) for task in pair(number, "a")]
    circle = "'a' waits for \"a's\", \"a's\" waits for 'a'"
    assert lines(*alike)[-1] == f"deadlock: {circle} (3 times)"
    many = [task for number in range(1, 17, 2) for task in pair(number, f"n{number:02}")]
    drawn = [line for line in lines(*many) if line.startswith("deadlock")]
    assert len(drawn) == 6
    assert drawn[-1] == "deadlock: ... 3 more circles of tasks"


def test_a_long_circle_is_cut_and_a_wait_for_one_of_several_says_so() -> None:
    ring = [
        a_task(number, wait=Wait("lock", "w", {}, (number % 20 + 1,)), name=f"n{number:02}")
        for number in range(1, 21)
    ]
    line = lines(*ring)[-1]
    assert "... 10 more ..." in line
    assert line.startswith("deadlock: 'n01' waits for 'n02', ")
    assert line.endswith("'n20' waits for 'n01'")
    either = Wait("limiter", "w", {}, (), (1, 2, 3))
    stuck = [a_task(number, wait=either) for number in (1, 2, 3)]
    assert lines(*stuck)[-1] == "deadlock: 't1' waits for itself or 2 others that cannot go on"
    likely = [
        a_task(number, wait=dataclasses.replace(either, certain=False)) for number in (1, 2, 3)
    ]
    assert lines(*likely)[-1].startswith("likely deadlock: 't1' waits for itself")


async def test_a_deep_task_tree_is_drawn_without_recursion() -> None:
    async def deeper(levels: int) -> None:
        async with nurseryio.open_nursery() as nursery:
            if levels:
                nursery.start_soon(deeper, levels - 1, name=f"level {levels}")
            else:
                drawn.extend(str(task_tree()).splitlines())

    drawn: list[str] = []
    await deeper(400)
    assert sum(" level " in line for line in drawn) >= 400


@pytest.mark.costly("many tasks")
async def test_ten_thousand_tasks_are_drawn_in_a_few_lines() -> None:
    async with nurseryio.open_nursery() as nursery:
        for _ in range(10_000):
            nursery.start_soon(nurseryio.sleep_forever)
        await wait_all_tasks_blocked()
        drawn = str(task_tree()).splitlines()
        nursery.cancel_scope.cancel()
    assert drawn[-1].endswith("... 9,990 more like this")
    assert len(drawn) < 30
