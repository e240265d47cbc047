"""Sphinx configuration. The build needs no network, and neither do the pages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import eplb_np

project = "eplb_np"
author = "The eplb_np developers"
copyright = "2026, the eplb_np developers"
version = release = eplb_np.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "studies"]

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say types and shapes
autosummary_generate = False
numpydoc_show_class_members = False
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "  # what is copied can be pasted
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = "eplb_np"
html_show_sourcelink = False
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["quiet.js", ("site.js", {"defer": "defer"})]
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
templates_path = ["_templates"]
html_theme_options = {
    "logo": {"text": f"eplb_np {version}"},
    "navbar_align": "left",
    "navbar_center": ["bar.html"],
    "navigation_with_keys": False,
    "show_prev_next": True,
    "show_toc_level": 2,
}
html_sidebars = {"**": ["pages.html"]}

# What `make dashboard` has published goes along, and dashboard.md links it.
DASHBOARD = Path(__file__).parents[1] / "asv_benchmarks" / "html"
if (DASHBOARD / "dashboard.js").exists():
    tags.add("dashboard")  # noqa: F821 - Sphinx defines it


def take_dashboard_along(app: Any, exception: Exception | None) -> None:
    """Put the dashboard beside the pages, its title leading back to them."""
    if exception is not None or app.builder.format != "html":
        return
    copy = Path(app.outdir) / "benchmarks"
    shutil.rmtree(copy, ignore_errors=True)
    if app.tags.has("dashboard"):
        shutil.copytree(DASHBOARD, copy)
        index = copy / "index.json.js"
        nowhere, here = '"project_url":"#"', '"project_url":"../dashboard.html"'
        index.write_text(index.read_text(encoding="utf-8").replace(nowhere, here), encoding="utf-8")


def setup(app: Any) -> None:
    """Connect the above."""
    app.connect("build-finished", take_dashboard_along)
