"""The directive ``picture``: one of the files of ``docs/pictures``, in light and in dark.

The argument is the name of the picture, the content is its text alternative. The theme shows the
version that fits its colours, and hides the other one from screen readers too.
"""

from __future__ import annotations

from typing import Any, ClassVar

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class Picture(SphinxDirective):
    """``.. picture:: name`` with the text alternative as content."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Return an image for each palette."""
        self.assert_has_content()
        name, alternative = self.arguments[0], " ".join(self.content)
        return [
            nodes.image(
                uri=f"/pictures/{name}-{palette}.svg",
                alt=alternative,
                classes=["picture", f"only-{palette}"],
            )
            for palette in ("light", "dark")
        ]


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
