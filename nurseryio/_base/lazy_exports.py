"""Lazy exports of the public modules: names loaded on first use; ``__module__`` of public objects.

This module also has :func:`preload`, which loads all of them, and the list of modules that a
server loads when it starts.

Rule 1: a public module lists the internal module that each lazy name comes from. That module is
imported at the first access to the name. The value is then stored in the public module.

With Python's own lazy imports (``-X lazy_imports=all``) the other public names are loaded with the
public module nevertheless, because of rule 3.

Rule 2: only a public module with such names gets a ``__getattr__``. The interpreter reads all
attributes of a module that has one by a slower instruction.

Rule 3: the ``__module__`` of a public object is the public module (``nurseryio.CancelScope``), not
the file that defines the object. Tracebacks, ``repr`` and pickle use it.
"""

from __future__ import annotations

import importlib
import sys
import types
from contextlib import suppress
from typing import Any

from .unsupported import missing_part, name_instead, stand_in

# The type of a name whose import Python has put off; none before Python 3.15.
_LAZY_IMPORT: Any = getattr(types, "LazyImportType", ())

# The full names of the modules that public modules load on first use.
_lazy_modules: set[str] = set()

# Of these modules, the public names whose objects do not have their ``__module__`` yet, with the
# public module. Other modules of the library may have loaded them.
_not_shown: dict[str, list[tuple[str, str]]] = {}

# Modules that functions load on first use.
_HIDDEN = (
    "nurseryio._observe.explain",
    "nurseryio._observe.task_tree",
    "nurseryio._interop.anyio_bridge",
    "nurseryio._net.linked_socket",
    # The standard library, for example ssl, encodes host names by this codec.
    "encodings.idna",
)

# Optional packages; and the subpackage for tests, which programs in production do not need.
_OPTIONAL = ("OpenSSL.SSL",)
_FOR_TESTS = "nurseryio.testing"

# The module of worker threads, which preload() and load_for_server() prepare.
_THREADS = "nurseryio._base.thread_cache"

# Modules that the handlers of a server may need for the first time when no file descriptor is left
# to load them with.
_FOR_SERVERS = (
    "nurseryio.from_thread",
    "nurseryio.lowlevel",
    "nurseryio.socket",
    "nurseryio.to_thread",
    "nurseryio._bytes.buffered",
    "nurseryio._bytes.file_sending",
    "nurseryio._observe.explain",
    "nurseryio._observe.task_tree",
    "nurseryio._interop.anyio_bridge",
    "nurseryio._net.tcp_connect",
    "nurseryio._net.unix",
    "nurseryio._nursery.services",
    "nurseryio._sync.condition",
    "nurseryio._sync.results",
    "nurseryio._sync.safe_channel",
    "nurseryio._system.files",
    "nurseryio._system.path",
)


def preload() -> None:
    """Load all of the library now, except ``nurseryio.testing``.

    Most programs do not have to call this, because each module is loaded on first use. Call it
    early in a program that cannot load modules later. Such a program changes its root directory,
    gives up its rights, or has its files replaced while it runs. Call it also before forking
    workers that should share the memory. (Servers load at their start the modules that their
    handlers are likely to need under ``EMFILE``.)

    Raises:
        ImportError: A part cannot be loaded. Optional packages may be missing.

    Checkpoint: no, this is not an async function.

    Trio: none; it loads everything at import.
    """
    for module in _HIDDEN:
        importlib.import_module(module)
    done = {_FOR_TESTS}
    # A public module that is loaded here may add lazy names.
    while left := _lazy_modules - done:
        for module in sorted(left):
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                if missing_part(error) is None:
                    raise
        done |= left
    for module in _OPTIONAL:
        with suppress(ImportError):
            importlib.import_module(module)
    # Tables and codecs.
    importlib.import_module("nurseryio._resolver.hostname").encode_hostname("\xfc.example")
    importlib.import_module(_THREADS).prepare()


def load_for_server() -> None:
    """Load modules that may be needed when no file descriptor is left.

    A failure is ignored, because the modules may not be needed.
    """
    with suppress(OSError, ImportError):
        importlib.import_module(_THREADS).prepare()
        for module in _FOR_SERVERS:
            importlib.import_module(module)


def _load(module: str) -> types.ModuleType:
    """Load a module of the library on first use.

    Raises:
        ImportError: Nothing can be loaded any more; the text says what to do.
    """
    try:
        loaded = importlib.import_module(module)
    except (OSError, ModuleNotFoundError) as error:
        raise ImportError(
            f"{module} is loaded on first use, which has failed ({error}); a program that later "
            "cannot load anything calls nurseryio.preload() early",
            name=module,
        ) from error
    _show_loaded()
    return loaded


def _show_loaded() -> None:
    """Apply rule 3 to the lazy names whose modules have been loaded by now."""
    for module in [*_not_shown]:  # copied, because other threads do the same
        names = _not_shown.get(module, ())
        loaded = sys.modules.get(module)
        values = [getattr(loaded, name, None) for name, _ in names]
        if None not in values:  # else it is not loaded, or another thread is loading it
            for (name, public_module), value in zip(names, values, strict=True):
                show_public_module(value, name, public_module)
            _not_shown.pop(module, None)


def exports(namespace: dict[str, Any]) -> Any:
    """Make the ``__dir__`` and ``__all__`` of a public module without lazy names.

    Args:
        namespace: the ``globals()`` of the public module, at the end of the module.

    Returns:
        ``__dir__``, to be assigned in the public module. ``__all__`` is set.
    """
    return lazy_exports(namespace, {})[1]


def lazy_exports(namespace: dict[str, Any], lazy: dict[str, str]) -> tuple[Any, Any]:
    """Make the ``__getattr__``, ``__dir__`` and ``__all__`` of a public module.

    Args:
        namespace: the ``globals()`` of the public module, at the end of the module.
        lazy: names to load on first use. The keys are modules of the library, the values are the
            names that they define, separated by blanks. The key ``""`` is for submodules.

    Returns:
        ``__getattr__`` and ``__dir__``, to be assigned in the public module. ``__all__`` is set.
    """
    public_module = namespace["__name__"]
    library = public_module.partition(".")[0]
    origin = {name: module for module, names in lazy.items() for name in names.split()}
    for name, value in list(namespace.items()):
        if isinstance(value, _LAZY_IMPORT):
            namespace[name] = value.resolve()
    eager = [name for name, value in namespace.items() if _is_public(name, value)]
    for name in eager:
        show_public_module(namespace[name], name, public_module)
    _lazy_modules.update(f"{library}.{module or name}" for name, module in origin.items())
    for name, module in origin.items():
        if module:
            _not_shown.setdefault(f"{library}.{module}", []).append((name, public_module))
    _show_loaded()
    submodules = {name for name, module in origin.items() if not module}
    namespace["__all__"] = sorted({*eager, *(origin.keys() - submodules)})

    def __getattr__(name: str) -> Any:
        module = origin.get(name)
        if module is None:
            instead = name_instead(name) if public_module == library else None
            raise AttributeError(
                f"module {public_module!r} has no attribute {name!r}"
                + (f": {instead}" if instead else "")
            )
        if not module:
            return _load(f"{library}.{name}")
        try:
            value = getattr(_load(f"{library}.{module}"), name)
        except ImportError as error:
            part = missing_part(error.__cause__)
            if part is None:
                raise
            value = stand_in(part, name)
        show_public_module(value, name, public_module)
        namespace[name] = value
        return value

    def __dir__() -> list[str]:
        # For completion: neither the rooms nor the imports of the public module itself.
        return sorted({*eager, *origin})

    return __getattr__, __dir__


def _is_public(name: str, value: object) -> bool:
    return (
        not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and name not in ("annotations", "TYPE_CHECKING", "Any", "exports", "lazy_exports")
    )


def show_public_module(value: Any, name: str, public_module: str) -> None:
    """Set ``__module__`` of a class or function of this library to its public module."""
    module = getattr(value, "__module__", None)
    hidden = (public_module.partition(".")[0] + "._", public_module + ".")
    if not isinstance(module, str) or not module.startswith(hidden):
        return
    if not isinstance(value, type) and not callable(value):
        return
    try:
        value.__module__ = public_module
        if getattr(value, "__qualname__", name) == value.__name__:
            value.__qualname__ = value.__name__ = name
    except (AttributeError, TypeError):
        return
    if isinstance(value, type):
        for member in vars(value).values():
            function = getattr(member, "__func__", member)
            if isinstance(function, types.FunctionType) and function.__module__ == module:
                function.__module__ = public_module
