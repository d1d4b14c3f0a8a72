"""The documentation as a site: ``pip install -e ".[docs]" && sphinx-build -W docs build/docs``."""

import re
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import gramgan_plugin  # noqa: F401  # sets the hooks that make `import basicsr` work

project = "gramgan-plugin"
author = copyright = "The gramgan-plugin developers"
version = release = installed("gramgan-plugin")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx_copybutton"]
exclude_patterns = ["logs"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # the notebook is shown with the output that it was committed with; tests execute it
suppress_warnings = ["myst.header", "misc.highlighting_failure"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True}
autodoc_inherit_docstrings = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"gramgan-plugin {version}"
html_static_path = ["static"]
html_css_files = ["wide.css"]

# Texts that stand elsewhere in the repository, and their pages; docs/ itself is read on the web without this site, too.
ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "datasets_prep/README.md": "datasets_prep",
    "gramgan_plugin/checkpoints/shipped/4x-RRDB-Lite.md": "4x-RRDB-Lite",
    "gramgan_plugin/checkpoints/shipped/4x-GramGAN-Lite.md": "4x-GramGAN-Lite",
}


def fill_in(app: Any, name: str, source: list[str]) -> None:
    """Put a text from elsewhere where a page has ``<!-- FILE -->``, and let links lead to pages."""
    for file, page in PAGES.items():
        source[0] = source[0].replace(f"<!-- {file} -->", (ROOT / file).read_text(encoding="utf-8"))
        source[0] = re.sub(rf"\]\((\.\./)*{re.escape(file)}", f"]({page}.md", source[0])
    source[0] = re.sub(r"\]\((\.\./)*docs/", "](", source[0])


def setup(app: Any) -> None:
    """Add the step to Sphinx."""
    app.connect("source-read", fill_in)
