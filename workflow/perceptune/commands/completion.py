"""What the shell completes: names of plug-ins and policies. Imports nothing slow.

Mistakes in a config must not print anything here, so names are only those that can be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import typer

from perceptune.commands.kinds import KINDS
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import names, summary, use_folders

DEMO = Path("config/config.yaml")
"""The config that Snakemake uses without `--configfile`."""


def kinds(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Kinds of plug-ins, with the config key that names one."""
    return [(kind, key) for kind, key in KINDS.items() if kind.startswith(incomplete)]


def plugins(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Kinds, then names of plug-ins: of the kind that is already there, or of all kinds."""
    given = context.params.get("words") or []
    configs = _configs(context)
    try:
        use_folders([folder for config in configs for folder in config.get("plugins", ())])
    except (UserError, TypeError):
        return []
    chosen = [given[0]] if given and given[0] in KINDS else [*KINDS]
    found = {name: summary(kind, name) for kind in chosen for name in names(kind) if name.startswith(incomplete)}
    return [*([] if given else kinds(context, incomplete)), *sorted(found.items())]


def policies(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Models and experiments of the config, and everything with an adapter."""
    found = dict.fromkeys(_trained(Path(context.params.get("directory") or ".")), "trained")
    for config in _configs(context) or _read([DEMO]):
        for section, what in (("experiments", "experiment"), ("models", "base model")):
            block = config.get(section)
            found |= (
                dict.fromkeys(filter(lambda name: isinstance(name, str), block), what)
                if isinstance(block, dict)
                else {}
            )
    return [(name, what) for name, what in sorted(found.items()) if name.startswith(incomplete)]


def measured(context: typer.Context, incomplete: str) -> list[str]:
    """Policies with metrics in the folder of the run."""
    files = (Path(context.params.get("folder") or ".") / "results/metrics").glob("*.parquet")
    return sorted(file.stem for file in files if file.stem.startswith(incomplete))


def controls(context: typer.Context, incomplete: str) -> list[str]:
    """Names of controls."""
    return [name for name in ("prompt", "blank", "mean_of_n", "sft_on_best") if name.startswith(incomplete)]


def importers(context: typer.Context, incomplete: str) -> list[str]:
    """Names of data formats."""
    return [name for name in names("importer") if name.startswith(incomplete)]


def tasks(context: typer.Context, incomplete: str) -> list[str]:
    """Names of tasks."""
    from perceptune.contracts.config import Task

    return [name for name in get_args(Task) if name.startswith(incomplete)]


def _trained(directory: Path) -> Iterator[str]:
    for file in directory.glob("results/adapters/*/adapter_config.json"):
        yield file.parent.name


def _configs(context: typer.Context) -> list[dict[str, Any]]:
    """The config files on the command line."""
    return _read([Path(file) for file in context.params.get("config") or ()])


def _read(files: list[Path]) -> list[dict[str, Any]]:
    import yaml

    found = []
    for file in files:
        try:
            content = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        found += [content] if isinstance(content, dict) else []
    return found
