"""nurseryio on event loops that neither asyncio nor uvloop wrote.

``loop_programs/cross_section.py`` runs one step for each part of the library that depends on the
loop, in a process of its own for each loop and host. Without the extra ``loops`` the loops that are
missing are skipped. Loops that fall back as on uvloop for one reason each are in
``harness/fake_loops.py``; the tests with them need no extra.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness import matrix, programs, source
from harness.foreign_loops import LOOPS

PROGRAM = Path(__file__).parent / "loop_programs" / "cross_section.py"

# The steps that run on every host, and those that need ``nurseryio.run``.
STEPS = {
    *("nursery", "cancel_scopes", "foreign_awaits", "tcp", "tls", "unix_sockets", "udp"),
    *("threads", "processes", "signals", "channels", "all_tasks_blocked", "instruments", "idle"),
}
RUN_STEPS = {"virtual_time", "resting_clock", "ctrl_c"}


@pytest.mark.limit(120)
@pytest.mark.parametrize("host", matrix.HOSTS)
@pytest.mark.parametrize("loop", [*programs.LOOPS, *LOOPS])
def test_the_cross_section_passes(loop: str, host: str) -> None:
    """Nurseries, cancel scopes, foreign awaits, sockets, threads, processes, signals, channels,
    wait_all_tasks_blocked, instruments, idle CPU, virtual time and Ctrl-C.
    """
    if loop in LOOPS and (reason := LOOPS[loop].why_not()):
        pytest.skip(reason)
    # Some of these loops cause warnings themselves, such as for sockets that they do not close.
    steps = STEPS | (RUN_STEPS if host == "run" else set())
    steps -= LOOPS[loop].lacks.keys() if loop in LOOPS else set()
    ended = programs.run(PROGRAM, loop, host, *steps, warnings="default")
    lines = "\n".join(ended.lines)
    results = dict(line.partition(": ")[::2] for line in ended.lines)
    assert ended.returncode == 0, f"exit code {ended.returncode}\n{lines}\n{ended.errors}"
    assert results == dict.fromkeys(steps, "ok"), lines


# The steps that ask a loop for its parts.
ASKING = {
    *("nursery", "tcp", "threads", "signals", "all_tasks_blocked", "instruments"),
    *("virtual_time", "ctrl_c"),
}


ODD_LOOPS = ["Proxy", "WithAList", "WithFailingProperties", "WithoutHandles", "WithoutSelfPipe"]


@pytest.mark.limit(60)
@pytest.mark.parametrize("loop", ODD_LOOPS)
def test_the_cross_section_passes_on_a_loop_of_odd_shape(loop: str) -> None:
    ended = programs.run(PROGRAM, loop, "run", *ASKING)
    assert sorted(ended.lines) == sorted(f"{step}: ok" for step in ASKING), ended.errors


def test_the_page_and_the_extra_name_every_foreign_loop() -> None:
    page = (source.ROOT / "docs" / "loops.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| (\w+) [\d.]+ \| (?:whole|cross)", page, re.MULTILINE))
    assert rows == {*LOOPS, "uvloop"}
    project = (source.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (extra,) = re.findall(r"^loops = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    packages = {package for loop in LOOPS.values() for package in loop.packages}
    assert set(re.findall(r'"([\w-]+)>=', extra)) == packages


def test_a_loop_that_is_missing_says_which_package_to_install() -> None:
    missing = LOOPS["rloop"].__class__(LOOPS["rloop"].make, {"some-loop": "no_such_module"})
    assert missing.why_not() == "needs some-loop: python -m pip install '.[loops]'"
    old = missing.__class__(missing.make, {}, before=(3, 10))
    assert "does not support Python 3." in old.why_not()
    assert missing.__class__(missing.make, {"asyncio": "asyncio"}).why_not() == ""
