"""Sphinx configuration. The build needs no network, and neither do the pages."""

from __future__ import annotations

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
]
exclude_patterns = ["_build", "studies"]

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say types and shapes
autosummary_generate = False
numpydoc_show_class_members = False
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = "eplb_np"
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "eplb_np"},
    "header_links_before_dropdown": 8,
    "navbar_align": "left",
    "navigation_with_keys": False,
    "show_prev_next": False,
    "show_toc_level": 2,
}
html_sidebars = {"**": []}
