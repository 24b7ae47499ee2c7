"""The reader of `examples` tables: columns and rows on demand, and only unchanged images."""

import hashlib
import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables import io as tables
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.stages.data.example_images import IllustratedExamples
from perceptune.stages.data.examples import Examples
from PIL import Image

COUNT = 7
BAD = 2
"""Index of the quarantined row."""


def picture(number: int) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (4 + number, 3), (10 * number, 0, 0)).save(encoded, "PNG")
    return encoded.getvalue()


def row(number: int, folder: Path) -> dict[str, Any]:
    """Even rows store their images in the table; odd rows refer to two files each."""
    data = [picture(number)] if number % 2 == 0 else [picture(number), picture(number + 10)]
    images = []
    for place, one in enumerate(data):
        file = folder / f"{number}-{place}.png"
        file.write_bytes(one)
        images.append({"bytes": one, "path": None} if number % 2 == 0 else {"bytes": None, "path": str(file)})
    good = number != BAD
    return {
        "example_id": f"e{number}", "task": "open", "question": f"question {number}", "images": images if good else [],
        "image_sha256": [hashlib.sha256(one).hexdigest() for one in data] if good else [], "image_hashes": [], "image_sizes": [],
        "target": None, "box": None, "split": "train", "source": None, "reason": None if good else "broken",
    }  # fmt: skip


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of three row groups."""
    monkeypatch.setattr(tables, "IMAGE_ROWS", 3)
    tables.write_table(
        tmp_path / "examples.parquet", EXAMPLES, [row(n, tmp_path) for n in range(COUNT)], {"stage": "t"}
    )
    return tmp_path / "examples.parquet"


def test_row_groups_are_limited_in_bytes(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow cannot read groups with more than 2 GiB of images, such as 700 photographs of 4 MB."""
    monkeypatch.setattr(tables, "IMAGE_ROWS", 1000)
    monkeypatch.setattr(tables, "GROUP_BYTES", 5000)
    sizes = [1000, 1000, 1000, 9000, 10, 2000, 4000]
    rows = [
        {**row(n, tmp_path), "images": [{"bytes": bytes(size), "path": None}], "image_sha256": ["0"]}
        for n, size in enumerate(sizes)
    ]
    tables.write_table(tmp_path / "large.parquet", EXAMPLES, rows, {})
    stored = pq.ParquetFile(tmp_path / "large.parquet")
    counts = [stored.metadata.row_group(n).num_rows for n in range(stored.num_row_groups)]
    assert counts == [3, 1, 1, 1, 1]  # halved until they fit; one row alone may be larger
    assert stored.read()["images"].to_pylist() == [one["images"] for one in rows]
    tables.write_table(tmp_path / "empty.parquet", EXAMPLES, [], {})
    assert tables.read_table(tmp_path / "empty.parquet", EXAMPLES).num_rows == 0


def test_rows_come_in_order_without_images_and_quarantined_ones(path: Path) -> None:
    rows = Examples(path).rows()
    assert list(rows) == ["e0", "e1", "e3", "e4", "e5", "e6"]
    assert list(rows["e0"]) == [name for name in EXAMPLES.schema.names if name not in ("images", "image_hashes")]
    assert rows["e3"]["question"] == "question 3"
    assert Examples(path).rows(["e5", "e1", "e2", "other"], ["question"]) == {
        "e1": {"question": "question 1"},
        "e5": {"question": "question 5"},
    }
    assert Examples(path).table(["question", "example_id"], ["e4"]).to_pylist() == [
        {"question": "question 4", "example_id": "e4"}
    ]


def test_images_are_those_of_the_example(path: Path) -> None:
    known = IllustratedExamples(path)
    for number in (6, 0, 5, 1, 4, 3):  # alternates between row groups
        widths = [4 + number] if number % 2 == 0 else [4 + number, 14 + number]
        assert [image.width for image in known.images(f"e{number}")] == widths
        assert known.image(f"e{number}", len(widths) - 1).width == widths[-1]
        assert [image["bytes"] is None for image in known.files(f"e{number}")] == [bool(number % 2)] * len(widths)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The row groups that are read, in order."""
    numbers: list[int] = []
    read = tables.RowGroups.read

    def counted(self: tables.RowGroups, number: int, column: str) -> Any:
        numbers.append(number)
        return read(self, number, column)

    monkeypatch.setattr(tables.RowGroups, "read", counted)
    return numbers


def test_only_groups_with_images_that_are_needed_are_read(path: Path, reads: list[int]) -> None:
    known = IllustratedExamples(path)
    assert len(known.rows()) == COUNT - 1
    assert reads == []
    for number in (3, 4, 5):
        known.images(f"e{number}")
    assert reads == [1]


def test_fetched_images_are_read_in_one_pass(path: Path, reads: list[int]) -> None:
    known = IllustratedExamples(path)
    known.fetch(["e6", "e0", "e1", "e6"])
    for example_id, width in (("e6", 10), ("e0", 4), ("e1", 5), ("e0", 4), ("e6", 10)):
        assert known.images(example_id)[0].width == width
    assert reads == [0, 2]
    known.fetch([])
    assert known.images("e6")[0].width == 10
    assert reads == [0, 2, 2]


def test_a_changed_image_is_refused(path: Path) -> None:
    (path.parent / "1-1.png").write_bytes(picture(3))
    (path.parent / "3-0.png").unlink()
    known = IllustratedExamples(path)
    assert known.image("e1", 0).width == 5
    with pytest.raises(ValueError, match=r"^the image has changed since the import; import the dataset again$"):
        known.image("e1", 1)
    with pytest.raises(ValueError, match=r"^the file does not exist$"):
        known.images("e3")
    with pytest.raises(UserError, match=r"1-1\.png` of example `e1`: the image has changed since the import"):
        known.files("e1")
    with pytest.raises(UserError, match=r"3-0\.png` of example `e3`: the file does not exist"):
        known.files("e3")


def test_another_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "examples.parquet").write_text("no table")
    for read in (
        Examples(tmp_path / "examples.parquet").rows,
        lambda: IllustratedExamples(tmp_path / "gone").images("e"),
    ):
        with pytest.raises(UserError, match=r"`.*(examples.parquet` is not readable as Parquet|gone` does not exist)"):
            read()
