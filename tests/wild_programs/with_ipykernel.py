"""A kernel of Jupyter: the cells of the documentation, and interrupted cells.

``python with_ipykernel.py PAGE`` starts the kernel that an installed notebook starts. It prints one
line for each step, as the other programs here do.
"""

from __future__ import annotations

import queue
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import notebooks
from jupyter_client.manager import start_new_kernel

# Seconds in which each cell must end.
PATIENCE = 30.0

TOOLS = """
import asyncio, time
import nurseryio
from nurseryio import from_thread, open_nursery, sleep_forever, to_thread

def until_cancelled():
    print("begun", flush=True)
    while True:
        try:
            from_thread.check_cancelled()
        except nurseryio.Cancelled:
            return "result"
        time.sleep(0.001)

def raises():
    until_cancelled()
    raise KeyError("in the thread")

async def begin():
    print("begun", flush=True)
    await sleep_forever()

# ipykernel's handler of SIGINT calls call_soon(), which does not wake the loop.
async def tick():
    while True:
        await asyncio.sleep(0.05)

ticking = asyncio.create_task(tick())
"""


class Cell:
    """The output of a cell."""

    def __init__(self) -> None:
        self.printed = ""
        self.result = ""
        self.error = ""


class Kernel:
    """Runs cells, as a notebook does."""

    def __init__(self, manager: Any, client: Any) -> None:
        self._manager = manager
        self._client = client

    def run(self, code: str, *, interrupt_at: str = "") -> Cell:
        """Run a cell to its end; interrupt it once it has printed ``interrupt_at``."""
        cell = Cell()
        request = self._client.execute(code)
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                message = self._client.get_iopub_msg(timeout=give_up - time.monotonic())
            except (queue.Empty, ValueError):
                raise AssertionError(f"the cell stays busy: {code}") from None
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                cell.printed += content["text"]
            elif message["msg_type"] == "execute_result":
                cell.result = content["data"]["text/plain"]
            elif message["msg_type"] == "error":
                cell.error = content["ename"]
            elif content.get("execution_state") == "idle":
                return cell
            if interrupt_at and interrupt_at in cell.printed:
                interrupt_at = ""
                self._manager.interrupt_kernel()


@contextmanager
def started() -> Iterator[Kernel]:
    """A kernel; it is killed at the end of the block."""
    manager, client = start_new_kernel(startup_timeout=PATIENCE)
    try:
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


# -- the steps ------------------------------------------------------------------


def the_cells_of_the_page_print_what_it_says(kernel: Kernel) -> None:
    """One after another, as a reader would run them."""
    found = notebooks.cells(Path(sys.argv[1]))
    assert found
    for cell in found:
        ended = kernel.run(cell.code)
        assert not ended.error, (ended.error, cell.code)
        assert ended.printed == cell.prints, (ended.printed, cell.code)


def an_interrupted_thread_as_the_last_await_gives_its_result(kernel: Kernel) -> None:
    """ipykernel would never answer if the task of the cell ended cancelled."""
    cell = kernel.run("await to_thread.run_sync(until_cancelled)", interrupt_at="begun")
    assert (cell.result, cell.error) == ("'result'", ""), vars(cell)


def an_interrupted_thread_that_fails_shows_its_error(kernel: Kernel) -> None:
    """The error is not lost."""
    cell = kernel.run("await to_thread.run_sync(raises)", interrupt_at="begun")
    assert cell.error == "KeyError", vars(cell)


def an_interrupted_thread_is_waited_for_before_the_next_await_raises(kernel: Kernel) -> None:
    """The result is there, and the cell is interrupted."""
    code = "print(await to_thread.run_sync(until_cancelled)); await asyncio.sleep(0); print('on')"
    cell = kernel.run(code, interrupt_at="begun")
    assert cell.printed.split() == ["begun", "result"], vars(cell)
    assert cell.error == "CancelledError", vars(cell)


def an_interrupted_thread_may_be_abandoned(kernel: Kernel) -> None:
    """The cell does not wait for it."""
    kernel.run("import threading; go = threading.Event()")
    code = "await to_thread.run_sync(lambda: print('begun', flush=True) or go.wait(), "
    cell = kernel.run(code + "abandon_on_cancel=True)", interrupt_at="begun")
    assert cell.error == "CancelledError", vars(cell)
    kernel.run("go.set()")


def an_interrupted_nursery_cancels_its_children(kernel: Kernel) -> None:
    """The nursery is the last await of the cell. Children of other nurseries go on."""
    kernel.run("""
async def keep(opened):
    async with open_nursery() as nursery:
        opened.set_result(nursery)
        await sleep_forever()
opened = asyncio.get_running_loop().create_future()
keeper = asyncio.create_task(keep(opened))
background = await opened
background.start_soon(sleep_forever)
""")
    code = "async with open_nursery() as nursery:\n    nursery.start_soon(begin)"
    cell = kernel.run(code, interrupt_at="begun")
    assert cell.error == "CancelledError", vars(cell)
    assert kernel.run("len(nursery.child_tasks), len(background.child_tasks)").result == "(0, 1)"


def an_interrupted_nursery_shows_the_errors_of_its_children(kernel: Kernel) -> None:
    """A native cancellation and errors meet: ipykernel would never answer if the task was lost."""
    kernel.run("""
async def fails_in_cleanup():
    try:
        await begin()
    finally:
        raise KeyError("in cleanup")
""")
    code = "async with open_nursery() as nursery:\n    nursery.start_soon(fails_in_cleanup)"
    cell = kernel.run(code, interrupt_at="begun")
    # A group is shown as text.
    assert "KeyError: 'in cleanup'" in cell.printed or "Group" in cell.error, vars(cell)


def an_interrupted_scope_does_not_catch_the_interruption(kernel: Kernel) -> None:
    """It is not the scope's."""
    code = "with nurseryio.move_on_after(60):\n    await begin()\nprint('on')"
    cell = kernel.run(code, interrupt_at="begun")
    assert (cell.printed, cell.error) == ("begun\n", "CancelledError"), vars(cell)


STEPS = [
    the_cells_of_the_page_print_what_it_says,
    an_interrupted_thread_as_the_last_await_gives_its_result,
    an_interrupted_thread_that_fails_shows_its_error,
    an_interrupted_thread_is_waited_for_before_the_next_await_raises,
    an_interrupted_thread_may_be_abandoned,
    an_interrupted_nursery_cancels_its_children,
    an_interrupted_nursery_shows_the_errors_of_its_children,
    an_interrupted_scope_does_not_catch_the_interruption,
]


def main() -> None:
    """Run the steps in one kernel."""
    with started() as kernel:
        assert not kernel.run(TOOLS).error
        for step in STEPS:
            try:
                step(kernel)
                assert kernel.run("1 + 1").result == "2"
            except Exception:
                traceback.print_exc()
                print(f"{step.__name__}: failed", flush=True)
                return
            print(f"{step.__name__}: ok", flush=True)


if __name__ == "__main__":
    main()
