"""`perceptune init` on data that are divided by the names of folders or files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from perceptune.__main__ import main
from perceptune.commands.init.detection import HELD_OUT
from perceptune.commands.init.splits import TESTS, TRAINING
from perceptune.contracts import paths
from perceptune.contracts.config import FileDataset
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table
from perceptune.planning import policies
from perceptune.stages.data import import_examples

from tests import own_data
from tests.own_data import IMAGES, coco_content, drawn

QUESTION = "locate the red block."
SEEDS = {"train": 0, "valid": 1, "test": 2}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def roboflow(folder: Path) -> None:
    """Roboflow's export for COCO."""
    for split, seed in SEEDS.items():
        content = coco_content(drawn(folder / split, seed=seed))
        content["categories"].insert(0, {"id": 0, "name": "blocks", "supercategory": "none"})
        (folder / split / "_annotations.coco.json").write_text(json.dumps(content))
    (folder / "README.roboflow.txt").write_text("hello")


def roboflow_voc(folder: Path) -> None:
    """Roboflow's export for Pascal VOC."""
    for split, seed in SEEDS.items():
        own_data.write_xml(folder / split, drawn(folder / split, seed=seed))


def roboflow_yolo(folder: Path) -> None:
    """Roboflow's export for YOLO."""
    for split, seed in SEEDS.items():
        drawn(folder / split / "images", seed=seed)
        (folder / split / "labels").mkdir()
        for n in range(IMAGES):
            (folder / split / f"labels/{n}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    places = {key: f"../{name}/images" for key, name in {"train": "train", "val": "valid", "test": "test"}.items()}
    (folder / "data.yaml").write_text(yaml.safe_dump({**places, "nc": 1, "names": ["block"]}))


def coco_2017(folder: Path) -> None:
    """COCO's own layout."""
    (folder / "annotations").mkdir(parents=True)
    for split, seed in {"train": 0, "val": 1}.items():
        content = coco_content(drawn(folder / f"{split}2017", seed=seed))
        (folder / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))


def rows(folder: Path, seed: int) -> list[dict[str, Any]]:
    """Questions about images in this folder, as the rows of a table with their bytes."""
    boxes = drawn(folder, seed=seed)
    images = [{"bytes": (folder / f"{n}.png").read_bytes(), "path": None} for n in range(IMAGES)]
    return [{"image": image, "question": QUESTION, "box": [*box]} for image, box in zip(images, boxes, strict=True)]


def shards(folder: Path) -> None:
    """A data set of the Hugging Face Hub."""
    (folder / "data").mkdir(parents=True)
    found = {"train": rows(Path("elsewhere"), 0), "test": rows(Path("elsewhere"), 2)}
    for name, part in (
        ("train-00000-of-00002", found["train"][:6]),
        ("train-00001-of-00002", found["train"][6:]),
        ("test-00000-of-00001", found["test"]),
    ):
        pq.write_table(pa.Table.from_pylist(part), folder / f"data/{name}.parquet")
    (folder / "dataset_infos.json").write_text(json.dumps({"default": {"splits": {}}}))


def capitals(folder: Path) -> None:
    """Files whose names begin with a capital letter."""
    for name, seed in {"Train": 0, "Val": 1, "TEST": 2}.items():
        boxes = drawn(folder / name.lower(), seed=seed)
        own_data.write_lines(
            folder / f"{name}.jsonl",
            [{"image": f"{name.lower()}/{n}.png", "question": QUESTION, "box": box} for n, box in enumerate(boxes)],
        )


def capital_shards(folder: Path) -> None:
    """Parquet files whose names begin with a capital letter."""
    folder.mkdir()
    for name, seed in {"Train": 0, "Test": 2}.items():
        pq.write_table(pa.Table.from_pylist(rows(Path("elsewhere"), seed)), folder / f"{name}.parquet")


def tabs(folder: Path) -> None:
    """Columns that are separated by tabs."""
    for name, seed in {"train": 0, "test": 2}.items():
        boxes = drawn(folder / name, seed=seed)
        lines = [f"{name}/{n}.png\t{QUESTION}\t{list(box)}" for n, box in enumerate(boxes)]
        (folder / f"{name}.tsv").write_text("\n".join(["image\tquestion\tbox", *lines]))


LAYOUTS: dict[str, tuple[Callable[[Path], None], int]] = {
    "roboflow": (roboflow, 2),
    "roboflow VOC": (roboflow_voc, 2),
    "roboflow YOLO": (roboflow_yolo, 2),
    "COCO": (coco_2017, 1),
    "shards": (shards, 2),
    "capitals": (capitals, 2),
    "capital shards": (capital_shards, 2),
    "tabs": (tabs, 2),
}
"""Each with the seed of its test images."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_and_test_data_are_those_of_the_names(layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, seed = LAYOUTS[layout]
    make(Path("own"))
    assert main(["init", "own", "--out", "my.yaml"]) == 0
    assert " split `" in capsys.readouterr().out
    assert main(["check", "my.yaml"]) == 0
    config = policies.load(yaml.safe_load(Path("my.yaml").read_text())).config
    (sampling,), (benchmark,) = config.samplings.values(), config.benchmarks.values()
    training = imported(next(iter(config.datasets.values())), sampling.split)
    tests = imported(config.datasets[benchmark.dataset], benchmark.split)
    assert (training, tests) == (digests(0), digests(seed))


def imported(block: Any, split: str) -> set[str]:
    """The digests of the images in a split of a dataset, all of whose rows can be used."""
    assert isinstance(block, FileDataset)
    assert block.test_share is None
    table = Path(paths.EXAMPLES.format(dataset="own"))
    import_examples.run(config=block, examples=table)
    found = read_table(table, EXAMPLES).to_pylist()
    assert not [row["reason"] for row in found if row["reason"]]
    return {row["image_sha256"][0] for row in found if row["split"] == split}


def digests(seed: int) -> set[str]:
    """The digests of the images that `drawn` makes with a seed."""
    drawn(Path("images"), seed=seed)
    rows = [{"image": f"{n}.png", "question": "What?", "answer": "a"} for n in range(IMAGES)]
    own_data.write_lines(Path("images/data.jsonl"), rows)
    return imported(FileDataset(kind="jsonl", path="images/data.jsonl", task="open"), "train")


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_folder_for_tests_alone_is_divided(split: str) -> None:
    roboflow(Path("own"))
    assert main(["init", f"own/{split}", "--out", "my.yaml"]) == 0
    config = policies.load(yaml.safe_load(Path("my.yaml").read_text())).config
    (block,) = config.datasets.values()
    assert isinstance(block, FileDataset)
    assert block.test_share is not None


def test_the_names_of_splits_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/command.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| splits |")]
    assert [name for name in (*TRAINING, *TESTS, *HELD_OUT) if f"`{name}`" not in row] == []
