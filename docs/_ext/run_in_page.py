"""A *Run* button below the programs of the documentation, where Pyodide can run them.

A ``python`` block has a button if ``page_bundle.lacking`` finds nothing that a page lacks, and no
comment ``<!-- no-run: ... -->``, ``<!-- no-page: ... -->`` or ``<!-- cell -->`` stands before it. A
``literalinclude`` has one if ``<!-- page-run: CODE -->`` stands before it. The button runs the
whole file, with the shown part as the reader has changed it, and then CODE.

The directive ``playground`` is the place for a program with its task tree. It offers the programs
of its page. The tag ``run_in_page`` is set for text that only pages with buttons should have.

Without the npm package the pages are as they would be without this extension.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import page_bundle
from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

COMMENT = re.compile(r"<!-- ([\w-]+)(?:: (.*))? -->")
WITHOUT = ("no-run", "no-page", "cell")

BAR = """\
<div class="run-bar">
<button type="button" class="run-start" disabled>Run</button>
<button type="button" class="run-edit" disabled>Edit</button>
<button type="button" class="run-reset" hidden>Reset</button>
<span class="run-status" role="status"></span>
</div>
<div class="run-output" role="log" aria-label="Output" tabindex="0" hidden></div>
"""

PLAYGROUND = """\
<div class="playground">
<p class="playground-choice"><label>Program <select class="playground-select" disabled></select>
</label></p>
<div class="runnable playground-code" data-file="program.py" data-label="Program">
<div class="highlight-python notranslate"><div class="highlight"><pre></pre></div></div>
<div class="run-bar">
<button type="button" class="run-start" disabled>Run</button>
<button type="button" class="run-reset" hidden>Reset</button>
<span class="run-status" role="status"></span>
</div>
</div>
<div class="playground-side">
<div class="run-tree" role="region" aria-label="Task tree" tabindex="0"></div>
<div class="run-output" role="log" aria-label="Output" tabindex="0"></div>
</div>
</div>
"""


class runnable(nodes.General, nodes.Element):
    """A code block with the elements to run it."""


class playground(nodes.General, nodes.Element):
    """The place of the playground."""


def visit_runnable(self: Any, node: runnable) -> None:
    data = "".join(f' data-{name}="{html.escape(text)}"' for name, text in node["data"].items())
    self.body.append(f'<div class="runnable"{data}>\n')


def depart_runnable(self: Any, node: runnable) -> None:
    self.body.append(f"{BAR}</div>\n")


def visit_playground(self: Any, node: playground) -> None:
    if self.builder.app.tags.has("run_in_page"):
        self.body.append(PLAYGROUND)
    raise nodes.SkipNode


def skip(self: Any, node: nodes.Element) -> None:
    raise nodes.SkipNode


class Playground(SphinxDirective):
    """The place of the playground."""

    def run(self) -> list[nodes.Node]:
        return [playground()]


def comment_before(node: nodes.Element) -> tuple[str, str]:
    """The name and the text of the comment that stands before a block; empty if none does."""
    parent: Any = node.parent
    index = parent.index(node)
    before = parent[index - 1] if index else None
    found = COMMENT.match(before.astext().strip()) if isinstance(before, nodes.raw) else None
    return (found[1], found[2] or "") if found else ("", "")


def data_of(block: nodes.literal_block) -> dict[str, str] | None:
    """The data that a page needs to run a block; None if the block has no button."""
    comment, value = comment_before(block)
    text = block.astext()
    source = Path(str(block.get("source", "")))
    if comment == "page-run" and source.suffix == ".py":
        whole = source.read_text(encoding="utf-8")
        before, shown, after = whole.partition(text.rstrip("\n"))
        if not shown:
            raise ValueError(f"{source} does not have the text that is shown of it")
        return {"file": source.name, "before": before, "after": after, "call": value}
    if block.get("language") != "python" or comment in WITHOUT:
        return None
    try:
        reason = page_bundle.lacking(text)
    except SyntaxError:  # this Python is older than the page's
        return None
    return None if reason else {"file": "program.py"}


def add_buttons(app: Any, doctree: nodes.document, _name: str) -> None:
    for block in list(doctree.findall(nodes.literal_block)):
        data = data_of(block)
        if data is not None:
            wrapper = runnable(data=data)
            block.replace_self(wrapper)
            wrapper += block


def add_files(app: Any, _name: str, _template: str, _context: Any, doctree: Any) -> None:
    kinds = (runnable, playground)
    if doctree is not None and any(doctree.findall(lambda node: isinstance(node, kinds))):
        app.add_css_file("run/run.css")
        app.add_js_file("run/run.mjs", type="module")


def write_files(app: Any, failed: BaseException | None) -> None:
    if failed is None:
        page_bundle.write_bundle(Path(app.outdir) / "_static" / "run")


def look_for_pyodide(app: Any, config: Any) -> None:
    """Note whether Pyodide is here. If that has changed, all pages are written again."""
    config.run_in_page_without = page_bundle.why_not()


def connect(app: Any) -> None:
    if app.builder.format != "html":
        return
    if app.config.run_in_page_without:
        logger.info("The pages have no Run buttons: this %s", app.config.run_in_page_without)
        return
    app.tags.add("run_in_page")
    app.connect("doctree-resolved", add_buttons)
    app.connect("html-page-context", add_files)
    app.connect("build-finished", write_files)


def setup(app: Any) -> dict[str, bool]:
    ways = {"html": (visit_runnable, depart_runnable)}
    app.add_node(runnable, **ways)
    others = dict.fromkeys(("latex", "text", "man", "texinfo"), (skip, None))
    app.add_node(playground, html=(visit_playground, None), **others)
    app.add_directive("playground", Playground)
    app.add_config_value("run_in_page_without", "", "html")
    app.connect("config-inited", look_for_pyodide)
    app.connect("builder-inited", connect)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
