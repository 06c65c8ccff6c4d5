"""Sphinx's settings. Build with ``make docs``; a warning fails the build."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).with_name("_ext")))

import inventories
import trio_names

project = "nurseryio"
author = "the nurseryio contributors"
copyright = f"2026, {author}"
version = release = version_of("nurseryio")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx"]
# In _ext: docstrings and signatures; links from code to the reference.
extensions += ["api_reference", "api_links"]
exclude_patterns = ["_build", "_ext", "_pictures"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
# Aliases and defaults appear as they were written, not as what they evaluate to.
autodoc_preserve_defaults = True
autodoc_default_options = {
    "members": True,
    # All members but those of these classes, which are Python's and the engine's.
    "inherited-members": "object,BaseException,Enum,Node,tuple,PurePath,TestCase,Protocol",
}
toc_object_entries_show_parents = "hide"

intersphinx_mapping = inventories.mapping(Path(__file__).with_name("_build") / "inventories")
intersphinx_disabled_reftypes = ["std:*"]

# A name without a target is an error. These have none:
nitpicky = True
nitpick_ignore_regex = [
    # Type variables.
    ("py:class", r"(nurseryio\._.*\.)?([FPRT]|\w+T(_co|_contra)?|(Receive|Send)Type|T_resource)"),
    # The standard library has, but does not document, these two.
    ("py:class", r"(socket\.)?(AddressFamily|SocketKind)"),
    # Types of arguments and results that the functions describe.
    ("py:class", r"(nurseryio\._system\.files\.)?Opening|GenericPath|File"),
    # The documentation of pyOpenSSL is not among the inventories.
    ("py:class", r"SSL\.Context"),
]

html_theme = "furo"
html_title = f"nurseryio {release}"

# The directive for pictures, in _ext.
extensions.append("picture_directive")

# Run buttons, the playground and the words of the search, in _ext; corrections of the theme.
extensions += ["run_in_page", "search_words"]
exclude_patterns.append("_static")
html_static_path = ["_static"]
html_search_scorer = str(Path(__file__).with_name("_ext") / "search_scorer.js")
html_favicon = "_static/icon.svg"
html_css_files = ["site.css"]
html_js_files = [("site.mjs", {"type": "module"})]


def setup(app: Any) -> None:
    """Have the page of Trio's names filled in, each time, as it depends on the code."""
    page = "trio-names"
    # Here, before autodoc changes the signatures of what it looks at.
    lists = trio_names.render(trio_names.compare())

    def fill(_app: Any, name: str, source: list[str]) -> None:
        if name == page:
            source[0] = source[0].replace(trio_names.MARK, lists)

    app.connect("source-read", fill)
    app.connect("env-get-outdated", lambda *_: [page])
