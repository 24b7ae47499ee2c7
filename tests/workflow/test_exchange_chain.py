"""Import dataset preferences, export models and preferences: the chain of a user who exchanges data
with other trainers.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from perceptune.contracts import paths
from perceptune.contracts.config import FileDataset
from perceptune.planning import policies
from perceptune.planning.graph import graph, reruns
from perceptune.stages.data import import_examples
from PIL import Image
from safetensors.numpy import load_file

from .conftest import ROOT
from .inline import run_jobs

pytestmark = pytest.mark.slow

TARGETS = [
    paths.REPORT,
    *(paths.EXPORT.format(export=name) for name in ("for-trl", "for-easyr1", "for-swift")),
    paths.MODEL_CARD.format(policy="perpo"),
]

BOXES = ["[0.10, 0.30, 0.50, 0.75]", "[0.20, 0.30, 0.50, 0.75]", "[0.60, 0.10, 0.70, 0.20]", "[0.00, 0.00, 0.10, 0.10]"]
IOUS = [0.9, 0.7, 0.1, 0.0]


def _data(folder: Path) -> None:
    """Twelve pairs in TRL's format, eight of them for training, and four ranked lists in PerPO's
    released format.
    """
    folder.mkdir()
    pairs, lists = [], []
    for number in range(12):
        image = Image.new("RGB", (64, 48), "white")
        image.paste("red", (4 + number, 8, 30 + number, 40))
        image.save(folder / f"{number}.png")
        asked = {"prompt": "locate the red square.", "chosen": BOXES[0], "rejected": BOXES[2 + number % 2]}
        truth = {"id": number, "task": "grounding", "box": [4 + number, 8, 30 + number, 40]}
        pairs.append({"image": f"{number}.png", **asked, **truth, "split": "train" if number < 8 else "test"})
        if number < 4:
            lists.append(
                {
                    "image_id": number,
                    "image_path": f"{number}.png",
                    "question": "locate the red square.",
                    "answer": BOXES[0],
                }
                | {"answers_gen": BOXES, "iou_scores": IOUS}
            )
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    (folder / "lists.json").write_text(json.dumps(lists))


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exchanged")
    (folder / "resources").symlink_to(ROOT / "resources")
    _data(folder / "own")
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    del config["samplings"], config["selections"]
    config["models"]["tiny"]["threads"] = 1
    config["datasets"] = {
        "pairs": {"kind": "trl", "path": "own/pairs.jsonl"},
        "lists": {"kind": "perpo", "path": "own/lists.json"},
    }
    config["dataset_preferences"] = {"all": {}, "three": {"list_size": 3}}
    for training in config["trainings"].values():
        training |= {"batch_size": 2, "micro_batch_size": 2}
    config["trainings"]["perpo"]["lora"] = {
        "r": 32,
        "alpha": 64,
        "parts": ["language", "projector"],
        "full": ["projector"],
    }
    config["benchmarks"] = {
        "test": {
            **config["benchmarks"]["shapes-test"],
            "dataset": "pairs",
            "n": 0,
            "views": ["original"],
            "resamples": 99,
        }
    }
    experiment = {"model": "tiny", "benchmarks": ["test"]}
    config["experiments"] = {
        "dpo": {**experiment, "dataset": "pairs", "dataset_preference": "all", "training": "dpo"},
        "perpo": {**experiment, "dataset": "lists", "dataset_preference": "three", "training": "perpo"},
    }
    config["exports"] = {
        "for-trl": {"experiment": "dpo", "format": "trl"},
        "for-easyr1": {"experiment": "perpo", "format": "easyr1"},
        "for-swift": {"experiment": "perpo", "format": "ms_swift", "pairs": "all"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    run_jobs(folder, TARGETS)
    return folder


def test_given_answers_are_learnt_from(exchanged: Path) -> None:
    pairs = pl.read_parquet(exchanged / "results/preferences/tiny/pairs/all.parquet")
    lists = pl.read_parquet(exchanged / "results/preferences/tiny/lists/three.parquet")
    assert [len(responses) for responses in pairs["responses"]] == [2] * 8
    # three of four, including best and worst
    assert [[response["text"] for response in responses] for responses in lists["responses"]] == [
        [BOXES[0], BOXES[2], BOXES[3]]
    ] * 4
    assert {response["reward"] for responses in lists["responses"] for response in responses} == {0.9, 0.1, 0.0}
    for experiment, steps in (("dpo", 4), ("perpo", 2)):  # lists, two per step
        training = pl.read_parquet(exchanged / f"results/training/{experiment}.parquet")
        assert training["step"].max() == steps
        assert training.filter(metric="margin")["value"].is_finite().all()
    page = (exchanged / "results/report.html").read_text()
    assert "tiny/pairs/all" in page
    assert "tiny/lists/three" in page


def test_the_exported_model_has_a_card_with_results_and_lineage(exchanged: Path) -> None:
    card = (exchanged / "results/models/perpo/README.md").read_text()
    _, header, text = card.split("---\n", 2)
    described = yaml.safe_load(header)
    assert (described["base_model"], described["library_name"]) == ("resources/tiny-llava/model", "transformers")
    assert "license" not in described
    adapter = json.loads((exchanged / "results/adapters/perpo/lineage.json").read_text())
    (row,) = (
        pl.read_parquet(exchanged / "results/metrics/perpo.parquet")
        .filter(metric="mean_iou", condition="greedy")
        .to_dicts()
    )
    for part in (
        f"{row['value']:.4f} [{row['ci_low']:.4f}, {row['ci_high']:.4f}]", "| 4 |", "dataset_preference `three`", "beta 0.1",
        adapter["inputs"]["preferences"]["sha256"], "transformers", "dataset_preference: three", 'LLM("results/models/perpo"',
        "a LoRA adapter (rank 32) of the language model, and the projector in full,",
    ):  # fmt: skip
        assert part in text, part
    report = json.loads((exchanged / "results/models/perpo/parity.json").read_text())
    assert all(found["max"] < 1e-4 for found in report["differences"].values())
    assert report["answers"] == 8  # four questions


def test_a_trained_projector_is_exported(exchanged: Path) -> None:
    """As PerPO's authors train it: in full, next to LoRA on the language model."""
    base, exported = (
        load_file(folder / "model.safetensors")
        for folder in (ROOT / "resources/tiny-llava/model", exchanged / "results/models/perpo")
    )
    adapter = load_file(exchanged / "results/adapters/perpo/adapter_model.safetensors")
    assert any(".language_model." in name and "lora_A" in name for name in adapter)
    assert not any("vision_tower" in name for name in adapter)
    for layer in ("linear_1", "linear_2"):
        for kind in ("weight", "bias"):
            name = f"multi_modal_projector.{layer}.{kind}"
            assert not np.array_equal(exported[name], base[name])
            assert np.array_equal(exported[name], adapter[f"base_model.model.model.{name}"])


@pytest.mark.parametrize(
    ("name", "file", "kind", "rows"),
    [
        ("for-trl", "metadata.jsonl", "trl", 8),
        ("for-easyr1", "data.jsonl", "easyr1", 4),
        ("for-swift", "data.jsonl", "ms_swift", 12),
    ],
)  # three pairs of three answers
def test_exports_are_imported_again(
    exchanged: Path, tmp_path: Path, name: str, file: str, kind: str, rows: int
) -> None:
    folder = exchanged / "results/exports" / name
    import_examples.run(config=FileDataset(kind=kind, path=str(folder / file)), examples=tmp_path / "examples.parquet")
    table = pl.read_parquet(tmp_path / "examples.parquet")
    assert table.height == rows
    assert table["reason"].null_count() == rows
    assert set(table["question"]) == {"locate the red square."}


def rerun(section: str, block: str, **changes: Any) -> set[str]:
    """The rules of the jobs that an edit of a block reruns; the working directory has the config."""
    config = yaml.safe_load(Path("config.yaml").read_text())
    before = graph(policies.load(config), TARGETS)
    config[section][block] |= changes
    return {rule for rule, _ in reruns(before, graph(policies.load(config), TARGETS))}


def test_an_edit_reruns_what_it_concerns(exchanged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exchanged)
    assert rerun("exports", "for-swift", pairs="extremes") == {"export_preferences"}
    edited = rerun("dataset_preferences", "all", deduplicate=False)
    assert {
        "use_dataset_preferences",
        "compute_logprobs",
        "train_adapter",
        "export_preferences",
        "sample_responses",
        "write_report",
    } <= edited
    assert not edited & {"import_examples", "export_model"}
