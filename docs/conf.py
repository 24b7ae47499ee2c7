"""Settings of the documentation site, which `make docs` builds.

The source folder is the root of the repository, so that links between Markdown files are the same
on the site and on GitHub. Builds read nothing from the network.
"""

import importlib.metadata
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent / "site"), str(ROOT / "workflow")]

project = "perceptune"
author = "The perceptune developers"
copyright = f"2026, {author}"
release = importlib.metadata.version("perceptune")

extensions = ["myst_parser", "sphinx_copybutton", "generated"]
root_doc = "docs/index"
PAGES = ["docs", "config", "benchmarks", "resources", "CONTRIBUTING.md", "CHANGELOG.md"]
include_patterns = ["docs/**.md", "config/README.md", "benchmarks/README.md", "resources/*/README.md", *PAGES[4:]]
# keeps Sphinx from searching models, data and results, which can be large
exclude_patterns = ["docs/_build", "resources/*/model", *(p.name for p in ROOT.iterdir() if p.name not in PAGES)]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4  # the same anchors as on GitHub
smartquotes = False  # they change formulas and options
highlight_language = "text"  # of blocks that name none

html_theme = "furo"
html_title = "perceptune"
html_static_path = ["site/static"]
html_css_files = ["site.css"]
html_extra_path = ["site/redirect"]
html_copy_source = False
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"
