"""The compiled form of the channels' operations: whether it is used, and what it shows."""

from __future__ import annotations

import dis
import inspect
import sys
import types

import pytest

import nurseryio
from nurseryio import MemoryReceiveChannel, MemorySendChannel
from nurseryio._nursery.compiled import C_MODULE
from nurseryio._sync import compiled_channel
from nurseryio._sync.compiled_channel import put_in_place

# Covered below 95 %: the functions that stand in the channels' place run on the compiled build.


def test_the_operations_are_compiled_exactly_if_the_build_is() -> None:
    used = "send_wait" in MemorySendChannel.send.__code__.co_names
    assert used is nurseryio.__compiled__
    assert ("receive_wait" in MemoryReceiveChannel._receive.__code__.co_names) is used


def test_send_and_receive_stay_coroutine_functions_of_their_module() -> None:
    for function in (MemorySendChannel.send, MemoryReceiveChannel._receive):
        assert inspect.iscoroutinefunction(function)
        assert function.__globals__["__name__"] == "nurseryio._sync.channel"
    assert list(inspect.signature(MemorySendChannel.send).parameters) == ["self", "value"]
    assert MemorySendChannel.send.__code__.co_name == "send"
    if sys.version_info >= (3, 11):
        assert MemorySendChannel.send.__code__.co_qualname == "MemorySendChannel.send"


def test_no_signal_handler_runs_between_taking_an_item_and_returning_it() -> None:
    # The interpreter runs them after calls. A handler that raises would lose the item.
    calls = [
        instruction.opname
        for instruction in dis.get_instructions(compiled_channel._receive)
        if instruction.opname.startswith("CALL") and "INTRINSIC" not in instruction.opname
    ]
    assert len(calls) == 1  # receive_wait(), for an item that is not there at once


async def test_each_object_that_the_channels_code_knows_can_be_sent() -> None:
    items = list(MemorySendChannel.send.__globals__.values())
    sender, receiver = nurseryio.open_memory_channel[object](len(items))
    for item in items:
        await sender.send(item)
    sender.close()
    received = [item async for item in receiver]
    assert all(one is other for one, other in zip(received, items, strict=True))


def test_on_the_pure_build_nothing_is_put_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_channel, "__compiled__", False)
    code = MemorySendChannel.send.__code__
    assert put_in_place() is False
    assert MemorySendChannel.send.__code__ is code


@pytest.mark.parametrize("error", [LookupError("no slot"), TypeError("no class")])
def test_a_c_module_that_does_not_fit_leaves_the_channels_as_they_are(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bind_channels(_given: object) -> None:
        raise error

    fake = types.SimpleNamespace(bind_channels=bind_channels)
    monkeypatch.setattr(compiled_channel, "__compiled__", True)
    monkeypatch.setitem(sys.modules, C_MODULE, fake)  # type: ignore[arg-type]
    codes = (MemorySendChannel.send.__code__, MemoryReceiveChannel._receive.__code__)
    assert put_in_place() is False
    assert codes == (MemorySendChannel.send.__code__, MemoryReceiveChannel._receive.__code__)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the C file is for CPython 3.12 to 3.15")
def test_the_code_is_put_in_place_with_its_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}
    namespace = MemorySendChannel.send.__globals__
    expected = {
        "received": "received",
        "receive_wait": "receive",
        "send_at_once": "send_at_once",
        "send_wait": "send",
    }
    c_names = {name: name for name in expected.values()}
    fake = types.SimpleNamespace(bind_channels=given.update, **c_names)
    monkeypatch.setattr(compiled_channel, "__compiled__", True)
    monkeypatch.setitem(sys.modules, C_MODULE, fake)  # type: ignore[arg-type]
    functions = (MemorySendChannel.send, MemoryReceiveChannel._receive)
    codes = [function.__code__ for function in functions]
    for name in expected:
        monkeypatch.setitem(namespace, name, namespace.get(name))
    try:
        assert put_in_place() is True
        assert {name: namespace[name] for name in expected} == expected
        originals = [given["original_send"], given["original_receive"]]
        assert [each.__code__ for each in originals] == codes
        assert [function.__code__ for function in functions] != codes or nurseryio.__compiled__
    finally:
        for function, code in zip(functions, codes, strict=True):
            function.__code__ = code


def test_the_end_of_a_channel_is_raised_as_the_caller_asked() -> None:
    end = nurseryio.EndOfChannel("over")
    with pytest.raises(StopAsyncIteration, match="over") as caught:
        compiled_channel._raise_at_end(StopAsyncIteration, end)
    assert caught.value.__suppress_context__
    with pytest.raises(nurseryio.ClosedResourceError, match="this end"):
        compiled_channel._raise_at_end(
            StopAsyncIteration, nurseryio.ClosedResourceError("this end")
        )
