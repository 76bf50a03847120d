"""How Sphinx builds this documentation: `make docs`, without the network."""

import logging
from importlib.metadata import version as installed_version

project = "ebhpc"
author = "the ebhpc authors"
project_copyright = "the ebhpc authors, Apache License 2.0"
release = installed_version("ebhpc")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["build", "template-plugin"]
nitpicky = True
# Types of other projects in our signatures have no page here to point at.
nitpick_ignore_regex = [(r"py:.*", r"(?!ebhpc\.).*")]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"

html_theme = "furo"
html_title = f"ebhpc {release}"
html_show_sourcelink = False
html_copy_source = False


def _section_without_pages(record: logging.LogRecord) -> bool:
    """Let a section have no page beside its index yet; Sphinx gives this warning no name of its own."""
    return getattr(record, "subtype", None) != "empty_glob"


logging.getLogger("sphinx.sphinx.directives.other").addFilter(_section_without_pages)
