"""Restricted classes, checks of calls and of conflicts."""

# Covered below 95 %: times that are not numbers are in test_scope.py.

from __future__ import annotations

import array
import asyncio
import concurrent.futures
import copy
import ctypes
import functools
import gc
import mmap
import pickle
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import pytest
from harness.resisting import Nameless, OddName, Text

import nurseryio
from nurseryio._base.exc_fields import notes_of
from nurseryio._base.util import (
    SMALL_SET,
    ConflictDetector,
    Final,
    Frozen,
    LocalWeakSet,
    NoPublicConstructor,
    bytes_view,
    call_each,
    coroutine_or_error,
    generic_function,
    name_of,
    qualname_of,
    reject_non_functions,
    safe_repr,
)

# -- classes --------------------------------------------------------------------


def test_a_final_class_cannot_be_subclassed() -> None:
    class Leaf(metaclass=Final):
        pass

    with pytest.raises(TypeError, match=r"Below does not support subclassing\n.*Leaf"):

        class Below(Leaf):
            pass


def test_a_final_class_may_have_ordinary_bases() -> None:
    class Base:
        pass

    class Leaf(Base, metaclass=Final):
        pass

    assert isinstance(Leaf(), Base)


def test_no_public_constructor_allows_create_only() -> None:
    class Closed(metaclass=NoPublicConstructor):
        def __init__(self, a: int, b: float) -> None:
            self.sum = a + b

    with pytest.raises(TypeError, match="Closed has no public constructor"):
        Closed(1, 2.5)
    assert Closed._create(1, b=2.5).sum == 3.5


class Point(Frozen):
    __slots__ = ("x", "y")

    x: int
    y: int


def test_a_record_takes_all_its_fields_by_name_and_no_others() -> None:
    point = Point(x=1, y=2)
    assert (point.x, point.y) == (1, 2)
    for wrong in ({"x": 1}, {"x": 1, "y": 2, "z": 3}, {}):
        with pytest.raises(TypeError, match="Point takes exactly x, y"):
            Point(**wrong)


def test_a_record_cannot_be_changed() -> None:
    point = Point(x=1, y=2)
    with pytest.raises(AttributeError, match="cannot be changed"):
        point.x = 3
    with pytest.raises(AttributeError, match="cannot be changed"):
        del point.x
    assert point.x == 1


def test_records_show_their_fields_in_the_order_in_which_they_are_explained() -> None:
    for door in (nurseryio, nurseryio.lowlevel):
        for name in dir(door):
            record = getattr(door, name)
            if isinstance(record, type) and issubclass(record, Frozen):
                assert list(record.__slots__) == list(record.__annotations__), name


def test_records_are_compared_hashed_copied_and_shown_by_value() -> None:
    point = Point(x=1, y=2)
    assert point == Point(y=2, x=1)
    assert point != Point(x=2, y=1)
    assert point != (1, 2)
    assert hash(point) == hash(Point(x=1, y=2))
    assert pickle.loads(pickle.dumps(point)) == point
    assert copy.copy(point) == point
    assert repr(point) == "Point(x=1, y=2)"


# -- data -----------------------------------------------------------------------


class Quad(ctypes.BigEndianStructure):
    """Items of a format that memoryview does not know."""

    _fields_ = (("a", ctypes.c_uint32),)


@pytest.mark.parametrize(
    "data",
    [
        b"abcdefgh",
        bytearray(b"abcdefgh"),
        memoryview(b"abcdefgh")[2:6],
        array.array("I", [1, 2, 3]),
        memoryview(bytes(range(24))).cast("B", (4, 3, 2)),
        (ctypes.c_uint16 * 5)(1, 2, 3),
        (Quad * 2)(),
        mmap.mmap(-1, 16),
        b"",
        array.array("d"),
        memoryview(array.array("I")),
        (ctypes.c_uint16 * 0)(),
    ],
    ids=lambda data: type(data).__name__,
)
def test_every_contiguous_buffer_is_seen_as_its_bytes(data: Any) -> None:
    expected = memoryview(data).tobytes()
    with bytes_view(data) as view:
        assert (view.itemsize, view.ndim, len(view)) == (1, 1, len(expected))
        assert bytes(view) == expected


def test_a_non_contiguous_buffer_is_refused_and_the_error_says_what_to_do() -> None:
    for gaps in (memoryview(b"abcdefgh")[::2], memoryview(b"abcdefgh")[::-1]):
        with pytest.raises(TypeError, match=r"takes bytes that are contiguous.*bytes\(data\)"):
            bytes_view(gaps)


@pytest.mark.parametrize("data", ["text", 5, None, ["a"]])
def test_bytes_view_refuses_what_is_not_a_buffer(data: Any) -> None:
    hint = "; encode it first" if data == "text" else "$"
    with pytest.raises(TypeError, match=f"takes bytes, not {type(data).__name__}{hint}"):
        bytes_view(data)


# -- functions ------------------------------------------------------------------


def test_a_generic_function_subscripted_with_types_is_itself() -> None:
    @generic_function
    def double(x: int, *, plus: int = 0) -> int:
        """Twice x."""
        return 2 * x + plus

    assert double(2) == double[int](2) == 4
    assert double[int, str](2, plus=1) == 5
    assert (double.__name__, double.__doc__) == ("double", "Twice x.")
    assert "double" in repr(double)


async def add(x: int, y: int = 0) -> int:
    return x + y


def outcome(coro: Coroutine[Any, Any, Any]) -> Any:
    with pytest.raises(StopIteration) as caught:
        coro.send(None)
    return caught.value.value


class Compiled(Coroutine[Any, Any, int]):
    """The function that a compiler such as Cython makes of an ``async def``: not a coroutine by its
    type."""

    def send(self, value: Any) -> Any:
        raise StopIteration(7)

    def throw(self, *details: Any) -> Any:
        raise details[0]

    def close(self) -> None:
        pass

    def __await__(self) -> Generator[Any, Any, int]:
        raise AssertionError("not needed")


@pytest.mark.parametrize(
    ("async_fn", "args", "result"),
    [
        (add, (1, 2), 3),
        (functools.partial(add, 1), (2,), 3),
        (functools.partial(functools.partial(add, y=5), 1), (), 6),
        (lambda: add(1), (), 1),
        (Compiled, (), 7),
    ],
)
def test_any_callable_that_returns_a_coroutine_is_an_async_function(
    async_fn: Callable[..., Any], args: tuple[Any, ...], result: int
) -> None:
    assert outcome(coroutine_or_error(async_fn, *args)) == result


def test_a_coroutine_object_instead_of_an_async_function_is_refused_and_closed() -> None:
    with pytest.raises(TypeError) as caught:
        coroutine_or_error(add(1))  # type: ignore[arg-type]
    assert (
        "expecting an async function, but instead it got a coroutine object <coroutine object add "
    ) in str(caught.value)
    assert notes_of(caught.value) == ["did you write add(x) instead of add, x?"]
    assert str(caught.value).count("coroutine object") == 2  # in its repr too
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    # A "never awaited" warning would be an error here.
    del caught
    gc.collect()


def test_a_coroutine_object_given_with_arguments_is_refused_and_closed() -> None:
    with pytest.raises(TypeError, match="got a coroutine object"):
        coroutine_or_error(add(1), 2)  # type: ignore[arg-type]
    gc.collect()


def test_an_async_function_called_with_wrong_arguments_keeps_pythons_type_error() -> None:
    with pytest.raises(TypeError, match="takes from 1 to 2 positional arguments but 3 were given"):
        coroutine_or_error(add, 1, 2, 3)


def test_a_type_error_inside_a_callable_is_not_taken_for_a_wrong_call() -> None:
    def broken() -> Any:
        raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine$"):
        coroutine_or_error(broken)


@pytest.mark.parametrize("fn", [len, functools.partial(len)])
def test_the_error_for_a_sync_function_names_it(fn: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"'len' appears to be synchronous\n.*to_thread\.run_sync"):
        coroutine_or_error(fn, [1])


def test_an_async_generator_function_is_refused_with_an_explanation() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(
        TypeError, match=r"expected an async function but got an async generator .*\n.*'async for'"
    ):
        coroutine_or_error(numbers)  # type: ignore[arg-type]


async def test_a_future_or_a_task_instead_of_an_async_function_is_refused_as_running() -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(add(1))
    for running in (loop.create_future(), task, concurrent.futures.Future[None]()):
        with pytest.raises(TypeError, match=r"is already running.*asyncio"):
            coroutine_or_error(running)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"returned .*asyncio"):
            coroutine_or_error(lambda running=running: running)
    assert await task == 1


def test_the_error_for_an_object_that_is_not_callable_shows_it() -> None:
    with pytest.raises(TypeError, match="expecting an async function, but instead it got 3"):
        coroutine_or_error(3)  # type: ignore[arg-type]


def test_of_several_coroutine_objects_that_are_refused_every_one_is_closed() -> None:
    with pytest.raises(TypeError, match="got a coroutine object"):
        reject_non_functions([add, add(1), 3, add(2)])
    gc.collect()
    reject_non_functions([add, len])


# -- conflicts ------------------------------------------------------------------


async def test_conflict_detector_raises_busy_resource_error_in_the_later_task() -> None:
    detector = ConflictDetector("one at a time")
    with detector:
        with pytest.raises(nurseryio.BusyResourceError, match=r"^one at a time$"), detector:
            raise AssertionError("not reached")
        # The failed attempt has not let go of what the first holds.
        with pytest.raises(nurseryio.BusyResourceError), detector:
            raise AssertionError("not reached")
    with detector:
        pass


def test_conflict_detector_is_free_again_after_an_error() -> None:
    detector = ConflictDetector("one at a time")
    with pytest.raises(ZeroDivisionError), detector:
        raise ZeroDivisionError
    with detector:
        pass


# -- names ----------------------------------------------------------------------


class NamelessFunction(Nameless):
    def __call__(self) -> None:
        """Do nothing."""


class Circle(functools.partial):  # type: ignore[type-arg]
    def __new__(cls) -> Circle:
        made = super().__new__(cls, print)
        made.__setstate__((made, (), {}, {}))
        return made


def test_safe_repr_and_name_of_never_raise_whatever_the_object() -> None:
    nameless = "<Nameless, whose repr() failed>"
    assert safe_repr(Nameless()) == name_of(Nameless()) == nameless
    assert qualname_of(Nameless()) is None
    called = functools.partial(functools.partial(NamelessFunction()))
    assert name_of(called) == "<NamelessFunction, whose repr() failed>"
    assert name_of(OddName()).startswith("<harness.resisting.OddName object")
    assert qualname_of(OddName()) is None
    assert "Circle" in name_of(Circle())
    assert safe_repr("x") == "'x'"
    assert name_of(safe_repr) == "nurseryio._base.util.safe_repr"
    assert qualname_of(Circle) == "Circle"
    assert name_of([].append) == "list.append"


def test_a_name_is_a_plain_string() -> None:
    assert type(name_of(Text("x"))) is str
    assert name_of(Text("x")) == "x"
    assert safe_repr(Text("x")) == "<Text, whose repr() failed>"


def test_the_error_message_for_a_wrong_function_is_made_although_repr_fails() -> None:
    for wrong in (Nameless(), OddName()):
        with pytest.raises(TypeError, match="was expecting an async function"):
            coroutine_or_error(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="appears to be synchronous"):
        coroutine_or_error(functools.partial(safe_repr, Nameless()))  # type: ignore[arg-type]


# -- calls ------------------------------------------------------------------------


def test_each_function_is_called_and_the_first_error_raised_with_the_others_before_it() -> None:
    record: list[int] = []
    first, second = KeyError("first"), SystemExit("second")

    def fail(error: BaseException) -> None:
        record.append(len(record))
        raise error

    with pytest.raises(KeyError) as caught:
        call_each(
            functools.partial(fail, first),
            functools.partial(record.append, 10),
            functools.partial(fail, second),
            functools.partial(record.append, 20),
        )
    assert record == [0, 10, 2, 20]
    assert caught.value is first
    assert first.__context__ is second
    record.clear()
    call_each(functools.partial(record.append, 1))
    assert record == [1]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), MemoryError()])
def test_an_exit_raised_in_a_repr_passes_through(error: BaseException) -> None:
    class Interrupted:
        def __repr__(self) -> str:
            raise error

        def __getattr__(self, _name: str) -> Any:
            raise error

    for show in (safe_repr, qualname_of, name_of):
        with pytest.raises(type(error)) as caught:
            show(Interrupted())
        assert caught.value is error


class Member:
    """Can be referred to weakly, and refuses to be compared."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError

    __hash__ = None  # type: ignore[assignment]


def test_a_local_weak_set_holds_its_members_weakly_and_by_identity() -> None:
    members = LocalWeakSet()
    assert not members
    first, second = Member(), Member()
    for member in (first, second, first):
        members.add(member)
    assert {id(member) for member in members.alive()} == {id(first), id(second)}
    members.discard(first)
    members.discard(first)
    del second
    gc.collect()
    assert members.alive() == []
    assert members
    members.clear()
    assert not members


def test_a_local_weak_set_drops_dead_references_when_it_has_grown() -> None:
    members = LocalWeakSet()
    kept = [Member() for _ in range(SMALL_SET)]
    for member in kept:
        members.add(member)
    others = [Member() for _ in range(10 * SMALL_SET)]
    for member in others:
        members.add(member)
    assert len(members._members) == 11 * SMALL_SET
    del others, member
    gc.collect()
    for _ in range(20 * SMALL_SET):
        members.add(Member())
    assert len(members._members) < 21 * SMALL_SET
    assert len(members.alive()) >= SMALL_SET
