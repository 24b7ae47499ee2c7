"""Pages of Fox and GOT."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.importers.conftest import Imported, draw, write_json


def page(
    name: str, question: str = "<image>\nOCR this page.", text: str = "Some text,\nin two lines."
) -> dict[str, Any]:
    return {"image": name, "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": text}]}


def test_pages(tmp_path: Path, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("en_1.png", "en_2.png"):
        draw(tmp_path / "en_pdf_png" / name)
    pages = [page("en_1.png"), {**page("en_2.png", "OCR: "), "id": "second"}]
    file = write_json(tmp_path / "en_page_ocr.json", pages)
    rows = imported("ocr_pages", file, images=tmp_path / "en_pdf_png", split="test")
    assert [(row["example_id"], row["question"], row["target"]) for row in rows] == [
        ("record-1", "OCR this page.", "Some text,\nin two lines."),
        ("second", "OCR: ", "Some text,\nin two lines."),
    ]
    assert {(row["task"], row["split"]) for row in rows} == {("ocr", "test")}
    printed = capsys.readouterr().out
    assert "en_page_ocr.json all: 2 rows, 112 published" in printed
    assert "en_page_ocr.json test: 2 rows\n" in printed


def test_all_pages_are_as_published(tmp_path: Path, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "en_1.png")
    assert len(imported("ocr_pages", write_json(tmp_path / "en_page_ocr.json", [page("en_1.png")] * 112))) == 112
    assert "en_page_ocr.json all: 112 rows, as published" in capsys.readouterr().out


def test_several_images_of_one_record(tmp_path: Path, imported: Imported) -> None:
    for name in ("1.png", "2.png"):
        draw(tmp_path / name)
    record = {**page("", "<image><image>\nRead."), "image": ["1.png", "2.png"]}
    (row,) = imported("ocr_pages", write_json(tmp_path / "many.json", [record]))
    assert [Path(image["path"]).name for image in row["images"]] == ["1.png", "2.png"]
    assert row["question"] == "Read."


def test_malformed_records_are_one_line_each(tmp_path: Path, mistakes: Callable[..., str]) -> None:
    draw(tmp_path / "1.png")
    good = page("1.png")
    bad = [
        {"image": "1.png"},
        {**good, "conversations": good["conversations"][:1]},
        {**good, "conversations": good["conversations"] * 2},
        {"conversations": good["conversations"]},
        page("1.png", "<image><image>"),
    ]
    message = mistakes("ocr_pages", write_json(tmp_path / "data.json", bad))
    assert "5 of 5 rows cannot be used" in message
    assert "record 1: key `conversations` is missing" in message
    assert "record 2: `conversations`: turns user, expected one user turn and one assistant turn" in message
    assert "record 3: `conversations`: turns user, assistant, user, assistant, expected one" in message
    assert "record 4: key `image` is missing" in message
    assert "record 5: 2 `<image>` placeholders for 1 images, expected 1 or none" in message
