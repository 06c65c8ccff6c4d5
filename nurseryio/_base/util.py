"""Small helpers without tasks: restricted classes, checks of calls, names, numbers and buffers.

Rule 1: this module imports only :mod:`errors` and :mod:`exc_fields`.

Rule 2: the check in every spawn (:func:`coroutine_or_error`) costs one call and one type check
while nothing is wrong. Diagnosis is done only after an error.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from abc import ABCMeta
from collections.abc import Coroutine, Generator
from functools import partial, update_wrapper
from math import isnan
from types import CodeType, CoroutineType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar
from weakref import ref

from .errors import BusyResourceError
from .exc_fields import chain, class_name, explained

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType

    from typing_extensions import TypeVarTuple, Unpack, dataclass_transform

    PosArgsT = TypeVarTuple("PosArgsT")
else:

    def dataclass_transform(**_hints):
        """At run time a hint for type checkers does nothing."""
        return lambda cls: cls


__all__ = [
    "ConflictDetector",
    "Final",
    "Frozen",
    "LocalWeakSet",
    "NoPublicConstructor",
    "OnlyWith",
    "as_float",
    "bytes_view",
    "call_each",
    "checked_coroutine",
    "coroutine_or_error",
    "generic_function",
    "name_of",
    "not_a_number",
    "qualname_of",
    "reject_non_functions",
    "safe_repr",
    "text_of",
]

T = TypeVar("T")
RetT = TypeVar("RetT")
P = ParamSpec("P")


# -- objects ----------------------------------------------------------------------

# Makes an instance with all its slots empty. Calling the class and its ``__init__`` would take as
# long as filling the slots; this is for objects that are made with every task.
blank: Callable[[type[T]], T] = object.__new__


# -- classes --------------------------------------------------------------------


def _spelled(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


class Final(ABCMeta):
    """Metaclass of classes that must not be subclassed, because their internals may change."""

    def __new__(
        mcs,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        **options: Any,
    ) -> Any:
        for base in bases:
            if isinstance(base, Final):
                raise explained(
                    TypeError(
                        f"{namespace.get('__module__')}.{namespace.get('__qualname__', name)} does "
                        "not support subclassing"
                    ),
                    f"because {_spelled(base)} does not: keep one in an attribute of your own "
                    "class instead",
                )
        return super().__new__(mcs, name, bases, namespace, **options)

    def __dir__(cls) -> list[str]:
        # Without the hints of unsupported.Elsewhere: completion and mocks take names from here.
        return [name for name in super().__dir__() if hasattr(cls, name)]


class NoPublicConstructor(Final):
    """Metaclass of final classes whose instances only this library makes, by ``X._create(...)``."""

    def __call__(cls, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(f"{_spelled(cls)} has no public constructor")

    def _create(cls: type[T], *args: Any, **kwargs: Any) -> T:
        made: T = type.__call__(cls, *args, **kwargs)
        return made


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Frozen:
    """Base of small immutable records; a subclass lists its fields in ``__slots__``, annotated.

    It replaces frozen dataclasses, because generating their code takes a measurable share of the
    time of ``import nurseryio``.
    """

    __slots__: tuple[str, ...] = ()

    def __init__(self, **fields: object) -> None:
        if fields.keys() != set(self.__slots__):
            raise TypeError(f"{type(self).__name__} takes exactly {', '.join(self.__slots__)}")
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def _fields(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__slots__}

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed (tried to set {name!r})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed (tried to delete {name!r})")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash((type(self), *self._fields().values()))

    def __reduce__(self) -> tuple[Any, ...]:
        return (_thaw, (type(self), self._fields()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self._fields().items())
        return f"{type(self).__name__}({fields})"


def _thaw(cls: type[T], fields: dict[str, object]) -> T:
    """Make a :class:`Frozen` record again, for pickle and copy."""
    return cls(**fields)


class OnlyWith:
    """Base of context managers for ``with``: ``async with`` raises an error that says so."""

    __slots__ = ()

    if not TYPE_CHECKING:

        def __aenter__(self) -> NoReturn:
            raise RuntimeError(
                "use 'with', not 'async with': cancel scopes and time limits do not wait when they "
                "are entered or left"
            )

        def __aexit__(self, *_details: object) -> NoReturn:
            raise AssertionError("never called: __aenter__ raises")


# -- names ----------------------------------------------------------------------

# How many nested partials are unwrapped to find a function's name. There may be circles.
_PARTIALS = 100


def safe_repr(thing: object) -> str:
    """``repr(thing)`` for messages that must not fail, whatever the object's class does.

    Ctrl-C, exits and lack of memory are not caused by the class: those errors are raised.
    """
    try:
        return str.__str__(repr(thing))
    except MemoryError:
        raise  # not the fault of the class
    except Exception:
        return f"<{class_name(type(thing))}, whose repr() failed>"


def qualname_of(fn: object) -> str | None:
    """The ``__qualname__`` of a function, None for an object that has none."""
    name = text_of(fn, "__qualname__")
    return name or None


def name_of(thing: object) -> str:
    """The name of a task that runs ``thing``: ``module.qualname`` where it has them.

    Returns a plain string. Raises nothing because of the object's class, see :func:`safe_repr`.
    """
    thing = _unwrapped(thing)
    if issubclass(type(thing), str):
        return str.__str__(thing)
    name = text_of(thing, "__qualname__")
    if name is None:
        return safe_repr(thing)
    module = text_of(thing, "__module__")
    return name if module is None else f"{module}.{name}"


class InTheNameOf(Generic[P, T]):
    """``async_fn``, whose coroutines and tasks are shown under the name of the user's ``fn``."""

    __slots__ = ("_async_fn", "_qualname", "fn")

    def __init__(self, fn: object, async_fn: Callable[P, Coroutine[Any, Any, T]]) -> None:
        self.fn, self._async_fn = fn, async_fn
        self._qualname = qualname_of(_unwrapped(fn))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        coro: Any = self._async_fn(*args, **kwargs)
        coro.__qualname__ = name = self._qualname or name_of(self.fn)
        coro.__name__ = name.rpartition(".")[2] or name
        return coro


def _unwrapped(fn: object) -> object:
    """The function inside nested ``functools.partial`` and :class:`InTheNameOf` objects."""
    for _ in range(_PARTIALS):
        if not issubclass(type(fn), (partial, InTheNameOf)):
            break
        fn = fn.fn if type(fn) is InTheNameOf else _PARTIAL_FUNC(fn)
    return fn


_PARTIAL_FUNC: Callable[[Any], object] = vars(partial)["func"].__get__


def text_of(thing: object, attribute: str) -> str | None:
    """An attribute that should be a string, as a plain one; None if it is not there."""
    text = _attribute(thing, attribute)
    return str.__str__(text) if issubclass(type(text), str) else None


def _attribute(thing: object, attribute: str) -> Any:
    """An attribute, None if it is not there or raises; for the exceptions see :func:`safe_repr`."""
    try:
        return getattr(thing, attribute, None)
    except MemoryError:
        raise
    except Exception:
        return None


# -- numbers --------------------------------------------------------------------

CLOCK_TIME = "a time on the clock of current_time()"
SECONDS = "a number"
NO_LIMIT = "for no time limit give math.inf"


def as_float(given: Any, name: str, kind: str = CLOCK_TIME, advice: str = NO_LIMIT) -> float:
    """Convert a time that a user has given to a float.

    Args:
        given: the number, of any type that ``float()`` takes.
        name: the name of the argument or attribute.
        kind: ``CLOCK_TIME`` or ``SECONDS``.
        advice: the end of the error's text.

    Raises:
        TypeError: it is not a number. A string is not a number.
        ValueError: it is NaN.
    """
    try:
        invalid = isnan(given)
        number = float(given)
    except TypeError:
        raise not_a_number(given, name, kind, advice) from None
    if invalid:
        raise ValueError(f"{name.replace('_', ' ')} must not be NaN")
    return number


def not_a_number(given: object, name: str, kind: str, advice: str) -> TypeError:
    """The error for an object that is not a number of seconds or a time."""
    if hasattr(type(given), "total_seconds"):  # a datetime.timedelta
        after_now = "current_time() + " if kind is CLOCK_TIME else ""
        advice = f"give {after_now}its total_seconds()"
    return TypeError(f"`{name}` must be {kind}, not {safe_repr(given)}; {advice}")


# -- data -----------------------------------------------------------------------


def bytes_view(data: Any) -> memoryview:
    """The data to send, as a view whose items are bytes. Every stream accepts the same data.

    Args:
        data: any buffer whose memory is contiguous, with items of any size and any dimensions.

    Raises:
        TypeError: it is not a buffer, or not contiguous; the text says what to do.
    """
    try:
        view = memoryview(data)
    except TypeError:
        advice = "; encode it first" if isinstance(data, str) else ""
        raise TypeError(f"a stream takes bytes, not {class_name(type(data))}{advice}") from None
    if not view.c_contiguous:
        raise TypeError(
            f"a stream takes bytes that are contiguous, which this {class_name(type(data))} is "
            "not; send a copy: bytes(data)"
        )
    if not view.nbytes:
        return memoryview(b"")  # some versions of Python cannot cast a view with a length of 0
    try:
        return view.cast("B")
    except ValueError:
        return memoryview(view.tobytes())  # for example of ctypes, whose items cannot be cast


# -- functions ------------------------------------------------------------------


def call_each(*functions: Callable[[], object]) -> None:
    """Call some functions in order. Each one is called even if others raise.

    Raises:
        BaseException: The first error. Later errors are its contexts, so they are shown before it.
    """
    errors: list[BaseException] = []
    for function in functions:
        try:
            function()
        except BaseException as exc:
            errors.append(exc)
    if errors:
        try:
            for later in errors[1:]:
                chain(errors[0], later)
            raise errors[0]
        finally:
            errors.clear()  # no reference cycle


# The number of frames that the deepest call from an operation through the engine and asyncio takes.
STACK_NEEDED = 16


def ensure_stack(frames: int = STACK_NEEDED) -> None:
    """Raise RecursionError unless the stack has room for ``frames`` more frames.

    This is for operations that change state in several calls. They fail before the first change,
    or they do not fail for lack of stack.
    """
    if frames:
        ensure_stack(frames - 1)


class generic_function(Generic[P, RetT]):
    """Decorator for a function that may be given its type arguments: ``f[int](1)``.

    The brackets have a meaning for type checkers only; at run time ``f[int]`` is ``f``.
    """

    def __init__(self, fn: Callable[P, RetT]) -> None:
        update_wrapper(self, fn)
        self._fn = fn

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> RetT:
        return self._fn(*args, **kwargs)

    def __getitem__(self, _types: object) -> generic_function[P, RetT]:
        return self

    def __repr__(self) -> str:
        return repr(self._fn)


# For nearly every call the first, exact comparison is enough. ``Coroutine`` also accepts the
# coroutines of Cython and other compilers; it is an abstract class, so checking it is slow.
def coroutine_or_error(
    async_fn: Callable[[Unpack[PosArgsT]], Awaitable[RetT]], *args: Unpack[PosArgsT]
) -> Coroutine[Any, Any, RetT]:
    """Call an async function and return its coroutine, or explain what is wrong with the call.

    Args:
        async_fn: The async function, or anything that returns a coroutine when called, such as a
            ``functools.partial`` of one.
        *args: Its positional arguments.

    Returns:
        The coroutine, not started.

    Raises:
        TypeError: ``async_fn`` is a coroutine object, a future, a plain function, an async
            generator function or not callable at all. A coroutine given by mistake is closed, so
            that no "never awaited" warning follows.

    Checkpoint: no, this is not an async function.
    """
    try:
        coro: Any = async_fn(*args)
    except TypeError:
        reject_non_functions((async_fn,))
        raise
    if type(coro) is not CoroutineType:
        coro = checked_coroutine(async_fn, coro)
    return coro  # type: ignore[no-any-return]


def checked_coroutine(async_fn: object, result: Any) -> Coroutine[Any, Any, Any]:
    """Return ``result``, which a call of ``async_fn`` has returned, if it is a coroutine.

    Raises:
        TypeError: it is not a coroutine; the message says what it is.
    """
    if isinstance(result, Coroutine):
        return result
    raise _not_async(async_fn, result)


def reject_non_functions(async_fns: Iterable[object]) -> None:
    """Raise the error of :func:`coroutine_or_error` if one of these cannot be called.

    All coroutine objects among them are closed.
    """
    errors = [_not_a_function(fn) for fn in async_fns if not callable(fn)]
    if errors:
        try:
            # From None, because this error replaces Python's "is not callable".
            raise errors[0] from None
        finally:
            del errors


def _not_a_function(given: object) -> TypeError:
    """The error for something that cannot be called."""
    shown = safe_repr(given)
    if isinstance(given, Coroutine):
        # The user typed the short name, without the "<locals>" of the qualified name.
        name = text_of(given, "__name__") or "f"
        error = explained(
            TypeError(
                "nurseryio was expecting an async function, but instead it got a coroutine object "
                f"{shown}"
            ),
            f"did you write {name}(x) instead of {name}, x?",
        )
        given.close()
        return error
    if _is_future_like(given):
        return TypeError(
            f"nurseryio was expecting an async function, but instead it got {shown}, which is "
            "already running. Await it inside an async function of your own and give that "
            "function instead. (asyncio's futures and tasks can be awaited anywhere in nurseryio; "
            "those of twisted or tornado need an adapter.)"
        )
    return TypeError(f"nurseryio was expecting an async function, but instead it got {shown}")


def _not_async(fn: object, result: object) -> TypeError:
    """The error for a call that returned something that is not a coroutine."""
    if inspect.isasyncgen(result):
        return explained(
            TypeError(
                "start_soon expected an async function but got an async generator "
                f"{safe_repr(result)}"
            ),
            "write an async function that loops over it with 'async for'",
        )
    name = _function_name(fn)
    if _is_future_like(result):
        return TypeError(
            f"nurseryio expected an async function, but {name!r} returned {safe_repr(result)}. "
            "Await it inside an 'async def' function and give that function instead. (asyncio's "
            "futures can be awaited anywhere in nurseryio; those of twisted or tornado need an "
            "adapter.)"
        )
    return explained(
        TypeError(f"nurseryio expected an async function, but {name!r} appears to be synchronous"),
        "call it inside an 'async def' function and give that function instead; if it blocks, "
        "give nurseryio.to_thread.run_sync, and the function as the first argument",
    )


def _function_name(fn: object) -> str:
    fn = _unwrapped(fn)
    return qualname_of(fn) or safe_repr(fn)


def _is_future_like(value: object) -> bool:
    return (
        # asyncio's own protocol for futures, its tasks and uvloop's included
        _attribute(value, "_asyncio_future_blocking") is not None
        # a generator-based coroutine
        or isinstance(value, Generator)
        # concurrent.futures and tornado; twisted
        or class_name(type(value)) in ("Future", "Deferred")
    )


# -- conflicts ------------------------------------------------------------------


class ConflictDetector:
    """Detects that two tasks use a resource at once; used as ``with detector:``.

    Args:
        msg: Text of the error that the later task gets.

    Raises:
        BusyResourceError: On entry, while another task is inside.
    """

    __slots__ = ("_held", "_msg")

    def __init__(self, msg: str) -> None:
        self._msg = msg
        self._held = False

    def __enter__(self) -> None:
        if self._held:
            raise BusyResourceError(self._msg)
        self._held = True

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._held = False


_LIBRARIES = tuple(
    os.path.dirname(os.path.abspath(path)) + os.sep
    for path in (os.path.dirname(os.path.abspath(__file__)), asyncio.__file__)
)


def is_library(code: CodeType) -> bool:
    """Whether the code is a part of nurseryio or asyncio."""
    return code.co_filename.startswith(_LIBRARIES)


def is_library_file(filename: str) -> bool:
    """Whether the file of a code object is a part of nurseryio or asyncio."""
    return filename.startswith(_LIBRARIES)


def position(file: str, line: int | None, function: str) -> str:
    """A line of a program, as messages and drawings name it."""
    return f"{os.path.basename(file)}:{line} in {function}()"


def unset_hook(*_args: object) -> None:
    """The value of a hook variable until a module of a higher room sets it, when it is loaded."""


class LocalWeakSet:
    """A set of weak references by identity, for one thread.

    The interpreter may collect a member in any thread. ``weakref.WeakSet`` then changes while its
    owner iterates, which is an error before Python 3.14. This set is changed by its owner alone. It
    drops dead references when it has grown.
    """

    __slots__ = ("_limit", "_members")

    def __init__(self) -> None:
        self._members: dict[int, ref[Any]] = {}
        self._limit = SMALL_SET

    def __bool__(self) -> bool:
        """False if it is empty; True also if all members were collected."""
        return bool(self._members)

    def add(self, member: Any) -> None:
        """Add an object, which may be in the set already."""
        self._members[id(member)] = ref(member)
        if len(self._members) > self._limit:
            self._members = {id(alive): ref(alive) for alive in self.alive()}
            self._limit = max(SMALL_SET, 2 * len(self._members))

    def discard(self, member: Any) -> None:
        """Remove an object, which may not be in the set."""
        self._members.pop(id(member), None)

    def clear(self) -> None:
        """Remove all members."""
        self._members.clear()

    def alive(self) -> list[Any]:
        """The members that have not been collected."""
        found = [reference() for reference in self._members.values()]
        return [member for member in found if member is not None]


# A LocalWeakSet of this size is not searched for dead references.
SMALL_SET = 64
