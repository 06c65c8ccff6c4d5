"""The stack of a call as text."""

from __future__ import annotations

import asyncio
import os
import sys
import weakref

import pytest
from harness.forks import in_child

import nurseryio
from nurseryio._base.call_stack import MOST_FRAMES, call_stack, stack_if_wanted, watchers


def deep(depth: int) -> str:
    return call_stack(sys._getframe()) if depth == 0 else deep(depth - 1)


def test_call_stack_ends_with_the_innermost_line_and_its_text() -> None:
    lines = deep(0).splitlines()
    assert lines[-2].endswith("in deep")
    assert lines[-1].startswith("    return call_stack(sys._getframe())")


def test_call_stack_shows_the_innermost_frames_of_a_deep_stack() -> None:
    assert deep(2 * MOST_FRAMES).count("  File ") in (MOST_FRAMES, 3, 4)  # repeated lines are cut
    assert call_stack(None) == ""


async def test_call_stack_leaves_out_the_library() -> None:
    found: list[str] = []

    async def child() -> None:
        found.append(call_stack(sys._getframe()))

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
    assert "in child" in found[0]
    assert "_run_child" not in found[0]


def test_call_stack_keeps_no_frame_alive() -> None:
    class Local:
        pass

    def inner() -> tuple[str, weakref.ref[Local]]:
        local = Local()
        return call_stack(sys._getframe()), weakref.ref(local)

    text, reference = inner()
    assert "in inner" in text
    assert reference() is None


def test_stack_of_a_cancel_is_wanted_while_there_are_watchers_or_in_debug_mode() -> None:
    async def in_mode(debug: bool) -> str | None:
        asyncio.get_running_loop().set_debug(debug)
        return stack_if_wanted()

    assert stack_if_wanted() is None
    assert asyncio.run(in_mode(False)) is None
    assert "in in_mode" in (asyncio.run(in_mode(True)) or "")
    watchers.add(in_mode)
    try:
        assert "test_stack_of_a_cancel_is_wanted" in (stack_if_wanted() or "")
        assert "in in_mode" in (asyncio.run(in_mode(False)) or "")
    finally:
        watchers.discard(in_mode)
    assert stack_if_wanted() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_watchers_of_a_process_are_not_in_its_forked_children() -> None:
    def check() -> None:
        assert not watchers
        assert stack_if_wanted() is None

    me = object()
    watchers.add(me)
    try:
        assert in_child(check) == 0
    finally:
        watchers.discard(me)
