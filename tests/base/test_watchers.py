"""Who looks at the process while it runs, and the switches of what they need."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest
from harness.forks import in_child

import nurseryio
from nurseryio._base import watchers as module
from nurseryio._base.watchers import (
    is_in_debug_mode,
    look_for_debug,
    made,
    switches,
    unwatch,
    watch,
    watchers,
)


class Watches:
    def __init__(self) -> None:
        self.things: list[object] = []

    def made(self, thing: object) -> None:
        self.things.append(thing)


@pytest.fixture
def switched() -> Iterator[list[bool]]:
    """What a switch was set to."""
    look_for_debug(list)
    found: list[bool] = []
    switches.append(found.append)
    yield found
    switches.remove(found.append)
    look_for_debug(list)


def test_switch_is_on_from_the_first_watcher_to_the_last(switched: list[bool]) -> None:
    first, second = Watches(), Watches()
    watch(first)
    watch(second)
    unwatch(first)
    assert all(switched)
    unwatch(second)
    unwatch(second)
    assert switched[-2:] == [False, False]
    assert not watchers


def test_switch_is_on_while_a_loop_in_debug_mode_is_known(switched: list[bool]) -> None:
    async def main() -> bool:
        async with nurseryio.open_nursery():
            return switched[-1]

    assert asyncio.run(main(), debug=True)
    # The next loop is not in debug mode, and the one before was closed.
    assert not asyncio.run(main(), debug=False)


def test_switch_is_on_after_a_cancel_on_a_loop_whose_debug_mode_was_set_late(
    switched: list[bool],
) -> None:
    async def main() -> None:
        with nurseryio.CancelScope() as scope:
            asyncio.get_running_loop().set_debug(True)
            assert True not in switched
            scope.cancel()
            assert switched[-1]

    asyncio.run(main(), debug=False)


def test_a_loop_without_a_debug_mode_is_not_in_it(switched: list[bool]) -> None:
    class Loop(asyncio.AbstractEventLoop):
        pass

    look_for_debug(lambda: [Loop()])
    assert not is_in_debug_mode(Loop())
    assert not is_in_debug_mode(None)
    assert True not in switched


def test_each_watcher_is_told_of_what_is_made() -> None:
    first, second = Watches(), Watches()
    watch(first)
    watch(second)
    try:
        made("a channel")
    finally:
        unwatch(first)
        unwatch(second)
    assert first.things == second.things == ["a channel"]


def test_an_error_of_a_watcher_is_not_raised_where_something_is_made() -> None:
    class Fails:
        def made(self, thing: object) -> None:
            raise RecursionError

    failing, fine = Fails(), Watches()
    watch(failing)
    watch(fine)
    try:
        _sender, receiver = nurseryio.open_memory_channel[int](0)
    finally:
        unwatch(failing)
        unwatch(fine)
    assert fine.things == [receiver]
    assert receiver.statistics().open_receive_channels == 1


def test_watchers_of_many_threads_leave_the_switch_off(switched: list[bool]) -> None:
    def come_and_go() -> None:
        for _ in range(200):
            me = Watches()
            watch(me)
            made(me)
            unwatch(me)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not watchers
    assert switched[-1] is False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_watchers_of_a_process_are_not_in_its_forked_children(switched: list[bool]) -> None:
    def check() -> None:
        assert not watchers
        assert switched[-1] is False
        assert module._switching.acquire(timeout=1)

    me = Watches()
    watch(me)
    try:
        with module._switching:
            assert in_child(check) == 0
    finally:
        unwatch(me)
