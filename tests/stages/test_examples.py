"""Importing user data: every kind of mistake is one clear line."""

import json
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_lineage, read_table
from perceptune.core.data.images import open_image
from perceptune.stages.data import import_examples
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty images."""
    for number in range(20):
        Image.new("RGB", (64, 48), (number * 10, 100, 50)).save(tmp_path / f"{number}.png")
    return tmp_path


def row(number: int, **changes: Any) -> dict[str, Any]:
    good = {"image": f"{number}.png", "question": "locate the cup.", "task": "grounding", "box": [4, 6, 30, 40]}
    return {**good, **changes}


def imported(folder: Path, lines: list[Any], **settings: Any) -> pl.DataFrame:
    file = folder / "data.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_text("\n".join(texts), encoding="utf-8")
    import_examples.run(
        config=FileDataset(kind="jsonl", path=str(file), **settings), examples=folder / "examples.parquet"
    )
    return pl.from_arrow(read_table(folder / "examples.parquet", EXAMPLES))  # type: ignore[return-value]


def mistakes(folder: Path, lines: list[Any], **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        imported(folder, lines, **settings)
    return str(caught.value)


def test_good_rows(folder: Path) -> None:
    table = imported(folder, [row(n, id=f"cup-{n}", note="mine") for n in range(20)])
    assert table.height == 20
    assert table["example_id"][3] == "cup-3"
    assert table["box"][0].to_list() == [4, 6, 30, 40]
    assert table["image_sizes"][0].to_list() == [[64, 48]]
    assert json.loads(table["source"][0]) == {"note": "mine"}
    assert table["reason"].null_count() == 20
    assert len(set(table["image_sha256"].explode())) == 20


@pytest.mark.parametrize(
    ("coordinates", "box"), [("normalised", [0.25, 0.25, 0.5, 0.75]), ("thousand", [250, 250, 500, 750])]
)
def test_boxes_become_pixels(folder: Path, coordinates: str, box: list[float]) -> None:
    table = imported(folder, [row(0, box=box)], coordinates=coordinates)
    assert table["box"][0].to_list() == [16, 12, 32, 36]


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        ('{"image": "1.png", ', "data.jsonl, line 2: not valid JSON: Expecting property name enclosed in double quotes at column 20"),
        (row(1, image="gone.png"), "data.jsonl, line 2: image `gone.png`: the file does not exist, looked in"),
        (row(1, image="broken.png"), "data.jsonl, line 2: image `broken.png`: the image is damaged"),
        (row(1, image="empty.png"), "data.jsonl, line 2: image `empty.png`: the file is empty"),
        (row(1, image="text.png"), "data.jsonl, line 2: image `text.png`: the file is not an image"),
        (row(1, image="../secret.png"), "data.jsonl, line 2: image `../secret.png` leaves the image folder"),
        (row(1, box=[30, 6, 4, 40]), "`box` [30.0, 6.0, 4.0, 40.0] has no area, expected [x1, y1, x2, y2]"),
        (row(1, box=[4, 6, 300, 40]), "`box` [4.0, 6.0, 300.0, 40.0] exceeds the image of 64 x 48 pixels"),
        (row(1, box=[0.1, 0.2, 0.3, 0.4]), "is smaller than a pixel; fractions of the image need `coordinates: normalised`"),
        (row(1, box=[1, 2, 3]), "`box` is [1, 2, 3], expected four finite numbers"),
        (row(1, box=[1, 2, float("nan"), 4]), "expected four finite numbers"),
        (row(1, box=None, bbox=[4, 6, 30, 40]), "data.jsonl, line 2: key `box` is missing; is it `bbox`, misspelled?"),
        ({**row(1), "question": " "}, "`question` is ' ', expected text"),
        ({**row(1), "question": 7}, "`question` is 7, expected text"),
        ({k: v for k, v in row(1, qestion="x").items() if k != "question"}, "key `question` is missing; is it `qestion`, misspelled?"),
        (row(1, task="groundin"), "`task` is 'groundin', expected one of grounding, ocr, existence, counting, open; did you mean `grounding`?"),
        (row(1, task="existence", answer="perhaps"), "`answer` is 'perhaps', expected `yes` or `no`"),
        (row(1, id="0"), "data.jsonl, line 2: `id` '0' was already used in line 1, expected unique ids"),
        ("[1, 2]", "found [1, 2], expected an object with keys"),
        (row(1, images=[], image=None), "`images` is [], expected a list of paths"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(folder: Path, bad: Any, line: str) -> None:
    whole = (folder / "1.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("hello")
    message = mistakes(folder, [row(0, id="0"), bad])
    assert line in message
    assert message.startswith("error: 1 of 2 rows cannot be used, at most a share of 0 may fail\n  ")
    assert len(message.splitlines()) <= 3  # the count, the mistake, a hint


def test_five_kinds_of_mistakes_come_at_once_and_more_are_counted(folder: Path) -> None:
    lines = [row(n, id=str(n)) for n in range(13)]
    lines += [
        "{",
        row(14, image="no.png"),
        row(15, box=[9, 9, 1, 1]),
        row(16, task="x"),
        row(17, id="0"),
        row(18, question=""),
    ]
    message = mistakes(folder, lines)
    assert message.startswith("error: 6 of 19 rows cannot be used")
    assert message.count("data.jsonl, line") == 5
    assert "and 1 more" in message


def test_a_permitted_share_is_left_out_with_reasons(folder: Path) -> None:
    table = imported(folder, [row(0), row(1), row(2), row(3, image="no.png")], max_failed_share=0.25)
    assert table.height == 4
    assert table["reason"].null_count() == 3
    assert "no.png" in table["reason"][3]


@pytest.mark.parametrize(("content", "message"), [("", "has no rows"), ("\xff", "not UTF-8 text")])
def test_empty_and_foreign_files(folder: Path, content: str, message: str) -> None:
    file = folder / "data.jsonl"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        import_examples.run(config=FileDataset(kind="jsonl", path=str(file)), examples=folder / "e.parquet")
    with pytest.raises(UserError, match="does not exist"):
        import_examples.run(
            config=FileDataset(kind="jsonl", path=str(folder / "no.jsonl")), examples=folder / "e.parquet"
        )


@pytest.mark.parametrize("kind", ["parquet", "hf"])
def test_parquet_and_hugging_face_folders(folder: Path, kind: str) -> None:
    data = datasets.Dataset.from_list([row(n, image=str(folder / f"{n}.png")) for n in range(3)]).cast_column(
        "image", datasets.Image()
    )
    data = data.map(lambda r: r)  # embeds the images
    path = folder / kind
    if kind == "hf":
        data.save_to_disk(str(path))
    else:
        data.to_parquet(str(path))
    base = {"images": str(folder)}
    import_examples.run(config=FileDataset(kind=kind, path=str(path), **base), examples=folder / "e.parquet")
    table = read_table(folder / "e.parquet", EXAMPLES).to_pylist()
    assert [r["image_sizes"] for r in table] == [[[64, 48]]] * 3
    assert open_image(table[0]["images"][0]).size == (64, 48)


@pytest.mark.parametrize(
    ("named", "splits"), [(None, ["train", "train", "held-out"]), ("val", ["val", "val", "held-out"])]
)
def test_the_splits_of_a_saved_dataset_dict(folder: Path, named: str | None, splits: list[str]) -> None:
    """A row's own split wins, then that of the dataset block, then the name in the `DatasetDict`."""
    rows = [{k: v for k, v in row(n).items() if k not in ("id", "split")} for n in range(3)]
    saved = {"train": rows[:2], "test": [{**rows[2], "split": "held-out"}]}
    path = folder / "saved"
    datasets.DatasetDict({name: datasets.Dataset.from_list(found) for name, found in saved.items()}).save_to_disk(path)
    config = FileDataset(kind="hf", path=str(path), images=str(folder), split=named)
    import_examples.run(config=config, examples=folder / "e.parquet")
    table = read_table(folder / "e.parquet", EXAMPLES)
    assert table["example_id"].to_pylist() == ["train-row-1", "train-row-2", "test-row-1"]
    assert table["split"].to_pylist() == splits
    inputs = read_lineage(folder / "e.parquet")["inputs"]
    assert [source["path"].rpartition("saved/")[2] for source in inputs.values()] == [
        "test/data-00000-of-00001.arrow",
        "train/data-00000-of-00001.arrow",
    ]


def test_odd_images_open(tmp_path: Path) -> None:
    made = {
        "cmyk.jpg": Image.new("CMYK", (8, 8), (0, 255, 255, 0)),
        "palette.png": Image.new("P", (8, 8)),
        "deep.png": Image.new("I;16", (8, 8), 65535),
        "alpha.png": Image.new("RGBA", (8, 8), (255, 0, 0, 0)),
        "grey.png": Image.new("L", (8, 8), 7),
    }
    for name, image in made.items():
        image.save(tmp_path / name)
    opened = {name: open_image({"bytes": None, "path": str(tmp_path / name)}) for name in made}
    assert {i.mode for i in opened.values()} == {"RGB"}
    assert opened["deep.png"].getpixel((0, 0)) == (255, 255, 255)
    # transparent pixels become white
    assert opened["alpha.png"].getpixel((0, 0)) == (255, 255, 255)
    turned = Image.new("RGB", (8, 4))
    exif = turned.getexif()
    exif[0x0112] = 6  # rotates by 90 degrees
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image({"bytes": None, "path": str(tmp_path / "turned.jpg")}).size == (4, 8)


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceptune.core.data.images.MAX_PIXELS", 63)
    Image.new("RGB", (8, 8)).save(tmp_path / "big.png")
    with pytest.raises(ValueError, match="8 x 8 pixels, expected at most 63"):
        open_image({"bytes": None, "path": str(tmp_path / "big.png")})


def test_a_wrong_frame_is_named_with_its_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Thousandths of 64 x 48 images, declared as pixels: two of them happen to be valid."""
    boxes = [[5 * n, 5 * n, 50 * n + 50, 40 * n + 60] for n in range(20)]
    lines = [row(n, box=box) for n, box in enumerate(boxes)]
    message = mistakes(folder, lines)
    assert message.startswith("error: 20 of 20 rows cannot be used")
    assert message.splitlines()[-1] == "hint: `coordinates: thousand` fits 20 of 20 boxes, `pixels` 0"
    capsys.readouterr()
    assert imported(folder, lines, coordinates="thousand").height == 20
    assert "coordinates: `thousand`; boxes that fit (of 20): `pixels` 0" in capsys.readouterr().out


def test_corner_and_size_for_two_corners_is_named(folder: Path) -> None:
    message = mistakes(folder, [row(n, box=[30, 2, 10 + n, 8]) for n in range(20)])
    hint = "hint: `boxes: xywh` ([x, y, width, height]) fits 20 of 20 boxes, `xyxy` 0"
    assert message.splitlines()[-1] == hint


def test_values_as_csv_and_pandas_write_them(folder: Path) -> None:
    """Lists become text in CSV; integers become floats in a column with missing values."""
    lines = [
        row(0, box="[1, 2, 30, 40]"),
        row(1, box=None, task="counting", answer=3.0),
        row(2, box=None, task="ocr", answer="3.0"),
        row(3, box=None, task="open", answer=-0.5),
        {**row(4, box=None, task="open"), "images": '["4.png", "5.png"]'},
    ]
    del lines[-1]["image"]
    table = imported(folder, lines)
    assert table["box"].to_list()[0] == [1, 2, 30, 40]
    assert table["target"].to_list()[1:4] == ["3", "3.0", "-0.5"]
    assert [len(images) for images in table["images"]] == [1, 1, 1, 1, 2]


def test_rows_without_a_ground_truth_are_kept(folder: Path) -> None:
    """Whether one is needed is known where a reward is to read it."""
    tasks = ("grounding", "ocr", "existence", "counting", "open")
    table = imported(folder, [row(n, task=task, box=None) for n, task in enumerate(tasks)])
    assert table["reason"].null_count() == 5
    assert table.select("target", "box").null_count().row(0) == (5, 5)
    given = [row(5, task="existence", box=None, answers_given=[{"text": "yes", "reward": 1.0}])]
    assert imported(folder, given)["reason"].null_count() == 1


def test_boxes_in_another_order_become_corners(folder: Path) -> None:
    table = imported(folder, [row(0, box=[6, 4, 40, 30])], boxes="yxyx")
    assert table["box"][0].to_list() == [4, 6, 30, 40]
    shares = imported(folder, [row(0, box=[0.25, 0.25, 0.25, 0.5])], boxes="xywh", coordinates="normalised")
    assert shares["box"][0].to_list() == [16, 12, 32, 36]
    assert read_lineage(folder / "examples.parquet")["parameters"]["boxes"] == "xywh"


def test_boxes_drawn_on_stored_pixels_are_recognised(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(3):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(folder / f"rotated{number}.jpg", exif=exif)
    lines = [row(n, image=f"rotated{n}.jpg", box=[50, 2 + n, 63, 40]) for n in range(3)]
    assert mistakes(folder, [*lines, row(4, box=[1, 2, 30, 40])]).splitlines()[-1] == (
        "hint: 3 of 3 boxes that do not fit their image are on images that EXIF rotates, and fit them as stored;"
        " boxes refer to the upright image"
    )


def test_a_possible_but_doubtful_frame_is_only_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Boxes that end at the image's lower edge in the padded square: 56 of 64."""
    boxes = [[0.1, 0.2 + 0.01 * n, 0.5, 0.875] for n in range(20)]
    table = imported(folder, [row(n, box=box) for n, box in enumerate(boxes)], coordinates="normalised")
    # as declared, despite the doubt
    assert table["box"][0].to_list() == pytest.approx([6.4, 9.6, 32, 42])
    said = capsys.readouterr().out
    assert "warning: is it `coordinates: padded_normalised`? 20 of 20 boxes end at an edge" in said


def test_an_image_of_another_size_than_its_annotations(folder: Path) -> None:
    message = mistakes(folder, [row(0, image_size=[64, 48]), row(1, image_size=[640, 480])])
    assert "data.jsonl, line 2: the image has 64 x 48 pixels, the annotations expect 640 x 480" in message
    assert imported(folder, [row(0, image_size=[64, 48])])["source"][0] is None


def test_rows_with_more_images_than_wanted_are_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    row = {"question": "what?", "answer": "x", "task": "open"}
    rows = [{**row, "images": ["a.png", "b.png"]}, {**row, "image": "a.png"}, {**row, "images": ["b.png"]}]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    block = FileDataset(kind="jsonl", path=str(tmp_path / "data.jsonl"), max_images=1)
    import_examples.run(config=block, examples=tmp_path / "examples.parquet")
    table = read_table(tmp_path / "examples.parquet", EXAMPLES).to_pylist()
    assert [row["example_id"] for row in table] == ["line-2", "line-3"]
    assert "1 rows with more than 1 images are left out" in capsys.readouterr().out
