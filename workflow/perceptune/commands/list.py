"""List the available plug-ins, with a one-line summary of each.

perceptune list
perceptune list method
"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.markup import escape

from perceptune.contracts.errors import UserError, near
from perceptune.contracts.plugins import names, summary

KINDS = ("method", "view", "reward", "benchmark", "importer", "exporter", "family")
"""Kinds of plug-ins, in the order they are printed."""


def lines_of(kind: str) -> list[str]:
    """A line per plug-in of a kind: name and summary, in aligned columns."""
    found = {name: summary(kind, name) for name in names(kind)}
    width = max(map(len, found), default=0)
    return [f"{name:<{width}}  {text}".rstrip() for name, text in found.items()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `perceptune list`."""
    parser.add_argument("kind", nargs="?", metavar="KIND", help=f"one of {', '.join(KINDS)}; default: all")


def run(options: argparse.Namespace) -> int:
    """Prints all plug-ins, or those of one kind. Raises `UserError` for an unknown kind."""
    if options.kind is not None and options.kind not in KINDS:
        allowed = ", ".join(f"`{kind}`" for kind in KINDS)
        raise UserError(f"kind `{options.kind}` does not exist, expected one of {allowed}", near(options.kind, KINDS))
    console = Console(highlight=False)
    for kind in KINDS if options.kind is None else (options.kind,):
        console.print(f"[bold]{kind}[/]")
        for line in lines_of(kind):
            console.print(f"  {escape(line)}", soft_wrap=True)
    return 0
