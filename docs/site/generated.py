"""Directives that fill pages from declarations, and the names of links between pages.

Plug-ins and the command line are shown as `perceptune describe` and `perceptune COMMAND --help` do.
"""

from __future__ import annotations

import re
from pathlib import Path

import typer
from docutils import nodes
from perceptune.__main__ import app as commands
from perceptune.commands import describe
from perceptune.contracts.plugins import load, names
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.cli import get_docs_for_click

ROOT = Path(__file__).parents[2]
CODE = {
    "in a config": "yaml",
    "official settings": "yaml",
    **dict.fromkeys(("layers", "markup"), "text"),
}
"""First words of headings whose lines are code, with its language."""


class Plugins(SphinxDirective):
    """All plug-ins of the kind that is its argument, each under a heading."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # the declarations may have changed since the last build
        kind = self.arguments[0]
        text = "\n\n".join(plugin_text(kind, name) for name in names(kind))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class CommandLine(SphinxDirective):
    """All commands with their arguments and options."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        return self.parse_text_to_nodes(command_text(), allow_section_headings=True)


def plugin_text(kind: str, name: str) -> str:
    """Markdown of everything that a plug-in declares."""
    facts = describe.facts(kind, load(kind, name))
    definitions = [f"{heading}\n: {fact_text(heading, lines)}" for heading, lines in facts]
    return "\n\n".join([f"## `{name}`", describe.documentation(kind, name), *definitions])


def fact_text(heading: str, lines: list[str]) -> str:
    """Markdown of the lines under a heading, as the body of a definition."""
    if heading == "file":
        lines = [f"`{Path(lines[0]).relative_to(ROOT)}`"]
    elif heading == "parameters" and len(lines) > 1:
        pairs = zip(lines[::2], lines[1::2], strict=True)
        lines = [f"* **`{head.replace(':', '`**:', 1)}. {meaning.strip()}" for head, meaning in pairs]
    elif language := next((CODE[first] for first in CODE if heading.startswith(first)), ""):
        lines = [f"```{language}", *lines, "```"]
    elif heading.startswith(("metrics", "columns")):
        lines = [re.sub(r"^(\S+) +", r"* `\1`: ", line) for line in lines]
    elif len(lines) > 1 and heading != "usage":
        lines = [f"* {line}" for line in lines]
    return "\n  ".join(lines)


def command_text() -> str:
    """Markdown of what `--help` prints for every command."""
    group = typer.main.get_command(commands)
    text = get_docs_for_click(obj=group, ctx=typer.Context(group), name="perceptune")
    _, heading, sections = text.partition("## ")
    return re.sub(r"\x08\n((?:perceptune .*\n)+)", r"```sh\n\1```\n", heading + sections)


def name_links(app: Sphinx, doctree: nodes.document) -> None:
    """Lets links whose text is the name of a Markdown file show the title of the page or section."""
    for link in doctree.findall(addnodes.pending_xref):
        if link.get("refdomain") == "doc" and link.astext().endswith(".md"):
            link["refexplicit"] = False
            link.children[0].children.clear()


def fill_sidebar(app: Sphinx, docname: str, source: list[str]) -> None:
    """Lists in the sidebar the pages that the index links to, under the headings of its sections.

    Other pages of the folder docs come after the how-to guides.
    """
    if docname != app.config.root_doc:
        return
    first, *rest = re.split(r"^## (.+)$", source[0], flags=re.MULTILINE)
    sections = {"Start": first, **dict(zip(rest[::2], rest[1::2], strict=True))}
    linked = {name: re.findall(r"\]\(([^)#:]+)\.md\)", text) for name, text in sections.items()}
    known = {"index", *(page for pages in linked.values() for page in pages)}
    linked["How-to guides"] += sorted({page.stem for page in (ROOT / "docs").glob("*.md")} - known)
    seen: set[str] = set()
    for name, pages in linked.items():
        new = [page for page in dict.fromkeys(pages) if page not in seen]
        seen.update(new)
        source[0] += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {name}", "", *new, "```", ""])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", name_links)
    app.connect("source-read", fill_sidebar)
    app.connect("env-get-outdated", lambda app, *_: [app.config.root_doc])  # there may be new pages
    app.add_directive("plugins", Plugins)
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
