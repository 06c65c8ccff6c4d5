"""The site of the documentation in headless Chromium: programs run in the page, and search finds.

The site is built once, and served by a plain static host. Without Chromium, Sphinx, or the npm
package ``pyodide`` (``make browser`` gets it) the tests that need it are skipped.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from harness import source, web_site
from harness.browser import browser
from harness.web_site import WatchedPage

pytestmark = [
    pytest.mark.skipif(bool(web_site.why_no_site()), reason=web_site.why_no_site()),
    pytest.mark.limit(300),
]
with_buttons = pytest.mark.skipif(bool(web_site.why_no_buttons()), reason=web_site.why_no_buttons())

# Beside the npm package of Pyodide.
AXE = web_site.page_bundle.folder().parent / "axe-core" / "axe.min.js"

# A program with its bar and its output, and the output that the documentation shows, if it says
# that it is exactly that.
PROGRAM = re.compile(
    r'(<div class="runnable".*?role="log"[^>]*></div>\s*</div>)'
    r'(?:\s*<!-- prints -->\s*<div class="highlight-text[^>]*><div class="highlight">'
    r"<pre>(.*?)</pre>)?",
    re.DOTALL,
)
TAG = re.compile(r"<[^>]+>")

# Engines that can switch stacks (JSPI), and those that cannot.
WAYS = {
    "by_switching_stacks": "",
    "by_top_level_await": "delete WebAssembly.Suspending; delete WebAssembly.promising;",
}


@dataclass(frozen=True)
class Example:
    """A program that has a button.

    Attributes:
        page: its page.
        element: its part of the page, as HTML.
        prints: its exact output, if the documentation has that.
    """

    page: str
    element: str
    prints: str | None


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    web_site.build(folder, source.ROOT / "docs", "-q", "-D", "nitpicky=0")
    return folder / "html"


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    with web_site.served(built) as address:
        yield address


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedPage]:
    with browser(tmp_path_factory.mktemp("browser"), WatchedPage) as page:
        yield page


def examples(built: Path) -> list[Example]:
    """The programs of all pages that have a button."""
    return [
        Example(str(file.relative_to(built)), element, html.unescape(TAG.sub("", text)) or None)
        for file in sorted(built.rglob("*.html"))
        for element, text in PROGRAM.findall(file.read_text(encoding="utf-8"))
        if not file.name.startswith("_") and "playground-code" not in element
    ]


# -- programs in the page --------------------------------------------------------

PART = "document.querySelectorAll('.runnable')[{index}]"


def state(page: WatchedPage, index: int = 0) -> str:
    value: str = page.run(f"{PART.format(index=index)}.dataset.state")
    return value


def press(page: WatchedPage, index: int = 0, button: str = "start") -> None:
    page.run(f"{PART.format(index=index)}.querySelector('.run-{button}').click()")


def reach(page: WatchedPage, state: str, index: int = 0) -> None:
    page.until(f"{PART.format(index=index)}.dataset.state === '{state}'")


def output(page: WatchedPage, index: int = 0, kind: str = ".run-stdout") -> str:
    """The text of a program's output: the standard one, or ``.run-stderr``, or ``*`` for both."""
    part = f"{PART.format(index=index)}.querySelectorAll('.run-output {kind}')"
    text: str = page.run(f"[...{part}].map(each => each.textContent).join('')")
    return text


def status(page: WatchedPage, index: int = 0) -> str:
    text: str = page.run(f"{PART.format(index=index)}.querySelector('.run-status').textContent")
    return text


def write(page: WatchedPage, text: str, index: int = 0) -> None:
    """Write another program into the editor."""
    assert state(page, index) == "idle"
    part = PART.format(index=index)
    page.run(f"{part}.querySelector('.run-edit')?.click()")
    page.run(
        f"{part}.querySelector('textarea').value = {json.dumps(text)};"
        f"{part}.querySelector('textarea').dispatchEvent(new Event('input'))"
    )


@pytest.fixture(scope="module", params=WAYS)
def programs(
    request: pytest.FixtureRequest, built: Path, address: str, page: WatchedPage
) -> Iterator[list[Example]]:
    """One page with the programs of all pages, so that Python is loaded once for many tests."""
    found = examples(built)
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>programs</title>'
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="_static/run/run.css">'
        + "".join(example.element for example in found)
        + '<script type="module" src="_static/run/run.mjs"></script>'
    )
    (built / "_programs.html").write_text(text, encoding="utf-8")
    page.before_worker = WAYS[request.param]
    page.visit(f"{address}_programs.html")
    yield found
    page.before_worker = ""


@with_buttons
def test_each_program_with_a_run_button_prints_what_the_documentation_says(
    programs: list[Example], address: str, page: WatchedPage
) -> None:
    wrong = set(range(len(programs)))
    # Some programs show what happens first within ten milliseconds. A browser on a busy machine may
    # be late for that, so they get a second chance.
    for _ in range(2):
        differences = []
        for index in sorted(wrong):
            example = programs[index]
            press(page, index)
            reach(page, "idle", index)
            said = output(page, index)
            well = status(page, index).startswith("Ended after")
            if well and example.prints in (None, said):
                wrong.remove(index)
            else:
                rest = output(page, index, ".run-stderr")
                where = (example.page, index)
                differences.append((where, example.prints, said, rest, status(page, index)))
    assert not differences
    assert page.complaints == []
    assert sum(example.prints is not None for example in programs) > 40
    assert [url for url in page.requests if url.endswith("pyodide.asm.wasm")]
    assert {url for url in page.requests if not url.startswith((address, "data:"))} == set()


LEAVES_INSTRUMENTS = """\
import nurseryio
from nurseryio.instruments import Tracer


async def main():
    pass


nurseryio.run(main, instruments=[Tracer(print, hooks=["task_exited"])])
"""
AFTER_INSTRUMENTS = """\
import nurseryio


async def main():
    print("alone")


nurseryio.run(main)
"""


@with_buttons
def test_instruments_of_a_program_end_with_its_run(
    programs: list[Example], page: WatchedPage
) -> None:
    write(page, LEAVES_INSTRUMENTS)
    press(page)
    reach(page, "idle")
    assert (output(page), output(page, kind=".run-stderr")) == (
        "### task exited: __main__.main\n",
        "",
    )
    write(page, AFTER_INSTRUMENTS)
    press(page)
    reach(page, "idle")
    assert output(page, kind="*") == "alone\n"


WAITS = """\
import nurseryio


async def child():
    try:
        await nurseryio.sleep_forever()
    finally:
        print("cleaned up")


async def main():
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
        print("started")


"""


@with_buttons
@pytest.mark.parametrize(
    "start",
    ["nurseryio.run(main)", "import asyncio; asyncio.run(main())", "await main()"],
)
def test_stop_cancels_the_program_so_its_cleanup_runs(
    start: str, programs: list[Example], page: WatchedPage
) -> None:
    write(page, WAITS + start)
    press(page)
    page.until("document.querySelector('.run-output').textContent.includes('started')")
    press(page)
    reach(page, "idle")
    assert output(page, kind="*") == "started\ncleaned up\n"
    assert status(page).startswith("Stopped after")
    assert page.complaints == []


@with_buttons
def test_a_second_press_of_stop_ends_a_program_that_blocks_and_the_next_one_runs(
    programs: list[Example], page: WatchedPage
) -> None:
    write(page, 'print("blocks", flush=True)\nwhile True:\n    pass\n')
    press(page)
    page.until("document.querySelector('.run-output').textContent.includes('blocks')")
    press(page)
    assert state(page) == "stopping"
    press(page)
    assert state(page) == "idle"
    assert status(page) == "Ended without cleanup: Python was shut down."
    write(page, "print(6 * 7)")
    press(page)
    reach(page, "idle")
    assert output(page) == "42\n"
    assert page.complaints == []


@with_buttons
def test_running_one_program_stops_the_other_one_of_the_page(
    programs: list[Example], page: WatchedPage
) -> None:
    write(page, WAITS + "nurseryio.run(main)")
    press(page)
    page.until("document.querySelector('.run-output').textContent.includes('started')")
    press(page, 1)
    reach(page, "idle")
    assert "cleaned up" in output(page)
    reach(page, "idle", 1)
    assert status(page, 1).startswith("Ended after")
    assert page.complaints == []


@with_buttons
def test_a_program_in_the_page_shows_its_error_without_frames_of_the_page(
    programs: list[Example], page: WatchedPage
) -> None:
    write(page, "import asyncio\n\nasync def main():\n    1 / 0\n\nasyncio.run(main())\n")
    press(page)
    reach(page, "idle")
    assert output(page, kind=".run-stderr").splitlines() == [
        "Traceback (most recent call last):",
        '  File "program.py", line 6, in <module>',
        "    asyncio.run(main())",
        "    ~~~~~~~~~~~^^^^^^^^",
        '  File "program.py", line 4, in main',
        "    1 / 0",
        "    ~~^~~",
        "ZeroDivisionError: division by zero",
    ]
    assert status(page).startswith("Ended with an error after")


@with_buttons
def test_tasks_that_a_program_leaves_behind_are_cancelled_and_the_next_one_is_clean(
    programs: list[Example], page: WatchedPage
) -> None:
    left = (
        "import asyncio\n\nasync def stay():\n    try:\n        await asyncio.sleep(60)\n"
        "    finally:\n        print('cancelled')\n\ntask = asyncio.create_task(stay())\n"
        "await asyncio.sleep(0)\n"
    )
    write(page, left)
    press(page)
    reach(page, "idle")
    assert output(page) == "cancelled\n"
    write(page, "import asyncio\nprint(len(asyncio.all_tasks()))\n")
    press(page)
    reach(page, "idle")
    assert output(page) == "0\n"


@with_buttons
def test_output_of_a_program_in_the_page_is_bounded(
    programs: list[Example], page: WatchedPage
) -> None:
    write(page, "for number in range(200_000):\n    print(number)\n")
    press(page)
    reach(page, "idle")
    assert len(output(page)) == 300_000
    assert "The rest of the output is left out." in output(page, kind=".run-stderr")


# -- the editor ------------------------------------------------------------------


@with_buttons
def test_a_program_can_be_edited_by_keyboard_alone_run_and_reset(
    programs: list[Example], page: WatchedPage
) -> None:
    part = PART.format(index=2)
    original = page.run(f"{part}.querySelector('pre').textContent")
    page.run(f"{part}.querySelector('.run-edit').focus()")
    page.key("Enter")
    assert page.run("document.activeElement.className") == "run-input"
    page.run("document.activeElement.select()")
    page.call("Input.insertText", text="if 1:")
    page.key("Enter")
    page.call("Input.insertText", text="print('typed')")
    assert page.run("document.activeElement.value") == "if 1:\n    print('typed')"
    assert page.run(f"{part}.querySelector('.run-shown .k').textContent") == "if"
    press(page, 2)
    reach(page, "idle", 2)
    assert output(page, 2) == "typed\n"
    press(page, 2, "reset")
    assert page.run("document.activeElement.value") == original


@with_buttons
def test_tab_indents_in_the_editor_and_after_escape_leaves_it(
    programs: list[Example], page: WatchedPage
) -> None:
    write(page, "x")
    page.run("document.querySelector('.run-input').focus()")
    page.run("document.querySelector('.run-input').setSelectionRange(0, 0)")
    page.key("Tab")
    assert page.run("document.querySelector('.run-input').value") == "    x"
    page.key("Escape")
    page.key("Tab")
    assert page.run("document.activeElement.className") == "run-start"


# -- the playground --------------------------------------------------------------


@with_buttons
def test_python_is_not_loaded_before_the_first_click(address: str, page: WatchedPage) -> None:
    page.visit(f"{address}tutorial.html")
    page.until("document.querySelector('.run-start').disabled === false")
    assert [url for url in page.requests if "run.mjs" in url]
    assert not [url for url in page.requests if "pyodide" in url or "packages" in url]


@with_buttons
def test_the_playground_offers_its_programs_and_draws_their_tasks_while_they_run(
    address: str, page: WatchedPage
) -> None:
    page.visit(f"{address}playground.html")
    names = page.run("[...document.querySelector('select').options].map(each => each.text)")
    assert "Two locks in opposite order" in names and len(names) == len(set(names))
    choice = names.index("Two locks in opposite order")
    page.run(
        f"document.querySelector('select').value = {choice};"
        "document.querySelector('select').dispatchEvent(new Event('change'))"
    )
    press(page)
    tree = page.until(
        "(text => text.includes(\"a lock that 'forth' holds\") && text)"
        "(document.querySelector('.run-tree').innerText)"
    )
    assert re.search(r"back\s+line 7\s+waits for a lock that 'forth' holds", tree)
    assert re.search(r"main\s+line 14\s+waits for 2 children of its nursery", tree)
    assert "__main__" not in tree
    assert page.run("document.querySelectorAll('.run-marks span').length") == 2
    nested = page.run("document.querySelector('.run-tree').querySelectorAll('li li li li').length")
    assert nested == 2  # two children in a nursery in a scope in a task
    reach(page, "idle")
    assert page.run("document.querySelector('.run-tree').innerText") == "No task is left."
    said = page.run("document.querySelector('.playground .run-output').textContent")
    assert said == "the deadline ended the deadlock\n"
    assert page.complaints == []


# -- the pages themselves --------------------------------------------------------


@with_buttons
@pytest.mark.parametrize("name", ["tutorial", "playground"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_with_run_buttons_does_not_move_while_it_loads_and_is_not_too_wide(
    width: int, name: str, address: str, page: WatchedPage
) -> None:
    page.look_like(width, 800, touch=width < 500)
    page.visit(f"{address}{name}.html")
    page.until("document.querySelector('.run-start').disabled === false")
    shift = page.run(
        "new Promise(done => new PerformanceObserver(list => done("
        "list.getEntries().reduce((sum, each) => sum + each.value, 0)"
        ")).observe({type: 'layout-shift', buffered: true}) || setTimeout(done, 500, 0))"
    )
    assert shift == 0
    assert page.run("document.documentElement.scrollWidth") == width
    assert page.complaints == []
    page.look_like(1280, 800)


@with_buttons
def test_without_javascript_a_page_has_no_run_button(address: str, page: WatchedPage) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.visit(f"{address}playground.html")
        root = page.call("DOM.getDocument")["root"]["nodeId"]
        for selector, shown in ((".run-bar", False), (".playground", False), (".runnable", True)):
            node = page.call("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"][-1]
            styles = page.call("CSS.enable") or page.call(
                "CSS.getComputedStyleForNode", nodeId=node
            )
            display = {each["name"]: each["value"] for each in styles["computedStyle"]}["display"]
            assert (display != "none") == shown, selector
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)


# The words that people type, and the page that search must name first.
SEARCHES = {
    "timeout": "nurseries",
    "gather": "results",
    "cancel task": "migration/asyncio",
    "ctrl-c": "lowlevel",
    "hang": "hangs",
    "spin": "hangs",
    "wait_for": "migration/asyncio",
    "TaskGroup": "why",
    "queue": "channels",
    "TLS": "tls",
    "pytest fixture": "testing",
    "thread": "threads",
    "subprocess": "processes",
    "exception group": "nurseries",
    "deadlock": "hangs",
    "lock": "synchronization",
    "server": "streams",
    "uvloop": "loops",
    "fastapi": "frameworks",
    "jupyter": "notebooks",
    "create_task": "migration/asyncio",
    "CancelledError": "tutorial",
    "KeyboardInterrupt": "lowlevel",
    "backpressure": "channels",
    "signal handler": "files-and-signals",
    "run_in_executor": "threads",
    "performance": "benchmarks",
    "virtual time": "testing",
    "anyio": "migration/anyio",
    "trio": "migration/trio",
    "nursery": "nurseries",
    "shield": "nurseries",
    "cancellation": "nurseries",
}


def test_search_names_the_right_page_first(address: str, page: WatchedPage) -> None:
    found = {}
    for words in SEARCHES:
        page.visit(f"{address}search.html?q={quote(words)}")
        first = page.until(
            "/found|did not/.test(document.querySelector('.search-summary')?.textContent)"
            "&& (document.querySelector('ul.search li > a')?.getAttribute('href') ?? 'none')"
        )
        found[words] = first.partition("?")[0].partition(".html")[0]
        # Sphinx's script does not find anchors with a dot in them, and says so.
        complaints = [text for text in page.complaints if "Anchored content block" not in text]
        assert (words, complaints) == (words, [])
    assert found == SEARCHES


@pytest.mark.skipif(not AXE.is_file(), reason=f"needs the npm package axe-core, in {AXE}")
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["index", "tutorial", "playground", "channels", "hangs", "search"])
def test_a_page_passes_the_accessibility_checks_of_axe(
    name: str, width: int, address: str, page: WatchedPage
) -> None:
    for dark in (False, True):
        page.look_like(width, 800, touch=width < 500, dark=dark)
        page.visit(f"{address}{name}.html")
        page.run(AXE.read_text(encoding="utf-8") + "; 0")
        violations = page.run(
            "axe.run().then(result => result.violations.map("
            "each => [each.id, each.nodes.map(node => node.html.slice(0, 200))]))"
        )
        assert violations == []
    page.look_like(1280, 800)
