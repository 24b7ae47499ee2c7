"""YOLO folders in the layouts of Ultralytics, Roboflow and LabelImg."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.provenance.digests import DigestMemory, digest_of
from perceptune.contracts.tables.io import read_lineage
from perceptune.planning.data_digest import data_digest
from PIL import Image

from tests.unit.importers.conftest import Imported, draw

Mistakes = Callable[..., str]
YAML = "path: ../datasets/mine  # as on another machine\ntrain: images/train\nval: images/val\nnames:\n  0: cup\n  1: traffic light\n"
CUP, LIGHT = "0 0.5 0.5 0.25 0.5", "1 0.1 0.1 0.1 0.1"
CUP_BOX = [24, 12, 40, 36]


def write(folder: Path, files: dict[str, str | None]) -> Path:
    """Text files, and drawn images for None."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        draw(folder / name) if text is None else (folder / name).write_bytes(text.encode())
    return folder


def layout(folder: Path, **changes: str | None) -> Path:
    files: dict[str, str | None] = {
        "data.yaml": YAML,
        "images/train/a b.png": None,
        "labels/train/a b.txt": f"{CUP}\r\n{LIGHT}\r\n",
        "images/train/empty.PNG": None,
        "labels/train/empty.txt": "",
        "images/train/background.png": None,
        "images/val/c.png": None,
        "labels/val/c.txt": f"{LIGHT}\n{LIGHT}\n{CUP}\n",
    }
    return write(folder, {**files, **changes})


def test_ultralytics(tmp_path: Path, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    found = imported("yolo", layout(tmp_path / "mine"))
    assert [(row["example_id"], row["split"], row["question"]) for row in found] == [
        ("labels/train/a b-1", "train", "Locate the cup."),
        ("labels/train/a b-2", "train", "Locate the traffic light."),
        ("labels/val/c-3", "val", "Locate the cup."),
    ]
    assert found[0]["box"] == pytest.approx(CUP_BOX)
    assert found[0]["images"][0]["path"].endswith("mine/images/train/a b.png")
    said = capsys.readouterr().out
    assert "mine: 2 of 4 images have no labels" in said
    assert "2 objects are left out because they have others of their category in the image" in said


def test_the_lineage_knows_the_folder_without_its_images(tmp_path: Path, imported: Imported) -> None:
    """Images are known by row. A file per image would be too much for the record of a table."""
    folder, memory = layout(tmp_path / "mine"), DigestMemory(tmp_path / "memory.sqlite")
    imported("yolo", folder)
    (data,) = read_lineage(tmp_path / "examples.parquet")["inputs"].values()
    assert (data["path"], data["sha256"]) == (str(folder), digest_of(folder, memory))
    draw(folder / "images/val/c.png", (65, 48))
    assert digest_of(folder, memory) == data["sha256"]
    (folder / "labels/val/c.txt").write_text(CUP)
    assert digest_of(folder, memory) != data["sha256"]


def test_questions_per_category_and_the_split_of_the_block(tmp_path: Path, imported: Imported) -> None:
    found = imported("yolo", layout(tmp_path), parameters={"per": "category"}, split="test")
    assert [(row["category"], row["target"], row["split"]) for row in ({**r, **r["source"]} for r in found)] == [
        ("cup", "1", "test"), ("traffic light", "1", "test"), ("traffic light", "2", "test"), ("cup", "1", "test"),
    ]  # fmt: skip


def test_roboflow(tmp_path: Path, imported: Imported) -> None:
    text = "train: ../train/images\nval: ../valid/images\n\nnc: 1\nnames: ['cup']\nroboflow: {version: 1}\n"
    files = {"data.yaml": text, "README.roboflow.txt": "hello", "train/images/1.jpg": None, "train/labels/1.txt": CUP}
    folder = write(tmp_path, {**files, "valid/images/1.jpg": None, "valid/labels/1.txt": CUP})
    found = imported("yolo", folder)
    assert [(row["example_id"], row["split"]) for row in found] == [
        ("train/labels/1-1", "train"),
        ("valid/labels/1-1", "val"),
    ]


@pytest.mark.parametrize(("classes", "split"), [("classes.txt", "test"), ("labels/classes.txt", "Test")])
def test_classes_and_folders(tmp_path: Path, imported: Imported, classes: str, split: str) -> None:
    files = {
        classes: "\ufeffcup\r\nlight\r\n",
        "images/1.jpg": None,
        "labels/1.txt": LIGHT,
        f"images/{split}/2.jpg": None,
        f"labels/{split}/2.txt": CUP,
    }
    found = imported("yolo", write(tmp_path, files))
    assert [(row["question"], row["split"]) for row in found] == [
        ("Locate the light.", "train"),
        ("Locate the cup.", split),
    ]


def test_labels_beside_images(tmp_path: Path, imported: Imported) -> None:
    folder = write(tmp_path, {"classes.txt": "cup\nlight", "1.jpg": None, "1.txt": CUP, "2.jpg": None})
    assert [row["example_id"] for row in imported("yolo", folder)] == ["1-1"]


def test_a_list_of_images(tmp_path: Path, imported: Imported, mistakes: Mistakes) -> None:
    text = YAML.replace("images/train", "train.txt").replace("val: images/val\n", "")
    folder = layout(tmp_path, **{"data.yaml": text, "train.txt": "./images/val/c.png\r\nimages/train/a b.png\n\n"})
    assert [row["example_id"] for row in imported("yolo", folder)] == [
        "labels/val/c-3",
        "labels/train/a b-1",
        "labels/train/a b-2",
    ]
    layout(tmp_path, **{"data.yaml": text, "train.txt": "images/train/gone.png\n", "labels/train/gone.txt": CUP})
    assert "image `images/train/gone.png`: the file does not exist" in mistakes("yolo", folder)
    layout(
        tmp_path,
        **{"data.yaml": text, "train.txt": f"{tmp_path}/images/val/c.png\n../../etc/hosts.png\n/etc/hosts.png\n"},
    )
    message = mistakes("yolo", folder)
    assert message.startswith("error: 2 of 3 rows cannot be used")
    assert "train.txt line 2: image `../../etc/hosts.png` is not in the folder" in message


def test_polygons_and_keypoints(tmp_path: Path, imported: Imported) -> None:
    polygon = "0 0.375 0.25 0.625 0.5 0.5 0.75"
    folder = layout(tmp_path, **{"labels/val/c.txt": polygon})
    assert imported("yolo", folder)[-1]["box"] == pytest.approx(CUP_BOX)
    layout(tmp_path, **{"data.yaml": YAML + "kpt_shape: [1, 3]\n", "labels/val/c.txt": f"{CUP} 0.1 0.1 2"})
    assert imported("yolo", folder)[-1]["box"] == pytest.approx(CUP_BOX)


def test_a_box_that_rounding_moves_over_the_edge(tmp_path: Path, imported: Imported, mistakes: Mistakes) -> None:
    folder = layout(tmp_path, **{"labels/val/c.txt": "0 0.833333 0.5 0.333335 1.000001"})
    assert imported("yolo", folder)[-1]["box"] == pytest.approx([42.666, 0, 64, 48], abs=1e-3)
    layout(tmp_path, **{"labels/val/c.txt": "0 0.9 0.5 0.4 0.5"})
    assert "labels/val/c.txt line 1: `box` [0.7, 0.25, 1.1, 0.75] exceeds 1, expected normalised" in mistakes(
        "yolo", folder
    )


def test_boxes_refer_to_the_image_as_exif_turns_it(
    tmp_path: Path, imported: Imported, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, exif = layout(tmp_path), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(folder / "images/val/c.png", exif=exif)
    assert imported("yolo", folder)[-1]["box"] == pytest.approx([18, 16, 30, 48])  # of 48 x 64 pixels
    assert "warning: 1 of 3 boxes (first: labels/val/c.txt line 3) are on images that are" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"labels/val/c.txt": "2 0.5 0.5 0.1 0.1"}, "labels/val/c.txt line 1: class 2 is not in `data.yaml`, expected 0 to 1"),
        ({"labels/val/c.txt": "cup 0.5 0.5 0.1 0.1"}, "labels/val/c.txt line 1: found 'cup 0.5 0.5 0.1 0.1', expected the number of a class and numbers"),
        ({"labels/val/c.txt": f"{LIGHT}\n0 0.5 0.5 0.1"}, "labels/val/c.txt line 2: 3 numbers after the class, expected 4 for a box or the corners of a polygon"),
        ({"labels/val/c.txt": f"{CUP} 0.93"}, "line 1: 5 numbers after the class"),
        ({"labels/val/c.txt": "0 320 240 64 48"}, "exceeds 1, expected normalised coordinates; if it is in pixels, set `coordinates: pixels`"),
        ({"labels/val/c.txt": "0 0.5 0.5 0 0.1"}, "has no area"),
        ({"labels/val/c.txt": "0 nan 0.5 0.1 0.1"}, "line 1: found '0 nan 0.5 0.1 0.1', expected finite numbers"),
        ({"labels/val/other.txt": CUP}, "labels/val/other.txt: these labels have no image of that name in `images/val`"),
        ({"images/val/c.png": "no image"}, "image `images/val/c.png`: the file is not an image"),
        ({"data.yaml": YAML.replace("0: cup", "- cup\n  x: y")}, "data.yaml` is not valid YAML: "),
        ({"data.yaml": "- a"}, "data.yaml` is ['a'], expected `names`"),
        ({"data.yaml": YAML.replace("names", "labels")}, "`names` is None, expected the names of the classes"),
        ({"data.yaml": YAML + "nc: 3\n"}, "`nc` is 3, but `names` has 2"),
        ({"data.yaml": YAML.replace("0: cup", "0: no")}, "`names` has False, expected text\nhint: write it in quotes"),
        ({"data.yaml": YAML.replace("images/train", "images/training")}, "`train` is `images/training`, which is not in the folder"),
        ({"data.yaml": YAML.replace("images/train", "/etc")}, "`train` is `/etc`, which is not in the folder"),
        ({"data.yaml": YAML.replace("images/train", "../../etc")}, "which is not in the folder"),
        ({"data.yaml": YAML.replace("images/val", "images/train")}, "`train` and `val` are both `images/train`, expected different images\nhint: `split: train`"),
        ({"data.yaml": "names: [cup, light]"}, "has neither `train` nor `val` nor `test`"),
        ({"coco8.yaml": "", "dota.yml": ""}, ""),
    ],
)  # fmt: skip
def test_mistakes_name_the_file(
    tmp_path: Path, mistakes: Mistakes, imported: Imported, changes: Any, expected: str
) -> None:
    folder = layout(tmp_path, **changes)
    if expected:
        assert expected in mistakes("yolo", folder)
    else:
        assert imported("yolo", folder)  # `data.yaml` is the one


def test_folders_without_an_index(tmp_path: Path, mistakes: Mistakes) -> None:
    folder = write(tmp_path / "mine", {"images/1.jpg": None})
    assert "has neither `data.yaml` nor `classes.txt`, expected one of them" in mistakes("yolo", folder)
    write(folder, {"coco8.yaml": YAML, "dota.yml": YAML})
    assert "has `coco8.yaml`, `dota.yml`, expected one of them\nhint: name it `data.yaml`" in mistakes("yolo", folder)
    assert "is a file, expected a folder\nhint: give the folder" in mistakes("yolo", folder / "coco8.yaml")


def test_a_changed_label_or_image_changes_the_digest(tmp_path: Path) -> None:
    folder, memory = layout(tmp_path / "mine"), DigestMemory(tmp_path / "memory.sqlite")
    watched = FileDataset(kind="yolo", path=str(folder))
    unwatched = FileDataset(kind="yolo", path=str(folder), watch_images=False)
    before = data_digest(watched, memory), data_digest(unwatched, memory)
    draw(folder / "images/val/c.png", (65, 48))
    between = data_digest(watched, memory), data_digest(unwatched, memory)
    assert between[0] != before[0]
    assert between[1] == before[1]
    (folder / "labels/val/c.txt").write_text(CUP)
    assert data_digest(watched, memory) != between[0]
    assert data_digest(unwatched, memory) != between[1]


def test_unknown_columns_are_none(tmp_path: Path, imported: Imported) -> None:
    assert json.dumps(imported("yolo", layout(tmp_path))[0]["source"]) == '{"category": "cup"}'
