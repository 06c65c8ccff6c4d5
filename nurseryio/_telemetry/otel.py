"""``OpenTelemetry``: an instrument that makes spans and metrics of tasks, nurseries and scopes.

This module needs the package ``opentelemetry-api``, when an instrument is made. The application
chooses the SDK and its exporters.

Rule 1: a task's span is current inside the task: it is set in the task's own context before its
first step. So spans that the program opens there are below it. The spans of nurseries and scopes
are not current, because nurseries and scopes are seen only at the ends of steps (``open_scopes``).

Rule 2: a span's parent is the innermost of these: the nursery that a task is in; the scope around a
scope; the span of the program that was current when a scope was first seen.

Rule 3: memory is bounded: it holds data of the tasks that have not ended.

Rule 4: a cancellation is not an error. Reading the error of a task does not count as retrieving it.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Any

from .._asyncio import compat
from .._asyncio.compat import current_task_or_none, running_loop_or_none
from .._base.abcs import Instrument
from .._base.exc_fields import class_name
from .._base.forked import generation
from .._base.util import text_of
from .._core.task import records
from .._observe.open_scopes import OpenScopes
from .._observe.task_tree import sentence_of
from .._observe.wait_parts import name_of_task
from .reported import error_line, error_of, is_cancellation, is_of_run

if TYPE_CHECKING:
    from .._core.scope_tree import Node
    from .._core.task import Task

MISSING = (
    "nurseryio.instruments.OpenTelemetry needs the package opentelemetry-api: "
    "pip install 'nurseryio[otel]'"
)
# The most steps that are not in the counter yet.
MOST_STEPS = 100
# Boundaries of the histogram of the loop's lag (seconds).
LAGS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class OpenTelemetry(Instrument):
    """Makes OpenTelemetry spans and metrics of the tasks, nurseries and scopes of a loop.

    Give it to ``run(..., instruments=[OpenTelemetry()])``, or to ``lowlevel.add_instrument()`` on a
    loop that is running already. The package ``opentelemetry-api`` must be installed
    (``pip install 'nurseryio[otel]'``). The application sets up the SDK as for any other library.

    Spans: one for each task, named after it, below the span of its nursery; one for each nursery
    and cancel scope, with its deadline, its shield and its end. Spans that the program opens in a
    task are below the task's span. The span of a task that fails has the status ERROR and the
    exception. A cancelled task is not an error.

    Metrics: ``nurseryio.tasks.active``, ``nurseryio.task.steps``, ``nurseryio.loop.lag`` (how long
    a task that was ready had to wait for its step, in seconds), ``nurseryio.scopes.cancelled`` and
    ``nurseryio.scopes.timed_out``.

    Args:
        tracer_provider: The tracer provider. None for the global one.
        meter_provider: The meter provider. None for the global one.
        scopes: Whether there are spans for cancel scopes. Those of nurseries there are always.

    Raises:
        ImportError: ``opentelemetry-api`` is not installed.

    Trio: none.
    """

    def __init__(
        self, *, tracer_provider: Any = None, meter_provider: Any = None, scopes: bool = True
    ) -> None:
        try:
            from opentelemetry import context, metrics, trace
        except ImportError as error:
            raise ImportError(MISSING) from error
        self._context: Any = context
        self._trace: Any = trace
        self._scopes = scopes
        self._tasks: dict[Task, _Followed] = {}
        self._generation = generation()
        # Steps that are not in the counter yet: adding to it takes longer than a step.
        self._new_steps = 0
        self._tracer: Any = trace.get_tracer("nurseryio", tracer_provider=tracer_provider)
        meter: Any = metrics.get_meter("nurseryio", meter_provider=meter_provider)
        self._active: Any = meter.create_up_down_counter(
            "nurseryio.tasks.active", "{task}", "Tasks that have not ended."
        )
        self._steps: Any = meter.create_counter(
            "nurseryio.task.steps", "{step}", "Steps that tasks have made."
        )
        self._lag: Any = meter.create_histogram(
            "nurseryio.loop.lag",
            "s",
            "Time between a task's becoming ready and its step.",
            explicit_bucket_boundaries_advisory=LAGS,
        )
        self._cancelled: Any = meter.create_counter(
            "nurseryio.scopes.cancelled", "{scope}", "Scopes that were cancelled by other causes."
        )
        self._timed_out: Any = meter.create_counter(
            "nurseryio.scopes.timed_out", "{scope}", "Scopes that their deadlines have cancelled."
        )

    def __repr__(self) -> str:
        return f"<nurseryio.instruments.OpenTelemetry at {id(self):#x}, {len(self._tasks)} tasks>"

    def close(self) -> None:
        """End the spans of all tasks that have not ended.

        Call this after ``remove_instrument()``. The end of a run does so by itself for its loop.
        """
        self._end_all(None)

    def _end_all(self, loop: object) -> None:
        """End the spans of the tasks of a loop, or of all loops."""
        self._check_process()
        self._count_steps()
        for task in self._tasks.copy():
            if loop is not None and task._state.loop is not loop:
                continue
            followed = self._tasks.pop(task, None)
            if followed is None:
                continue
            self._active.add(-1)
            self._end_scopes(followed)
            if followed.span is not None:
                followed.span.end()

    def _check_process(self) -> None:
        """In a forked child, forget the tasks of the parent, which ends their spans itself."""
        if self._generation != generation():
            self._generation = generation()
            self._tasks.clear()
            self._new_steps = 0

    def _count_steps(self) -> None:
        count, self._new_steps = self._new_steps, 0
        if count:
            self._steps.add(count)

    # -- hooks -----------------------------------------------------------------------

    def after_run(self) -> None:
        """The run is over."""
        self._end_all(running_loop_or_none())

    def before_io_wait(self, timeout: float) -> None:
        """The loop is about to wait for input and output."""
        if timeout > 0:
            self._count_steps()

    def task_spawned(self, task: Task) -> None:
        """A task has been made."""
        self._follow(task)

    def task_scheduled(self, task: Task) -> None:
        """A task has become ready."""
        followed = self._follow(task)
        if followed is not None:
            followed.ready_since = time.perf_counter()

    def before_task_step(self, task: Task) -> None:
        """A task is about to run."""
        followed = self._follow(task)
        if followed is None:
            return
        self._new_steps += 1
        if self._new_steps >= MOST_STEPS:
            self._count_steps()
        if followed.ready_since is not None:
            self._lag.record(time.perf_counter() - followed.ready_since)
            followed.ready_since = None
        if followed.span is None:
            self._begin(task, followed)
            if not followed.late:
                followed.outside = self._context.get_current()
                self._context.attach(self._trace.set_span_in_context(followed.span))

    def after_task_step(self, task: Task) -> None:
        """A task has run, up to its next suspension or its end."""
        followed = self._tasks.get(task)
        if followed is not None and (followed.scopes.known or followed.scopes.changed(task)):
            self._compare(task, followed, self._context.get_current())

    def task_exited(self, task: Task) -> None:
        """A task has ended."""
        followed = self._tasks.pop(task, None)
        if followed is None:
            return
        self._active.add(-1)
        if followed.span is None:
            self._begin(task, followed)
        self._end_scopes(followed)
        error = error_of(task)
        try:
            if error is not None:
                self._note_error(task, followed.span, error)
        finally:
            del error
        followed.span.end()
        # A context may outlive its task, or be that of several tasks.
        if followed.outside is not None and self._trace.get_current_span() is followed.span:
            self._context.attach(followed.outside)

    # -- tasks -------------------------------------------------------------------------

    def _follow(self, task: Task) -> _Followed | None:
        """The data of a task; None for those that ``run()`` has made for itself."""
        followed = self._tasks.get(task)
        if followed is None and not is_of_run(task):
            # The tasks of the nurseries around it, outer before inner. Not recursive: trees may be
            # deep.
            path = [task]
            while (nursery := path[-1]._parent_nursery) is not None:
                host = nursery._parent_task
                if host in self._tasks or is_of_run(host) or compat.is_over(host.asyncio_task):
                    break
                path.append(host)
            for each in reversed(path):
                followed = self._add(each)
        return followed

    def _add(self, task: Task) -> _Followed:
        self._check_process()
        followed = _Followed(compat.has_run(task.coro))
        nursery = task._parent_nursery
        if nursery is not None:
            followed.nursery = self._nursery_span(nursery)
        span = self._trace.get_current_span().get_span_context()
        if span.is_valid and not followed.late:
            followed.spawner = span
        self._tasks[task] = followed
        self._active.add(1)
        return followed

    def _begin(self, task: Task, followed: _Followed, here: bool = True) -> None:
        """Begin the span of a task. ``here``: whether this is called in the task's context."""
        coro = task.coro
        code = getattr(coro, "cr_code", None)
        attributes = {"nurseryio.task.name": name_of_task(task)}
        if code is not None:
            attributes["code.function.name"] = text_of(coro, "__qualname__") or code.co_name
            attributes["code.file.path"] = code.co_filename
            attributes["code.line.number"] = code.co_firstlineno
        context = self._context.get_current() if here else self._context.Context()
        links = []
        eventual = task.eventual_parent_nursery
        if eventual is not None and followed.nursery is not None:
            # The nursery of the call of start(), which the task leaves once it is ready.
            followed.nursery.span.update_name("start")
            followed.nursery = self._nursery_span(eventual) or followed.nursery
        nursery = followed.nursery
        if nursery is not None:
            context = self._trace.set_span_in_context(nursery.span, context)
            if followed.spawner not in (None, nursery.around, nursery.span.get_span_context()):
                link = self._trace.Link(followed.spawner, {"nurseryio.link": "spawned by"})
                links.append(link)
        followed.span = self._tracer.start_span(
            name_of_task(task),
            context,
            attributes=attributes,
            links=links,
            start_time=followed.since,
        )

    def _note_error(self, task: Task, span: Any, error: BaseException) -> None:
        if is_cancellation(error):
            span.set_attribute("nurseryio.task.cancelled", True)
            return
        self._fail(span, error)
        nursery = task._parent_nursery
        if nursery is not None:
            seen = self._seen(nursery)
            if seen is not None:
                self._fail_nursery(seen, error)

    def _fail(self, span: Any, error: BaseException) -> None:
        kind = type(error)
        span.set_attribute("error.type", _full_name(kind))
        try:
            span.record_exception(error)
        except Exception:  # of the error's __str__
            pass
        self._set_error(span, error_line(error))

    def _fail_nursery(self, seen: _Seen, error: BaseException) -> None:
        kind = type(error)
        seen.failed = True
        seen.span.set_attribute("error.type", _full_name(kind))
        self._set_error(seen.span, f"{class_name(kind)} in a task of the nursery")

    def _set_error(self, span: Any, text: str) -> None:
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, text))

    # -- nurseries and scopes ------------------------------------------------------------

    def _seen(self, nursery: Any) -> _Seen | None:
        host = self._tasks.get(nursery._parent_task)
        return None if host is None else host.scopes.known.get(nursery.cancel_scope)

    def _nursery_span(self, nursery: Any) -> _Seen | None:
        """The data of a nursery that gets a child. It may have been entered in this step."""
        host: Task = nursery._parent_task
        followed = self._tasks.get(host)
        if followed is None:
            return None
        seen = followed.scopes.known.get(nursery.cancel_scope)
        if seen is None:
            running: Any = current_task_or_none()
            here = running is not None and records.get(running) is host
            if followed.span is None:
                self._begin(host, followed, here)
            self._compare(host, followed, self._context.get_current() if here else None)
            seen = followed.scopes.known.get(nursery.cancel_scope)
        return seen

    def _compare(self, task: Task, followed: _Followed, context: Any) -> None:
        """Begin the spans of the scopes that a task has entered, end those that it has left.

        Args:
            task: the task.
            followed: its data.
            context: the task's context; None if it is not known.
        """
        changed = followed.scopes.changed(task)
        if changed:
            for node, seen in followed.scopes.left(task):
                self._end_scope(node, seen)
        for node, seen in followed.scopes.known.items():
            self._look_at_scope(node, seen)
        if not changed:
            return
        outer = next(reversed(followed.scopes.known.values()), None)
        for node in followed.scopes.entered(task):
            outer = self._begin_scope(task, followed, node, outer, context)
            followed.scopes.known[node] = outer
            self._look_at_scope(node, outer)

    def _begin_scope(
        self, task: Task, followed: _Followed, node: Node, outer: _Seen | None, context: Any
    ) -> _Seen:
        current = None if context is None else self._trace.get_current_span(context)
        if current is not None and not current.get_span_context().is_valid:
            current = None
        parent = followed.span if current is None else current
        around = parent.get_span_context()
        # The program has opened no span since the scope around this one was seen: that is inside.
        if outer is not None and (current is None or outer.around == around):
            parent, around = outer.span, outer.around
        if node._nursery is None and not self._scopes:
            return _Seen(parent, around, None, False)
        now = task._state.loop.time()
        attributes: dict[str, Any] = {"nurseryio.scope.shield": node._shielded}
        deadline = getattr(node, "_deadline", inf)
        if deadline != inf:
            attributes["nurseryio.scope.deadline"] = deadline - now
        span = self._tracer.start_span(
            "cancel scope" if node._nursery is None else "nursery",
            self._trace.set_span_in_context(parent, context),
            attributes=attributes,
        )
        return _Seen(span, around, now, node._nursery is not None)

    def _look_at_scope(self, node: Node, seen: _Seen) -> None:
        if seen.since is None:
            return
        if node._effective and not seen.cancelled:
            seen.cancelled = True
            attributes = {"nurseryio.cancel.reason": sentence_of(node)}
            if node._reason is not None:
                attributes["nurseryio.cancel.source"] = node._reason.source
            seen.span.add_event("cancelled", attributes)
        errors = getattr(node._nursery, "_errors", None)
        for error in () if seen.failed or errors is None else errors:
            if not is_cancellation(error):
                self._fail_nursery(seen, error)
                break

    def _end_scopes(self, followed: _Followed) -> None:
        for node, seen in followed.scopes.all_left():
            self._end_scope(node, seen)

    def _end_scope(self, node: Node, seen: _Seen) -> None:
        reason = node._reason
        if seen.own_cancel(node):
            source = "unknown" if reason is None else reason.source
            if source == "deadline":
                self._timed_out.add(1)
            else:
                self._cancelled.add(1, {"nurseryio.cancel.source": source})
        if seen.since is None:
            return
        span = seen.span
        span.set_attribute("nurseryio.scope.cancelled", node._called)
        if (node._called or node._effective) and reason is not None:
            span.set_attribute("nurseryio.cancel.source", reason.source)
            span.set_attribute("nurseryio.cancel.reason", sentence_of(node))
        caught = bool(getattr(node, "cancelled_caught", False))
        span.set_attribute("nurseryio.scope.cancelled_caught", caught)
        deadline = getattr(node, "_deadline", inf)
        if deadline != inf:
            span.set_attribute("nurseryio.scope.deadline", deadline - seen.since)
        span.end()


def _full_name(kind: type) -> str:
    module = text_of(kind, "__module__")
    name = class_name(kind)
    return name if module in (None, "builtins") else f"{module}.{name}"


class _Followed:
    """What is known of one task.

    Args:
        late: whether the task was running already when it was first seen.
    """

    __slots__ = (
        "late",
        "nursery",
        "outside",
        "ready_since",
        "scopes",
        "since",
        "span",
        "spawner",
    )

    def __init__(self, late: bool) -> None:
        self.late = late
        self.since = time.time_ns()
        self.ready_since: float | None = None
        self.span: Any = None
        # The nursery that the task is in; the span that was current where it was spawned.
        self.nursery: _Seen | None = None
        self.spawner: Any = None
        # The current OpenTelemetry context before the task's span was put into it.
        self.outside: Any = None
        self.scopes: OpenScopes[_Seen] = OpenScopes()


class _Seen:
    """What is known of one open scope.

    Args:
        span: its span; that of its parent if it has none.
        around: the span context that was current in the task when the scope was first seen.
        since: the loop's time at that moment; None if it has no span.
        nursery: whether it is the scope of a nursery.
    """

    __slots__ = ("around", "cancelled", "failed", "nursery", "since", "span")

    def __init__(self, span: Any, around: Any, since: float | None, nursery: bool) -> None:
        self.span = span
        self.around = around
        self.since = since
        self.nursery = nursery
        self.cancelled = self.failed = False

    def own_cancel(self, node: Node) -> bool:
        """Whether the scope was cancelled itself, and not only with a scope around it.

        A nursery in a cancelled scope also cancels itself, because its block raises ``Cancelled``.
        """
        parent = node._parent
        inherited = parent is not None and parent._effective and parent._reason is node._reason
        return node._called and not (self.nursery and inherited)
