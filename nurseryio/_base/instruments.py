"""The table of instruments by the hooks that they implement; adding, removing and calling them.

Modules in ``_loop`` and ``_run`` decide when a hook is called.

Rule 1: an instrument is stored only under the hooks that it really implements. So a hook that no
instrument implements costs one dict look-up.

Rule 2: an instrument that raises is removed, and its error is logged with the traceback. It never
disturbs the program that it watches. Its ``__hash__`` and ``__eq__`` are not called, and its
``__repr__`` and the handlers of the log may fail.
"""

from __future__ import annotations

import logging
import traceback
import types
from typing import TYPE_CHECKING

from .abcs import Instrument
from .util import safe_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

LOGGER = logging.getLogger("nurseryio.abc.Instrument")

HOOKS = (
    "before_run",
    "after_run",
    "task_spawned",
    "task_scheduled",
    "before_task_step",
    "after_task_step",
    "task_exited",
    "before_io_wait",
    "after_io_wait",
)


# The hooks for which a loop's call_soon and select are replaced.
HOOKS_OF_STEPS = [hook for hook in HOOKS if hook not in ("before_run", "after_run")]


class Instruments:
    """The instruments installed on one loop.

    Attributes:
        see_steps: Whether one of them implements a hook of ``HOOKS_OF_STEPS``.
    """

    __slots__ = ("_all", "_by_hook", "_calls", "see_steps")

    def __init__(self, instruments: Iterable[Instrument] = ()) -> None:
        # By id(), because __hash__ and __eq__ of an instrument must not be called.
        self._all: dict[int, Instrument] = {}
        self._by_hook: dict[str, dict[int, Instrument]] = {}
        # The same as bound methods, because looking one up takes as long as calling it.
        self._calls: dict[str, tuple[tuple[Instrument, Callable[..., object]], ...]] = {}
        self.see_steps: bool = False
        for instrument in instruments:
            self.add(instrument)

    def __bool__(self) -> bool:
        return bool(self._all)

    def __contains__(self, hook: str) -> bool:
        return hook in self._calls

    def __iter__(self) -> Iterator[Instrument]:
        return iter(list(self._all.values()))

    def add(self, instrument: Instrument) -> None:
        """Start calling ``instrument``; does nothing if it is installed already."""
        key = id(instrument)
        if key in self._all:
            return
        found = [hook for hook in HOOKS if implements(instrument, hook)]
        self._all[key] = instrument
        for hook in found:
            self._by_hook.setdefault(hook, {})[key] = instrument
        self._look()

    def remove(self, instrument: Instrument) -> None:
        """Stop calling ``instrument``.

        Raises:
            KeyError: if it is not installed (or was removed because it raised).
        """
        key = id(instrument)
        if self._all.pop(key, None) is None:
            raise KeyError(instrument)
        for hook, listeners in list(self._by_hook.items()):
            if listeners.pop(key, None) is not None and not listeners:
                del self._by_hook[hook]
        self._look()

    def _look(self) -> None:
        self._calls = {
            hook: tuple((each, getattr(each, hook)) for each in listeners.values())
            for hook, listeners in self._by_hook.items()
        }
        self.see_steps = any(hook in self._by_hook for hook in HOOKS_OF_STEPS)

    def call(self, hook: str, *args: object) -> None:
        """Call one hook of every instrument that implements it."""
        for instrument, method in self._calls.get(hook, ()):
            try:
                method(*args)
            except BaseException:
                if id(instrument) in self._all:
                    self.remove(instrument)
                _log(hook, instrument)


def _log(hook: str, instrument: Instrument) -> None:
    """Log the error that is being handled."""
    try:
        LOGGER.exception(
            "Exception raised when calling %r on instrument %s. Instrument has been disabled.",
            hook,
            safe_repr(instrument),
        )
    except Exception:
        traceback.print_exc()  # with the instrument's own error, as its context


def implements(instrument: Instrument, hook: str) -> bool:
    """Whether an instrument has a method of its own for a hook."""
    method = getattr(instrument, hook, None)
    if method is None:
        return False
    inherited = getattr(Instrument, hook)
    return not (isinstance(method, types.MethodType) and method.__func__ is inherited)
