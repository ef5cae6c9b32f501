"""How Sphinx builds these pages: `make docs`, every warning an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "optselect"
author = "The optselect maintainers"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "optselect"
html_show_copyright = False
html_show_sphinx = False
# Headings can be linked to, as on GitHub: the links in the pages are the same for both.
myst_heading_anchors = 4
nitpicky = True
exclude_patterns = ["_build"]

_SIDEBAR = """

```{{toctree}}
:hidden:
:glob:
:caption: {caption}

{folder}/*
```
"""
_FOLDERS = {
    "tutorials": "Tutorial",
    "how-to": "How to",
    "reference": "Reference",
    "explanation": "Explanation",
    "decisions": "Decisions",
}


def _add_sidebar(_: Sphinx, page: str, source: list[str]) -> None:
    # Not in index.md itself, where GitHub would show the directives as code.
    if page == "index":
        source[0] += "".join(_SIDEBAR.format(folder=folder, caption=caption) for folder, caption in _FOLDERS.items())


def setup(app: Sphinx) -> None:
    """Set up the site; Sphinx calls this."""
    app.connect("source-read", _add_sidebar)
