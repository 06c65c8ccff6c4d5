"""The task tree as data."""

from __future__ import annotations

import dataclasses
import json

import pytest

import nurseryio
from nurseryio.instruments import Place, TaskInfo, TaskTree, Wait, task_tree
from nurseryio.testing import wait_all_tasks_blocked


def a_task(
    number: int, *waits_for: int, any_of: tuple[int, ...] = (), certain: bool = True
) -> TaskInfo:
    wait = Wait("lock", "waits", {}, waits_for, any_of, certain)
    return TaskInfo(number, str(number), "task", "waiting", wait, False, (), (), None, None)


def circles(*tasks: TaskInfo, certain: bool = True) -> list[list[str]]:
    return [[task.name for task in circle] for circle in TaskTree("", tasks).circles(certain)]


def test_circles_finds_tasks_that_wait_for_each_other() -> None:
    assert circles(a_task(1, 2), a_task(2, 1)) == [["1", "2"]]
    assert circles(a_task(0, 1), a_task(1, 2), a_task(2, 3), a_task(3, 1)) == [["1", "2", "3"]]
    assert circles(a_task(1, 1)) == [["1"]]


def test_circles_finds_two_circles_that_share_a_task() -> None:
    assert circles(a_task(1, 2, 3), a_task(2, 1), a_task(3, 1)) == [["1", "2"], ["1", "3"]]


def test_circles_of_tasks_that_wait_for_others_is_empty() -> None:
    assert circles(a_task(1, 2, 3), a_task(2, 3), a_task(3), a_task(4, 99)) == []


def test_circles_of_a_deep_tree_needs_no_recursion() -> None:
    assert circles(*(a_task(number, number + 1) for number in range(3000))) == []
    looped = [a_task(number, number + 1) for number in range(3000)]
    assert len(circles(*looped, a_task(3000, 0))[0]) == 3001


def test_the_place_of_a_task_is_the_innermost_of_the_program() -> None:
    places = (Place("/srv/a.py", 1, "main", ""), Place("/env/site-packages/x.py", 2, "get", ""))
    task = dataclasses.replace(a_task(1), places=places)
    assert task.place is places[0]
    assert a_task(1).place is None


def test_the_data_of_a_tree_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TaskTree("", ()).loop = "x"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        a_task(1).name = "x"  # type: ignore[misc]


async def test_as_dict_of_a_task_tree_goes_through_json() -> None:
    lock = nurseryio.Lock()

    async def wants() -> None:
        with nurseryio.move_on_after(1000):
            async with lock:
                raise AssertionError("the lock is held")

    async with lock, nurseryio.open_nursery() as nursery:
        nursery.start_soon(wants, name="w")
        await wait_all_tasks_blocked()
        tree = task_tree()
        nursery.cancel_scope.cancel()
    data = json.loads(json.dumps(tree.as_dict()))
    (task,) = (task for task in data["tasks"] if task["name"] == "w")
    assert task["wait"]["details"]["owner"] in [other["name"] for other in data["tasks"]]
    assert task["places"][0]["function"] == "wants"
    assert task["scopes"][0]["deadline"] > 900


async def test_str_of_a_task_is_its_line_in_the_drawing() -> None:
    tree = task_tree()
    lines = str(tree).splitlines()
    assert all(any(line.endswith(str(task)) for line in lines) for task in tree.tasks)


# -- circles ----------------------------------------------------------------------------


def test_a_circle_of_tasks_of_which_each_needs_the_next() -> None:
    assert circles(a_task(1, 2), a_task(2, 3), a_task(3, 1), a_task(4, 1)) == [["1", "2", "3"]]
    assert circles(a_task(1, 1)) == [["1"]]
    assert circles(a_task(1, 2), a_task(2)) == []


def test_a_wait_for_one_of_several_ends_if_one_of_them_can_act() -> None:
    assert circles(a_task(1, any_of=(2, 3)), a_task(2, 1), a_task(3)) == []
    assert circles(a_task(1, any_of=(2, 3)), a_task(2, 1), a_task(3, 1)) == [["1", "2"]]
    assert circles(a_task(1, any_of=(1, 2)), a_task(2, any_of=(1, 2))) == [["1"]]
    assert circles(a_task(1, any_of=(9,))) == []  # that task has just ended


def test_a_wait_for_all_does_not_end_if_one_of_them_is_stuck() -> None:
    assert circles(a_task(1, 2, 3), a_task(2), a_task(3, 1)) == [["1", "3"]]


def test_a_circle_with_a_wait_that_other_code_may_end_is_likely_only() -> None:
    tasks = (a_task(1, 2), a_task(2, any_of=(1,), certain=False), a_task(3, 4), a_task(4, 3))
    assert circles(*tasks) == [["3", "4"]]
    assert circles(*tasks, certain=False) == [["1", "2"]]
