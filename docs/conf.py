"""Sphinx configuration of the pages in this folder."""

project = "hpcproxy"
copyright = "2026, hpcproxy maintainers"
extensions = ["myst_parser", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "hpcproxy"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5d8a", "color-brand-content": "#0b5d8a"},
    "dark_css_variables": {"color-brand-primary": "#7cc4ec", "color-brand-content": "#7cc4ec"},
}
# What is copied is what is typed: no prompt, and no line of output.
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
myst_heading_anchors = 3
# What a program prints is no Python, which is what a block without a name would be taken for.
highlight_language = "text"
nitpicky = True
