"""What training data share with benchmarks: the stage, its table, and the refusal."""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.config import FileDataset, SamplingBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.io import read_table
from perceptune.contracts.tables.leakage import LEAKAGE
from perceptune.core.data.shapes import render, scene_and_row
from perceptune.stages.data import find_leakage, import_examples
from perceptune.stages.data.find_leakage import Selection
from perceptune.stages.data.leaked import leak_warnings
from perceptune.stages.sampling import requests
from PIL import Image


def drawn(path: Path, number: int) -> None:
    """A drawing of the demo; as JPEG or PNG, by the name of the file."""
    render(scene_and_row(1, "train", number, "grounding")[0]).save(path, quality=80)


def imported(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    (folder / f"{name}.jsonl").write_text("\n".join(json.dumps({"task": "open", **row}) for row in rows))
    config = FileDataset(kind="jsonl", path=str(folder / f"{name}.jsonl"))
    import_examples.run(config=config, examples=folder / f"{name}.parquet")
    return folder / f"{name}.parquet"


@pytest.fixture
def examples(tmp_path: Path) -> dict[str, Path]:
    """Training data, and a dataset with a copy of its first image, a JPEG of its second, and a new one."""
    for number in range(3):
        drawn(tmp_path / f"{number}.png", number)
    shutil.copy(tmp_path / "0.png", tmp_path / "copy.png")
    drawn(tmp_path / "1.jpg", 1)
    drawn(tmp_path / "9.png", 9)
    Image.new("RGB", (40, 40)).save(tmp_path / "blank.png")
    Image.new("RGB", (50, 50)).save(tmp_path / "blank2.png")
    mine = [{"image": f"{n}.png", "question": "which shape?", "split": "train"} for n in range(3)]
    mine += [{"image": "blank.png", "question": "which colour?", "split": "train"}]
    mine += [{"image": "9.png", "question": "which shape?", "split": "other"}]
    held = [{"image": image, "question": "Which  shape?", "split": "test"} for image in ("copy.png", "1.jpg", "9.png")]
    held += [{"image": "blank2.png", "question": "which colour?", "split": "test"}]
    return {"mine": imported(tmp_path, "mine", mine), "held": imported(tmp_path, "held", held)}


TRAIN = Selection("mine", "train")


def found(
    examples: dict[str, Path], *benchmarks: Selection, training: Selection = TRAIN, **more: Any
) -> list[dict[str, Any]]:
    named = {f"b{number}": one for number, one in enumerate(benchmarks)}
    path = examples["mine"].parent / "leakage.parquet"
    find_leakage.run(
        dataset="mine", source="n20", examples=examples, training=training, benchmarks=named, leakage=path, **more
    )
    return read_table(path, LEAKAGE).to_pylist()


SHARED = "training data mine/n20 share 1 of 4 images, near duplicates of 1 more, and 2 of 4 questions with benchmark b0"


def test_copies_are_found_across_datasets(examples: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    (row,) = found(examples, Selection("held", "test"))
    examples_of = row.pop("examples")
    assert list(row.values()) == ["b0", 4, 1, 1, 4, 1, 1]
    assert [(one["kind"], one["training_id"], one["benchmark_id"]) for one in examples_of] == [
        ("same question", "line-1", "line-1"), ("same image", "line-1", "line-1"), ("similar question", "line-2", "line-2"),
    ]  # fmt: skip
    assert capsys.readouterr().out == f"warning: {SHARED}\n"
    found(examples, Selection("held", "test"), mode="allow")
    assert capsys.readouterr().out == f"{SHARED}\n"


def test_only_the_selected_questions_count(examples: dict[str, Path]) -> None:
    """Splits, tasks and limits; a block that selects nothing shares nothing."""
    rows = found(
        examples,
        Selection("held", "test", limit=1),
        Selection("held", "test", ("ocr",)),
        Selection("held", "validation"),
        Selection("mine", "train"),
        training=Selection("mine", "other"),
    )
    assert [row["images"] for row in rows] == [1, 0, 0, 4]
    assert [row["same_images"] for row in rows] == [0, 0, 0, 0]
    assert found(examples, Selection("held", "test"), training=Selection("mine", "other"))[0]["same_images"] == 1


def test_refusal_names_counts_examples_and_remedy(examples: dict[str, Path], tmp_path: Path) -> None:
    found(examples, Selection("held", "test"))
    tables = {"mine/n20": tmp_path / "leakage.parquet"}
    with pytest.raises(UserError) as caught:
        requests.run_samples(
            dataset="mine", examples=examples["mine"], requests=tmp_path / "r", config=SamplingBlock(), refused=tables
        )
    assert str(caught.value) == (
        f"error: {SHARED}\n"
        "  same question: `line-1` of mine/n20, `line-1` of b0\n"
        "  same image: `line-1` of mine/n20, `line-1` of b0\n"
        "  similar question: `line-2` of mine/n20, `line-2` of b0\n"
        "hint: remove these examples from the training data, or set `leakage: warn` to train on them"
    )
    assert not (tmp_path / "r").exists()
    with pytest.raises(UserError, match="share 1 of 4 images"):
        leak_warnings(tables, "refuse")
    assert leak_warnings(tables, "warn") == [SHARED]
    assert leak_warnings(tables, "allow") == leak_warnings(tables, "warn", ["b1"]) == []


def test_nothing_shared_is_not_refused(examples: dict[str, Path], tmp_path: Path) -> None:
    found(examples, Selection("mine", "train"), training=Selection("mine", "other"))
    tables = {"mine/n20": tmp_path / "leakage.parquet"}
    assert leak_warnings(tables, "refuse") == []
    config = SamplingBlock(split="other")
    requests.run_samples(
        dataset="mine", examples=examples["mine"], requests=tmp_path / "r", config=config, refused=tables
    )
    assert (tmp_path / "r").exists()


def test_images_embedded_in_tables_are_compared_too(examples: dict[str, Path], tmp_path: Path) -> None:
    image = "data:image/jpeg;base64," + base64.b64encode((tmp_path / "1.jpg").read_bytes()).decode()
    table = imported(tmp_path, "embedded", [{"image": image, "question": "which shape?", "split": "test"}])
    (row,) = found({**examples, "embedded": table}, Selection("embedded", "test"))
    assert (row["same_images"], row["similar_images"], row["similar_questions"]) == (0, 1, 1)
