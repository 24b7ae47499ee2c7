"""COCO's annotations of objects: which are asked about, and what is wrong with a file."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.provenance.digests import DigestMemory
from perceptune.core.importers.sources import source_of
from perceptune.planning.data_digest import data_digest
from PIL import Image

from tests.plugins import IMPORTERS
from tests.unit.importers.conftest import Imported, draw, write_json

Mistakes = Callable[..., str]
CATEGORIES = [{"id": 1, "name": "dog"}, {"id": 7, "name": "traffic light"}, {"id": 9, "name": "person"}]


def annotation(number: int, image: int, category: int, box: list[float], **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "iscrowd": 0,
        "segmentation": [[1, 2]],
        **more,
    }


ANNOTATIONS = [
    annotation(11, 1, 1, [4, 6, 26, 34]),
    annotation(12, 1, 7, [1, 2, 3, 4]),
    annotation(13, 1, 7, [10.5, 2, 3, 4]),
    annotation(14, 2, 1, [0, 0, 64, 48]),
    annotation(15, 2, 9, [0, 0, 60, 20], iscrowd=1, segmentation={"counts": [1], "size": [48, 64]}),
    annotation(16, 2, 9, [40, 30, 8, 10]),
    annotation(17, 3, 7, [1, 1, 2, 2]),
]


def written(folder: Path, annotations: list[Any] = ANNOTATIONS, name: str = "instances.json", **changes: Any) -> Path:
    """`info` comes first and `categories` last, as in COCO's own files."""
    images = [{"id": n, "file_name": f"photos/{n}.jpg", "width": 64, "height": 48} for n in (1, 2, 3)]
    for image in images:
        draw(folder / str(image["file_name"]))
    lists = {"info": {"year": 2017}, "images": images, "annotations": annotations, "categories": CATEGORIES}
    return write_json(folder / name, {**lists, **changes})


def test_a_question_per_object_that_is_alone_in_its_category(
    tmp_path: Path, imported: Imported, capsys: pytest.CaptureFixture[str]
) -> None:
    found = imported("coco", written(tmp_path))
    assert [(row["example_id"], row["question"], row["box"]) for row in found] == [
        ("11", "Locate the dog.", [4, 6, 30, 40]),
        ("14", "Locate the dog.", [0, 0, 64, 48]),
        ("17", "Locate the traffic light.", [1, 1, 3, 3]),
    ]
    assert {row["task"] for row in found} == {"grounding"}
    assert found[0]["source"] == {"image_id": 1, "category": "dog"}
    said = capsys.readouterr().out
    others = "3 objects are left out because they have others of their category in the image (`unique: false` keeps them); 3 are asked about"
    assert f"instances.json: {others}" in said
    assert "1 objects are left out because they stand for a group (`crowd: true` keeps them)" in said


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"unique": False}, ["11", "12", "13", "14", "16", "17"]),
        ({"unique": False, "crowd": True}, ["11", "12", "13", "14", "15", "16", "17"]),
        ({"crowd": True}, ["11", "14", "17"]),
        ({"min_area": 0.1}, ["11", "14"]),
        ({"max_area": 0.5}, ["11", "17"]),
        ({"min_area": 0.002, "max_area": 0.5, "unique": False}, ["11", "12", "13", "16"]),
    ],
)
def test_objects_that_are_asked_about(tmp_path: Path, imported: Imported, parameters: Any, expected: list[str]) -> None:
    """Groups and small objects count for `unique` even where they are not asked about."""
    assert [row["example_id"] for row in imported("coco", written(tmp_path), parameters=parameters)] == expected


def test_a_question_per_category_counts_its_objects(tmp_path: Path, imported: Imported) -> None:
    found = imported("coco", written(tmp_path), parameters={"per": "category", "question": "How many: {category}?"})
    assert [(row["question"], row["target"], row["example_id"]) for row in found] == [
        ("How many: dog?", "1", "1-dog"),
        ("How many: traffic light?", "2", "1-traffic light"),
        ("How many: dog?", "1", "2-dog"),
        ("How many: traffic light?", "1", "3-traffic light"),
    ]  # no persons, of whom one annotation is a group
    assert {(row["task"], row["box"]) for row in found} == {("counting", None)}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("instances_val2017.json", "val"),
        ("instances.json", "train"),
        ("my_test.json", "test"),
        ("my_TEST.json", "TEST"),
    ],
)
def test_the_split_in_the_name(tmp_path: Path, imported: Imported, name: str, split: str) -> None:
    path = written(tmp_path, name=name)
    assert {row["split"] for row in imported("coco", path)} == {split}
    assert {row["split"] for row in imported("coco", tmp_path, split="mine")} == {"mine"}


def test_boxes_on_an_image_that_exif_turns(tmp_path: Path, mistakes: Mistakes) -> None:
    path = written(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "photos/1.jpg", exif=exif)
    message = mistakes("coco", path)
    assert (
        "instances.json, annotation 1: the image has 48 x 64 pixels after applying its EXIF orientation, the annotations expect 64 x 48, as stored"
        in message
    )


def test_corners_in_place_of_sizes_are_recognised_and_read(
    tmp_path: Path, imported: Imported, mistakes: Mistakes
) -> None:
    boxes = [[n, 2, n + 40, 47] for n in range(20)]
    path = written(tmp_path, [annotation(n, 1, 1, box) for n, box in enumerate(boxes)])
    keep = {"parameters": {"unique": False}}
    hint = "hint: `boxes: xyxy` ([x1, y1, x2, y2]) fits 20 of 20 boxes, `xywh` 13"
    assert mistakes("coco", path, **keep).splitlines()[-1] == hint
    assert [row["box"] for row in imported("coco", path, boxes="xyxy", **keep)] == boxes
    below = {"parameters": {"unique": False, "max_area": 0.6}}  # 40 x 45 of 64 x 48 pixels are 0.59
    assert len(imported("coco", path, boxes="xyxy", **below)) == 20


@pytest.mark.parametrize(
    ("annotations", "changes", "expected"),
    [
        ([annotation(1, 8, 1, [1, 2, 3, 4])], {}, "annotation 1: `image_id` is 8, which is no `id` of `images`"),
        ([annotation(1, 1, 8, [1, 2, 3, 4])], {}, "annotation 1: `category_id` is 8, which is no `id` of the 3 `categories`"),
        ([annotation(1, 1, 1, [1, 2, 3])], {}, "annotation 1: `bbox` is [1, 2, 3], expected four finite numbers [x, y, width, height]"),
        ([annotation(1, 1, 1, [1, 2, 0, 3])], {}, "annotation 1: `box` [1.0, 2.0, 0.0, 3.0] has no area, expected [x, y, width, height] with positive width and height"),
        ([annotation(1, 1, 1, [1, 2, 100, 3])], {}, "annotation 1: `box` [1.0, 2.0, 100.0, 3.0] exceeds the image of 64 x 48 pixels"),
        ([annotation(1, 1, 1, [1, 2, 3, 4]), annotation(1, 2, 1, [1, 2, 3, 4])], {}, "annotation 2: `id` '1' was already used in annotation 1"),
        ([{"image_id": 1, "id": 1, "caption": "A dog."}], {}, "annotation 1: key `category_id` is missing; found keys image_id, id, caption"),
        ([3], {}, "annotation 1: found 3, expected an object"),
        ([], {}, "instances.json`: `annotations` is missing or empty, expected COCO annotations"),
        (ANNOTATIONS[:1], {"images": []}, "instances.json`: `images` is missing or empty"),
        (ANNOTATIONS[:1], {"categories": []}, "instances.json`: `categories` is missing or empty"),
        ([], {"categories": []}, "instances.json`: `annotations` and `categories` are missing or empty"),
        (ANNOTATIONS[:1], {"images": [{"id": 1, "file_name": "photos/gone.jpg"}]}, "annotation 1: image `photos/gone.jpg`: the file does not exist"),
        (ANNOTATIONS[:1], {"images": [{"id": 1, "file_name": "http://host/1.jpg"}]}, "image `http://host/1.jpg` is a URL; URLs are not downloaded"),
        (ANNOTATIONS[:1], {"images": 2 * [{"id": 1, "file_name": "photos/1.jpg"}]}, "image 2: `id` 1 was already used, expected unique ids"),
    ],
)  # fmt: skip
def test_mistakes_name_the_annotation(
    tmp_path: Path, mistakes: Mistakes, annotations: list[Any], changes: Any, expected: str
) -> None:
    assert expected in mistakes("coco", written(tmp_path, annotations, **changes))


@pytest.mark.parametrize(
    ("unit", "box"),  # half of an image of 64 x 48 pixels, which is padded by 8 pixels above and below
    [
        ("pixels", [0, 0, 32, 48]),
        ("normalised", [0, 0, 0.5, 1]),
        ("thousand", [0, 0, 500, 1000]),
        ("padded_normalised", [0, 0.125, 0.5, 0.75]),
        ("padded_thousand", [0, 125, 500, 750]),
    ],
)
def test_areas_are_measured_in_the_unit_of_the_boxes(
    tmp_path: Path, imported: Imported, mistakes: Mistakes, unit: str, box: list[float]
) -> None:
    path = written(tmp_path, [annotation(1, 1, 1, box)])
    (row,) = imported("coco", path, coordinates=unit, parameters={"min_area": 0.49, "max_area": 0.51})
    assert row["box"] == [0, 0, 32, 48]
    for bounds, reason in (({"min_area": 0.51}, "cover less than 0.51"), ({"max_area": 0.49}, "cover more than 0.49")):
        assert f"1 objects are left out because they {reason}" in mistakes(
            "coco", path, coordinates=unit, parameters=bounds
        )


def test_sizes_are_needed_for_shares_of_the_image(tmp_path: Path, imported: Imported, mistakes: Mistakes) -> None:
    path = written(tmp_path, ANNOTATIONS[:1], images=[{"id": 1, "file_name": "photos/1.jpg"}])
    assert len(imported("coco", path)) == 1
    expected = "annotation 1: the size of the image is unknown, which `min_area` and `max_area` need"
    assert expected in mistakes("coco", path, parameters={"min_area": 0.1})


def test_other_files(tmp_path: Path, mistakes: Mistakes) -> None:
    results = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]
    assert "is a list, expected an object with lists" in mistakes(
        "coco", write_json(tmp_path / "results.json", results)
    )
    written(tmp_path)
    message = mistakes("coco", tmp_path)
    assert "has `instances.json`, `results.json`, expected one\nhint: set `path` to the file" in message
    (tmp_path / "results.json").write_text('{"images": [{"id": 1}], "annotations": [{"id": 1},]}')
    assert "is not valid JSON: " in mistakes("coco", tmp_path / "results.json")


def test_nothing_left_says_why(tmp_path: Path, mistakes: Mistakes) -> None:
    message = mistakes("coco", written(tmp_path), parameters={"max_area": 0.00001, "unique": False})
    assert (
        "has no rows\nhint: 6 objects are left out because they cover more than 1e-05 of the image (`max_area`); 0 are asked about"
        in message
    )


def test_a_changed_image_changes_the_digest(tmp_path: Path) -> None:
    path, memory = written(tmp_path), DigestMemory(tmp_path / "memory.sqlite")
    block = FileDataset(kind="coco", path=str(path))
    large = FileDataset(kind="coco", path=str(path), parameters={"max_area": 0.5})
    before = data_digest(block, memory), data_digest(large, memory)
    draw(tmp_path / "photos/2.jpg", (65, 48))  # its only unique object covers all of it
    assert data_digest(block, memory) != before[0]
    assert data_digest(large, memory) == before[1]


def test_segmentations_are_not_kept(tmp_path: Path) -> None:
    """They are most of a file."""
    polygon = {"segmentation": [[0.5] * 20_000]}
    path = written(tmp_path, [annotation(n, 1, 1, [1, 2, 3, 4], **polygon) for n in range(300)])
    block = FileDataset(kind="coco", path=str(path), parameters={"unique": False})
    tracemalloc.start()
    try:
        count = sum(1 for _ in IMPORTERS["coco"].rows(source_of(block, IMPORTERS["coco"])))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 300
    assert path.stat().st_size > 25e6
    assert peak < 12e6
