"""Sphinx's settings for the site: see __main__.py for the command that makes it."""

import importlib.util
from pathlib import Path

MATHJAX = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static/mathjax"
ONE_FILE = "tex-svg-full.js"  # all of MathJax that the course needs, without fonts

project = html_title = "KV Cache from Scratch"
language = "en"
extensions = ["myst_nb", "sphinx.ext.mathjax", "authoring.site.pages"]

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
mathjax_path = ONE_FILE
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"scale": 0.9}}

highlight_language = "none"  # of a fence that names none
exclude_patterns = ["grading/*.md"]  # what goes into a hand-out

html_theme = "sphinx_book_theme"
html_static_path = ["static", str(MATHJAX / ONE_FILE)]
html_css_files = ["course.css", "sheet.css"]
html_js_files = ["course.js"]
templates_path = ["templates"]
html_copy_source = False
html_show_search_summary = False  # it fetches pages, which a browser does not allow for files
html_theme_options = {
    "search_bar_text": "Search the course",
    "navbar_persistent": [],
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "footer_content_items": [],
    "primary_sidebar_end": [],
    "footer_start": [],
    "footer_end": [],
    "navigation_with_keys": False,
}
html_context = {"default_mode": "auto"}
html_use_index = False
