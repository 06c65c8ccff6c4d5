"""The drawing of a loop's tasks."""

# Covered below 95 %: a tree at a Ctrl-C is in test_ki.py.

from __future__ import annotations

import asyncio

import pytest

import nurseryio
from nurseryio._core.task import records
from nurseryio.testing import task_tree, wait_all_tasks_blocked


def shape(tree: str) -> list[str]:
    """The lines with the names alone."""
    return [line.partition(" at ")[0] for line in tree.splitlines()]


async def test_task_tree_shows_children_below_their_nursery_in_the_order_of_their_names() -> None:
    async def parent() -> None:
        async with nurseryio.open_nursery() as inner:
            inner.start_soon(nurseryio.sleep_forever, name="a")
            inner.start_soon(nurseryio.sleep_forever, name="b")

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(parent, name="parent")
        nursery.start_soon(nurseryio.sleep_forever, name="single")
        await wait_all_tasks_blocked()
        lines = shape(task_tree())
        start = next(i for i, line in enumerate(lines) if line.endswith("nursery"))
        assert lines[start:] == [
            "└─ nursery",
            "   ├─ parent",
            "   │  └─ nursery",
            "   │     ├─ a",
            "   │     └─ b",
            "   └─ single",
        ]
        nursery.cancel_scope.cancel()


async def test_task_tree_shows_where_the_program_waits_not_the_library() -> None:
    async def child() -> None:
        await nurseryio.sleep(1000)  # here

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
        await wait_all_tasks_blocked()
        line = next(line for line in task_tree().splitlines() if "child" in line)
        assert "test_task_tree.py:" in line
        assert line.endswith("in child(): await nurseryio.sleep(1000)  # here")
        nursery.cancel_scope.cancel()


async def test_task_tree_marks_a_cancelled_nursery() -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.cancel_scope.cancel()
        assert "nursery, cancelled" in task_tree()


async def test_task_tree_shows_asyncio_tasks_last_and_makes_no_task_record(loop_kind: str) -> None:
    task = asyncio.ensure_future(asyncio.sleep(1000))
    task.set_name("foreign")
    await wait_all_tasks_blocked()
    file = "matrix.py" if loop_kind == "wrapping" else "tasks.py"
    assert task_tree().splitlines()[-1].startswith(f"asyncio task foreign at {file}:")
    assert task not in records
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.run_only
async def test_task_tree_leaves_out_the_tasks_of_the_run_and_marks_system_tasks() -> None:
    system = nurseryio.lowlevel.spawn_system_task(nurseryio.sleep_forever, name="sleeper")
    async with nurseryio.open_nursery():
        await wait_all_tasks_blocked()
        tree = task_tree()
    assert "<init>" not in tree
    assert "system task sleeper at" in tree
    assert sum(line[0] not in "├└│ " for line in tree.splitlines()) == 2
    assert system.name == "sleeper"


async def test_task_tree_shows_a_task_that_has_not_begun_by_its_name() -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep_forever, name="new")
        assert any("new" in line for line in task_tree().splitlines())
        nursery.cancel_scope.cancel()


async def test_a_deep_task_tree_is_drawn_without_recursion() -> None:
    async def deeper(levels: int) -> None:
        async with nurseryio.open_nursery() as nursery:
            if levels:
                nursery.start_soon(deeper, levels - 1, name=f"level {levels}")
            else:
                lines.extend(task_tree().splitlines())

    lines: list[str] = []
    await deeper(400)
    assert sum("level" in line for line in lines) == 400


def test_task_tree_without_a_loop_is_an_error() -> None:
    with pytest.raises(RuntimeError):
        task_tree()
