"""Functions that cannot work, and names of other libraries. Each says what to do instead.

Some functions of Trio cannot work on asyncio. Others of this library need a part that the platform
lacks: Python in a browser has neither threads nor sockets. :func:`needs` marks these functions.

Readers who know asyncio look for ``nursery.create_task``: :class:`Elsewhere` marks such
names. :func:`name_instead` has the names of asyncio's module. The error about a keyword argument
that was given to ``start_soon()`` for the child gets a note, and so does the one about a function
that does not take the ``task_status`` of ``start()``.

Rule 1: importing these names works. Calling them raises an error that says what to do instead.

Rule 2: the error comes at the call, before anything is opened, started or changed.

Rule 3: where the platform has everything, a marked function is the function itself. So the mark
costs nothing.

Rule 4: a hint costs nothing until the error is raised. :class:`Elsewhere` is an attribute of the
class, so objects are made, and their other attributes are found, as without it. (With a
``__getattr__``, Python would find all attributes of such objects more slowly.) The note is added
when the error leaves a nursery, because a function that takes all keyword arguments would make each
call slower. The price: from Python 3.12 on, ``isinstance`` with a ``runtime_checkable`` protocol
finds the attribute in the class, and a mock of the class ``CancelScope`` has it. (A metaclass, as
the final classes have it, would make each scope slower.)
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from .._asyncio import browser
from .exc_fields import add_note, args_of, notes_of

if TYPE_CHECKING:
    from collections.abc import Callable

    FnT = TypeVar("FnT", bound=Callable[..., Any])


# -- the platform ---------------------------------------------------------------

# For each part that a platform may lack: its name in the error, and the advice.
_PARTS = {
    "threads": ("threads", "call the function directly, or await an async one"),
    "files": (
        "threads",
        "use open() and pathlib.Path, because files are in memory there and do not block",
    ),
    "sockets": (
        "sockets",
        "use the means of the page, such as fetch() or a WebSocket; streams in memory work",
    ),
    "processes": ("processes", "call the code in this process, or start a Web Worker"),
    "signals": ("signals", "set an Event or send to a channel in an event listener of the page"),
    "observers": (
        "threads, sockets and signals",
        "print task_tree() in the program or in an event listener of the page",
    ),
    "descriptors": (
        "file descriptors that can be waited for",
        "await a future or an Event that an event listener of the page sets",
    ),
    "ssl": (
        "module ssl",
        "in Pyodide, await pyodide_js.loadPackage('ssl') before nurseryio is imported, for streams "
        "in memory",
    ),
}


def _lacking() -> frozenset[str]:
    """The parts that do not exist on this platform, apart from modules that cannot be imported."""
    if not browser.IS_WASM:
        return frozenset()
    threads = () if browser.wasm_has_threads() else ("threads", "files", "observers")
    return frozenset({"sockets", "processes", "signals", "descriptors", *threads})


LACKING: frozenset[str] = _lacking()


def impossible(part: str, what: str) -> NotImplementedError:
    """The error for something that needs a part which the platform lacks.

    Args:
        part: a key of the table of parts.
        what: the function or functions for the error message.
    """
    name, advice = _PARTS[part]
    return NotImplementedError(
        f"this platform ({sys.platform}) has no {name}, so {what} cannot work: {advice}"
    )


def needs(part: str, what: str | None = None) -> Callable[[FnT], FnT]:
    """Mark a function that needs a part which some platforms lack. There it only raises.

    Args:
        part: a key of the table of parts.
        what: the name for the error message; None for the name of the function.
    """

    def mark(fn: FnT) -> FnT:
        return _refusing(fn, part, what or f"{fn.__name__}()") if part in LACKING else fn

    return mark


def _refusing(fn: FnT, part: str, what: str) -> FnT:
    @functools.wraps(fn)
    def refuse(*_args: object, **_options: object) -> NoReturn:
        raise impossible(part, what)

    @functools.wraps(fn)
    async def refuse_in_task(*_args: object, **_options: object) -> NoReturn:
        raise impossible(part, what)

    return cast("FnT", refuse_in_task if inspect.iscoroutinefunction(fn) else refuse)


def missing_part(error: object) -> str | None:
    """The part that the platform lacks, if that is why a module could not be loaded; else None."""
    if LACKING and isinstance(error, ModuleNotFoundError) and error.name in _PARTS:
        return error.name
    return None


def stand_in(part: str, name: str) -> type:
    """A class in place of a public name whose module cannot be loaded. It raises when called.

    Args:
        part: the part that the module needs, a key of the table of parts.
        name: the public name.
    """

    def refuse(_cls: type, *_args: object, **_options: object) -> NoReturn:
        raise impossible(part, f"{name}()")

    return type(name, (), {"__new__": refuse, "__doc__": str(impossible(part, name))})


# -- asyncio --------------------------------------------------------------------


def start_guest_run(*_args: object, **_options: object) -> NoReturn:
    """Not possible here, and not needed: tasks of this library are asyncio tasks already.

    Raises:
        NotImplementedError: always.

    Checkpoint: no.

    Trio: ``trio.lowlevel.start_guest_run``.
    """
    raise NotImplementedError(
        "start_guest_run() makes Trio a guest of a foreign loop; nurseryio always runs on the "
        "asyncio loop that is there, so await your function in it. For another host loop (Qt, "
        "Tk) use an asyncio loop made for it"
    )


def _no_detaching(name: str) -> NotImplementedError:
    return NotImplementedError(
        f"{name}() moves a coroutine between schedulers; an asyncio task owns its coroutine and "
        "does not give it away. Await it in a task of its own instead"
    )


async def permanently_detach_coroutine_object(*_args: object) -> NoReturn:
    """Not possible here: an asyncio task owns its coroutine.

    Raises:
        NotImplementedError: always.

    Checkpoint: no.

    Trio: ``trio.lowlevel.permanently_detach_coroutine_object``.
    """
    raise _no_detaching("permanently_detach_coroutine_object")


async def temporarily_detach_coroutine_object(*_args: object) -> NoReturn:
    """Not possible here: an asyncio task owns its coroutine.

    Raises:
        NotImplementedError: always.

    Checkpoint: no.

    Trio: ``trio.lowlevel.temporarily_detach_coroutine_object``.
    """
    raise _no_detaching("temporarily_detach_coroutine_object")


async def reattach_detached_coroutine_object(*_args: object) -> NoReturn:
    """Not possible here: an asyncio task owns its coroutine.

    Raises:
        NotImplementedError: always.

    Checkpoint: no.

    Trio: ``trio.lowlevel.reattach_detached_coroutine_object``.
    """
    raise _no_detaching("reattach_detached_coroutine_object")


# -- names and arguments of other libraries ---------------------------------------

# Between the name of the function and the name of the argument, in Python's text.
_UNEXPECTED = "() got an unexpected keyword argument '"
_METHODS = ("Nursery.start", "Nursery.start_soon", "run_sync")

# Names of the module asyncio, and of anyio, that readers look for in the module nurseryio.
_NURSERY = "use 'async with open_nursery() as nursery:'"
_TIME_LIMIT = "use 'with fail_after(seconds):', which raises TooSlowError, or move_on_after"
_INSTEAD = {
    "TaskGroup": _NURSERY,
    "create_task_group": _NURSERY,
    "create_task": f"{_NURSERY} and nursery.start_soon(f, x)",
    "ensure_future": f"{_NURSERY} and nursery.start_soon(f, x)",
    "timeout": _TIME_LIMIT,
    "timeout_at": "use 'with fail_at(deadline):', which raises TooSlowError, or move_on_at",
    "wait_for": _TIME_LIMIT,
    "TimeoutError": "fail_after raises TooSlowError",
    "CancelledError": "use Cancelled, another name of asyncio.CancelledError",
    "Queue": "use open_memory_channel(size)",
    "create_memory_object_stream": "use open_memory_channel(size)",
    "BoundedSemaphore": "use Semaphore(n, max_value=n)",
    "wait": "use a nursery, or race(f, g) for the first result",
    "as_completed": "use 'async with amap(f, items, limit=n, ordered=False) as results:'",
    "shield": "use 'with CancelScope(shield=True):'",
    "run_in_executor": (
        "use await to_thread.run_sync(f, x), or to_process.run_sync for work that computes"
    ),
    "start_server": "use serve_tcp(handler, port)",
    "open_connection": "use await open_tcp_stream(host, port)",
    "create_subprocess_exec": "use await run_process([program, argument])",
    "create_subprocess_shell": "use await run_process(command, shell=True)",
    "current_task": "use lowlevel.current_task(), or asyncio.current_task()",
    "get_running_loop": "use asyncio.get_running_loop()",
    "get_event_loop": "use asyncio.get_running_loop()",
}


def name_instead(name: str) -> str | None:
    """Return the advice about a name of asyncio or anyio, or None for any other name."""
    return _INSTEAD.get(name)


class Elsewhere:
    """An attribute that a class does not have. Reading it raises the error that says so.

    An object may have an attribute of this name nevertheless, if its class allows new attributes.

    Args:
        instead: what to write instead.
    """

    __slots__ = ("_instead", "_name")

    def __init__(self, instead: str) -> None:
        self._instead = instead
        self._name = "?"

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        present: object = owner.__dir__
        if present is object.__dir__:
            owner.__dir__ = _dir_without_hints  # type: ignore[method-assign, assignment]

    def __repr__(self) -> str:
        return f"<not here: {self._instead}>"

    def __get__(self, instance: object, owner: type) -> NoReturn:
        # The first part is Python's text.
        which = f"{owner.__name__!r} object" if instance is not None else f"type {owner.__name__!r}"
        text = f"{which} has no attribute {self._name!r}: {self._instead}"
        # Without the object, Python does not append a name that is merely spelled like this one.
        raise AttributeError(text, name=self._name, obj=None)


class NeverHere(Elsewhere):
    """An attribute that a class does not have, and that cannot be set on its objects either.

    It is for names whose assignment would silently do nothing, such as ``nursery.deadline``.
    """

    __slots__ = ()

    def __set__(self, instance: object, value: object) -> NoReturn:
        self.__get__(instance, type(instance))

    def __delete__(self, instance: object) -> NoReturn:
        self.__get__(instance, type(instance))


def _dir_without_hints(self: object) -> list[str]:
    """``__dir__`` of the classes with hints: completion must not offer names that do not work."""
    kind = type(self)
    return [
        name
        for name in object.__dir__(self)
        if not isinstance(inspect.getattr_static(kind, name, None), Elsewhere)
    ]


def explain_keyword(error: TypeError) -> None:
    """Add a note to the error about a keyword argument: one for the child, or ``task_status``."""
    arguments = args_of(error)
    if not arguments or type(arguments[0]) is not str:
        return
    method, _, rest = arguments[0].partition(_UNEXPECTED)
    name = rest.partition("'")[0]
    if notes_of(error):
        return
    if name == "task_status":
        add_note(
            error,
            "nursery.start() waits until the function has called task_status.started(): give it "
            "the keyword argument task_status=TASK_STATUS_IGNORED, or start it with start_soon()",
        )
    elif method in _METHODS:
        add_note(
            error,
            "pass keyword arguments of the function with functools.partial: "
            f"{method.lower()}(partial(f, {name}=...))",
        )
