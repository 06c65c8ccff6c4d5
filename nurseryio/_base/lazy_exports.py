"""What the public doors are made with: names loaded on first use, and objects that know their door.

What also lives here: :func:`preload`, which loads them all, and what servers load when they start.

Rule 1: a door says which module of ours a lazy name comes from; nothing is loaded before the
name is asked for, and it is asked for once.

Rule 2: a public object shows the door it goes through (``nurseryio.CancelScope``), in tracebacks,
in ``repr`` and to pickle, not the file that it happens to be defined in.
"""

from __future__ import annotations

import importlib
import types
from contextlib import suppress
from typing import Any

from .thread_cache import prepare

# The modules that the doors load on first use, by the name of the library's package.
_lazy_modules: set[str] = set()

# What is loaded on first use from within functions.
_HIDDEN = (
    "nurseryio.aio",
    "nurseryio._observe.task_tree",
    "nurseryio._interop.anyio_bridge",
    "nurseryio._net.linked_socket",
    # A name that is given to the standard library, to ssl for example, is encoded by this codec.
    "encodings.idna",
)

# Packages that only some users have, and what needs them. None of it is for programs at work.
_OPTIONAL = ("OpenSSL.SSL",)
_FOR_TESTS = "nurseryio.testing"

# What the handlers of a server may need first when there is no descriptor left to load it with.
_FOR_SERVERS = (
    "nurseryio.from_thread",
    "nurseryio.lowlevel",
    "nurseryio.socket",
    "nurseryio.to_thread",
    "nurseryio._observe.task_tree",
    "nurseryio._interop.anyio_bridge",
    "nurseryio._net.tcp_connect",
    "nurseryio._net.unix",
    "nurseryio._system.files",
    "nurseryio._system.path",
)


def preload() -> None:
    """Load all of the library now, but for ``nurseryio.testing``.

    Other programs have no need of it: what they use is loaded on first use. Call it early in a
    program that later cannot load anything: that changes its root directory or gives up its rights,
    whose files may be replaced while it runs, or that forks workers which should share the memory.
    (Servers, when they start, load what their handlers are likely to need under ``EMFILE``.)

    Raises:
        ImportError: A part cannot be loaded. Optional packages may be missing.

    Checkpoint: no, this is not an async function.

    Trio: none; it loads everything at import.
    """
    for module in _HIDDEN:
        importlib.import_module(module)
    done = {_FOR_TESTS}
    # Doors have further names to load.
    while left := _lazy_modules - done:
        for module in sorted(left):
            importlib.import_module(module)
        done |= left
    for module in _OPTIONAL:
        with suppress(ImportError):
            importlib.import_module(module)
    # Tables and codecs.
    importlib.import_module("nurseryio._resolver.hostname").encode_hostname("\xfc.example")
    prepare()


def load_for_server() -> None:
    """Load what may be needed when no descriptor is left. Never fails: it may not be needed."""
    with suppress(OSError, ImportError):
        for module in _FOR_SERVERS:
            importlib.import_module(module)
    prepare()


def _load(module: str) -> types.ModuleType:
    """Load a module of the library on first use.

    Raises:
        ImportError: Nothing can be loaded any more; the text says what to do.
    """
    try:
        return importlib.import_module(module)
    except (OSError, ModuleNotFoundError) as error:
        raise ImportError(
            f"{module} is loaded on first use, which has failed ({error}); a program that later "
            "cannot load anything calls nurseryio.preload() early",
            name=module,
        ) from error


def lazy_door(namespace: dict[str, Any], lazy: dict[str, str] | None = None) -> tuple[Any, Any]:
    """Make the ``__getattr__`` and ``__dir__`` of a door, and its ``__all__``.

    Args:
        namespace: the door's ``globals()``, at its end.
        lazy: names to load on first use, separated by blanks, by the module of the library that
            has them; the empty string stands for submodules of the library.

    Returns:
        The two functions, to be assigned in the door.
    """
    door = namespace["__name__"]
    library = door.partition(".")[0]
    origin = {name: module for module, names in (lazy or {}).items() for name in names.split()}
    eager = [name for name, value in namespace.items() if _is_public(name, value)]
    for name in eager:
        show_door(namespace[name], name, door)
    _lazy_modules.update(f"{library}.{module or name}" for name, module in origin.items())
    submodules = {name for name, module in origin.items() if not module}
    namespace["__all__"] = sorted({*eager, *(origin.keys() - submodules)})

    def __getattr__(name: str) -> Any:
        module = origin.get(name)
        if module is None:
            raise AttributeError(f"module {door!r} has no attribute {name!r}")
        if not module:
            return _load(f"{library}.{name}")
        value = getattr(_load(f"{library}.{module}"), name)
        show_door(value, name, door)
        namespace[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*namespace, *origin})

    return __getattr__, __dir__


def _is_public(name: str, value: object) -> bool:
    return (
        not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and name not in ("annotations", "TYPE_CHECKING", "Any", "lazy_door")
    )


def show_door(value: Any, name: str, door: str) -> None:
    """Have a class or function of ours name its door as its module."""
    module = getattr(value, "__module__", None)
    hidden = (door.partition(".")[0] + "._", door + ".")
    if not isinstance(module, str) or not module.startswith(hidden):
        return
    if not isinstance(value, type) and not callable(value):
        return
    try:
        value.__module__ = door
        if getattr(value, "__qualname__", name) == value.__name__:
            value.__qualname__ = value.__name__ = name
    except (AttributeError, TypeError):
        return
    if isinstance(value, type):
        for member in vars(value).values():
            function = getattr(member, "__func__", member)
            if isinstance(function, types.FunctionType) and function.__module__ == module:
                function.__module__ = door
