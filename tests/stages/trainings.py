"""Small tables of ranked lists, their stored log-probs, and trainings on them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perceptune.contracts.config import LoraBlock, ModelBlock, TrainingBlock, ViewBlock
from perceptune.contracts.provenance.digests import sha256_of_file
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.training import TRAINING
from perceptune.core.methods.method import Stored
from perceptune.stages.training import stored_logprobs, train
from PIL import Image
from safetensors.numpy import load_file

from tests import tiny_models as tiny

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine lists of three answers, the last of which was dropped by the selection; a random model."""
    folder = tmp_path_factory.mktemp("train")
    tiny.build_tiny_llava(folder / "model", 0)
    random = np.random.default_rng(0)
    examples, preferences = [], []
    for number in range(9):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (112, 112, 3), dtype=np.uint8)).save(path)
        examples.append({
            "example_id": str(number), "task": "grounding", "question": "?", "images": [{"bytes": None, "path": str(path)}],
            "image_sha256": [sha256_of_file(path)], "image_hashes": [], "image_sizes": [[112, 112]], "target": None, "box": [11.2, 11.2, 56.0, 56.0], "split": "train",
            "source": None, "reason": None,
        })  # fmt: skip
        content = [{"type": "image", "text": None}, {"type": "text", "text": "locate the red circle."}]
        responses = [
            {"sample_index": i, "text": "", "token_ids": random.integers(270, 380, 2 + i).tolist(), "reward": reward, "role": None}
            for i, reward in enumerate((0.9, 0.5, 0.1))
        ]  # fmt: skip
        preferences.append({
            "group_id": str(number), "example_id": str(number), "request_id": str(number), "task": "grounding", "view": "original",
            "messages": [{"role": "user", "content": content}], "responses": responses, "kept": number < 8,
            "views": [], "pairs": [], "numbers": [],
            "reason": None if number < 8 else "margin below 0.8",
        })  # fmt: skip
    write_table(folder / "examples.parquet", EXAMPLES, examples, {})
    write_table(folder / "preferences.parquet", PREFERENCES, preferences, {})
    store_logprobs(folder, folder / "terms.parquet")
    return folder


def model_block(folder: Path, workers: int | None = None) -> ModelBlock:
    return ModelBlock(path=str(folder / "model"), family="llava", dtype="float32", workers=workers)


def store_logprobs(
    folder: Path, terms: Path, *, view: str = "original", workers: int | None = None, **changes: Any
) -> None:
    """Writes the table `terms`: log-probs of the lists in `folder` by the reference, under a view."""
    arguments: dict[str, Any] = {
        "preferences": folder / "preferences.parquet", "examples": folder / "examples.parquet", "views": {}, **changes,
    }  # fmt: skip
    stored_logprobs.run(
        **arguments, terms=terms, model=model_block(folder, workers), weights="w", stored=[Stored("reference", view)], adapter=None,
    )  # fmt: skip


def trained(
    folder: Path,
    target: Path,
    *,
    terms: dict[str, Path] | None = None,
    views: dict[str, ViewBlock] | None = None,
    saliencies: dict[str, Path] | None = None,
    probe: Path | None = None,
    workers: int | None = None,
    halvings: int = 0,
    **changes: Any,
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """(weights of the adapter, rows of the log) of a training in `target` on the lists in `folder`.

    `changes`: of the training block.
    """
    settings: dict[str, Any] = {
        "method": "perpo", "lora": LoraBlock(r=4, alpha=8), "learning_rate": 5e-3, "batch_size": 4, "micro_batch_size": 2, "epochs": 2,
    }  # fmt: skip
    train.run(
        experiment="e", preferences=folder / "preferences.parquet", examples=folder / "examples.parquet",
        terms=terms or {"original": folder / "terms.parquet"}, views=views or {}, saliencies=saliencies, probe=probe,
        adapter=target / "adapter", training=target / "training.parquet", checkpoints=target / "checkpoints",
        model=model_block(folder, workers), weights="w", config=TrainingBlock(**{**settings, **changes}), halvings=halvings,
    )  # fmt: skip
    assert not (target / "checkpoints").exists()
    return load_file(target / "adapter" / WEIGHTS), read_table(target / "training.parquet", TRAINING).to_pylist()


def logged(rows: list[dict[str, Any]], metric: str) -> list[float]:
    """The values of a metric, step by step."""
    return [row["value"] for row in rows if row["metric"] == metric]


def largest_difference(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> float:
    """The largest absolute difference between tensors of the same name."""
    assert first.keys() == second.keys()
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)
