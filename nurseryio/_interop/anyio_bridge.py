"""Our cancel scopes beside anyio's, in the same tasks: each respects the other's shields.

Loaded only where anyio's asyncio backend is loaded already (``_core.anyio_hook``). This is the one
module that knows private parts of anyio: its table of task states, and the fields of its scopes.
If a release of anyio lacks them there is no bridge: everything works, shields apart.

Rule 1 (theirs against ours): an anyio shield that was entered inside one of our scopes keeps that
scope's cancellation out. Inside the innermost scope of ours this is looked up when a task is to be
interrupted; a scope of ours that is entered behind such a shield becomes a shield itself
(*walled*), so that the scope tree knows about everything further in.

Rule 2 (ours against theirs): anyio cancels by ``Task.cancel()``, at every turn of the loop. Where a
shield of ours is entered in a task with an anyio scope around, an anyio shield is entered beside
it, and left with it. If it becomes a shield later there is one too, provided that its own task says
so: anyio's scopes can be entered in the running task only.

Rule 3: a nursery that waits for its children under a cancellation by anyio sits in such a shield,
or else anyio would wake it at every turn, in vain.

Rule 4: where a cancellation by anyio has to be held off it is not put back. Anyio cancels anew at
every turn, for as long as that is called for, and a cancellation of ours would not stop at its
shields. Likewise one that came together with ours is not passed on with our error: anyio knows its
own by their message.

Rule 5: an anyio shield that is lowered, by whichever task, lets through what it has kept out. So
the setter of its property ``shield`` is extended, for the whole process, as long as that looks as
expected.

Which scope was entered first is told by what each of ours finds at entry: the innermost anyio
scope of the task, noted as ``_anyio_pairing``.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from .._asyncio.compat import current_task_or_none, running_loop
from .._core.delivery import deliver_changes, recheck
from .._core.scope_tree import recalculate

NEEDED = ("_shield", "_parent_scope")

# How the messages of its cancellations begin, of new and of old releases.
MESSAGES = ("Cancelled via cancel scope ", "Cancelled by cancel scope ")


class AnyioPairing:
    """What a scope of ours found and did at entry."""

    __slots__ = ("asked", "found", "innermost", "pair")

    def __init__(self, innermost: Any) -> None:
        # The innermost anyio scope at entry.
        self.found = innermost
        # The innermost anyio scope that lies outside of ours, or is paired with it.
        self.innermost = innermost
        # The anyio shield entered beside ours.
        self.pair: Any = None
        # The user's wish for ``shield``, if a wall stands in for it; else None.
        self.asked: bool | None = None


class Bridge:
    """The other side: anyio's asyncio backend."""

    def __init__(self, backend: Any) -> None:
        self._states = backend._task_states
        self._scope_type = backend.CancelScope
        # Tasks that a cancellation of ours has not reached because of an anyio shield.
        self.shielded: WeakSet[Any] = WeakSet()
        # The scopes that are walled.
        self.walled: WeakSet[Any] = WeakSet()
        self._watch_shields()

    def _watch_shields(self) -> None:
        """Have a shield of anyio's that is lowered let through what it has kept out.

        Its setter is the only place that knows; another task may call it.
        """
        shield = vars(self._scope_type).get("shield")
        if not isinstance(shield, property) or shield.fset is None:
            return
        assign: Any = shield.fset

        def set_shield(scope: Any, value: bool) -> None:
            assign(scope, value)
            if not value and (self.shielded or self.walled):
                self._recheck()

        self._scope_type.shield = property(shield.fget, set_shield, shield.fdel, shield.__doc__)

    def _recheck(self) -> None:
        loop = running_loop()
        for scope in list(self.walled):
            beside, task = scope._anyio_pairing, scope._task
            if task is None or task._state.loop is not loop:
                continue
            if not _shield_between(beside.found, scope._parent):
                self.walled.discard(scope)
                scope._shielded, beside.asked = beside.asked, None
                deliver_changes(recalculate(scope))
        for task in list(self.shielded):
            if task._state.loop is loop:
                self.shielded.discard(task)
                if task.scope._effective:
                    recheck(task)

    def _innermost(self, task: Any) -> Any:
        state = self._states.get(task.asyncio_task)
        return None if state is None else state.cancel_scope

    def protects(self, task: Any) -> bool:
        """Whether the task is in an anyio shield inside its innermost scope of ours (rule 1)."""
        return _shield_between(self._innermost(task), task.scope)

    def enter(self, scope: Any, task: Any) -> None:
        """A scope of ours is being entered; its parent is known, its state not settled yet."""
        innermost = self._innermost(task)
        if innermost is None:
            return
        scope._anyio_pairing = beside = AnyioPairing(innermost)
        shield = scope._shielded
        if _shield_between(innermost, scope._parent):
            beside.asked = shield
            scope._shielded = True
            self.walled.add(scope)
        if shield:
            self._pair(beside)

    def leave(self, scope: Any) -> None:
        """The scope is being left."""
        beside, scope._anyio_pairing = scope._anyio_pairing, None
        self.walled.discard(scope)
        if beside.pair is not None:
            beside.pair.__exit__(None, None, None)

    def set_shield(self, scope: Any, task: Any, shield: bool) -> bool:
        """The user sets ``scope.shield``: the value for the scope tree."""
        beside = scope._anyio_pairing
        if beside.pair is not None:
            beside.pair.shield = shield
        elif (
            shield
            and task.scope is scope
            and self._innermost(task) is beside.innermost
            and current_task_or_none() is task.asyncio_task
        ):
            self._pair(beside)
        if beside.asked is None:
            return shield
        beside.asked = shield
        return True

    def repeats(self, error: BaseException) -> bool:
        """Whether a native cancel is anyio's, which strikes again by itself (rule 4)."""
        return bool(error.args) and str(error.args[0]).startswith(MESSAGES)

    def has_cancelled(self, task: Any) -> bool:
        """Whether a scope of anyio around the task is cancelled, and no shield is between."""
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

    def _pair(self, beside: AnyioPairing) -> None:
        beside.pair = self._scope_type(shield=True)
        beside.pair.__enter__()
        beside.innermost = beside.pair


def _shield_between(inner: Any, node: Any) -> bool:
    """Whether a shield is among the anyio scopes from ``inner`` outwards, inside our ``node``."""
    beside = getattr(node, "_anyio_pairing", None)
    outer = None if beside is None else beside.innermost
    while inner is not None and inner is not outer:
        if inner._shield:
            return True
        inner = inner._parent_scope
    return False


def make(backend: Any) -> Bridge | None:
    """The bridge to this release of anyio, None if its inner parts are not where they were."""
    scope_type = getattr(backend, "CancelScope", None)
    if not hasattr(backend, "_task_states") or scope_type is None:
        return None
    probe = scope_type()
    if not all(hasattr(probe, name) for name in NEEDED):
        return None
    return Bridge(backend)
