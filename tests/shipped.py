"""The configs of this repository, as Snakemake reads them."""

from pathlib import Path
from typing import Any

import yaml
from snakemake.utils import update_config

FOLDER = Path(__file__).parents[1] / "config"
CONFIGS = sorted(FOLDER.rglob("*.yaml"))
ABLATIONS = "-ablations"
"""End of the name of a file that adds to the paper's config."""


def raw_of(file: Path) -> dict[str, Any]:
    """The raw config of a file; ablations are merged into the config that they add to."""
    raw: dict[str, Any] = yaml.safe_load(file.read_text())
    if not file.stem.endswith(ABLATIONS):
        return raw
    whole: dict[str, Any] = yaml.safe_load(file.with_stem(file.stem.removesuffix(ABLATIONS)).read_text())
    update_config(whole, raw)
    return whole


def paper_with_ablations(paper: str) -> dict[str, Any]:
    """The raw config of a paper with its ablations, if it has a file of them."""
    more = FOLDER / f"papers/{paper}{ABLATIONS}.yaml"
    return raw_of(more if more.exists() else FOLDER / f"papers/{paper}.yaml")
