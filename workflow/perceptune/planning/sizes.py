"""Sizes of models, adapters, tables and data, for `planning.resources`. Reads headers and footers only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from perceptune.contracts.config import ClipBlock, FileDataset, ModelBlock, PairingBlock, SaliencyBlock, ShapesDataset
from perceptune.contracts.files import IMAGE_SUFFIXES
from perceptune.contracts.plugins import load
from perceptune.planning.model_folders import adapter_parameters, tensors
from perceptune.planning.policies import Plan
from perceptune.planning.questions import asked
from perceptune.planning.resources import FLOAT, UNKNOWN_TABLE, UNKNOWN_WEIGHTS, Table, Weights
from perceptune.planning.views import request_block

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of a number, by dtype."""
PROMPT = 2048
"""Tokens of a prompt with its images, an assumption; at most the model's length."""
ANSWER = 1024
"""Tokens of a response that a dataset comes with, an assumption."""
WITH_IMAGES, WITH_LINES = (".parquet", ".arrow", ".tsv"), (".json", ".jsonl", ".csv")
"""Suffixes of data files that can hold images, and of those that name them."""
SPLITS = "dataset_dict.json"
"""File of a folder that `datasets.save_to_disk` writes with a folder for each split."""


def weights_of(plan: Plan, block: ModelBlock | ClipBlock | SaliencyBlock) -> Weights:
    """The sizes of a model folder."""
    width = BYTES[block.dtype] if isinstance(block, ModelBlock) else FLOAT
    return plan.remembered(f"weights {block.path} {width}", lambda: folder_weights(Path(block.path), width))


def folder_weights(folder: Path, width: int) -> Weights:
    """The sizes of a model folder whose numbers take `width` bytes when they are computed with."""
    stored = tensors(folder).values()
    if not stored:
        return UNKNOWN_WEIGHTS
    parameters = sum(one.count for one in stored)
    return Weights(parameters, width * parameters, sum(one.bytes for one in stored))


def policy_weights(plan: Plan, policy: str) -> Weights:
    """The sizes of a policy's base model."""
    return weights_of(plan, plan.config.models[plan.base(policy)])


def adapter_count(plan: Plan, policy: str) -> int:
    """The number of parameters of a policy's adapter; 0 for a base model."""
    if plan.experiment(policy) is None:
        return 0
    model, lora = plan.config.models[plan.base(policy)], plan.training(policy).lora
    return plan.remembered(f"adapter {model.path} {model.family} {lora!r}", lambda: adapter_parameters(model, lora))


def prompt_tokens(plan: Plan, policy: str) -> int:
    """Tokens of a prompt."""
    return min(plan.config.models[plan.base(policy)].max_model_len, PROMPT)


def answer_tokens(plan: Plan, policy: str, plan_name: str) -> float:
    """The most tokens of all answers to a request, on average over the ways of asking."""
    blocks = [[turn.answers * turn.max_tokens for turn in one.turns] for one in asked(plan, policy, plan_name)]
    return max((sum(tokens) / len(tokens) for tokens in blocks if tokens), default=0)


def group_tokens(plan: Plan, policy: str, source: str, views: int) -> int:
    """The most tokens of a group to learn from, under `views` views: a prompt and all its responses.

    The prompt counts once per response if only a probe finds out whether responses can share it.
    `source` is a sampling, a rollout, a pair generation or a dataset preference.
    """
    if source in plan.config.dataset_preferences:
        lengths = [ANSWER] * 2
    elif isinstance(block := request_block(plan, source), PairingBlock):
        pairs = [pair for pair in (block.focus, block.robust) if pair]
        lengths = [answer.max_tokens for pair in pairs for answer in (pair.chosen, pair.rejected)]
    else:
        lengths = [block.max_tokens] * block.n
    prompts = len(lengths) if plan.probe(policy) else 1
    return views * (prompts * prompt_tokens(plan, policy) + sum(lengths))


def embedded_bytes(block: FileDataset) -> int:
    """Bytes of the data files that can hold images."""
    return _bytes(file for file in _data_files(block) if file.suffix in WITH_IMAGES)


def import_size(plan: Plan, dataset: str) -> tuple[int, int]:
    """Bytes of a dataset's files that can hold images, and the number of images that the others name,
    estimated from their size."""
    block = plan.config.datasets[dataset]
    if isinstance(block, ShapesDataset):
        return 0, sum(n for tasks in (block.train, block.validation, block.test) for n in tasks.values())

    def size() -> tuple[int, int]:
        importer = load("importer", block.kind)
        if importer.holds_images and Path(block.path).is_dir():
            return 0, sum(file.lower().endswith(IMAGE_SUFFIXES) for *_, files in os.walk(block.path) for file in files)
        lines = _bytes(file for file in _data_files(block) if file.suffix in WITH_LINES)
        return embedded_bytes(block), lines // importer.bytes_per_image

    return plan.remembered(f"size {dataset}", size)


def _data_files(block: FileDataset) -> list[Path]:
    """Only folders with data are listed: there may be many with images."""
    path = Path(block.path)
    if not path.is_dir():
        return [path]
    folders = [path]
    if (path / SPLITS).exists():
        folders += [one for one in path.iterdir() if one.is_dir()]
    entries = [entry for folder in folders for entry in os.scandir(folder)]
    return [Path(entry.path) for entry in entries if entry.name.endswith((*WITH_IMAGES, *WITH_LINES))]


def _bytes(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.exists())


def table_of(files: Iterable[str]) -> Table:
    """The sizes of Parquet files, together; other files are left out."""
    found = [_known(Path(file)) for file in files if file.endswith(".parquet")]
    known = [table for table in found if table is not None]
    if found and not known:
        return UNKNOWN_TABLE
    return Table(sum(table.rows for table in known), sum(table.bytes for table in known))


def _known(file: Path) -> Table | None:
    try:
        facts = file.stat()
        return _footer(file.absolute(), facts.st_size, facts.st_mtime_ns)
    except (OSError, pa.ArrowException):  # its readers say what is wrong with it
        return None


@lru_cache(maxsize=4096)
def _footer(file: Path, size: int, modified: int) -> Table:
    """The sizes of a file as it was then."""
    metadata = pq.read_metadata(file)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    content = sum(c.total_uncompressed_size for c in columns if not c.path_in_schema.endswith(".bytes"))
    return Table(metadata.num_rows, content)
