"""Private parts of ``multiprocessing``, which this room needs. No other module uses them.

``multiprocessing.spawn`` finds the program's main module, and imports it in a worker. It has done
so in the same way since Python 3.4.
"""

from __future__ import annotations

from multiprocessing import process, spawn
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def spawn_process(function: Callable[..., object], *args: object) -> Any:
    """Start a process that calls a function, without an entry in the table of children.

    Returns:
        The ``Popen`` object of multiprocessing, with the methods ``poll``, ``wait`` and ``close``.

    Raises:
        OSError: The system refuses to.
        RuntimeError: This process is importing the main module of its parent.
    """
    from multiprocessing import get_context

    made: Any = get_context("spawn").Process(target=function, args=args, name="nurseryio worker")
    return made._Popen(made)


def preparation() -> dict[str, Any]:
    """The data with which another interpreter of this process finds the program's modules.

    Raises:
        RuntimeError: This is an interpreter that is importing the main module.
    """
    data: dict[str, Any] = spawn.get_preparation_data("nurseryio interpreter")
    # The rest is for another process.
    wanted = {"sys_path", "init_main_from_name", "init_main_from_path"}
    return {name: data[name] for name in wanted & data.keys()}


def prepare(data: dict[str, Any]) -> None:
    """Import the program's main module in this interpreter, as multiprocessing does."""
    # With this flag a main module that starts the program at its import is an error.
    current: Any = process.current_process()
    current._inheriting = True
    try:
        spawn.prepare(data)
    finally:
        del current._inheriting
