"""What the public doors are made with: names loaded on first use, and objects that know their door.

Rule 1: a door says which module of ours a lazy name comes from; nothing is loaded before the
name is asked for, and it is asked for once.

Rule 2: a public object shows the door it goes through (``nurseryio.CancelScope``), in tracebacks,
in ``repr`` and to pickle, not the file that it happens to be defined in.
"""

from __future__ import annotations

import importlib
import types
from typing import Any


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
    submodules = {name for name, module in origin.items() if not module}
    namespace["__all__"] = sorted({*eager, *(origin.keys() - submodules)})

    def __getattr__(name: str) -> Any:
        module = origin.get(name)
        if module is None:
            raise AttributeError(f"module {door!r} has no attribute {name!r}")
        if not module:
            return importlib.import_module(f"{library}.{name}")
        value = getattr(importlib.import_module(f"{library}.{module}"), name)
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
