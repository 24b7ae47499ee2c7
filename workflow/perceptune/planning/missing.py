"""Preflight check of files: reports all missing ones at once, where Snakemake would stop at the first,
and those dated in the future."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from perceptune.contracts.config import Config, ShapesDataset
from perceptune.contracts.errors import SHOWN, UserError
from perceptune.contracts.files import future_date
from perceptune.planning.origin import where_bundled

SECTION = re.compile(rb"^(models|experiments|datasets)\s*:", re.MULTILINE)
"""A section that most configs have."""
MOST_COMPARED = 1000
"""Number of names in a folder that a missing one is compared with: image folders have very many."""


def missing(config: Config, environment: Mapping[str, str] = os.environ) -> list[str]:
    """A line `<config key>: <what is missing>` per missing file, folder or API key.

    Covers only datasets, models and benchmarks that an experiment uses.
    """
    return [*_files(config), *_folders(config), *_keys(config, environment)]


def from_the_future(config: Config) -> Iterator[str]:
    """A line per dataset in use whose file is dated in the future: its import will stop."""
    for name in config.used_datasets():
        block = config.datasets[name]
        if not isinstance(block, ShapesDataset) and (date := future_date(Path(block.path))):
            yield f"key `datasets.{name}.path`: `{block.path}` is dated in the future ({date}); `touch` it before its import"


def _files(config: Config) -> Iterator[str]:
    for name in config.used_datasets():
        yield from missing_data(name, config)
    for name in config.used_benchmarks():
        benchmark = config.benchmarks[name]
        if benchmark.judge_prompt and not Path(benchmark.judge_prompt).is_file():
            yield f"benchmarks.{name}.judge_prompt: {_lost(benchmark.judge_prompt)}"
    for name, comparison in config.comparisons.items():
        if comparison.prompt and not Path(comparison.prompt).is_file():
            yield f"comparisons.{name}.prompt: {_lost(comparison.prompt)}"
    for name, agreement in config.agreements.items():
        if agreement.labels and not Path(agreement.labels).is_file():
            yield f"agreements.{name}.labels: {_lost(agreement.labels)}"


def missing_data(name: str, config: Config) -> Iterator[str]:
    """The same for the files of one dataset."""
    block = config.datasets[name]
    if isinstance(block, ShapesDataset):
        return
    if not Path(block.path).exists():
        yield f"datasets.{name}.path: {_lost_data(block.path)}"
    if block.images and not Path(block.images).is_dir():
        yield f"datasets.{name}.images: {_lost_data(block.images)}"


def _lost(path: str) -> str:
    return f"`{path}` does not exist{similar(path)}"


def _lost_data(path: str) -> str:
    """The same, and what the path is relative to if nothing similar exists."""
    lost = _lost(path)
    if Path(path).is_absolute() or lost.endswith("?"):
        return lost
    return f"{lost} (paths are relative to the working directory)"


def similar(path: str) -> str:
    """`; did you mean ...?` with the most similar path that exists; empty without one."""
    missing, rest = Path(path), Path()
    try:
        while not missing.parent.exists():
            missing, rest = missing.parent, missing.name / rest
        beside = [entry.name for entry in islice(missing.parent.iterdir(), MOST_COMPARED)]
    except OSError:  # a file, or a folder that cannot be listed
        return ""
    for name in get_close_matches(missing.name, beside):
        if (missing.parent / name / rest).exists():
            return f"; did you mean `{missing.parent / name / rest}`?"
    return ""


def check_default(file: Path, option: str) -> None:
    """Raises `UserError` if the config that is read by default does not exist: `option` names another."""
    if file.is_file():
        return
    beside = configs_in(file.parents[1])
    if len(beside) == 1:
        instead = f"; did you mean `{beside[0]}`? (`{option} {beside[0]}`)"
    else:
        found = f"; found {', '.join(f'`{one}`' for one in beside[:SHOWN])}" if beside else ""
        instead = f"{found}; `{option} FILE` names another"
    raise UserError(f"config file `{file}` does not exist{instead}")


def configs_in(folder: Path) -> list[Path]:
    """The YAML files in a folder that look like configs, sorted."""
    try:
        names = [entry.name for entry in islice(folder.iterdir(), MOST_COMPARED)]
        files = [folder / name for name in sorted(names) if name.endswith((".yaml", ".yml"))]
        return [file for file in files if file.is_file() and SECTION.search(file.read_bytes())]
    except OSError:
        return []


def _folders(config: Config) -> Iterator[str]:
    """Model folders and language resources."""
    judging = {judge.model for judge in config.judges.values() if judge.url is None}
    used = {experiment.model for experiment in config.experiments.values()} | judging
    for section, blocks in (
        ("models", {name: block for name, block in config.models.items() if name in used}),
        ("clip_scores", config.clip_scores),
        ("saliency_maps", config.saliency_maps),
    ):
        for name, block in blocks.items():
            if not Path(block.path).is_dir():
                bundled = where_bundled(block.path)
                lost = f"`{block.path}` does not exist; {bundled}" if bundled else _lost(block.path)
                yield f"{section}.{name}.path: {lost}"
            elif not (Path(block.path) / "config.json").exists():
                expected = "expected a folder in Hugging Face format"
                yield f"{section}.{name}.path: `{block.path}` has no `config.json`, {expected}"
    for name, reward in config.rewards.items():
        if reward.resources and not Path(reward.resources).is_dir():
            yield f"rewards.{name}.resources: {_lost(reward.resources)}"


def _keys(config: Config, environment: Mapping[str, str]) -> Iterator[str]:
    for name in config.used_judges():
        judge = config.judges[name]
        if judge.key and not environment.get(judge.key):
            yield f"judges.{name}.key: `{judge.key}` is not set in the environment"
