"""The private parts of a loop: which of them are believed, on every kind of loop."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import functools
import inspect
import os
import selectors
import subprocess
import sys
import threading
from math import inf
from typing import Any

import pytest
from harness import fake_loops, matrix, source

from nurseryio._asyncio import loop_parts

# -- which parts of a loop are used ---------------------------------------------------


async def test_asking_for_the_ready_queue_leaves_no_callback_in_it(loop_kind: str) -> None:
    loop: Any = asyncio.get_running_loop()
    before = list(getattr(loop, "_ready", ()))
    queue = loop_parts.ready_queue(loop)
    if loop_kind == "uvloop":
        assert queue == "unknown"
    else:
        assert queue is loop._ready
        assert list(queue) == before


@pytest.mark.parametrize("make", fake_loops.FAKES)
def test_a_ready_queue_that_the_loop_does_not_use_is_not_believed(make: Any) -> None:
    with contextlib.closing(make()) as loop:
        queue = loop_parts.ready_queue(loop)
        assert (queue == "unknown") == (make is not fake_loops.own_selector)
        assert len(queue) > 0 or make is fake_loops.own_selector
        assert loop_parts.selector_of(loop, queue) is None
        assert loop_parts.outside_wakers(loop, None) == 1
        loop.run_until_complete(asyncio.sleep(0))


def test_a_loop_is_asked_for_its_ready_queue_in_its_own_thread_only() -> None:
    async def main() -> object:
        return await asyncio.to_thread(loop_parts.ready_queue, asyncio.get_running_loop())

    with contextlib.closing(asyncio.SelectorEventLoop()) as loop:
        assert loop.run_until_complete(main()) is loop_parts.NOT_ASKED
        assert loop_parts.ready_queue(loop) == loop._ready  # type: ignore[attr-defined]
    assert loop_parts.ready_queue(loop) is loop_parts.UNKNOWN  # closed


class Exhausted(asyncio.SelectorEventLoop):
    """There is no memory to read a part, or to make a future."""

    def __getattribute__(self, name: str) -> Any:
        if name == "unreadable":
            raise MemoryError
        return super().__getattribute__(name)

    def create_future(self) -> asyncio.Future[Any]:
        """Fail."""
        raise MemoryError


def test_a_lack_of_memory_does_not_make_a_part_of_a_loop_unknown() -> None:
    with contextlib.closing(Exhausted()) as loop:
        with pytest.raises(MemoryError):
            loop_parts.part(loop, "unreadable")
        with pytest.raises(MemoryError):
            loop_parts.behind(loop)


async def test_the_threads_of_the_default_executor_are_known_while_they_are_idle(
    loop_kind: str,
) -> None:
    loop = asyncio.get_running_loop()
    go = threading.Event()
    busy = loop.run_in_executor(None, go.wait)
    assert loop_parts.idle_executor_threads(loop) == set()
    names = loop_parts.executor_threads(loop)
    assert len(names) == (loop_kind != "uvloop")
    go.set()
    await busy
    await loop.shutdown_default_executor()


@pytest.mark.parametrize("make", fake_loops.ODD)
def test_a_loop_of_odd_shape_counts_as_hiding_its_ready_queue(make: Any) -> None:
    with contextlib.closing(make()) as loop:
        queue = loop_parts.ready_queue(loop)
        assert queue is loop_parts.UNKNOWN
        assert loop_parts.selector_of(loop, queue) is None
        loop.run_until_complete(asyncio.sleep(0))


@pytest.mark.parametrize("make", [asyncio.SelectorEventLoop, *fake_loops.FAKES])
def test_an_emergency_call_is_made_on_a_loop_with_an_unused_ready_queue(make: Any) -> None:
    calls: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        context = contextvars.Context()
        queue = loop_parts.ready_queue(loop)
        loop_parts.emergency_call(loop, queue, lambda: calls.append(1), context)()
        assert calls == []
        await asyncio.sleep(0)
        assert calls == [1]

    with contextlib.closing(make()) as loop:
        loop.run_until_complete(main())


@pytest.mark.stock_only("uvloop has no selector")
async def test_the_asyncio_loop_shows_its_timers_and_its_watched_descriptors() -> None:
    loop = asyncio.get_running_loop()
    selector = loop_parts.selector_of(loop, loop_parts.ready_queue(loop))
    assert isinstance(selector, selectors.DefaultSelector)
    assert loop_parts.outside_wakers(loop, selector) == 0
    before = loop_parts.next_timer(loop)
    timer = loop.call_later(5, print)
    assert loop_parts.next_timer(loop) <= timer.when()
    timer.cancel()
    assert loop_parts.next_timer(loop) == before or before == inf


# -- proxies ----------------------------------------------------------------------------


def test_the_loop_behind_a_proxy_is_found() -> None:
    with contextlib.closing(fake_loops.Proxy()) as proxy:
        assert loop_parts.behind(proxy) is proxy.loop
        assert loop_parts.behind(proxy.loop) is proxy.loop


def test_a_loop_that_makes_no_futures_counts_as_the_loop_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with contextlib.closing(asyncio.SelectorEventLoop()) as loop:
        for answer in (None, asyncio.AbstractEventLoop.create_future):
            monkeypatch.setattr(loop, "create_future", lambda answer=answer: answer)
            assert loop_parts.behind(loop) is loop


def test_a_ready_queue_is_not_iterated_while_other_threads_may_append_to_it() -> None:
    class Queue(collections.deque[Any]):
        def __iter__(self) -> Any:
            raise RuntimeError("deque mutated during iteration")

        def copy(self) -> Any:
            return [self[index] for index in range(len(self))]

    loop = asyncio.new_event_loop()
    try:
        loop._ready = Queue()  # type: ignore[attr-defined]
        assert loop_parts.ready_queue(loop) is loop._ready  # type: ignore[attr-defined]
    finally:
        loop.close()


def test_a_loop_that_hides_its_queue_may_have_handles_whose_repr_fails() -> None:
    """``deque.remove`` puts the repr into its error. PySide6.QtAsyncio has such handles."""

    class Incomplete(asyncio.Handle):
        def __repr__(self) -> str:
            raise AttributeError("not complete")

    class Elsewhere(asyncio.SelectorEventLoop):
        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
            return Incomplete(callback, args, self, context)

    with contextlib.closing(Elsewhere()) as loop:
        assert loop_parts.ready_queue(loop) is loop_parts.UNKNOWN


# The interpreter replaces an instruction that is executed often by a faster form of it.
ITERATIONS_OF_A_LOOP = """
    import asyncio, dis, sys

    async def use_the_library():
        import nurseryio

        class Instrument(nurseryio.abc.Instrument):
            def before_task_step(self, task): ...

        instrument = Instrument()
        nurseryio.lowlevel.add_instrument(instrument)
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 0)
            nursery.start_soon(nurseryio.sleep, 0, name="named")
        nurseryio.lowlevel.remove_instrument(instrument)
        with nurseryio.move_on_after(0):
            await nurseryio.sleep_forever()
        await nurseryio.to_thread.run_sync(nurseryio.from_thread.run_sync, list)

    async def main():
        if sys.argv[1] == "used":
            await use_the_library()
        elif sys.argv[1] == "asked":
            vars(asyncio.get_running_loop())
        for _ in range(3000):
            await asyncio.sleep(0)

    loop = asyncio.SelectorEventLoop()
    loop.run_until_complete(main())
    loop.close()
    code = asyncio.BaseEventLoop._call_soon
    for instruction in dis.get_instructions(code, adaptive=True):
        if instruction.argval == "_ready":
            print(instruction.opname)
"""


def _how_the_queue_is_read(what: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", inspect.cleandoc(ITERATIONS_OF_A_LOOP), what],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(source.ROOT)},
        check=True,
    )
    return ended.stdout.strip()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the __dict__ does no harm there")
def test_a_loop_that_the_library_has_used_is_not_slower_because_its_dict_was_asked_for() -> None:
    if _how_the_queue_is_read("asked") != "LOAD_ATTR":
        pytest.skip("this Python reads the attributes in the usual way even so")
    assert _how_the_queue_is_read("used").startswith("LOAD_ATTR_")
    assert _how_the_queue_is_read("alone").startswith("LOAD_ATTR_")


@pytest.mark.parametrize("loop_kind", matrix.KINDS)
def test_a_replacement_on_a_loop_or_a_selector_is_told_from_the_method_of_the_class(
    loop_kind: str,
) -> None:
    loop: Any = matrix.new_loop(loop_kind)
    other: Any = matrix.new_loop(loop_kind)
    with contextlib.closing(loop), contextlib.closing(other):
        for name in ("call_soon", "create_task", "close"):
            assert loop_parts.replacement(loop, name) is None
            proxy = fake_loops.EqualProxy(getattr(loop, name))
            for found in (getattr(other, name), print, functools.partial(print), proxy):
                setattr(loop, name, found)
                assert loop_parts.replacement(loop, name) is found
                delattr(loop, name)
            assert loop_parts.replacement(loop, name) is None
    with selectors.DefaultSelector() as selector:
        assert loop_parts.replacement(selector, "select") is None
        selector.select = replaced = functools.partial(selector.select)  # type: ignore[method-assign]
        assert loop_parts.replacement(selector, "select") is replaced
