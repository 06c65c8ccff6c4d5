"""Async fixtures with wider scopes than a function: one run that they and their tests share.

What lives here: :class:`SharedRun`, the run, and which fixtures it holds. What does not: pytest's
hooks (:mod:`pytest_plugin`), and the steps of a test (:mod:`pytest_task`).

Rule 1: the run is made for the first such fixture and closed with the last one. A test that uses
one of them, directly or through another fixture, runs on its loop. Other tests have runs of their
own.

Rule 2: each of these fixtures has a task of its own, in which it is set up and torn down. pytest
does not always tear them down in the reverse order: a parameter changes, or a later test of a
class is the first one that asks for a fixture of the module.

Rule 3: for what uses it a fixture's scopes and nurseries are around it nevertheless. If one of
them is cancelled, so are the steps of the tests and fixtures that use it. Its error is raised when
it is torn down.

Rule 4: a test and its function-scoped fixtures run in one task that sees the context variables
which these fixtures have set.
"""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

import pytest

from .._base import Cancelled, CancelReason, Clock, Instrument
from .one_task import OneTask, StepTask

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
        context: what the context variables were after its set-up.
        lost: why it was cancelled between set-up and tear-down, if it was.
        users: the tasks that are to be cancelled in that case.
    """

    def __init__(self, name: str, steps: StepTask) -> None:
        self.name = name
        self.steps = steps
        self.context: contextvars.Context = contextvars.Context()
        self.lost: CancelReason | None = None
        self.users: list[StepTask] = []
        steps.on_cancel = self._lose

    def _lose(self, error: Cancelled) -> None:
        """The wait between set-up and tear-down was cancelled."""
        reason = error.args[0] if error.args else None
        if not isinstance(reason, CancelReason):
            reason = CancelReason("native", reason=f"the fixture {self.name!r} was cancelled")
        self.lost = reason
        # Later, because this is in the middle of a delivery.
        self.steps.loop.call_soon(self._cancel_users)

    def _cancel_users(self) -> None:
        for user in self.users:
            user.cancel(self.lost)

    async def add_user(self, user: StepTask) -> None:
        """From now on this task is cancelled when the fixture is lost."""
        self.users.append(user)
        if self.lost is not None:
            user.cancel(self.lost)


class SharedRun:
    """The run of the async fixtures whose scope is wider than a function.

    Attributes:
        item: the test that pytest is about.
        clock: the clock of the run.
        instruments: those that the run was made with.
        definitions: the fixtures with wider scopes that are set up, sync ones too.
    """

    def __init__(self) -> None:
        self.definitions: dict[str, pytest.FixtureDef[Any]] = {}
        self.item: pytest.Item | None = None
        self.clock: Clock | None = None
        self.instruments: list[Instrument] = []
        self._run: OneTask | None = None
        self._fixtures: list[WideFixture] = []
        # For each of them those that it asked for.
        self._needs: dict[str, set[str]] = {}
        # What wide fixtures have given that the run has to know before it begins.
        self._values: dict[str, Clock | Instrument] = {}

    # -- which fixtures there are -------------------------------------------------

    def begin_set_up(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """pytest sets up a fixture of a wider scope."""
        name = fixturedef.argname
        self._needs.setdefault(name, set()).update(fixturedef.argnames)
        self.definitions[name] = fixturedef

    def end_set_up(
        self, fixturedef: pytest.FixtureDef[Any], value: object, asked_for: Iterable[str]
    ) -> None:
        """pytest has set it up, or failed to.

        Args:
            fixturedef: the fixture.
            value: its result, None if it has failed.
            asked_for: the fixtures that it has asked for by ``request.getfixturevalue()``.
        """
        name = fixturedef.argname
        self._needs[name].update(asked_for)
        if isinstance(value, (Clock, Instrument)):
            self._values[name] = value

    def forget(self, name: str) -> None:
        """pytest has torn down a fixture."""
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
        """The fixtures of the run that are among these, or that these use, as they were set up."""
        closure = self._closure(names)
        return [fixture for fixture in self._fixtures if fixture.name in closure]

    # -- tasks --------------------------------------------------------------------

    def branch(self, name: str, used: list[WideFixture]) -> StepTask:
        """A task for a test, or for one more fixture, that uses these fixtures."""
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
        """Make the task of a fixture; to be ended by :meth:`end`.

        Args:
            fixturedef: the fixture.
            names: the fixtures of the test that it is set up for.
            loop_factory: what makes the event loop, if there is none yet.
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
        """End the task of a fixture, and the run with the last one."""
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
        self._run = OneTask(self.clock, self.instruments, loop_factory, "async fixtures")

    def _close_if_unused(self) -> None:
        if not self._fixtures and self._run is not None:
            run, self._run = self._run, None
            self.clock, self.instruments = None, []
            run.close()


def keeping_context(
    fixture: WideFixture, async_fn: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    """The same function, which also notes what it has made of the context variables."""

    async def set_up() -> Any:
        value = await async_fn()
        fixture.context = contextvars.copy_context()
        return value

    return set_up


def _adopt(context: contextvars.Context) -> None:
    """Set the context variables to what they are in another context."""
    for variable, value in context.items():
        if variable.get(_MISSING) is not value:
            variable.set(value)
