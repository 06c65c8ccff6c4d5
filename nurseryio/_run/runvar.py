"""``RunVar``: variables with one value per event loop.

This module has :class:`RunVar` and its token. The values are stored in the loop's ``LoopState``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, final

from .._base.exc_fields import copy_fields
from .._base.util import Final, NoPublicConstructor
from .._core.task import current_state

if TYPE_CHECKING:
    from .._core.loop_state import LoopState

T = TypeVar("T")
_NOTHING: Any = object()


@final
class RunVarToken(Generic[T], metaclass=NoPublicConstructor):
    """The token that :meth:`RunVar.set` returns, to be used for one :meth:`RunVar.reset`."""

    __slots__ = ("_previous", "_state", "_used", "_var")

    def __init__(self, state: LoopState, var: RunVar[T], previous: Any) -> None:
        self._state = state
        self._var = var
        self._previous = previous
        self._used = False

    def __repr__(self) -> str:
        return f"<RunVarToken of {self._var!r}, {'used' if self._used else 'not used'}>"


@final
class RunVar(Generic[T], metaclass=Final):
    """A variable whose value belongs to the running event loop, not to a task.

    Args:
        name: shown in the variable's ``repr``.
        default: returned by :meth:`get` where no value was set.

    Trio: ``trio.lowlevel.RunVar``.
    """

    __slots__ = ("__weakref__", "_default", "_name")

    def __init__(self, name: str, default: T = _NOTHING) -> None:
        self._name = name
        self._default = default

    def get(self, default: T = _NOTHING) -> T:
        """Return the value on this loop.

        Args:
            default: used instead of the variable's own default.

        Raises:
            LookupError: no value was set and there is no default.
            RuntimeError: where no loop is running.

        Checkpoint: no.
        """
        value = _values().get(self, _NOTHING)
        if value is not _NOTHING:
            return cast("T", value)
        for value in (default, self._default):
            if value is not _NOTHING:
                return value
        raise LookupError(self)

    def set(self, value: T) -> RunVarToken[T]:
        """Set the value on this loop.

        Returns:
            A token for :meth:`reset`.

        Raises:
            RuntimeError: where no loop is running.

        Checkpoint: no.
        """
        values = _values()
        token: Any = RunVarToken._create(current_state(), self, values.get(self, _NOTHING))
        values[self] = value
        return cast("RunVarToken[T]", token)

    def reset(self, token: RunVarToken[T]) -> None:
        """Restore the value from before the :meth:`set` that returned ``token``.

        Raises:
            TypeError: ``token`` is not a token of :meth:`set`.
            ValueError: ``token`` is from another variable or loop, or was used already.
            RuntimeError: where no loop is running.

        Checkpoint: no.
        """
        if token is None:
            raise TypeError("token must not be none")
        if not isinstance(token, RunVarToken):
            raise TypeError(f"expected the token that set() returned, not {token!r}")
        if token._var is not self:
            raise ValueError("token is not for us")
        if token._used:
            raise ValueError("token has already been used")
        if token._state is not current_state():
            raise ValueError("token is for another event loop")
        token._used = True
        if token._previous is _NOTHING:
            _values().pop(self, None)
        else:
            _values()[self] = token._previous

    def __repr__(self) -> str:
        return f"<RunVar name={self._name!r}>"


def _values() -> dict[Any, Any]:
    try:
        return current_state().loop_locals
    except RuntimeError as error:
        # The same notes, under Trio's text.
        outside = RuntimeError("Cannot be used outside of a run context")
        copy_fields(error, outside)
        raise outside from None
