"""What the tasks of a loop hold: the objects in whose ``with`` block they are, and in variables.

asyncio's locks do not record their owner, and a channel does not know which tasks have its ends.
The frames of suspended coroutines show both. Inside ``async with lock:`` the frame keeps the lock's
``__aexit__`` for the end of the block, and programs do not put such a method anywhere else.

Rule 1: suspended frames are read by ``gc.get_referents``. Unlike ``f_locals`` it shows the blocks,
and does not keep values alive. No code of the program's classes is called.

Rule 2: ids are kept, not objects, and of variables only those of classes that tasks wait for.

Rule 3: all tasks are looked at once, at the first question. A tree without one costs nothing.

Rule 4: the blocks of a running task cannot be seen. So "no task holds it" is only said where
:attr:`Holders.complete` is true.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections import Counter, deque
from functools import partial
from itertools import takewhile
from operator import itemgetter
from types import (
    AsyncGeneratorType,
    BuiltinMethodType,
    CellType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
)
from typing import TYPE_CHECKING, Any

from .._asyncio import display
from .._base.util import is_library, safe_repr
from .._core.task import referents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import FrameType

    Chain = list[tuple[Any, FrameType]]

EXITS = ("__aexit__", "__exit__")

# The classes whose objects are noted where they are found in variables, by their modules. Not by
# ``__module__``, which for a public class names the module that exports it.
WATCHED_CLASSES = {
    "asyncio.futures": ("Future", "_PyFuture"),
    "asyncio.locks": ("Condition", "Event", "Lock", "Semaphore"),
    "asyncio.queues": ("Queue",),
    "asyncio.streams": ("StreamReader", "StreamWriter"),
    "nurseryio._net.stream": ("SocketStream",),
    "nurseryio._sync.channel": ("MemoryReceiveChannel", "MemorySendChannel"),
    "nurseryio._sync.event": ("Event",),
}
# The classes of a memory channel's ends, with the method for which a task has one.
CHANNEL_ENDS = {"MemorySendChannel": "send", "MemoryReceiveChannel": "receive"}

# Objects of these modules are not looked into, because they lead to everything.
CLOSED_MODULES = ("nurseryio.", "asyncio.", "_asyncio", "uvloop")

SIZED = frozenset([tuple, list, dict, set, deque])
CONTAINERS = SIZED | {partial, CellType, MethodType}
# A larger container holds data.
LARGEST_CONTAINER = 100
# How many containers inside each other are looked into, and generators of context managers.
DEEPEST = 4

# A class that was made by a ``class`` statement (Py_TPFLAGS_HEAPTYPE).
_MADE_BY_STATEMENT = 1 << 9

_MANAGERS: tuple[type, ...] = (
    type(contextlib.contextmanager(lambda: iter(()))()),
    type(contextlib.asynccontextmanager(lambda: None)()),  # type: ignore[arg-type, return-value]
)


# The most names of tasks in one sentence.
MOST_NAMES = 5


def listed(tasks: Iterable[Any]) -> tuple[list[str], str]:
    """The names of tasks or other objects, as a list and as a part of a sentence."""
    names = []
    for task in list(tasks):
        shown = task if isinstance(task, str) else getattr(task, "name", None)
        names.append(shown if isinstance(shown, str) else safe_repr(task))
    counted = sorted(Counter(names).items())
    quoted = [
        repr(name) if count == 1 else f"{name!r} ({count:,} times)"
        for name, count in counted[:MOST_NAMES]
    ]
    more = sum(count for _, count in counted[MOST_NAMES:])
    if more:
        quoted.append(f"{more:,} more")
    return names, ", ".join(quoted)


def timeouts_around(chain: Chain) -> list[Any]:
    """The timeouts of asyncio and anyio in whose blocks a suspended task is.

    Args:
        chain: The coroutine of the task and all that it awaits, with frames.
    """
    ids = {id(link) for link, _ in chain}
    return [
        thing
        for link, frame in chain
        for thing in _blocks(list(referents(link, frame)), ids)
        if display.is_timeout(thing)
    ]


class Holders:
    """What the tasks of a loop hold.

    Args:
        chains: By the ids of the tasks their coroutines and all that these await, with frames.
        name_of: The name of a task, by its id.
        running: The id of the running task, with its frames; None if no task is running.
    """

    def __init__(
        self,
        chains: Mapping[int, Chain],
        name_of: Callable[[int], str],
        running: tuple[int, Iterable[FrameType]] | None = None,
    ) -> None:
        self._chains = chains
        self._name_of = name_of
        self._running = running
        self._looked = False
        self.complete = running is None
        self._blocks: dict[int, dict[int, None]] = {}
        self._variables: dict[int, dict[int, None]] = {}
        # Many tasks may wait for the same object.
        self._shown: dict[tuple[int, ...], tuple[list[str], str]] = {}
        # Of sockets: by local address the tasks that have the stream, waiting in it or not.
        self._streams: dict[Any, dict[int, None]] = {}
        # Of memory channels: by state and method the ends, each with the tasks that have it.
        self._ends: dict[tuple[int, str], dict[int, dict[int, None]]] = {}
        self._noted = _watched_classes()
        # Whether objects of a class are noted in variables, and whether they are looked into.
        self._watched: dict[type, bool] = {}
        self._open: dict[type, bool] = dict.fromkeys(CONTAINERS, True)

    def in_block_of(self, thing: object) -> list[int]:
        """The tasks that are in a ``with`` or ``async with`` block of an object.

        A task that waits to enter the block, or to get the object back in it, is left out.
        """
        self._look()
        return list(self._blocks.get(id(thing), ()))

    def with_variable(self, thing: object) -> list[int]:
        """The tasks that have an object in a variable, and do not wait in a method of it."""
        self._look()
        return list(self._variables.get(id(thing), ()))

    def ends_of(self, channel: object, method: str) -> tuple[int, list[int]]:
        """Of a memory channel's open ends: how many are in variables of tasks, and which tasks.

        Args:
            channel: The state that the ends share.
            method: ``"send"`` or ``"receive"``: the method of the ends that are asked for.
        """
        self._look()
        ends = self._ends.get((id(channel), method), {})
        return len(ends), list(dict.fromkeys(task for tasks in ends.values() for task in tasks))

    def with_stream_at(self, address: object) -> list[int]:
        """The tasks that have a stream on a socket with this local address."""
        self._look()
        return list(self._streams.get(address, ()))

    def shown(self, numbers: Iterable[int]) -> tuple[list[str], str]:
        """The names of tasks, as :func:`listed` shows them."""
        key = tuple(numbers)
        found = self._shown.get(key)
        if found is None:
            found = self._shown[key] = listed(map(self._name_of, key))
        return found

    # -- looking --

    def _look(self) -> None:
        if self._looked:
            return
        self._looked = True
        for number, chain in list(self._chains.items()):
            try:
                if self._running is not None and self._running[0] == number:
                    self._look_at_running(number, self._running[1])
                else:
                    self._look_at(number, chain)
            except Exception:  # a task that cannot be looked at does not hide the others
                self.complete = False

    def _look_at_running(self, number: int, frames: Iterable[FrameType]) -> None:
        for frame in frames:
            if not is_library(frame.f_code):
                self._note_variables(number, list(frame.f_locals.values()), set())

    def _look_at(self, number: int, chain: Chain) -> None:
        ids = {id(link) for link, _ in chain}
        links = []
        for link in chain:
            things, library = list(referents(*link)), is_library(link[1].f_code)
            if not library:
                # Generators that the task iterates, and that are at a ``yield``.
                links += [(inner, False) for inner in _in_generators(things, ids)]
            links.append((things, library))
        operation = list(takewhile(itemgetter(1), reversed(links)))
        # The objects of the operation that the task waits in.
        waiting = {id(thing) for things, _ in operation for thing in things}
        held = []
        for index, (things, library) in enumerate(links):
            self._note_variables(number, things, waiting)
            blocks = [] if library else list(_blocks(things, ids))
            calls_operation = index == len(links) - len(operation) - 1
            if calls_operation and blocks and id(blocks[-1]) in waiting:
                blocks.pop()  # the task waits to enter this block
            held += blocks
        for thing in held:
            if _is_condition(type(thing)):
                if id(thing) in waiting:
                    continue  # wait() has released it
                thing = thing._lock
            self._blocks.setdefault(id(thing), {})[number] = None

    def _note_variables(self, number: int, things: Iterable[Any], waiting: set[int]) -> None:
        watched, is_open = self._watched, self._open
        for thing in things:
            cls = type(thing)
            known = watched.get(cls)
            if known or (known is None and self._is_watched(cls)):
                self._note(number, thing, waiting)
                continue
            known = is_open.get(cls)
            if known or (known is None and self._is_open(cls)):
                for inner in _inside(thing):
                    if self._is_watched(type(inner)):
                        self._note(number, inner, waiting)

    def _note(self, number: int, thing: Any, waiting: set[int]) -> None:
        address = _address_of(thing)
        if address is not None:
            self._streams.setdefault(address, {})[number] = None
        if id(thing) in waiting:
            return
        self._variables.setdefault(id(thing), {})[number] = None
        method = CHANNEL_ENDS.get(type(thing).__name__)
        if method is not None and not thing._closed:
            ends = self._ends.setdefault((id(thing._state), method), {})
            ends.setdefault(id(thing), {})[number] = None

    def _is_watched(self, cls: type) -> bool:
        known = self._watched.get(cls)
        if known is None:
            # A task is a future of asyncio, but no other code ends it.
            known = not self._noted.isdisjoint(cls.__mro__) and not hasattr(cls, "get_coro")
            self._watched[cls] = known
        return known

    def _is_open(self, cls: type) -> bool:
        known = self._open.get(cls)
        if known is None:
            known = self._open[cls] = (
                bool(cls.__flags__ & _MADE_BY_STATEMENT)
                and not issubclass(cls, (type, BaseException))
                and not f"{cls.__module__}.".startswith(CLOSED_MODULES)
            )
        return known


def _watched_classes() -> set[type]:
    """The classes of :data:`WATCHED_CLASSES` whose modules are loaded: without one, no objects."""
    return {
        getattr(sys.modules[module], name)
        for module, names in WATCHED_CLASSES.items()
        if module in sys.modules
        for name in names
        if hasattr(sys.modules[module], name)
    }


def _address_of(stream: Any) -> Any:
    """The local address of a stream on a socket; None for another object."""
    kind = type(stream).__name__
    try:
        if kind == "SocketStream":
            return stream.socket.getsockname() or None  # a Unix socket may have no name
        if kind in ("StreamReader", "StreamWriter"):
            return display.addresses_of(stream)[0]
    except OSError:  # closed
        pass
    return None


def _inside(thing: Any, depth: int = DEEPEST) -> Iterator[Any]:
    """The values in a container or in the attributes of an object, and in containers there."""
    if type(thing) in SIZED and len(thing) > LARGEST_CONTAINER:
        return
    for inner in gc.get_referents(thing):
        yield inner
        if depth and type(inner) in CONTAINERS:
            yield from _inside(inner, depth - 1)


def _in_generators(things: list[Any], chain: set[int]) -> Iterator[list[Any]]:
    """What the asynchronous generators in variables of a frame refer to, outer before inner.

    Args:
        things: What the frame refers to.
        chain: The ids of the coroutines and generators that the task is in.
    """
    seen = set(chain)
    for _ in range(DEEPEST):
        inner = []
        for thing in things:
            if type(thing) is AsyncGeneratorType and id(thing) not in seen:
                seen.add(id(thing))
                frame = thing.ag_frame
                if frame is not None and not thing.ag_running:
                    inner += list(referents(thing, frame))
        if not inner:
            return
        yield inner
        things = inner


def _managers(things: list[Any]) -> Iterator[Any]:
    """The context managers whose ``__exit__`` or ``__aexit__`` a frame keeps."""
    for index, thing in enumerate(things):
        # isinstance() would read __class__, which a class of the program may define.
        cls = type(thing)
        if cls is BuiltinMethodType:
            if thing.__name__ in EXITS:
                yield thing.__self__
        elif cls is MethodType:
            if type(thing.__func__) is FunctionType and thing.__func__.__name__ in EXITS:
                yield thing.__self__
        elif cls in (FunctionType, MethodDescriptorType) and thing.__name__ in EXITS:
            # Python 3.14 keeps the function and the object one after the other.
            after = things[index + 1] if index + 1 < len(things) else None
            if any(vars(base).get(thing.__name__) is thing for base in type(after).__mro__):
                yield after


def _blocks(things: list[Any], chain: set[int], depth: int = 0) -> Iterator[Any]:
    """The context managers in whose blocks a suspended frame is, outer before inner.

    Args:
        things: What the frame refers to.
        chain: The ids of the coroutines and generators that the task is in.
        depth: How many generators of context managers are around the frame.
    """
    for manager in _managers(things):
        for thing in (manager, *_entered(manager)):
            yield thing
            # @contextmanager, @asynccontextmanager: the blocks around the generator's ``yield``.
            generator: Any = (
                getattr(thing, "gen", None) if issubclass(type(thing), _MANAGERS) else None
            )
            frame = getattr(generator, "ag_frame", None) or getattr(generator, "gi_frame", None)
            if frame is not None and id(generator) not in chain and depth < DEEPEST:
                yield from _blocks(list(referents(generator, frame)), chain, depth + 1)


def _entered(manager: Any) -> Iterator[Any]:
    """The context managers that an exit stack has entered."""
    if issubclass(type(manager), (contextlib.ExitStack, contextlib.AsyncExitStack)):
        for callback in display.exit_callbacks(manager):
            yield from _managers([callback])


def _is_condition(cls: type) -> bool:
    return any(
        base.__name__ == "Condition"
        and f"{base.__module__}.".startswith(("asyncio.", "nurseryio."))
        for base in cls.__mro__
    )
