"""The compiled form of events: whether it is used, and what it shows."""

from __future__ import annotations

import inspect
import sys
import types
from typing import Any

import pytest

import nurseryio
from nurseryio import Event
from nurseryio._nursery.compiled import C_MODULE
from nurseryio._sync import compiled_event
from nurseryio._sync.compiled_event import put_events_in_place

# Covered below 95 %: the function that stands in the place of ``wait`` runs on the compiled build.


def test_wait_is_compiled_exactly_if_the_build_is() -> None:
    assert ("event_wait" in Event.wait.__code__.co_names) is nurseryio.__compiled__


def test_wait_stays_a_coroutine_function_of_its_module() -> None:
    assert inspect.iscoroutinefunction(Event.wait)
    assert Event.wait.__globals__["__name__"] == "nurseryio._sync.event"
    assert list(inspect.signature(Event.wait).parameters) == ["self"]
    assert Event.wait.__code__.co_name == "wait"
    if sys.version_info >= (3, 11):
        assert Event.wait.__code__.co_qualname == "Event.wait"


def test_on_the_pure_build_nothing_is_put_events_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_event, "__compiled__", False)
    code = Event.wait.__code__
    assert put_events_in_place() is False
    assert Event.wait.__code__ is code


def test_a_slot_that_c_does_not_know_keeps_events_pure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_event, "__compiled__", True)
    monkeypatch.setattr(compiled_event, "SET_BY_C", frozenset({"_happened"}))
    code = Event.wait.__code__
    assert put_events_in_place() is False
    assert Event.wait.__code__ is code


@pytest.mark.parametrize("error", [LookupError("no slot"), TypeError("no class")])
def test_a_c_module_that_does_not_fit_leaves_events_as_they_are(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bind_event(_given: object) -> None:
        raise error

    fake: Any = types.SimpleNamespace(bind_event=bind_event)
    monkeypatch.setattr(compiled_event, "__compiled__", True)
    monkeypatch.setitem(sys.modules, C_MODULE, fake)
    code = Event.wait.__code__
    assert put_events_in_place() is False
    assert Event.wait.__code__ is code


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the C file is for CPython 3.12 to 3.15")
def test_the_code_is_put_events_in_place_with_its_function(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    namespace = Event.wait.__globals__
    fake: Any = types.SimpleNamespace(bind_event=given.update, event_wait="event_wait of C")
    monkeypatch.setattr(compiled_event, "__compiled__", True)
    monkeypatch.setitem(sys.modules, C_MODULE, fake)
    monkeypatch.setitem(namespace, "event_wait", namespace.get("event_wait"))
    code = Event.wait.__code__
    try:
        assert put_events_in_place() is True
        assert namespace["event_wait"] == "event_wait of C"
        assert given["Event"] is Event
        assert given["original_wait"].__code__ is code
    finally:
        Event.wait.__code__ = code
