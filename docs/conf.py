"""Sphinx's settings. Build with ``make docs``; a warning fails the build."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "nurseryio"
author = "the nurseryio contributors"
copyright = f"2026, {author}"
version = release = version_of("nurseryio")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
# Aliases and defaults appear as they were written, not as what they evaluate to.
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
# Attributes that a class docstring lists may be properties with a docstring of their own as well.
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"nurseryio {release}"
