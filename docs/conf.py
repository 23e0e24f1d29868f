"""How Sphinx builds the site: `make docs`. Nothing is downloaded, and a warning is an error."""

import sys
from pathlib import Path

import convnextv2

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "convnextv2"
copyright = "the authors of convnextv2, Apache-2.0"
author = "the authors of convnextv2"
version = release = convnextv2.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference"]
exclude_patterns = ["_build", "_ext"]
smartquotes_action = "D"  # quotes stay what one types
highlight_language = "text"
nitpicky = True
# Names of other projects, whose documentation would have to be downloaded to be linked, and
# annotations that are not names.
# Classes of others, whose documentation would have to be downloaded to be linked.
nitpick_ignore_regex = [("py:class", r"(torch|numpy|PIL|pathlib|collections)\..*|Tensor")]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False

html_theme = "furo"
html_title = f"convnextv2 {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
