"""The answer of sniffio in callbacks and worker threads. A stub takes the place of sniffio."""

from __future__ import annotations

import contextvars
import sys
import types

import pytest
from harness.sniffing import Sniffio, install

from nurseryio._base.library_name import call_outside_task, call_under_name, hide_library_name


@pytest.fixture
def sniffio(monkeypatch: pytest.MonkeyPatch) -> Sniffio:
    """The stub, as the module that is installed."""
    return install(monkeypatch)


def fail() -> None:
    raise ValueError("mine")


def test_sniffios_name_is_asyncio_in_a_call_outside_a_task_and_taken_back_after_it(
    sniffio: Sniffio,
) -> None:
    assert call_outside_task(lambda: sniffio.thread_local.name) == "asyncio"
    assert sniffio.thread_local.name is None
    with pytest.raises(ValueError, match="mine"):
        call_outside_task(fail)
    assert sniffio.thread_local.name is None


def test_a_call_outside_a_task_keeps_the_name_that_sniffio_has_in_this_thread(
    sniffio: Sniffio,
) -> None:
    sniffio.thread_local.name = "trio"
    assert call_outside_task(lambda: sniffio.thread_local.name) == "trio"
    assert sniffio.thread_local.name == "trio"


def test_a_call_under_a_name_replaces_sniffios_name_for_its_time_in_its_thread(
    sniffio: Sniffio,
) -> None:
    sniffio.thread_local.name = "asyncio"
    assert call_under_name("trio", lambda: sniffio.thread_local.name) == "trio"
    assert sniffio.thread_local.name == "asyncio"
    with pytest.raises(ValueError, match="mine"):
        call_under_name("trio", fail)
    assert sniffio.thread_local.name == "asyncio"


@pytest.mark.parametrize("module", [None, types.SimpleNamespace()])
def test_without_sniffio_or_with_an_old_one_functions_are_called_all_the_same(
    monkeypatch: pytest.MonkeyPatch, module: object
) -> None:
    monkeypatch.setitem(sys.modules, "sniffio", module)  # type: ignore[arg-type]
    assert call_outside_task(max, 1, 2) == 2
    assert call_under_name("trio", sorted, [1, 2], reverse=True) == [2, 1]


def test_the_sniffio_library_name_is_hidden_from_a_threads_context(
    sniffio: Sniffio,
) -> None:
    variable = sniffio.current_async_library_cvar
    context = contextvars.copy_context()
    hide_library_name(context)
    assert variable not in context
    context.run(variable.set, "asyncio")
    hide_library_name(context)
    assert context[variable] is None


def test_without_sniffio_no_library_name_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sniffio", raising=False)
    context = contextvars.copy_context()
    before = dict(context)
    hide_library_name(context)
    assert dict(context) == before


def test_nothing_is_done_while_another_thread_is_importing_sniffio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sniffio", types.ModuleType("sniffio"))
    hide_library_name(contextvars.copy_context())
    assert call_outside_task(lambda: 1) == 1
    assert call_under_name("trio", lambda: 2) == 2
