"""Hints: errors about names and arguments that belong to other libraries say what to write."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import pytest

import nurseryio
from nurseryio._base.exc_fields import notes_of
from nurseryio._base.hints import Elsewhere, explain_keyword

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


async def child(**options: object) -> None:
    raise AssertionError("never runs")


async def test_create_task_and_cancel_of_a_nursery_name_start_soon_and_its_scope() -> None:
    async with nurseryio.open_nursery() as nursery:
        with pytest.raises(AttributeError, match=r"no attribute 'create_task': .*start_soon"):
            nursery.create_task(child())  # type: ignore[attr-defined]
        with pytest.raises(AttributeError, match=r"use nursery\.cancel_scope\.cancel\(\)"):
            nursery.cancel()  # type: ignore[attr-defined]


async def test_put_and_get_of_a_memory_channel_name_send_and_receive() -> None:
    send: Any
    receive: Any
    send, receive = nurseryio.open_memory_channel[int](1)
    with send, receive:
        with pytest.raises(AttributeError, match=r"use await send\(value\)"):
            await send.put(1)
        with pytest.raises(AttributeError, match=r"use send_nowait\(value\)"):
            send.put_nowait(1)
        with pytest.raises(AttributeError, match=r"use await receive\(\)"):
            await receive.get()
        with pytest.raises(AttributeError, match=r"use receive_nowait\(\)"):
            receive.get_nowait()


def test_clear_of_an_event_says_that_an_event_is_set_once() -> None:
    event: Any = nurseryio.Event()
    with pytest.raises(AttributeError, match=r"'Event' object has no attribute 'clear': .* once"):
        event.clear()


def test_an_attribute_with_a_hint_counts_as_missing() -> None:
    event = nurseryio.Event()
    assert not hasattr(event, "clear")
    assert not hasattr(nurseryio.Event, "clear")
    assert getattr(event, "clear", None) is None
    with pytest.raises(AttributeError, match="type 'Event' has no attribute 'clear'"):
        nurseryio.Event.clear(event)  # type: ignore[attr-defined]
    assert "clear" not in dict(inspect.getmembers(event))
    assert repr(vars(nurseryio.Event)["clear"]).startswith("<not here: an event is set once")


def test_an_object_may_have_an_attribute_for_which_there_is_a_hint() -> None:
    class Thing:
        size = Elsewhere("use len(thing)")

    thing = Thing()
    thing.size = 3  # type: ignore[assignment]
    assert thing.size == 3


@pytest.mark.parametrize("method", ["start_soon", "start"])
async def test_a_keyword_argument_for_a_child_is_explained_with_partial(method: str) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with nurseryio.open_nursery() as nursery:
            called = getattr(nursery, method)(child, x=1)
            if method == "start":
                await called
    (error,) = caught.value.exceptions
    assert notes_of(error) == [
        "pass keyword arguments of the function with functools.partial: "
        f"nursery.{method}(partial(f, x=...))"
    ]


async def test_a_keyword_argument_that_a_child_gives_is_explained_once() -> None:
    async def spawns(nursery: nurseryio.Nursery) -> None:
        nursery.start_soon(child, x=1)  # type: ignore[call-arg]

    with pytest.raises(BaseExceptionGroup) as caught:
        async with nurseryio.open_nursery() as outer, nurseryio.open_nursery() as inner:
            inner.start_soon(spawns, outer)
    (group,) = caught.value.exceptions
    (error,) = group.exceptions  # type: ignore[attr-defined]
    assert len(notes_of(error)) == 1


async def test_a_keyword_argument_for_a_function_in_a_thread_is_explained() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with nurseryio.open_nursery():
            await nurseryio.to_thread.run_sync(print, x=1)  # type: ignore[call-arg]
    (error,) = caught.value.exceptions
    assert notes_of(error)[0].endswith("run_sync(partial(f, x=...))")


@pytest.mark.parametrize(
    "error",
    [TypeError(), TypeError(3), TypeError("child() got an unexpected keyword argument 'x'")],
)
def test_other_type_errors_get_no_note(error: TypeError) -> None:
    explain_keyword(error)
    assert notes_of(error) == []
