"""Preflight check of files: reports all missing ones at once, where Snakemake would stop at the first,
and those dated in the future."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from perceptune.contracts.config import Config, ShapesDataset
from perceptune.contracts.files import future_date

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
        block = config.datasets[name]
        if isinstance(block, ShapesDataset):
            continue
        if not Path(block.path).exists():
            yield f"datasets.{name}.path: `{block.path}`{_similar(block.path)}"
        if block.images and not Path(block.images).is_dir():
            yield f"datasets.{name}.images: `{block.images}`{_similar(block.images)}"
    for name in config.used_benchmarks():
        benchmark = config.benchmarks[name]
        if benchmark.judge_prompt and not Path(benchmark.judge_prompt).is_file():
            yield f"benchmarks.{name}.judge_prompt: `{benchmark.judge_prompt}`{_similar(benchmark.judge_prompt)}"
    for name, comparison in config.comparisons.items():
        if comparison.prompt and not Path(comparison.prompt).is_file():
            yield f"comparisons.{name}.prompt: `{comparison.prompt}`{_similar(comparison.prompt)}"
    for name, agreement in config.agreements.items():
        if agreement.labels and not Path(agreement.labels).is_file():
            yield f"agreements.{name}.labels: `{agreement.labels}`{_similar(agreement.labels)}"


def _similar(path: str) -> str:
    """`; did you mean ...?` with the most similar path that exists; empty without one."""
    missing, rest = Path(path), Path()
    while not missing.parent.exists():
        missing, rest = missing.parent, missing.name / rest
    try:
        beside = [entry.name for entry in islice(missing.parent.iterdir(), MOST_COMPARED)]
    except OSError:  # a file, or a folder that cannot be listed
        return ""
    for name in get_close_matches(missing.name, beside):
        if (missing.parent / name / rest).exists():
            return f"; did you mean `{missing.parent / name / rest}`?"
    return ""


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
            if not (Path(block.path) / "config.json").exists():
                yield f"{section}.{name}.path: `{block.path}`{_similar(block.path)}"
    for name, reward in config.rewards.items():
        if reward.resources and not Path(reward.resources).is_dir():
            yield f"rewards.{name}.resources: `{reward.resources}`{_similar(reward.resources)}"


def _keys(config: Config, environment: Mapping[str, str]) -> Iterator[str]:
    for name in config.used_judges():
        judge = config.judges[name]
        if judge.key and not environment.get(judge.key):
            yield f"judges.{name}.key: `{judge.key}` in the environment"
