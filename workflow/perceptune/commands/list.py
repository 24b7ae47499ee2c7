"""Lists the available plug-ins, with a one-line summary of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from perceptune.commands.config_files import use_plugins
from perceptune.commands.kinds import KINDS, check_kind
from perceptune.contracts.plugins import names, summary


def lines_of(kind: str) -> list[str]:
    """A line per plug-in of a kind: name and summary, in aligned columns."""
    found = {name: summary(kind, name) for name in names(kind)}
    width = max(map(len, found), default=0)
    return [f"{name:<{width}}  {text}".rstrip() for name, text in found.items()]


def run(kind: str | None, configs: Sequence[Path]) -> None:
    """Prints all plug-ins, or those of one kind, including those of the configs' folders. Raises
    `UserError` for an unknown kind or an invalid folder."""
    if kind is not None:
        check_kind(kind)
    use_plugins(configs)
    console = Console(highlight=False)
    for one in KINDS if kind is None else (kind,):
        console.print(f"[bold]{one}[/]  [dim]{escape(KINDS[one])}[/]")
        for line in lines_of(one):
            console.print(f"  {escape(line)}", soft_wrap=True)
