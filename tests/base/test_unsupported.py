"""Functions that cannot work on asyncio, or on the platform, say what to do instead."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import subprocess
import sys
import traceback
import unittest.mock
from math import inf
from typing import Any

import pytest

import nurseryio
from nurseryio import lowlevel
from nurseryio._base import unsupported
from nurseryio._base.exc_fields import notes_of
from nurseryio._base.unsupported import (
    _INSTEAD,
    Elsewhere,
    NeverHere,
    explain_keyword,
    name_instead,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


def test_start_guest_run_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="await your function in it"):
        lowlevel.start_guest_run(None)


@pytest.mark.parametrize(
    "name",
    [
        "permanently_detach_coroutine_object",
        "temporarily_detach_coroutine_object",
        "reattach_detached_coroutine_object",
    ],
)
async def test_detaching_and_reattaching_coroutine_objects_is_refused(name: str) -> None:
    with pytest.raises(NotImplementedError, match=f"^{name}.. moves a coroutine"):
        await getattr(lowlevel, name)(None)


# -- parts that the platform lacks -----------------------------------------------

# Loads the library as in a web page, and prints a line for each call.
IN_A_PAGE = """
import asyncio, socket, ssl, subprocess, sys, threading
sys.platform = "emscripten"
sys.modules["ssl"] = None
import nurseryio
from nurseryio import from_thread, instruments, lowlevel, socket, to_thread

async def main():
    for name, call in CALLS.items():
        try:
            result = call()
            if hasattr(result, "__await__"):
                await result
            print(name, "works")
        except NotImplementedError as error:
            print(name, str(error).split(":")[0])

CALLS = {
    "to_thread": lambda: to_thread.run_sync(print),
    "from_thread": lambda: from_thread.run_sync(print),
    "start_thread_soon": lambda: lowlevel.start_thread_soon(print, print),
    "open_file": lambda: nurseryio.open_file("name"),
    "Path": lambda: nurseryio.Path("name").exists(),
    "socket": lambda: socket.socket(),
    "getaddrinfo": lambda: socket.getaddrinfo("localhost", 80),
    "serve_tcp": lambda: nurseryio.serve_tcp(print, 0),
    "run_process": lambda: nurseryio.run_process(["ls"]),
    "signals": lambda: nurseryio.open_signal_receiver(2),
    "watchdog": lambda: instruments.Watchdog().start(),
    "monitor": lambda: instruments.serve_monitor("path"),
    "dump": lambda: instruments.dump_on_signal(),
    "SSLStream": lambda: nurseryio.SSLStream(None, None),
    "sleep": lambda: nurseryio.sleep(0),
    "preload": nurseryio.preload,
}
asyncio.run(main())
"""


def test_without_threads_sockets_processes_signals_and_ssl_the_call_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PAGE], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    no = "this platform (emscripten) has no"
    paths = "the methods of nurseryio.Path that use the file system"
    assert done.stdout.splitlines() == [
        f"to_thread {no} threads, so to_thread.run_sync() cannot work",
        f"from_thread {no} threads, so from_thread.run_sync() cannot work",
        f"start_thread_soon {no} threads, so start_thread_soon() cannot work",
        f"open_file {no} threads, so open_file() cannot work",
        f"Path {no} threads, so {paths} cannot work",
        f"socket {no} sockets, so socket() cannot work",
        f"getaddrinfo {no} sockets, so getaddrinfo() cannot work",
        f"serve_tcp {no} sockets, so serve_tcp() cannot work",
        f"run_process {no} processes, so run_process() cannot work",
        f"signals {no} signals, so open_signal_receiver() cannot work",
        f"watchdog {no} threads, sockets and signals, so Watchdog cannot work",
        f"monitor {no} threads, sockets and signals, so serve_monitor() cannot work",
        f"dump {no} threads, sockets and signals, so dump_on_signal() cannot work",
        f"SSLStream {no} module ssl, so SSLStream() cannot work",
        "sleep works",
        "preload works",
    ]


def test_a_function_is_not_changed_where_the_platform_has_all_that_it_needs() -> None:
    def function() -> None:
        """Does nothing."""

    assert unsupported.needs("threads")(function) is function


async def test_a_refused_function_stays_async_and_keeps_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unsupported, "LACKING", frozenset({"threads"}))

    @unsupported.needs("threads", "the thing")
    async def function(argument: int) -> None:
        """Does something."""

    assert inspect.iscoroutinefunction(function) and function.__name__ == "function"
    call: Any = function(1)  # a nursery may spawn it
    with pytest.raises(NotImplementedError, match="has no threads, so the thing cannot work: call"):
        await call


def test_a_module_that_is_missing_for_another_reason_is_an_import_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = ModuleNotFoundError("No module named 'ssl'", name="ssl")
    assert unsupported.missing_part(lost) is None  # this platform has it
    monkeypatch.setattr(unsupported, "LACKING", frozenset({"threads"}))
    assert unsupported.missing_part(lost) == "ssl"
    assert unsupported.missing_part(ModuleNotFoundError("", name="other")) is None
    assert unsupported.missing_part(OSError()) is None


def test_a_stand_in_is_a_class_so_isinstance_works_with_it() -> None:
    cls = unsupported.stand_in("ssl", "SSLStream")
    assert not isinstance(nurseryio, cls)
    with pytest.raises(NotImplementedError, match=r"no module ssl, so SSLStream\(\) cannot work"):
        cls(1, two=2)


# -- names and arguments of other libraries ---------------------------------------


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


def classes_with_hints() -> list[type]:
    public: set[Any] = {
        getattr(module, name) for module in (nurseryio, lowlevel) for name in module.__all__
    }
    found = [cls for cls in public if isinstance(cls, type) and hints_of(cls)]
    return sorted(found, key=lambda cls: cls.__qualname__)


def hints_of(cls: type) -> list[str]:
    return [
        name
        for base in cls.__mro__
        for name, value in vars(base).items()
        if isinstance(value, Elsewhere)
    ]


def test_there_are_hints_in_the_classes_whose_asyncio_counterparts_have_other_methods() -> None:
    assert {cls.__name__ for cls in classes_with_hints()} >= {
        *("CancelScope", "Condition", "Event", "MemoryReceiveChannel", "MemorySendChannel"),
        *("Nursery", "Process", "Semaphore", "SocketStream", "Task"),
    }


@pytest.mark.parametrize("cls", classes_with_hints(), ids=lambda cls: cls.__name__)
def test_a_hint_is_invisible_to_hasattr_dir_getmembers_and_autospec(cls: type) -> None:
    hints = hints_of(cls)
    made = cls.__new__(cls)  # without __init__: only the class decides
    assert not set(hints) & set(dir(made))
    assert not [name for name in hints if hasattr(cls, name) or hasattr(made, name)]
    assert not set(hints) & set(dict(inspect.getmembers(made)))
    specified = unittest.mock.create_autospec(made if type(cls) is type else cls)
    assert not [name for name in hints if hasattr(specified, name)]


@pytest.mark.parametrize("cls", classes_with_hints(), ids=lambda cls: cls.__name__)
def test_a_hint_is_the_end_of_the_attribute_error_that_python_would_raise(cls: type) -> None:
    made = cls.__new__(cls)
    for name in hints_of(cls):
        with pytest.raises(
            AttributeError, match=f"^'{cls.__name__}' object has no attribute "
        ) as caught:
            getattr(made, name)
        assert caught.value.name == name
        # Python appends nothing to the hint, such as: Did you mean: 'parent_task'?
        shown = "".join(traceback.format_exception_only(caught.value))
        assert shown == f"AttributeError: {caught.value}\n"


async def test_assigning_a_deadline_or_shield_to_a_nursery_is_refused_with_a_hint() -> None:
    async with nurseryio.open_nursery() as nursery:
        for name in ("deadline", "shield"):
            wanted = f"'Nursery' object has no attribute '{name}': use nursery.cancel_scope.{name}"
            with pytest.raises(AttributeError, match=f"^{re.escape(wanted)}$"):
                setattr(nursery, name, 1)
            with pytest.raises(AttributeError, match=re.escape(wanted)):
                delattr(nursery, name)
        nursery.label = "ours"  # type: ignore[attr-defined]  # other names may be added
        assert nursery.cancel_scope.deadline == inf


def test_a_misspelled_shield_is_refused_with_a_hint_in_reading_and_in_assignment() -> None:
    scope: Any = nurseryio.CancelScope()
    with pytest.raises(AttributeError, match=r"no attribute 'sheild': use scope\.shield"):
        scope.sheild = True
    with pytest.raises(AttributeError, match=r"no attribute 'timeout': use scope\.relative_dead"):
        scope.timeout = 3
    with pytest.raises(AttributeError, match=r"'expired': use scope\.cancelled_caught"):
        scope.expired()
    assert not scope.shield


def test_completion_with_dir_keeps_the_attributes_that_an_object_has() -> None:
    class Thing:
        size = Elsewhere("use len(thing)")

        def method(self) -> None: ...

    class Below(Thing):
        def __dir__(self) -> list[str]:
            return [*super().__dir__(), "extra"]

    thing: Any = Below()
    thing.own = 1
    assert {"method", "own", "extra"} <= set(dir(thing))
    assert "size" not in dir(thing)


def test_objects_of_a_class_with_hints_can_be_copied_and_pickled_as_before() -> None:
    before = PicklableThing()
    before.own = [1]
    assert copy.copy(before).own is before.own
    assert copy.deepcopy(before).own == pickle.loads(pickle.dumps(before)).own == [1]


class PicklableThing:
    size = NeverHere("use len(thing)")
    own: list[int]


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


async def test_a_function_without_task_status_that_start_runs_is_explained() -> None:
    async def serve() -> None:
        raise AssertionError("never runs")

    async with nurseryio.open_nursery() as nursery:
        with pytest.raises(TypeError, match="unexpected keyword argument 'task_status'") as caught:
            await nursery.start(serve)
    (note,) = notes_of(caught.value)
    assert note.startswith("nursery.start() waits until the function has called")


@pytest.mark.parametrize("name", sorted(_INSTEAD))
def test_the_advice_about_a_name_of_asyncio_uses_names_that_exist(name: str) -> None:
    advice = name_instead(name)
    assert advice is not None
    assert not hasattr(nurseryio, name)
    named = [word for word in re.findall(r"[A-Za-z_]{4,}", advice) if hasattr(nurseryio, word)]
    assert named or "asyncio.get_running_loop" in advice
    assert name_instead("typo") is None


@pytest.mark.parametrize(
    "error",
    [TypeError(), TypeError(3), TypeError("child() got an unexpected keyword argument 'x'")],
)
def test_other_type_errors_get_no_note(error: TypeError) -> None:
    explain_keyword(error)
    assert notes_of(error) == []
