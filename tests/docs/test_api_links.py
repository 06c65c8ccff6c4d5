"""Links from names: which code in a text names a public object, and which object."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import site

pytest.importorskip("furo", reason="comes with the extra docs")
pytest.importorskip("myst_parser", reason="comes with the extra docs")

api_links = site.extension("api_links")

OURS = {
    "nurseryio.open_nursery",
    "nurseryio.run",
    "nurseryio.Path",
    "nurseryio.Nursery.start_soon",
    "nurseryio.lowlevel.checkpoint",
    "nurseryio.from_thread.run",
    "nurseryio.socket.socket",
    "nurseryio.socket.getaddrinfo",
}
THEIRS = {"asyncio.run", "asyncio.CancelledError", "OSError", "open", "socket.AF_INET", "trio.run"}


def full_name(name: str, module: str | None = None, sure: bool = False) -> str | None:
    ours = dict.fromkeys(OURS, "here")
    found = api_links.find(name, ours, [dict.fromkeys(THEIRS, "there")], module, sure)
    return None if found is None else found[0]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("open_nursery", "open_nursery"),
        ("nurseryio.run(main, 1)", "nurseryio.run"),
        ("async with open_nursery() as nursery:", "open_nursery"),
        ("await checkpoint()", "checkpoint"),
        ("open_memory_channel[int](0)", "open_memory_channel"),
        ("except Cancelled:", "Cancelled"),
        ("a + b", None),
        ("run(a) or b", None),
        ("--loop", None),
        ("file.py x", None),
        ("", None),
    ],
)
def test_a_name_is_recognised_in_code(code: str, name: str | None) -> None:
    assert api_links.name_in(code) == name


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("open_nursery", "nurseryio.open_nursery"),
        ("nurseryio.open_nursery", "nurseryio.open_nursery"),
        ("lowlevel.checkpoint", "nurseryio.lowlevel.checkpoint"),
        ("checkpoint", "nurseryio.lowlevel.checkpoint"),
        ("Nursery.start_soon", "nurseryio.Nursery.start_soon"),
        ("nursery.start_soon", "nurseryio.Nursery.start_soon"),
        ("nurseryio.run", "nurseryio.run"),
        ("asyncio.run", "asyncio.run"),
        ("trio.run", "trio.run"),
        ("OSError", "OSError"),
        ("CancelledError", "asyncio.CancelledError"),
        ("nurseryio.socket.AF_INET", "socket.AF_INET"),
        ("stranger", None),
        ("nurseryio.stranger", None),
        # As often an argument or a word.
        ("run", None),
        ("Path", None),
        ("open", None),
        ("socket", None),
    ],
)
def test_a_name_stands_for_a_public_object_or_for_one_of_another_project(
    name: str, target: str | None
) -> None:
    assert full_name(name) == target


def test_a_name_in_the_reference_of_a_module_stands_for_its_own_object() -> None:
    assert full_name("run", module="nurseryio.from_thread") == "nurseryio.from_thread.run"
    assert full_name("socket", module="nurseryio.socket") == "nurseryio.socket.socket"


def test_a_name_in_a_role_or_signature_may_be_an_ambiguous_one() -> None:
    assert full_name("Path", sure=True) == "nurseryio.Path"


# -- in a build -----------------------------------------------------------------

CONF = """
import sys
sys.path.insert(0, {extensions!r})
import inventories
from pathlib import Path
extensions = ["myst_parser", "sphinx.ext.intersphinx", "api_links"]
intersphinx_mapping = inventories.mapping(Path({folder!r}))
nitpicky = True
html_theme = "furo"
"""

PAGE = """\
# Heading with `open_nursery`

`open_nursery` and `strange_name`, [a link `open_nursery`](other.md), `asyncio.gather`, `open()`.

```{eval-rst}
.. py:module:: nurseryio
.. py:function:: open_nursery()

   Makes a nursery. ``open_nursery`` here is itself, :func:`sleep` is not.

.. py:function:: sleep(seconds)

   Takes time. See ``open_nursery()``.

.. py:class:: Lock

   ``acquire()`` takes it.

   .. py:method:: acquire()

      Wait for it.
```
"""


def test_code_in_a_text_becomes_a_link_but_not_in_headings_links_and_its_own_entry(
    tmp_path: Path,
) -> None:
    conf = CONF.format(extensions=str(site.EXTENSIONS), folder=str(tmp_path / "inventories"))
    (tmp_path / "conf.py").write_text(conf, encoding="utf-8")
    (tmp_path / "index.md").write_text(PAGE, encoding="utf-8")
    (tmp_path / "other.md").write_text("---\norphan: true\n---\n\n# Other\n", encoding="utf-8")
    out = tmp_path / "out"
    assert site.sphinx(tmp_path, out) == ""
    page = site.read((out / "index.html").read_text(encoding="utf-8"))
    codes = [(code.text, code.link) for code in page.codes if not code.in_heading]
    assert codes == [
        ("open_nursery", "#nurseryio.open_nursery"),
        ("strange_name", None),
        ("open_nursery", "other.html"),
        ("asyncio.gather", "https://docs.python.org/3/library/asyncio-task.html#asyncio.gather"),
        ("open()", None),
        ("open_nursery", None),  # in its own entry
        ("sleep()", "#nurseryio.sleep"),
        ("open_nursery()", "#nurseryio.open_nursery"),
        ("acquire()", "#nurseryio.Lock.acquire"),
    ]
    assert next(code.link for code in page.codes if code.text == "open_nursery") is None
