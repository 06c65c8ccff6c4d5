"""Services: background tasks that are needed until other work has ended.

This module has :func:`open_service_nursery`. The work is the body of the block. The services are
the children of the nursery.

Rule 1: each service runs in a scope with a shield. So a cancellation of the nursery, from inside or
outside, reaches the body alone. When the body has ended, each of these scopes is asked to stop.
All of them have the same deadline then, also those of services that are started later.

Rule 2: a service in ``start()`` gets its shield when it calls ``started()``. Before, it is a part
of the call of ``start()``, and cancelled with it.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from .._base.util import (
    SECONDS,
    InTheNameOf,
    NoPublicConstructor,
    as_float,
    blank,
    coroutine_or_error,
    reject_non_functions,
)
from .._core.ki import calls_users
from .nursery import Nursery, open_nursery
from .scope import CancelScope
from .task_status import TaskStatus
from .timeouts import current_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from typing_extensions import TypeVarTuple, Unpack

    from .._core.task import Task

    PosArgsT = TypeVarTuple("PosArgsT")


class ServiceNursery(metaclass=NoPublicConstructor):
    """A nursery whose children serve its body; made by :func:`open_service_nursery`. Trio: none."""

    __slots__ = ("_ends_at", "_grace_period", "_nursery", "_scopes")

    _nursery: Nursery
    _grace_period: float
    # The scopes of the services that run.
    _scopes: dict[CancelScope, None]
    # When the grace period ends; None until the body has ended.
    _ends_at: float | None

    @property
    def cancel_scope(self) -> CancelScope:
        """The scope around the body. Its cancellation reaches the services after the body."""
        return self._nursery.cancel_scope

    @property
    def child_tasks(self) -> frozenset[Task]:
        """The services that are still running."""
        return self._nursery.child_tasks

    @property
    def parent_task(self) -> Task:
        """The task that opened the nursery.

        Raises:
            RuntimeError: The nursery has not been entered yet.
        """
        return self._nursery.parent_task

    def __repr__(self) -> str:
        return f"<nurseryio.ServiceNursery over {self._nursery!r}>"

    def start_soon(
        self,
        async_fn: Callable[[Unpack[PosArgsT]], Awaitable[object]],
        *args: Unpack[PosArgsT],
        name: object = None,
    ) -> None:
        """Start a service that runs ``await async_fn(*args)``.

        Args:
            async_fn: an async function; for keyword arguments use ``functools.partial``.
            args: its positional arguments.
            name: the name of the task in debugging output, a string or a function.

        Raises:
            TypeError: ``async_fn`` is not a function.
            RuntimeError: the nursery is closed, or the caller is in another thread or event loop.

        Checkpoint: no.

        Trio: as ``trio.Nursery.start_soon``.
        """
        reject_non_functions((async_fn,))
        run = InTheNameOf(async_fn, self._run)
        self._nursery.start_soon(run, async_fn, args, name=name)

    async def start(
        self, async_fn: Callable[..., Awaitable[object]], *args: object, name: object = None
    ) -> Any:
        """Start a service and wait until it reports that it is ready.

        Args:
            async_fn: an async function with a keyword argument ``task_status``.
            args: its positional arguments.
            name: as for :meth:`start_soon`.

        Returns:
            The value given to ``started()``, None if none was given.

        Raises:
            TypeError: ``async_fn`` is not a function.
            RuntimeError: the nursery is closed, or the service ended without ``started()``.
            Cancelled: the caller was cancelled before ``started()``; the service is cancelled too.
            Exception: any error that the service raises before ``started()``, not in a group.

        Checkpoint: yes.

        Trio: as ``trio.Nursery.start``.
        """
        reject_non_functions((async_fn,))
        run = InTheNameOf(async_fn, self._run_started)
        return await self._nursery.start(run, async_fn, args, name=name)

    @calls_users
    async def _run(self, async_fn: Any, args: tuple[Any, ...]) -> None:
        with CancelScope(shield=True) as scope:
            try:
                self._protect(scope)
                await coroutine_or_error(async_fn, *args)
            finally:
                self._scopes.pop(scope, None)

    @calls_users
    async def _run_started(
        self, async_fn: Any, args: tuple[Any, ...], *, task_status: TaskStatus[Any]
    ) -> None:
        with CancelScope() as scope:
            try:
                status = _Status(task_status, scope, self)
                await coroutine_or_error(partial(async_fn, task_status=status), *args)
            finally:
                self._scopes.pop(scope, None)

    def _protect(self, scope: CancelScope) -> None:
        """Keep cancellations out of the scope of a service until the body has ended."""
        self._scopes[scope] = None
        scope.shield = True
        if self._ends_at is not None:
            scope.request_stop(max(0, self._ends_at - current_time()))

    def _end(self) -> None:
        """Ask the services to stop. A second call does no harm."""
        nursery = self._nursery
        if self._ends_at is None and (nursery._children or nursery._pending_starts):
            self._ends_at = current_time() + self._grace_period
        for scope in list(self._scopes):
            scope.request_stop(self._grace_period)

    async def __aenter__(self) -> ServiceNursery:
        await self._nursery.__aenter__()
        return self

    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        try:
            try:
                self._end()
            except BaseException as failure:
                # The services end nevertheless, and the block raises the failure.
                self._nursery._state.finish_later(self._end)
                failed = await self._nursery.__aexit__(type(failure), failure, tb)
                if not failed:  # it leaves bare, in the place of the error of the block
                    raise
                return failed
            return await self._nursery.__aexit__(etype, exc, tb)
        finally:
            del exc, tb  # no reference cycle: the traceback holds this frame


class _Status(TaskStatus[Any]):
    """The ``task_status`` of a service: protects it when it is ready (rule 2)."""

    def __init__(
        self, status: TaskStatus[Any], scope: CancelScope, services: ServiceNursery
    ) -> None:
        self._status = status
        self._scope = scope
        self._services = services

    def started(self, value: Any = None) -> None:
        cancelled = self._scope._effective
        self._status.started(value)
        # A service that is cancelled while it starts is not moved to the nursery.
        if not cancelled and self._scope._task is not None:
            self._services._protect(self._scope)


def open_service_nursery(*, grace_period: float = 0) -> ServiceNursery:
    """Make a nursery for services: ``async with open_service_nursery() as services:``.

    The services are its children, and may be used by the code in the block until that has ended::

        async with open_service_nursery() as services:
            pool = await services.start(connection_pool)
            async with open_nursery() as nursery:
                ...  # tasks that use the pool

    When the block is left, the services are asked to stop, and cancelled at the end of the grace
    period. A cancellation from outside, or an error of a service, cancels the code in the block
    first. The services continue until it has ended.

    Args:
        grace_period: seconds that the services get to stop, from the end of the block's code. Not
            negative, and finite. 0 cancels them at once.

    Raises:
        TypeError: ``grace_period`` is not a number.
        ValueError: ``grace_period`` is negative, infinite or NaN.
        BaseExceptionGroup: at the end of the block, with the errors of the block and the services.

    Checkpoint: entering is not; leaving always lets other tasks run, and is not interrupted.

    Trio: none.
    """
    grace_period = as_float(grace_period, "grace_period", SECONDS)
    if not 0 <= grace_period < inf:
        raise ValueError("grace_period must be non-negative and finite")
    services: ServiceNursery = blank(ServiceNursery)
    services._nursery = open_nursery()
    services._grace_period = grace_period
    services._scopes = {}
    services._ends_at = None
    return services
