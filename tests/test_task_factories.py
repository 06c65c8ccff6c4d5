"""Task factories and replaced ``create_task``: a child runs once, or its nursery gets an error.

A *maker* stands between a nursery and asyncio, as the tools do that people put there: it is given a
coroutine and a function that makes a plain task, and returns a task. A *way* is how it got there.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import fake_loops, matrix
from harness.core import leaves, settle, task_factory, validate

import nurseryio
from nurseryio import TASK_STATUS_IGNORED, CancelScope, Event, open_nursery, sleep_forever
from nurseryio._core.task import records
from nurseryio.lowlevel import checkpoint, current_task

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

pytestmark = [
    pytest.mark.limit(20),
    # Before 3.13 asyncio warns of a factory that returns something else than a task.
    pytest.mark.filterwarnings("ignore:Task.set_name:DeprecationWarning"),
]

Plain = Callable[..., Any]
Maker = Callable[..., Any]
VAR = contextvars.ContextVar("VAR", default="unset")


# -- makers that run the coroutine ------------------------------------------------


def passing_on(plain: Plain, coro: Any, **options: Any) -> Any:
    return plain(coro, **options)


def wrapping(plain: Plain, coro: Any, **options: Any) -> Any:
    async def wrapper() -> Any:
        return await coro

    return plain(wrapper(), **options)


def wrapping_twice(plain: Plain, coro: Any, **options: Any) -> Any:
    async def inner() -> Any:
        return await coro

    async def outer() -> Any:
        try:
            return await inner()
        finally:
            await asyncio.sleep(0)  # as tools do that report the end

    return plain(outer(), **options)


def waiting_first(plain: Plain, coro: Any, **options: Any) -> Any:
    async def wrapper() -> Any:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            coro.close()
            raise
        return await coro

    return plain(wrapper(), **options)


def facade(plain: Plain, coro: Any, **options: Any) -> Any:
    inner = plain(coro, **options)

    async def wait() -> Any:
        return await inner

    return plain(wait(), **options)


class NamedFuture(asyncio.Future[Any]):
    """A future with what asyncio and uvloop ask of a task that a factory has made."""

    name = ""

    def set_name(self, name: object) -> None:
        self.name = str(name)

    def get_name(self) -> str:
        return self.name


def new_future() -> NamedFuture:
    return NamedFuture(loop=asyncio.get_running_loop())


def future(plain: Plain, coro: Any, **options: Any) -> Any:
    inner = plain(coro, **options)
    outer = new_future()
    # From 3.13.3 on asyncio leaves it to the factory to name what it makes.
    outer.set_name(options.get("name", ""))

    def done(_inner: object) -> None:
        if not outer.done():
            outer.cancel() if inner.cancelled() else outer.set_result(None)

    inner.add_done_callback(done)
    outer.add_done_callback(lambda _outer: inner.cancel())
    return outer


class Subclass(asyncio.Task[Any]):
    """A task with more attributes, as aiomonitor's."""

    started_by = "somebody"


def subclass(_plain: Plain, coro: Any, **options: Any) -> Any:
    return Subclass(coro, loop=asyncio.get_running_loop(), **options)


def python_class(_plain: Plain, coro: Any, **options: Any) -> Any:
    made: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]
    return made(coro, loop=asyncio.get_running_loop(), **options)


def eager(_plain: Plain, coro: Any, **options: Any) -> Any:
    return asyncio.eager_task_factory(asyncio.get_running_loop(), coro, **options)  # type: ignore[attr-defined,unused-ignore]


def eager_and_wrapping(plain: Plain, coro: Any, **options: Any) -> Any:
    return wrapping(lambda made, **more: eager(plain, made, **more), coro, **options)


HONEST: list[Maker] = [
    passing_on,
    wrapping,
    wrapping_twice,
    waiting_first,
    facade,
    future,
    subclass,
]
if sys.version_info < (3, 14):
    HONEST.append(python_class)
if sys.version_info >= (3, 12):
    HONEST += [eager, eager_and_wrapping]


# -- ways to put one between a nursery and asyncio ---------------------------------


def own_task(coro: Any, **options: Any) -> Any:
    return asyncio.Task(coro, loop=asyncio.get_running_loop(), **options)


@contextlib.contextmanager
def as_factory(maker: Maker) -> Iterator[None]:
    """Set as the loop's task factory."""

    def factory(_loop: Any, coro: Any, **options: Any) -> Any:
        options.pop("eager_start", None)  # uvloop gives it to every factory
        return maker(own_task, coro, **options)

    with task_factory(factory):
        yield


@contextlib.contextmanager
def on_the_instance(maker: Maker) -> Iterator[None]:
    """Put in the place of the loop's own method, on the one object."""
    loop: Any = asyncio.get_running_loop()
    loop.create_task = lambda coro, **options: maker(own_task, coro, **options)
    try:
        yield
    finally:
        del loop.create_task


@contextlib.contextmanager
def on_the_class(maker: Maker) -> Iterator[None]:
    """Put in the place of the method, on the class of the loop."""
    loop_class: Any = type(asyncio.get_running_loop())
    owner = next(c for c in loop_class.__mro__ if "create_task" in vars(c) or c.__name__ == "Loop")
    before = vars(owner).get("create_task")
    owner.create_task = lambda _loop, coro, **options: maker(own_task, coro, **options)
    try:
        yield
    finally:
        if before is None:
            del owner.create_task
        else:
            owner.create_task = before


WAYS = [as_factory, on_the_instance, on_the_class]
way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
honest = pytest.mark.parametrize("maker", HONEST, ids=lambda maker: maker.__name__)


def asyncio_tasks_of(nursery: nurseryio.Nursery) -> list[Any]:
    return [task.asyncio_task for task in nursery.child_tasks]


async def no_leftovers() -> None:
    """Nothing of the children is left: no task, no record."""
    await settle()
    left = [repr(task) for task in asyncio.all_tasks() if "child" in repr(task)]
    left += [record.name for record in records.values() if "<locals>." in record.name]
    # The test itself is a local function of the harness under nurseryio.run.
    assert [name for name in left if "_run_on_loop" not in name and "LoopWatch" not in name] == []


# -- a child runs once --------------------------------------------------------------


@way
@honest
async def test_eager_task_factory_and_others_run_each_child_once_and_the_block_waits_for_it(
    maker: Maker, way: Any
) -> None:
    ran: list[object] = []

    async def at_once(value: object) -> None:
        ran.append(value)

    async def later(value: object) -> None:
        await asyncio.sleep(0)
        await checkpoint()
        ran.append(value)

    with way(maker):
        async with open_nursery() as nursery:
            for child in (at_once, later):
                nursery.start_soon(child, "unnamed")
                nursery.start_soon(child, "named", name="a name")
            assert ran == []  # also with an eager one start_soon() returns first
            assert len(nursery.child_tasks) == 4
            validate()
        assert sorted(map(str, ran)) == ["named", "named", "unnamed", "unnamed"]
        await no_leftovers()


@way
@honest
async def test_task_factory_an_error_of_a_child_is_raised_once_and_cancels_its_siblings(
    maker: Maker, way: Any
) -> None:
    ended: list[str] = []

    async def fails() -> None:
        await checkpoint()
        raise ValueError("the child's")

    async def sleeps() -> None:
        try:
            await sleep_forever()
        finally:
            ended.append("sibling")

    with way(maker):
        with pytest.raises(BaseExceptionGroup) as caught:
            async with open_nursery() as nursery:
                nursery.start_soon(fails)
                nursery.start_soon(sleeps)
        assert [str(error) for error in leaves(caught.value)] == ["the child's"]
        assert ended == ["sibling"]
        await no_leftovers()


@way
@honest
async def test_task_factory_a_child_is_cancelled_by_its_scope_in_every_kind_of_await(
    maker: Maker, way: Any
) -> None:
    ended: list[str] = []

    async def native() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("native")

    async def ours() -> None:
        try:
            await Event().wait()
        finally:
            ended.append("ours")

    with way(maker):
        async with open_nursery() as nursery:
            nursery.start_soon(native)
            nursery.start_soon(ours)
            await settle()
            nursery.cancel_scope.cancel()
            validate()
        assert sorted(ended) == ["native", "ours"]
        assert nursery.cancel_scope.cancelled_caught
        await no_leftovers()


@way
@honest
@pytest.mark.parametrize("when", ["after", "before", "outside"])
async def test_task_factory_a_scope_cancelled_before_the_first_step_cancels_in_it(
    when: str, maker: Maker, way: Any
) -> None:
    steps: list[str] = []

    async def child() -> None:
        steps.append("started")
        await checkpoint()
        steps.append("not reached")

    with way(maker):
        with CancelScope() as outer:
            if when == "outside":
                outer.cancel()
            async with open_nursery() as nursery:
                if when == "before":
                    nursery.cancel_scope.cancel()
                nursery.start_soon(child)
                if when == "after":
                    nursery.cancel_scope.cancel()
                validate()
        assert steps in ([], ["started"])
        if maker is not waiting_first:  # which awaits before it runs what it was given
            assert steps == ["started"]
        await no_leftovers()


@way
@honest
async def test_task_factory_a_native_cancel_before_the_first_step_ends_that_child_alone(
    maker: Maker, way: Any, loop_errors: list[str]
) -> None:
    ran: list[str] = []

    async def victim() -> None:
        await asyncio.sleep(0)
        ran.append("victim")

    async def other() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ran.append("other")

    with way(maker):
        async with open_nursery() as nursery:
            nursery.start_soon(victim)
            (asyncio_task,) = asyncio_tasks_of(nursery)
            nursery.start_soon(other)
            asyncio_task.cancel()
        # A facade that has not begun passes no cancel on to the task behind it.
        assert ran == (["victim", "other"] if maker is facade else ["other"])
        assert not nursery.cancel_scope.cancel_called
        await no_leftovers()
    del asyncio_task
    gc.collect()
    assert loop_errors == []


@way
@honest
async def test_task_factory_a_native_cancel_in_the_middle_ends_that_child_alone(
    maker: Maker, way: Any
) -> None:
    ran: list[str] = []

    async def victim() -> None:
        try:
            await sleep_forever()
        finally:
            ran.append("victim")

    async def other() -> None:
        for _ in range(12):
            await asyncio.sleep(0)
        ran.append("other")

    with way(maker):
        async with open_nursery() as nursery:
            nursery.start_soon(victim)
            await settle()
            (asyncio_task,) = asyncio_tasks_of(nursery)
            nursery.start_soon(other)
            asyncio_task.cancel()
        assert ran == ["victim", "other"]
        assert not nursery.cancel_scope.cancel_called
        await no_leftovers()


@way
@honest
async def test_task_factory_a_child_has_its_contextvars_its_name_and_its_own_task_record(
    maker: Maker, way: Any
) -> None:
    seen: list[Any] = []

    async def child() -> None:
        seen.append((VAR.get(), current_task(), asyncio.current_task()))
        VAR.set("the child's")
        await checkpoint()

    with way(maker):
        token = VAR.set("the parent's")
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(child)
                nursery.start_soon(child, name="another")
                names = {task.name for task in nursery.child_tasks}
                children = set(nursery.child_tasks)
                VAR.set("changed later")
                if way is as_factory or maker is not future:
                    shown = {task.get_name() for task in asyncio_tasks_of(nursery)}
                    assert shown == {child.__qualname__, "another"}
        finally:
            VAR.reset(token)
        assert names == {f"{__name__}.{child.__qualname__}", "another"}
        assert [value for value, _task, _asyncio_task in seen] == ["the parent's"] * 2
        assert {task for _value, task, _asyncio_task in seen} == children
        assert all(task.asyncio_task is asyncio_task for _value, task, asyncio_task in seen)


# -- start() ------------------------------------------------------------------------


@way
@honest
async def test_task_factory_nursery_start_reparents_the_child_at_started(
    maker: Maker, way: Any
) -> None:
    steps: list[str] = []

    async def child(*, task_status: Any = TASK_STATUS_IGNORED) -> None:
        steps.append("begins")
        await asyncio.sleep(0)
        task_status.started("value")
        assert current_task().parent_nursery is nursery
        try:
            await sleep_forever()
        finally:
            steps.append("ends")

    with way(maker):
        async with open_nursery() as nursery:
            assert await nursery.start(child) == "value"
            assert len(nursery.child_tasks) == 1
            validate()
            nursery.cancel_scope.cancel()
        assert steps == ["begins", "ends"]
        await no_leftovers()


@way
@honest
@pytest.mark.parametrize("how", ["raises", "returns", "is cancelled", "caller is cancelled"])
async def test_task_factory_nursery_start_ends_with_a_child_that_never_calls_started(
    how: str, maker: Maker, way: Any
) -> None:
    ended: list[str] = []

    async def child(*, task_status: Any = TASK_STATUS_IGNORED) -> None:
        try:
            await checkpoint()
            if how == "raises":
                raise ValueError("before it is ready")
            if how != "returns":
                await sleep_forever()
        finally:
            ended.append("child")

    async def cancel(scope: CancelScope) -> None:
        await settle()
        if how == "is cancelled":
            for asyncio_task, record in list(records.items()):
                if record.name.endswith("child"):
                    asyncio_task.cancel()
        else:
            scope.cancel()

    with way(maker):
        with CancelScope() as scope:
            async with open_nursery() as nursery:
                if "cancelled" in how:
                    nursery.start_soon(cancel, scope)
                if how == "caller is cancelled":
                    await nursery.start(child)
                else:
                    error = ValueError if how == "raises" else RuntimeError
                    with pytest.raises(error):
                        await nursery.start(child)
        assert ended == ["child"]
        assert scope.cancelled_caught == (how == "caller is cancelled")
        await no_leftovers()


# -- makers that do not run the coroutine ---------------------------------------------


async def returns() -> None:
    await asyncio.sleep(0)


async def raises() -> None:
    await asyncio.sleep(0)
    raise OSError("the maker's")


async def returns_at_once() -> None:
    pass


def dropping(plain: Plain, _coro: Any, **options: Any) -> Any:
    return plain(returns(), **options)


def dropping_at_once(plain: Plain, _coro: Any, **options: Any) -> Any:
    return plain(returns_at_once(), **options)


def closing(plain: Plain, coro: Any, **options: Any) -> Any:
    coro.close()
    return plain(returns(), **options)


def failing_later(plain: Plain, _coro: Any, **options: Any) -> Any:
    return plain(raises(), **options)


def running_half(plain: Plain, coro: Any, **options: Any) -> Any:
    async def wrapper() -> None:
        coro.send(None)

    return plain(wrapper(), **options)


def done_future(_plain: Plain, _coro: Any, **_options: Any) -> Any:
    made = new_future()
    made.set_result(None)
    return made


def failed_future(_plain: Plain, _coro: Any, **_options: Any) -> Any:
    made = new_future()
    made.set_exception(OSError("the maker's"))
    return made


DISHONEST: list[Maker] = [
    dropping,
    dropping_at_once,
    closing,
    failing_later,
    running_half,
    done_future,
    failed_future,
]
dishonest = pytest.mark.parametrize("maker", DISHONEST, ids=lambda maker: maker.__name__)


@way
@dishonest
async def test_task_factory_a_task_that_ends_without_running_its_child_is_one_error(
    maker: Maker, way: Any, loop_errors: list[str]
) -> None:
    steps: list[str] = []

    async def child() -> None:
        steps.append("began")
        try:
            await sleep_forever()
        finally:
            steps.append("ended")

    async def sibling() -> None:
        try:
            await sleep_forever()
        finally:
            steps.append("sibling")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(sibling)
            await settle()
            with way(maker):
                nursery.start_soon(child)
            await settle()
            await sleep_forever()
    (error,) = leaves(caught.value)
    if maker in (failing_later, failed_future):
        assert isinstance(error, OSError)
    else:
        assert type(error) is RuntimeError
        assert "the child's function has not" in str(error)
        assert "child" in str(error)
    assert sorted(steps) == (
        ["began", "ended", "sibling"] if maker is running_half else ["sibling"]
    )
    await no_leftovers()
    gc.collect()
    assert loop_errors == []


@way
@dishonest
async def test_task_factory_nursery_start_raises_if_the_task_ends_without_its_child(
    maker: Maker, way: Any
) -> None:
    async def child(*, task_status: Any = TASK_STATUS_IGNORED) -> None:
        await sleep_forever()

    async with open_nursery() as nursery:
        with way(maker), pytest.raises((RuntimeError, OSError)):
            await nursery.start(child)
        assert not nursery.child_tasks
    await no_leftovers()


def stepping_by_callback(_plain: Plain, coro: Any, **_options: Any) -> Any:
    made = new_future()

    def step() -> None:
        with contextlib.suppress(StopIteration):
            coro.send(None)
        made.set_result(None)

    asyncio.get_running_loop().call_soon(step)
    return made


OUTSIDE_TASKS: list[Maker] = [stepping_by_callback]
if sys.version_info >= (3, 14):  # where asyncio.current_task() does not know this class
    OUTSIDE_TASKS.append(python_class)


@way
@pytest.mark.parametrize("maker", OUTSIDE_TASKS, ids=lambda maker: maker.__name__)
async def test_a_child_that_begins_outside_any_current_task_is_one_error_in_the_nursery(
    maker: Maker, way: Any, loop_errors: list[str]
) -> None:
    ran: list[str] = []

    async def child() -> None:
        ran.append("child")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_nursery() as nursery:
            with way(maker):
                nursery.start_soon(child)
            await sleep_forever()
    (error,) = leaves(caught.value)
    assert type(error) is RuntimeError
    assert "asyncio.current_task() is None" in str(error)
    assert ran == []
    await no_leftovers()
    gc.collect()
    assert loop_errors == []


@way
async def test_a_task_cancelled_by_its_task_factory_is_not_an_error(way: Any) -> None:
    def cancelled(plain: Plain, coro: Any, **options: Any) -> Any:
        made = plain(coro, **options)
        made.cancel()
        return made

    ran: list[str] = []

    async def child() -> None:
        ran.append("child")

    with way(cancelled):
        async with open_nursery() as nursery:
            nursery.start_soon(child)
    assert ran == []
    assert not nursery.cancel_scope.cancel_called
    await no_leftovers()


def nothing(_plain: Plain, _coro: Any, **_options: Any) -> Any:
    return None


def a_string(_plain: Plain, _coro: Any, **_options: Any) -> Any:
    return "a task"


def raising_before(_plain: Plain, _coro: Any, **_options: Any) -> Any:
    raise OSError("the maker's")


def raising_after_closing(_plain: Plain, coro: Any, **_options: Any) -> Any:
    coro.close()
    raise OSError("the maker's")


def raising_after_wrapping(_plain: Plain, coro: Any, **_options: Any) -> Any:
    async def wrapper() -> Any:
        return await coro

    wrapper().close()
    raise OSError("the maker's")


def raising_after_a_step(_plain: Plain, coro: Any, **_options: Any) -> Any:
    coro.send(None)
    raise OSError("the maker's")


def exiting(_plain: Plain, _coro: Any, **_options: Any) -> Any:
    raise SystemExit(3)


def a_future_without_a_name(_plain: Plain, coro: Any, **_options: Any) -> Any:
    coro.close()
    return asyncio.get_running_loop().create_future()


def using_a_missing_attribute(_plain: Plain, _coro: Any, **_options: Any) -> Any:
    _options["nothing"] = None
    return _options["nothing"].name_of_the_maker


REFUSING: list[Maker] = [
    nothing,
    a_string,
    using_a_missing_attribute,
    raising_before,
    raising_after_closing,
    raising_after_wrapping,
    raising_after_a_step,
    exiting,
]
refusing = pytest.mark.parametrize("maker", REFUSING, ids=lambda maker: maker.__name__)


def error_of(maker: Maker) -> Any:
    if maker in (nothing, a_string):
        return TypeError
    if maker is using_a_missing_attribute:
        return AttributeError
    return SystemExit if maker is exiting else OSError


@pytest.mark.parametrize("maker", [nothing, a_string, a_future_without_a_name])
async def test_a_task_factory_that_returns_no_task_is_an_error_that_says_what_to_return(
    maker: Maker,
) -> None:
    async with open_nursery() as nursery:
        with as_factory(maker):
            for _ in range(2):
                with pytest.raises(
                    TypeError, match="must return an asyncio task that runs the coroutine it"
                ) as caught:
                    nursery.start_soon(checkpoint)
                name = {nothing: "NoneType", a_string: "str"}.get(maker, "Future")
                assert str(caught.value).endswith(f"an object of type {name}")
        assert not nursery.child_tasks
    validate()


@way
@refusing
async def test_start_soon_raises_if_the_task_factory_makes_no_task_and_there_is_no_child(
    maker: Maker, way: Any
) -> None:
    ran: list[str] = []

    async def child() -> None:
        ran.append("child")

    async with open_nursery() as nursery:
        with way(maker), pytest.raises(error_of(maker)):
            nursery.start_soon(child)
        assert not nursery.child_tasks
        validate()
        await settle()
        nursery.start_soon(child)
    assert ran == ["child"]
    assert not nursery.cancel_scope.cancel_called
    await no_leftovers()


@way
@refusing
async def test_nursery_start_raises_if_the_task_factory_makes_no_task(
    maker: Maker, way: Any
) -> None:

    async def child(*, task_status: Any = TASK_STATUS_IGNORED) -> None:
        raise AssertionError

    async with open_nursery() as nursery:
        with way(maker), pytest.raises(error_of(maker)):
            await nursery.start(child)
        assert not nursery.child_tasks
        await settle()
    await no_leftovers()


@way
async def test_a_task_factory_error_after_the_task_was_made_is_raised_by_start_soon_alone(
    way: Any, loop_errors: list[str]
) -> None:
    def raising_after(plain: Plain, coro: Any, **options: Any) -> Any:
        made.append(plain(coro, **options))
        raise OSError("the maker's")

    made: list[Any] = []
    ran: list[str] = []

    async def child() -> None:
        ran.append("child")

    async with open_nursery() as nursery:
        with way(raising_after), pytest.raises(OSError, match="the maker's"):
            nursery.start_soon(child)
        assert not nursery.child_tasks
        await settle()
    assert ran == []
    assert made.pop().done()
    assert not nursery.cancel_scope.cancel_called


async def test_a_task_factory_that_runs_two_coroutines_in_one_task_is_refused(
    loop_errors: list[str],
) -> None:
    given: list[Any] = []
    ran: list[int] = []

    def collecting(plain: Plain, coro: Any, **options: Any) -> Any:
        given.append(coro)

        async def both() -> None:
            for one in list(given):
                await one

        return plain(both() if len(given) == 2 else asyncio.sleep(0, None), **options)

    async def child(number: int) -> None:
        ran.append(number)

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_nursery() as nursery:
            with as_factory(collecting):
                nursery.start_soon(child, 1)
                nursery.start_soon(child, 2)
    assert all(isinstance(error, RuntimeError) for error in leaves(caught.value))
    assert len(ran) == len(set(ran)) <= 1
    await no_leftovers()


# -- signatures ------------------------------------------------------------------------


def two_arguments(loop: Any, coro: Any) -> Any:
    return asyncio.Task(coro, loop=loop)


def with_context(loop: Any, coro: Any, context: Any = None) -> Any:
    options = {} if context is None else {"context": context}
    return asyncio.Task(coro, loop=loop, **options)


def with_name(loop: Any, coro: Any, *, name: Any = None, context: Any = None) -> Any:
    options = {} if context is None else {"context": context}
    return asyncio.Task(coro, loop=loop, name=name, **options)


def with_anything(loop: Any, coro: Any, **options: Any) -> Any:
    return asyncio.Task(coro, loop=loop, **options)


class Callable_:
    """A factory that is an object, as Sentry's patched ones may be."""

    def __call__(self, loop: Any, coro: Any, **options: Any) -> Any:
        return asyncio.Task(coro, loop=loop, **options)


SIGNATURES = [two_arguments, with_context, with_name, with_anything, Callable_()]


@pytest.mark.stock_only("uvloop gives every factory the arguments that it likes")
@pytest.mark.parametrize("factory", SIGNATURES, ids=lambda f: getattr(f, "__name__", "object"))
async def test_a_task_factory_of_any_documented_signature_makes_the_children(factory: Any) -> None:
    ran: list[Any] = []

    async def child(*, task_status: Any = TASK_STATUS_IGNORED) -> None:
        ran.append(VAR.get())
        task_status.started()

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    token = VAR.set("the parent's")
    try:
        async with open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(child, name="a name")
            names = {task.asyncio_task.get_name() for task in nursery.child_tasks}
            await nursery.start(child)
        await nurseryio.gather(child, child)
    finally:
        VAR.reset(token)
        loop.set_task_factory(None)
    assert ran == ["the parent's"] * 5
    assert names == {child.__qualname__, "a name"}


@pytest.mark.parametrize("factory", SIGNATURES, ids=lambda f: getattr(f, "__name__", "object"))
def test_run_works_on_a_loop_whose_task_factory_has_any_documented_signature(factory: Any) -> None:
    ran: list[str] = []

    async def child() -> None:
        await checkpoint()
        ran.append(VAR.get())

    async def main() -> None:
        VAR.set("main's")
        async with open_nursery() as nursery:
            nursery.start_soon(child)
        context = contextvars.Context()
        context.run(VAR.set, "given")
        done = Event()

        async def system() -> None:
            await child()
            done.set()

        nurseryio.lowlevel.spawn_system_task(system, context=context)
        await done.wait()

    def make() -> Any:
        loop = asyncio.new_event_loop()
        loop.set_task_factory(factory)
        return loop

    nurseryio.run(main, loop_factory=make)
    assert ran == ["main's", "given"]


@pytest.mark.parametrize("takes", ["coro", "name", "anything"])
async def test_a_loops_create_task_of_any_signature_makes_the_children(takes: str) -> None:
    loop: Any = asyncio.get_running_loop()

    def bare(coro: Any) -> Any:
        return asyncio.Task(coro, loop=loop)

    def named(coro: Any, name: Any = None) -> Any:
        return asyncio.Task(coro, loop=loop, name=name)

    def anything(coro: Any, **options: Any) -> Any:
        return asyncio.Task(coro, loop=loop, **options)

    ran: list[str] = []

    async def child() -> None:
        ran.append(VAR.get())

    loop.create_task = {"coro": bare, "name": named, "anything": anything}[takes]
    try:
        async with open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(child, name="a name")
            names = {task.asyncio_task.get_name() for task in nursery.child_tasks}
    finally:
        del loop.create_task
    assert ran == ["unset"] * 2
    assert names == {child.__qualname__, "a name"}


# -- who is seen by what stands there ------------------------------------------------------


def counting_class(base: Any, seen: list[Any]) -> Any:
    class CountingLoop(base):  # type: ignore[misc]
        def create_task(self, coro: Any, **options: Any) -> Any:
            seen.append(options.get("name"))
            return super().create_task(coro, **options)

    return CountingLoop


@pytest.mark.parametrize("kind", [kind for kind in ("stock", "uvloop") if kind in matrix.KINDS])
@pytest.mark.parametrize("levels", [1, 2])
def test_every_child_is_made_by_the_create_task_of_a_loop_of_another_class(
    levels: int, kind: str
) -> None:
    seen: list[Any] = []
    loop = matrix.new_loop(kind)
    loop_class: Any = type(loop)
    loop.close()
    for _ in range(levels):
        loop_class = counting_class(loop_class, seen)
    ran: list[Any] = []

    async def child() -> None:
        ran.append(asyncio.current_task())

    async def main() -> None:
        del seen[:]
        async with open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(child, name="named")
        assert seen == [child.__qualname__] * levels + ["named"] * levels

    matrix.run_app(loop_class, main)
    assert len(ran) == 2


@pytest.mark.stock_only("only a method written in Python has code that can be replaced")
async def test_every_child_is_made_by_a_create_task_whose_code_was_replaced() -> None:
    loop = asyncio.get_running_loop()
    function: Any = asyncio.base_events.BaseEventLoop.create_task  # type: ignore[attr-defined]
    before = function.__code__
    seen: list[Any] = []
    asyncio.base_events._test_seen = seen  # type: ignore[attr-defined]

    def create_task(self: Any, coro: Any, *, name: Any = None, **_options: Any) -> Any:
        _test_seen.append(name)  # type: ignore[name-defined] # noqa: F821
        return tasks.Task(coro, loop=self, name=name)  # type: ignore[name-defined] # noqa: F821

    async def child() -> None:
        ran.append(asyncio.current_task())

    ran: list[Any] = []
    try:
        async with open_nursery() as nursery:
            nursery.start_soon(child)
            function.__code__ = create_task.__code__.replace(co_freevars=before.co_freevars)
            nursery.start_soon(child)
            nursery.start_soon(child, name="named")
            function.__code__ = before
            nursery.start_soon(child)
    finally:
        function.__code__ = before
        del asyncio.base_events._test_seen  # type: ignore[attr-defined]
    assert seen == [child.__qualname__, "named"]
    assert len(set(ran)) == 4
    assert loop.get_task_factory() is None


@way
async def test_a_task_factory_set_and_reset_while_a_nursery_is_open_makes_the_children_between(
    way: Any,
) -> None:
    made: list[Any] = []
    ran: list[int] = []

    def counting(plain: Plain, coro: Any, **options: Any) -> Any:
        made.append(plain(coro, **options))
        return made[-1]

    async def child(number: int) -> None:
        await checkpoint()
        ran.append(number)

    async with open_nursery() as nursery:
        nursery.start_soon(child, 0)
        for number in (1, 2):
            with way(counting):
                nursery.start_soon(child, number)
            nursery.start_soon(child, 10 * number)
    assert len(made) == 2
    assert sorted(ran) == [0, 1, 2, 10, 20]


TASK_CLASSES: list[Any] = [Subclass]
if sys.version_info < (3, 14):
    TASK_CLASSES.append(asyncio.tasks._PyTask)  # type: ignore[attr-defined]


@pytest.mark.stock_only("uvloop has noted the class of tasks")
@pytest.mark.parametrize("task_class", TASK_CLASSES)
async def test_children_are_of_a_task_class_that_replaced_asyncio_task(
    task_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []

    async def child() -> None:
        await checkpoint()
        ran.append(asyncio.current_task())

    async def cancelled() -> None:
        try:
            await sleep_forever()
        finally:
            ran.append("cancelled")

    monkeypatch.setattr(asyncio.tasks, "Task", task_class)
    monkeypatch.setattr(asyncio, "Task", task_class)
    async with open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.start_soon(cancelled)
        assert {type(task) for task in asyncio_tasks_of(nursery)} == {task_class}
        await settle()
        nursery.cancel_scope.cancel()
    monkeypatch.undo()
    assert [type(one) for one in ran] == [task_class, str]


async def test_children_of_a_task_factory_that_fails_every_other_time_are_kept_apart() -> None:
    number = 0
    ran: list[int] = []

    def every_other(plain: Plain, coro: Any, **options: Any) -> Any:
        nonlocal number
        number += 1
        if number % 2:
            raise OSError(number)
        return plain(coro, **options)

    async def child(number: int) -> None:
        await checkpoint()
        ran.append(number)

    failed = []
    with as_factory(every_other):
        async with open_nursery() as nursery:
            for child_number in range(10):
                try:
                    nursery.start_soon(child, child_number)
                except OSError:
                    failed.append(child_number)
            assert len(nursery.child_tasks) == 5
    assert failed == [0, 2, 4, 6, 8]
    assert ran == [1, 3, 5, 7, 9]


async def test_task_factory_a_child_that_swallows_the_end_of_its_task_does_not_end_twice(
    loop_errors: list[str],
) -> None:
    """The maker's task ends, the coroutine is closed, and the child refuses to be."""
    steps: list[str] = []

    async def child() -> None:
        try:
            await sleep_forever()
        finally:
            steps.append("closing")
            raise ValueError("in cleanup")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_nursery() as nursery:
            with as_factory(running_half):
                nursery.start_soon(child)
            await settle()
    errors = leaves(caught.value)
    assert steps == ["closing"]
    assert len(errors) == 1
    text = repr(errors[0]) + repr(errors[0].__context__)
    assert "in cleanup" in text and "the child's function has not" in text


@pytest.mark.parametrize("host", matrix.HOSTS)
@pytest.mark.parametrize("how", ["inherited", "overridden"])
def test_a_loop_that_cannot_have_a_task_factory_makes_children(how: str, host: str) -> None:
    ran: list[str] = []
    make: Any = fake_loops.WithoutFactories

    def refuse(_loop: object) -> None:
        raise NotImplementedError

    async def child() -> None:
        await checkpoint()
        ran.append("child")

    async def main() -> None:
        with pytest.raises(NotImplementedError):
            asyncio.get_running_loop().get_task_factory()
        async with open_nursery() as nursery:
            nursery.start_soon(child, name="named")
            assert await nursery.start(with_start) == "value"
        ran.append("main")

    async def with_start(*, task_status: Any) -> None:
        task_status.started("value")

    if how == "overridden":
        make = type("Refusing", (make,), {"get_task_factory": refuse})
    if host == "run":
        nurseryio.run(main, loop_factory=make)
    else:
        with contextlib.closing(make()) as loop:
            loop.run_until_complete(main())
    assert ran == ["child", "main"]
