"""Async fixtures with wider scopes than a function, and the run that they share with their tests.

This module has :class:`SharedRun`, which is the run and the record of its fixtures. pytest's hooks
are in ``pytest_plugin``, the steps of a test in ``pytest_task``.

Rule 1: the run is made for the first such fixture and closed with the last one. A test that uses
one of them, directly or through another fixture, runs on the loop of that run. Each other test has
a separate run.

Rule 2: each of these fixtures has a separate task, in which it is set up and torn down. pytest
does not always tear them down in the reverse order. For example, a parameter changes, or a later
test of a class is the first one that asks for a fixture of the module.

Rule 3: nevertheless a fixture's scopes and nurseries surround the tests and fixtures that use it.
If one of these scopes is cancelled, the steps of the users are cancelled, too. The error of the
scope is raised when the fixture is torn down.

Rule 4: a test and its function-scoped fixtures run in one task. That task sees the context
variables that these fixtures have set.
"""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

import pytest

from .._base import Cancelled, CancelReason, Clock, Instrument
from .step_runner import StepRunner, StepTask

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterable

_MISSING = object()


class WideFixture:
    """One async fixture that is set up.

    Args:
        name: its name.
        steps: the task in which it is set up and torn down.

    Attributes:
        context: the context variables after its set-up.
        lost: the reason, if it was cancelled between set-up and tear-down; otherwise None.
        users: the tasks that are cancelled in that case.
    """

    def __init__(self, name: str, steps: StepTask) -> None:
        self.name = name
        self.steps = steps
        self.context: contextvars.Context = contextvars.Context()
        self.lost: CancelReason | None = None
        self.users: list[StepTask] = []
        steps.on_cancel = self._lose

    def _lose(self, error: Cancelled) -> None:
        """Note that the wait between set-up and tear-down was cancelled, and cancel the users."""
        reason = error.args[0] if error.args else None
        if not isinstance(reason, CancelReason):
            reason = CancelReason("native", reason=f"the fixture {self.name!r} was cancelled")
        self.lost = reason
        # Scheduled, because the caller is in the middle of delivering a cancellation.
        self.steps.loop.call_soon(self._cancel_users)

    def _cancel_users(self) -> None:
        for user in self.users:
            user.cancel(self.lost)

    async def add_user(self, user: StepTask) -> None:
        """From now on, cancel this task when the fixture is cancelled."""
        self.users.append(user)
        if self.lost is not None:
            user.cancel(self.lost)


class SharedRun:
    """The run of the async fixtures whose scope is wider than a function.

    Attributes:
        item: the test that pytest is running.
        clock: the clock of the run.
        instruments: the instruments with which the run was made.
        definitions: the fixtures with wider scopes that are set up, including sync ones.
    """

    def __init__(self) -> None:
        self.definitions: dict[str, pytest.FixtureDef[Any]] = {}
        self.item: pytest.Item | None = None
        self.clock: Clock | None = None
        self.instruments: list[Instrument] = []
        self._run: StepRunner | None = None
        self._fixtures: list[WideFixture] = []
        # For each name of a wide fixture, the names of the fixtures that it asked for.
        self._needs: dict[str, set[str]] = {}
        # Clocks and instruments from wide fixtures, which the run must know before it begins.
        self._values: dict[str, Clock | Instrument] = {}

    # -- which fixtures there are -------------------------------------------------

    def begin_set_up(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Note that pytest begins to set up a fixture with a wider scope."""
        name = fixturedef.argname
        self._needs.setdefault(name, set()).update(fixturedef.argnames)
        self.definitions[name] = fixturedef

    def end_set_up(
        self, fixturedef: pytest.FixtureDef[Any], value: object, asked_for: Iterable[str]
    ) -> None:
        """Note that pytest has set up a fixture, or failed to.

        Args:
            fixturedef: the fixture.
            value: its result, None if it has failed.
            asked_for: the fixtures that it has requested by ``request.getfixturevalue()``.
        """
        name = fixturedef.argname
        self._needs[name].update(asked_for)
        if isinstance(value, (Clock, Instrument)):
            self._values[name] = value

    def forget(self, name: str) -> None:
        """Note that pytest has torn down a fixture."""
        self.definitions.pop(name, None)
        self._needs.pop(name, None)
        self._values.pop(name, None)

    def _closure(self, names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        todo = list(names)
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += self._needs.get(name, ())
        return found

    def used(self, names: Iterable[str]) -> list[WideFixture]:
        """Return the run's fixtures among these and those that they use, in order of set-up."""
        closure = self._closure(names)
        return [fixture for fixture in self._fixtures if fixture.name in closure]

    # -- tasks --------------------------------------------------------------------

    def branch(self, name: str, used: list[WideFixture]) -> StepTask:
        """Make a task for a test, or for one more fixture, that uses these fixtures."""
        assert self._run is not None
        context = contextvars.copy_context()
        for fixture in used:
            context.run(_adopt, fixture.context)
        branch = self._run.branch(name, context)
        for fixture in used:
            self._run.do(fixture.add_user, branch)
        return branch

    def close_branch(self, branch: StepTask) -> None:
        """End a task that :meth:`branch` has made."""
        assert self._run is not None
        for fixture in self._fixtures:
            if branch in fixture.users:
                fixture.users.remove(branch)
        self._run.close_branch(branch)

    def begin(
        self,
        fixturedef: pytest.FixtureDef[Any],
        names: Iterable[str],
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
    ) -> WideFixture:
        """Make the task of a fixture. It must be ended by :meth:`end`.

        Args:
            fixturedef: the fixture.
            names: the fixtures of the test for which it is set up.
            loop_factory: makes the event loop, if the run does not exist yet.
        """
        name = fixturedef.argname
        if self._run is None:
            self._open(names, loop_factory)
        try:
            used = self.used([*fixturedef.argnames])
            fixture = WideFixture(name, self.branch(name, used))
        except BaseException:
            self._close_if_unused()
            raise
        self._fixtures.append(fixture)
        return fixture

    def end(self, fixture: WideFixture) -> None:
        """End the task of a fixture, and the run if it was the last one."""
        try:
            self._fixtures.remove(fixture)
            self.close_branch(fixture.steps)
        finally:
            self._close_if_unused()

    def _open(self, names: Iterable[str], loop_factory: Any) -> None:
        found = [self._values[name] for name in self._closure(names) if name in self._values]
        clocks = {id(value): value for value in found if isinstance(value, Clock)}
        if len(clocks) > 1:
            pytest.fail("a run can have one clock; ask for one of the fixtures", pytrace=False)
        self.clock = next(iter(clocks.values()), None)
        self.instruments = [value for value in found if isinstance(value, Instrument)]
        self._run = StepRunner(self.clock, self.instruments, loop_factory, "async fixtures")

    def _close_if_unused(self) -> None:
        if not self._fixtures and self._run is not None:
            run, self._run = self._run, None
            self.clock, self.instruments = None, []
            run.close()


def keeping_context(
    fixture: WideFixture, async_fn: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    """Return the function, with its context variables stored in ``fixture`` afterwards."""

    async def set_up() -> Any:
        value = await async_fn()
        fixture.context = contextvars.copy_context()
        return value

    return set_up


def _adopt(context: contextvars.Context) -> None:
    """Set the context variables to their values in another context."""
    for variable, value in context.items():
        if variable.get(_MISSING) is not value:
            variable.set(value)
