"""Folders of PASCAL VOC and of tools that write its XML files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.unit.importers.conftest import Imported, draw

Mistakes = Callable[..., str]


def thing(name: str, *box: float, difficult: int = 0) -> str:
    corners = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"  # as for persons
    return f"<object><name>{name}</name><pose>Left</pose><difficult>{difficult}</difficult><bndbox>{corners}</bndbox>{part}</object>"


def xml(file: str, *objects: str, size: tuple[int, int] | None = (64, 48)) -> str:
    known = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    return f"<annotation>\r\n<folder>VOC2012</folder><filename>{file}</filename>{known}{''.join(objects)}</annotation>"


ANNOTATED = {
    "Annotations/1.xml": xml("1.jpg", thing("dog", 5, 7, 30, 40), thing("chair", 1, 1, 9, 9, difficult=1)),
    "Annotations/2.xml": xml("2.jpg", thing("chair", 1, 1, 64, 48), thing("chair", 1, 1, 9, 9, difficult=1)),
    "Annotations/3.xml": xml("3.jpg", thing("dog", 11, 11, 20, 20)),
    "Annotations/4.xml": xml("4.jpg"),
}
SETS = {
    "ImageSets/Main/train.txt": "1\n2\n",
    "ImageSets/Main/val.txt": "3\n",
    "ImageSets/Main/trainval.txt": "1\n2\n3\n",
    "ImageSets/Main/dog_train.txt": "1  1\n2 -1\n",
}


def layout(folder: Path, **changes: str) -> Path:
    for name, text in {**ANNOTATED, **SETS, **changes}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for number in range(1, 5):
        draw(folder / f"JPEGImages/{number}.jpg")
    return folder


def test_splits_and_boxes(tmp_path: Path, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    found = imported("voc", layout(tmp_path / "VOC2012"))
    assert [(row["example_id"], row["split"], row["question"], row["box"]) for row in found] == [
        ("1-1", "train", "Locate the dog.", [4, 6, 30, 40]),  # the first pixel has the number 1
        ("3-1", "val", "Locate the dog.", [10, 10, 20, 20]),
    ]
    said = capsys.readouterr().out
    assert "VOC2012: 1 of 4 annotated images are in none of train, val" in said
    assert "VOC2012: 2 objects are left out because they are marked as difficult (`difficult: true` keeps them)" in said


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"parameters": {"difficult": True}}, ["1-1", "1-2", "3-1"]),
        ({"parameters": {"difficult": True, "unique": False}}, ["1-1", "1-2", "2-1", "2-2", "3-1"]),
        ({"parameters": {"unique": False}}, ["1-1", "2-1", "3-1"]),
        ({"parameters": {"max_area": 0.1}}, ["3-1"]),
        ({"parameters": {"per": "category"}}, ["1-dog", "3-dog"]),
        ({"split": "test"}, ["1-1", "3-1"]),
    ],
)
def test_objects_that_are_asked_about(tmp_path: Path, imported: Imported, settings: Any, expected: list[str]) -> None:
    found = imported("voc", layout(tmp_path), **settings)
    assert [row["example_id"] for row in found] == expected
    assert settings.get("split") in (None, *{row["split"] for row in found})


def test_labelimg_writes_files_beside_images_and_counts_from_0(tmp_path: Path, imported: Imported) -> None:
    (tmp_path / "a.xml").write_text(xml("a.jpg", thing("cup", 0, 0, 30.5, 40), size=(0, 0)))
    draw(tmp_path / "a.jpg")
    (row,) = imported("voc", tmp_path)
    assert row["box"] == [0, 0, 30.5, 40]
    (tmp_path / "a.xml").write_text(xml("a.jpg", thing("cup", 4, 6, 30, 40)))
    (row,) = imported("voc", tmp_path, parameters={"one_based": False})
    assert row["box"] == [4, 6, 30, 40]


def test_boxes_on_an_image_that_exif_turns(tmp_path: Path, mistakes: Mistakes) -> None:
    folder, exif = layout(tmp_path), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(folder / "JPEGImages/3.jpg", exif=exif)
    assert "3.xml object 1: the image has 48 x 64 pixels after applying its EXIF orientation" in mistakes("voc", folder)


BOMB = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotation><filename>&y;</filename></annotation>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>'


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"Annotations/3.xml": BOMB}, "ImageSets/Main/val.txt line 1: it has a DOCTYPE, expected XML without one"),
        ({"Annotations/3.xml": OUTSIDE}, "it has a DOCTYPE"),
        ({"Annotations/3.xml": "<annotation>&x;</annotation>"}, "not valid XML: undefined entity"),
        ({"Annotations/3.xml": "<annotation><filename>"}, "not valid XML: no element found"),
        ({"Annotations/3.xml": ""}, "not valid XML: no element found"),
        ({"Annotations/3.xml": "<svg/>"}, "the root is `<svg>`, expected `<annotation>`"),
        ({"Annotations/3.xml": "<annotation/>"}, "`<filename>` is missing or empty"),
        ({"Annotations/3.xml": xml("5.jpg", thing("dog", 1, 1, 9, 9))}, "3.xml object 1: image `JPEGImages/5.jpg`: the file does not exist"),
        ({"Annotations/3.xml": xml("3.jpg", thing("dog", 1, 1, 9, 90))}, "3.xml object 1: `box` [0.0, 0.0, 9.0, 90.0] exceeds the image"),
        ({"Annotations/3.xml": xml("3.jpg", thing("dog", 9, 9, 1, 1))}, "has no area"),
        ({"Annotations/3.xml": xml("3.jpg", thing("", 1, 1, 9, 9))}, "3.xml object 1: `<name>` is missing or empty, expected the category"),
        ({"Annotations/3.xml": xml("3.jpg", "<object><name>dog</name></object>")}, "3.xml object 1: `<xmin>` is None, expected a number"),
        ({"Annotations/3.xml": xml("3.jpg", thing("dog", 1, 1, float("inf"), 9))}, "`<xmax>` is 'inf', expected a number"),
        ({"Annotations/more/3.xml": ANNOTATED["Annotations/1.xml"]}, "Annotations/more/3.xml: `Annotations/3.xml` has the same name"),
        ({"ImageSets/Main/val.txt": "3\n5\n"}, "ImageSets/Main/val.txt line 2: image `5` has no `Annotations/5.xml`"),
        ({"ImageSets/Main/val.txt": "3\n\n1\n"}, "val.txt line 3: image `1` was already listed in ImageSets/Main/train.txt line 1"),
    ],
)  # fmt: skip
def test_mistakes_name_the_object(tmp_path: Path, mistakes: Mistakes, changes: Any, expected: str) -> None:
    assert expected in mistakes("voc", layout(tmp_path, **changes))


def test_a_folder_without_annotations(tmp_path: Path, mistakes: Mistakes) -> None:
    draw(tmp_path / "VOC/1.jpg")
    assert "has no rows" in mistakes("voc", tmp_path / "VOC")
    assert "is a file, expected a folder" in mistakes("voc", tmp_path / "VOC/1.jpg")
