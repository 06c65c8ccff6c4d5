"""The helpers of ``trio._util``: they do what they do in Trio."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest

import nurseryio
from nurseryio._interop import trio_util

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


def unwrapped(*errors: BaseException) -> BaseException:
    """The error that raise_single_exception_from_group raises for a group of these."""
    group = BaseExceptionGroup("", errors)
    with pytest.raises(BaseException) as caught:
        trio_util.raise_single_exception_from_group(group)
    if caught.value not in errors:
        assert caught.value.__cause__ is group
    return caught.value


def test_a_conflict_detector_of_trio_raises_its_text_in_the_second_task() -> None:
    detector = trio_util.ConflictDetector("another task is sending")
    with detector:
        with pytest.raises(nurseryio.BusyResourceError, match=r"^another task is sending$"):
            with detector:
                pass
    with detector:
        pass


def test_a_class_marked_final_by_trio_refuses_subclasses() -> None:
    @trio_util.final
    class Last:
        pass

    assert isinstance(Last(), Last)
    with pytest.raises(TypeError, match=r"\.More does not support subclassing$"):
        type("More", (Last,), {"__module__": __name__})


def test_a_class_of_trio_without_a_public_constructor_is_made_by_create() -> None:
    class Made(metaclass=trio_util.NoPublicConstructor):
        def __init__(self, value: int) -> None:
            self.value = value

    assert Made._create(3).value == 3
    with pytest.raises(TypeError, match=r"\.Made has no public constructor$"):
        Made(3)


def test_is_main_thread_of_trio_is_true_in_the_main_thread_only() -> None:
    found = [trio_util.is_main_thread()]
    thread = threading.Thread(target=lambda: found.append(trio_util.is_main_thread()))
    thread.start()
    thread.join()
    assert found == [True, False]


def test_async_wraps_of_trio_names_the_method_after_the_sync_one() -> None:
    class Slow:
        """A class with an async method."""

    @trio_util.async_wraps(Slow, dict, "get")
    async def method(self: Any) -> None:
        pass

    assert method.__name__ == "get"
    assert method.__qualname__.endswith(".Slow.get")
    assert method.__doc__ == "Like :meth:`~builtins.dict.get`, but async."


async def numbers() -> AsyncGenerator[int, None]:
    """An async generator function."""
    yield 1


@pytest.mark.stock_only("no loop is needed")
async def test_the_name_of_an_async_generator_in_trio_stays_when_it_has_ended() -> None:
    generator = numbers()
    assert trio_util.name_asyncgen(generator) == f"{__name__}.numbers"
    async for _ in generator:
        pass
    assert trio_util.name_asyncgen(generator) == f"<{__file__}>.numbers"
    assert trio_util.name_asyncgen(3) == "3"


def test_the_only_error_of_a_group_of_trio_is_raised_and_keeps_its_context_and_cause() -> None:
    error, context, cause = ValueError(), KeyError(), OSError()
    error.__context__, error.__cause__ = context, cause
    assert unwrapped(nurseryio.Cancelled(), error, nurseryio.Cancelled()) is error
    assert (error.__context__, error.__cause__) == (context, cause)


def test_the_first_cancelled_of_a_group_of_trio_without_errors_is_raised() -> None:
    first = nurseryio.Cancelled()
    assert unwrapped(first, nurseryio.Cancelled()) is first


def test_a_group_of_trio_with_several_errors_raises_multiple_exception_error() -> None:
    error = unwrapped(ValueError(), KeyError())
    assert isinstance(error, trio_util.MultipleExceptionError)
    assert str(error).startswith("Attempted to unwrap exceptiongroup with multiple non-cancelled")


def test_a_group_of_trio_with_an_exit_raises_a_new_one_with_its_arguments() -> None:
    error = unwrapped(ValueError(), KeyError(), SystemExit(3))
    assert isinstance(error, SystemExit)
    assert error.code == 3
    assert isinstance(unwrapped(KeyboardInterrupt()), KeyboardInterrupt)
