"""Sphinx configuration of the pages in this folder."""

project = "hpcproxy"
copyright = "2026, hpcproxy maintainers"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "A private way out for every Slurm job", "page_width": "60em"}
myst_heading_anchors = 3
nitpicky = True
