"""The compiled form of streams: whether it is used, and what it shows."""

from __future__ import annotations

import inspect
import sys
import types
from typing import Any

import pytest

import nurseryio
from nurseryio import SocketStream
from nurseryio._loop import compiled_io
from nurseryio._loop.compiled_io import put_streams_in_place
from nurseryio._loop.readiness import Readiness
from nurseryio._net import stream as stream_module
from nurseryio._net.sockets import Socket
from nurseryio._nursery.compiled import C_MODULE

# Covered below 95 %: the functions that stand in the place of those of a stream run on the compiled
# build. ``nursery.test_compiled`` compares the builds in many scenarios.

METHODS = (SocketStream.receive_some, SocketStream.send_all)


def put_in_place() -> bool:
    return put_streams_in_place(SocketStream, Socket, vars(stream_module))


def test_the_methods_are_compiled_exactly_if_the_build_is() -> None:
    uses = [
        "receive_some_wait" in SocketStream.receive_some.__code__.co_names,
        "send_all_wait" in SocketStream.send_all.__code__.co_names,
        not inspect.isfunction(vars(Readiness)["_ready"]),
        not inspect.isfunction(vars(Readiness)["__await__"]),
    ]
    assert uses == [nurseryio.__compiled__] * 4


@pytest.mark.parametrize(
    ("method", "parameters"),
    [(SocketStream.receive_some, ["self", "max_bytes"]), (SocketStream.send_all, ["self", "data"])],
)
def test_the_methods_stay_coroutine_functions_of_their_module(
    method: Any, parameters: list[str]
) -> None:
    assert inspect.iscoroutinefunction(method)
    assert method.__globals__["__name__"] == "nurseryio._net.stream"
    assert list(inspect.signature(method).parameters) == parameters
    assert method.__code__.co_name == method.__name__
    if sys.version_info >= (3, 11):
        assert method.__code__.co_qualname == f"SocketStream.{method.__name__}"


def test_max_bytes_has_its_default_on_both_builds() -> None:
    assert SocketStream.receive_some.__defaults__ == (None,)


def test_on_the_pure_build_no_streams_are_put_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_io, "__compiled__", False)
    codes = [method.__code__ for method in METHODS]
    assert put_in_place() is False
    assert [method.__code__ for method in METHODS] == codes


@pytest.mark.parametrize("error", [LookupError("no slot"), TypeError("no class")])
def test_a_c_module_that_does_not_fit_leaves_streams_as_they_are(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bind_streams(_given: object) -> None:
        raise error

    fake: Any = types.SimpleNamespace(bind_streams=bind_streams)
    monkeypatch.setattr(compiled_io, "__compiled__", True)
    monkeypatch.setitem(sys.modules, C_MODULE, fake)
    codes = [method.__code__ for method in METHODS]
    assert put_in_place() is False
    assert [method.__code__ for method in METHODS] == codes


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the C file is for CPython 3.12 to 3.15")
def test_the_code_is_put_in_place_with_its_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    namespace = SocketStream.send_all.__globals__
    fake: Any = types.SimpleNamespace(
        bind_streams=given.update, receive_some="receive_some of C", send_all="send_all of C"
    )
    monkeypatch.setattr(compiled_io, "__compiled__", True)
    monkeypatch.setitem(sys.modules, C_MODULE, fake)
    for name in ("receive_some_wait", "send_all_wait"):
        monkeypatch.setitem(namespace, name, namespace.get(name))
    codes = [method.__code__ for method in METHODS]
    try:
        assert put_in_place() is True
        assert namespace["receive_some_wait"] == "receive_some of C"
        assert namespace["send_all_wait"] == "send_all of C"
        assert given["SocketStream"] is SocketStream
        assert given["original_send_all"].__code__ is codes[1]
    finally:
        for method, code in zip(METHODS, codes, strict=True):
            method.__code__ = code
