"""``Closing``: functions that are called once a loop has been closed, by whichever way."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest
from harness import matrix

from nurseryio._asyncio.closing import Closing, closing_of


@pytest.mark.parametrize("kind", matrix.KINDS)
def test_closing_a_loop_calls_each_function_once_after_the_loop_is_closed(kind: str) -> None:
    loop = matrix.new_loop(kind)
    seen: list[bool] = []
    closing = closing_of(loop)
    assert closing is not None
    closing.add("kept", lambda: seen.append(loop.is_closed()))
    closing.add("forgotten", lambda: seen.append(False))
    closing.discard("forgotten")
    closing.discard("never added")
    loop.close()
    loop.close()
    assert seen == [True]
    assert "close" not in vars(loop)


def test_a_loop_has_one_closing_that_wraps_the_replacement_of_other_code() -> None:
    loop = asyncio.new_event_loop()
    plain, seen = loop.close, []

    def close() -> None:
        seen.append("other code")
        plain()

    loop.close = close  # type: ignore[method-assign]
    closing = closing_of(loop)
    assert closing is closing_of(loop)
    assert closing is not None
    closing.add(1, lambda: seen.append("closed"))
    loop.close()
    assert seen == ["other code", "closed"]


def test_a_replacement_of_close_that_came_later_is_kept() -> None:
    loop = asyncio.new_event_loop()
    seen: list[str] = []
    closing = closing_of(loop)
    assert closing is not None
    closing.add(1, lambda: seen.append("closed"))

    def close() -> None:
        assert closing is not None
        closing()

    loop.close = close  # type: ignore[method-assign]
    loop.close()
    assert seen == ["closed"]
    assert vars(loop)["close"] is close
    del loop.close


async def test_a_loop_that_refuses_to_close_calls_no_function() -> None:
    loop = asyncio.get_running_loop()
    closing = closing_of(loop)
    assert closing is not None
    seen: list[str] = []
    closing.add(1, lambda: seen.append("closed"))
    with pytest.raises(RuntimeError):
        loop.close()
    assert seen == []
    closing.discard(1)


def test_a_loop_that_keeps_its_methods_has_no_closing() -> None:
    class Fixed:
        __slots__ = ()

        def close(self) -> None: ...

    loop: Any = Fixed()
    assert closing_of(loop) is None


@pytest.mark.parametrize("error", [AttributeError, TypeError, ValueError])
def test_a_loop_that_refuses_a_new_attribute_with_any_error_has_no_closing(
    error: type[Exception],
) -> None:
    class Refusing:
        def __setattr__(self, name: str, value: object) -> None:
            raise error(name)

        def close(self) -> None: ...

    loop: Any = Refusing()
    assert closing_of(loop) is None


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_a_lack_of_resources_is_not_taken_for_a_loop_without_closing(
    error: type[Exception],
) -> None:
    class Starved:
        def __setattr__(self, name: str, value: object) -> None:
            raise error(name)

        def close(self) -> None: ...

    loop: Any = Starved()
    with pytest.raises(error):
        closing_of(loop)


def test_a_closed_loop_is_freed_without_the_garbage_collector() -> None:
    loop = asyncio.new_event_loop()
    closing_of(loop)
    loop.close()
    reference = weakref.ref(loop)
    gc.disable()
    try:
        del loop
        assert reference() is None
    finally:
        gc.enable()


def test_threads_that_ask_at_the_same_time_get_the_same_closing() -> None:
    loop = asyncio.new_event_loop()
    found: list[Closing | None] = []
    barrier = threading.Barrier(4)

    def ask() -> None:
        barrier.wait()
        found.append(closing_of(loop))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loop.close()
    assert len(found) == 4
    assert len(set(found)) == 1
