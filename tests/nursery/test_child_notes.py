"""The notes on errors of children: which child it was, and where its nursery is."""

from __future__ import annotations

import contextlib
import gc
import pickle
import sys
import traceback
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

import nurseryio
from nurseryio._base.exc_fields import notes_of
from nurseryio._nursery.child_notes import MOST_FRAMES, _place_of_block
from nurseryio.lowlevel import current_task

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup


async def fails(error: BaseException) -> None:
    raise error


async def notes_after(*errors: BaseException, strict: bool | None = None, **options: Any) -> Any:
    """Raise each error in a child, and return the notes of each."""
    with contextlib.suppress(BaseException):
        async with nurseryio.open_nursery(strict_exception_groups=strict) as nursery:
            for error in errors:
                nursery.start_soon(fails, error, **options)
    return [notes_of(error) for error in errors]


def line_of(mark: str) -> str:
    """The place of the line of this file that ends with a comment."""
    with open(__file__, encoding="utf-8") as file:
        lines = file.read().splitlines()
    (number,) = [n for n, line in enumerate(lines, 1) if line.endswith(f"# {mark}")]
    return f"test_child_notes.py:{number}"


async def test_error_of_a_named_child_has_a_note_with_its_name_and_the_line_of_the_nursery() -> (
    None
):
    with pytest.raises(ExceptionGroup) as caught:
        async with nurseryio.open_nursery() as nursery:  # the nursery of the jobs
            for number in range(2):
                nursery.start_soon(fails, ValueError("bad"), name=f"job {number}")
    function = sys._getframe().f_code.co_name
    assert sorted(notes_of(error) for error in caught.value.exceptions) == [
        [
            f"in child task 'job {number}' of the nursery at "
            f"{line_of('the nursery of the jobs')} in {function}()"
        ]
        for number in range(2)
    ]
    assert notes_of(caught.value) == []


async def test_traceback_shows_the_note_of_a_child() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(fails, ValueError("bad"), name="job")
    text = "".join(traceback.format_exception(caught.value))
    assert "ValueError: bad\n    | in child task 'job' of the nursery at test_child_notes" in text


async def test_error_of_a_child_without_a_name_of_its_own_has_no_note() -> None:
    assert await notes_after(ValueError()) == [[]]
    assert await notes_after(ValueError(), name=fails) == [[]]


async def test_child_note_does_not_repeat_a_function_of_the_traceback() -> None:
    assert await notes_after(ValueError(), name=f"{__name__}.fails") == [[]]


async def test_child_whose_name_was_looked_at_has_no_note_either() -> None:
    error = ValueError()

    async def child() -> None:
        assert "child" in current_task().name
        raise error

    with pytest.raises(ExceptionGroup):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child)
    assert notes_of(error) == []


async def test_only_the_innermost_nursery_adds_a_child_note() -> None:
    error = ValueError()

    async def middle() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(fails, error, name="inner")

    with pytest.raises(ExceptionGroup) as caught:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(middle, name="outer")
    (group,) = caught.value.exceptions
    assert [note[:21] for note in notes_of(error)] == ["in child task 'inner'"]
    assert notes_of(group) == []


async def test_group_whose_errors_have_no_child_note_has_one() -> None:
    async def middle() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(fails, ValueError())

    with pytest.raises(ExceptionGroup) as caught:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(middle, name="outer")
    (group,) = caught.value.exceptions
    assert [note[:21] for note in notes_of(group)] == ["in child task 'outer'"]


async def test_an_error_that_several_children_raise_has_one_child_note() -> None:
    error = ValueError()
    first, second = await notes_after(error, error, name="job")
    assert len(first) == len(second) == 1


@pytest.mark.filterwarnings("ignore::nurseryio.TrioDeprecationWarning")
async def test_child_note_is_not_added_again_after_a_loose_nursery() -> None:
    error = ValueError()

    async def middle() -> None:
        async with nurseryio.open_nursery(strict_exception_groups=False) as nursery:
            nursery.start_soon(fails, error, name="inner")

    with pytest.raises(ValueError):
        async with nurseryio.open_nursery(strict_exception_groups=False) as nursery:
            nursery.start_soon(middle, name="outer")
    assert [note[:21] for note in notes_of(error)] == ["in child task 'inner'"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_exits_have_no_child_note(kind: type[BaseException]) -> None:
    assert await notes_after(kind(), strict=True, name="job") == [[]]


async def test_cancelled_has_no_child_note() -> None:
    cancelled: list[BaseException] = []

    async def child() -> None:
        try:
            await nurseryio.sleep_forever()
        except nurseryio.Cancelled as error:
            cancelled.append(error)
            raise

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child, name="job")
        await nurseryio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    (error,) = cancelled
    assert notes_of(error) == []


async def test_error_that_start_raises_has_a_note_with_the_line_of_the_call() -> None:
    async def child(task_status: object) -> None:
        raise ValueError

    async with nurseryio.open_nursery() as nursery:
        with pytest.raises(ValueError) as caught:
            await nursery.start(child, name="server")  # the call of start
    (note,) = notes_of(caught.value)
    assert note.startswith(f"in child task 'server' started at {line_of('the call of start')}")


async def test_child_note_names_the_program_and_not_an_exit_stack() -> None:
    error = ValueError()
    with pytest.raises(ExceptionGroup):
        async with contextlib.AsyncExitStack() as stack:  # the stack
            nursery = await stack.enter_async_context(nurseryio.open_nursery())
            nursery.start_soon(fails, error, name="job")
    assert line_of("the stack") in notes_of(error)[0]


async def test_child_note_names_the_generator_around_a_nursery() -> None:
    error = ValueError()

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[nurseryio.Nursery]:
        async with nurseryio.open_nursery() as nursery:  # the nursery of the generator
            yield nursery

    with pytest.raises(ExceptionGroup):
        async with opened() as nursery:
            nursery.start_soon(fails, error, name="job")
    assert f"{line_of('the nursery of the generator')} in opened()" in notes_of(error)[0]


async def test_error_with_a_child_note_can_be_pickled() -> None:
    error = ValueError("bad")
    ((note,),) = await notes_after(error, name="job")
    assert type(note) is str
    assert pickle.loads(pickle.dumps(error)).__dict__ == {"__notes__": [note]}


async def test_child_note_keeps_no_nursery_alive() -> None:
    class Error(Exception):
        pass

    kept: list[Any] = []

    async def block() -> None:
        nursery = nurseryio.open_nursery()
        error = Error()
        kept.append(weakref.ref(error))
        try:
            async with nursery:
                nursery.start_soon(fails, error, name="job")
        except ExceptionGroup:
            kept.append(nursery)
        finally:
            del error

    await block()
    gc.collect()
    # The nursery lives on, and does not hold the error.
    assert kept[0]() is None


async def test_child_note_of_an_error_whose_class_resists() -> None:
    class Error(Exception):
        __slots__ = ()

        def add_note(self, note: str) -> None:
            raise AssertionError

        @property
        def __notes__(self) -> Any:
            raise AssertionError

    error = Error()
    with pytest.raises(BaseExceptionGroup) as caught:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(fails, error, name="job")
    assert caught.value.exceptions == (error,)
    assert len(notes_of(error)) == 1


async def test_child_note_of_a_name_that_is_only_deep_in_the_traceback() -> None:
    def deep(level: int) -> None:
        if level:
            deep(level - 1)
        innermost()

    def innermost() -> None:
        raise error

    async def child() -> None:
        deep(MOST_FRAMES)

    error = ValueError()
    with pytest.raises(ExceptionGroup):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child, name="innermost")
    assert len(notes_of(error)) == 1


def test_place_of_a_block_that_no_line_of_the_program_leaves() -> None:
    assert _place_of_block(None) == ""
    assert _place_of_block(sys._getframe()) == ""  # not a coroutine
