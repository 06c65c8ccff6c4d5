"""The outcome of a call as an object: a ``Value`` or an ``Error``, to be unwrapped elsewhere.

This module has :class:`Value`, :class:`Error` and the two functions that make them. They have the
methods of the objects of the ``outcome`` package, and either kind can be used in place of the
other. They are defined here so that the package does not have to be installed.

Rule: this module imports only :mod:`exc_fields`, and its functions leave no reference cycle behind.
An exception refers to its traceback, the traceback to its frames, and the frames to their
variables. A variable that holds the exception would close a cycle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeAlias, TypeVar

from .exc_fields import without_own_frame

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

__all__ = ["Error", "Outcome", "Value", "acapture", "capture"]

T = TypeVar("T")
P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)
ResultT = TypeVar("ResultT")


class Value(Generic[T_co]):
    """The outcome of a call that returned."""

    __slots__ = ("value",)

    def __init__(self, value: T_co) -> None:
        self.value: T_co = value

    def __repr__(self) -> str:
        return f"Value({self.value!r})"

    def __eq__(self, other: object) -> bool:
        return self.value == other.value if isinstance(other, Value) else NotImplemented

    def __hash__(self) -> int:
        return hash((Value, self.value))

    def unwrap(self) -> T_co:
        """Return the value."""
        return self.value

    def send(self, gen: Generator[ResultT, Any, Any]) -> ResultT:
        """Send the value into a generator or coroutine."""
        return gen.send(self.value)

    async def asend(self, agen: AsyncGenerator[ResultT, Any]) -> ResultT:
        """Send the value into an async generator."""
        return await agen.asend(self.value)


class Error:
    """The outcome of a call that raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        if not isinstance(error, BaseException):
            raise TypeError(f"an Error holds an exception object, not {error!r}")
        self.error: BaseException = error

    def __repr__(self) -> str:
        return f"Error({self.error!r})"

    def __eq__(self, other: object) -> bool:
        return self.error == other.error if isinstance(other, Error) else NotImplemented

    def __hash__(self) -> int:
        return hash((Error, self.error))

    def unwrap(self) -> NoReturn:
        """Raise the exception."""
        # Readers of the traceback see this name.
        captured_error = self.error
        try:
            raise captured_error
        finally:
            del captured_error, self

    def send(self, gen: Generator[ResultT, Any, Any]) -> ResultT:
        """Throw the exception into a generator or coroutine."""
        return gen.throw(self.error)

    async def asend(self, agen: AsyncGenerator[ResultT, Any]) -> ResultT:
        """Throw the exception into an async generator."""
        return await agen.athrow(self.error)


Outcome: TypeAlias = Value[T] | Error


def capture(fn: Callable[P, ResultT], *args: P.args, **kwargs: P.kwargs) -> Outcome[ResultT]:
    """Call ``fn`` and return its result or error as a :class:`Value` or :class:`Error`."""
    try:
        return Value(fn(*args, **kwargs))
    except BaseException as error:
        return Error(without_own_frame(error))


async def acapture(
    async_fn: Callable[P, Awaitable[ResultT]], *args: P.args, **kwargs: P.kwargs
) -> Outcome[ResultT]:
    """Await ``async_fn(...)`` and return its result or error as an object, like :func:`capture`."""
    try:
        return Value(await async_fn(*args, **kwargs))
    except BaseException as error:
        return Error(without_own_frame(error))
