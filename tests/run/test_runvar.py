"""Variables with one value per loop."""

from __future__ import annotations

import asyncio

import pytest

import nurseryio
from nurseryio.lowlevel import RunVar, RunVarToken


async def test_runvar_get_without_a_value_raises_lookup_error_unless_there_is_a_default() -> None:
    bare: RunVar[str] = RunVar("bare")
    with pytest.raises(LookupError):
        bare.get()
    assert bare.get("this") == "this"
    with_default: RunVar[str] = RunVar("with default", default="that")
    assert with_default.get() == "that"
    assert with_default.get("this") == "this"
    with_default.set("set")
    assert with_default.get("this") == "set"


async def test_a_runvar_value_is_seen_by_every_task_of_the_loop() -> None:
    var: RunVar[int] = RunVar("var")
    seen = []

    async def read() -> None:
        seen.append(var.get())

    async with nurseryio.open_nursery() as nursery:
        var.set(1)
        nursery.start_soon(read)
    task = asyncio.create_task(read())
    await task
    assert seen == [1, 1]


async def test_runvar_reset_restores_the_previous_value_once_per_token() -> None:
    var: RunVar[int] = RunVar("var")
    first = var.set(1)
    second = var.set(2)
    var.reset(second)
    assert var.get() == 1
    var.reset(first)
    with pytest.raises(LookupError):
        var.get()
    with pytest.raises(ValueError, match=r"^token has already been used$"):
        var.reset(first)


async def test_runvar_reset_refuses_a_token_of_another_variable() -> None:
    one: RunVar[int] = RunVar("one")
    other: RunVar[int] = RunVar("other")
    token = other.set(1)
    with pytest.raises(ValueError, match=r"^token is not for us$"):
        one.reset(token)
    with pytest.raises(TypeError, match="token must not be none"):
        one.reset(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected the token that set"):
        one.reset(1)  # type: ignore[arg-type]


def test_each_loop_has_its_own_runvar_values() -> None:
    var: RunVar[str] = RunVar("var")
    kept: list[RunVarToken[str]] = []

    async def first() -> None:
        kept.append(var.set("first"))

    async def second() -> None:
        with pytest.raises(LookupError):
            var.get()
        with pytest.raises(ValueError, match="another event loop"):
            var.reset(kept[0])

    nurseryio.run(first)
    nurseryio.run(second)


def test_runvar_outside_a_loop_raises() -> None:
    var: RunVar[str] = RunVar("var", default="x")
    for use in (var.get, lambda: var.set("y")):
        with pytest.raises(RuntimeError, match=r"outside of a run context\nno event loop"):
            use()


def test_repr_of_a_runvar_shows_its_name_and_its_token_has_no_constructor() -> None:
    assert repr(RunVar("the name")) == "<RunVar name='the name'>"
    with pytest.raises(TypeError, match="no public constructor"):
        RunVarToken()  # type: ignore[call-arg]


async def test_repr_of_a_runvar_token_shows_whether_it_was_used() -> None:
    var = RunVar("v")
    token = var.set(1)
    assert repr(token) == "<RunVarToken of <RunVar name='v'>, not used>"
    var.reset(token)
    assert repr(token) == "<RunVarToken of <RunVar name='v'>, used>"


def test_runvar_cannot_be_subclassed() -> None:
    with pytest.raises(TypeError, match="does not support subclassing"):

        class Below(RunVar[int]):
            pass
