"""The bridge to anyio: scopes of both libraries in one task respect each other's shields.

This module is loaded only if anyio's asyncio backend is loaded already (``_core.anyio_hook``). No
other module uses private parts of anyio: its table of task states, and fields of its scopes. If a
release of anyio does not have these, there is no bridge. Then everything works except that the
libraries ignore each other's shields.

Rule 1 (anyio shields, nurseryio cancellation): an anyio shield that was entered inside a nurseryio
scope keeps that scope's cancellation out. If no other nurseryio scope is inside the shield, the
shield is looked up when the task is to be interrupted. A nurseryio scope that is entered inside
such a shield becomes a shield itself (it is *walled*). So the scope tree is right for everything
further in.

Rule 2 (nurseryio shields, anyio cancellation): anyio cancels by ``Task.cancel()``, in every
iteration of the loop. If a nurseryio shield is entered in a task that has an anyio scope, an anyio
shield is entered with it, and exited with it. A scope that becomes a shield later gets an anyio
shield then, if its own task sets ``shield`` and is not in an inner scope. The reason is that anyio
scopes can be entered in the running task only, inside all other scopes of the task.

Rule 3: a nursery that waits for its children while anyio cancels its task is in an anyio shield as
well. Otherwise anyio would wake the wait in every iteration of the loop, in vain.

Rule 4: if a cancel request of anyio has to be deferred, it is not requested again. anyio repeats
the request in every iteration while its scope is cancelled. A request by nurseryio would not stop
at anyio's shields. The two libraries may also cancel a task together, so that nurseryio's error is
raised. Then a nurseryio scope catches that error, although there is a native request. anyio cancels
again, and it only recognises its own errors, by their message.

Rule 5: an anyio shield that is lowered, by any task, lets the cancellation or the stop request
through that it has kept out. So the setter of the property ``shield`` in anyio is extended, for the
whole process. This is done only if the property looks as expected. Each loop has its own
:class:`_Kept`, because loops in several threads share the bridge.

The order in which scopes of both libraries were entered is known from ``_anyio_pairing``: each
nurseryio scope stores there the innermost anyio scope that the task had at entry.
"""

from __future__ import annotations

from typing import Any

from .._asyncio.compat import current_task_or_none, running_loop_or_none
from .._base.util import LocalWeakSet
from .._core.delivery import deliver_changes, recheck
from .._core.loop_state import LoopState, PerLoop, find_state
from .._core.scope_tree import recalculate
from .._nursery.stop_requests import look_again

NEEDED = ("_shield", "_parent_scope")

# How anyio's cancel messages begin, in new and in old releases.
MESSAGES = ("Cancelled via cancel scope ", "Cancelled by cancel scope ")


class AnyioPairing:
    """The anyio scopes that a nurseryio scope found and entered at its own entry."""

    __slots__ = ("found", "innermost", "kept", "pair", "requested")

    def __init__(self, innermost: Any) -> None:
        # The innermost anyio scope at entry.
        self.found = innermost
        # The innermost anyio scope that is outside of the nurseryio scope, or is paired with it.
        self.innermost = innermost
        # The anyio shield that was entered together with the nurseryio scope (rule 2).
        self.pair: Any = None
        # The user's value of ``shield`` while the scope is walled; else None.
        self.requested: bool | None = None
        # The record that has the scope in its set ``walled``, if the scope was ever walled.
        self.kept: _Kept | None = None


class _Kept:
    """The tasks and scopes of one loop that anyio's shields matter to. For the loop's thread."""

    __slots__ = ("shielded", "walled")

    def __init__(self, _state: LoopState) -> None:
        # Tasks that were not interrupted for a nurseryio scope because of an anyio shield.
        self.shielded = LocalWeakSet()
        # The nurseryio scopes that are walled (rule 1).
        self.walled = LocalWeakSet()


_kept_of: PerLoop[_Kept] = PerLoop(_Kept)


class Bridge:
    """The operations that need anyio's asyncio backend."""

    def __init__(self, backend: Any) -> None:
        self._states = backend._task_states
        self._scope_type = backend.CancelScope
        self._watch_shields()

    def _watch_shields(self) -> None:
        """Extend the setter of ``shield`` in anyio's ``CancelScope`` (rule 5).

        Only the setter shows that a shield is lowered, and any task may call it.
        """
        shield = vars(self._scope_type).get("shield")
        if not isinstance(shield, property) or shield.fset is None:
            return
        assign: Any = shield.fset

        def set_shield(scope: Any, value: bool) -> None:
            assign(scope, value)
            state = None if value else find_state(running_loop_or_none())
            if state is None:
                return
            kept = _kept_of.find(state)
            if kept is not None and (kept.shielded or kept.walled):
                _recheck(kept, state)

        self._scope_type.shield = property(shield.fget, set_shield, shield.fdel, shield.__doc__)

    def note_shielded(self, task: Any) -> None:
        """Note that an anyio shield, which may be lowered, keeps a cancellation out of a task."""
        _kept_of(task._state).shielded.add(task)

    def _innermost(self, task: Any) -> Any:
        state = self._states.get(task.asyncio_task)
        return None if state is None else state.cancel_scope

    def protects(self, task: Any) -> bool:
        """Whether an anyio shield is inside the task's innermost nurseryio scope (rule 1)."""
        return _shield_between(self._innermost(task), task.scope)

    def enter(self, scope: Any, task: Any) -> None:
        """Note the entry of a nurseryio scope, whose parent is set and whose state is not yet."""
        innermost = self._innermost(task)
        if innermost is None:
            return
        scope._anyio_pairing = pairing = AnyioPairing(innermost)
        shield = scope._shielded
        if _shield_between(innermost, scope._parent):
            pairing.requested = shield
            scope._shielded = True
            pairing.kept = _kept_of(task._state)
            pairing.kept.walled.add(scope)
        if shield:
            self._pair(pairing)

    def leave(self, scope: Any) -> None:
        """Note the exit of a nurseryio scope, and exit the anyio shield of the pair."""
        pairing, scope._anyio_pairing = scope._anyio_pairing, None
        if pairing.kept is not None:
            pairing.kept.walled.discard(scope)
        if pairing.pair is not None:
            pairing.pair.__exit__(None, None, None)

    def set_shield(self, scope: Any, task: Any, shield: bool) -> bool:
        """Note that the user sets ``scope.shield``, and return the value for the scope tree."""
        pairing = scope._anyio_pairing
        if pairing.pair is not None:
            pairing.pair.shield = shield
        elif (
            shield
            and task.scope is scope
            and self._innermost(task) is pairing.innermost
            and current_task_or_none() is task.asyncio_task
        ):
            self._pair(pairing)
        if pairing.requested is None:
            return shield
        pairing.requested = shield
        return True

    def repeats(self, error: BaseException) -> bool:
        """Whether a native cancel is anyio's, which anyio requests again by itself (rule 4)."""
        return bool(error.args) and str(error.args[0]).startswith(MESSAGES)

    def has_cancelled(self, task: Any) -> bool:
        """Whether an anyio scope around the task is cancelled, without a shield in between."""
        scope = self._innermost(task)
        while scope is not None:
            if scope.cancel_called:
                return True
            scope = None if scope._shield else scope._parent_scope
        return False

    def shield(self, task: Any) -> Any:
        """Put the running task into an anyio shield, if anyio has a scope in it (rule 3)."""
        if self._innermost(task) is None:
            return None
        scope = self._scope_type(shield=True)
        scope.__enter__()
        return scope

    def _pair(self, pairing: AnyioPairing) -> None:
        pairing.pair = self._scope_type(shield=True)
        pairing.pair.__enter__()
        pairing.innermost = pairing.pair


def _recheck(kept: _Kept, state: LoopState) -> None:
    """Let cancellations and stop requests through that were kept out until now (rule 5)."""
    for scope in kept.walled.alive():
        pairing = scope._anyio_pairing
        if scope._task is None:
            continue
        if not _shield_between(pairing.found, scope._parent):
            kept.walled.discard(scope)
            scope._shielded, pairing.requested = pairing.requested, None
            deliver_changes(recalculate(scope))
    for task in kept.shielded.alive():
        kept.shielded.discard(task)
        if task.scope._effective:
            recheck(task)
    look_again(state)


def _shield_between(inner: Any, node: Any) -> bool:
    """Whether an anyio shield is at ``inner`` or further out, but inside the nurseryio ``node``."""
    pairing = getattr(node, "_anyio_pairing", None)
    outer = None if pairing is None else pairing.innermost
    while inner is not None and inner is not outer:
        if inner._shield:
            return True
        inner = inner._parent_scope
    return False


def make(backend: Any) -> Bridge | None:
    """Make the bridge to this release of anyio. None if anyio lacks the private parts it needs."""
    scope_type = getattr(backend, "CancelScope", None)
    if not hasattr(backend, "_task_states") or scope_type is None:
        return None
    probe = scope_type()
    if not all(hasattr(probe, name) for name in NEEDED):
        return None
    return Bridge(backend)
