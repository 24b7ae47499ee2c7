"""Images given as URLs or as base64, names in another Unicode form, and images that many rows share."""

import base64
import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.digests import DigestMemory
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table
from perceptune.core.data import image_facts
from perceptune.planning.data_digest import data_digest
from perceptune.stages.data import import_examples
from PIL import Image

from tests.faults.test_bad_images import encoded

TEXT = {"question": "what?", "task": "open"}


def imported(folder: Path, *names: Any, **settings: Any) -> pl.DataFrame:
    lines = [json.dumps({**TEXT, "image": name}) for name in names]
    (folder / "data.jsonl").write_text("\n".join(lines), encoding="utf-8")
    block = FileDataset(kind="jsonl", path=str(folder / "data.jsonl"), **settings)
    data_digest(block, DigestMemory(folder / "memory.sqlite"))
    import_examples.run(config=block, examples=folder / "examples.parquet")
    return pl.DataFrame(pl.from_arrow(read_table(folder / "examples.parquet", EXAMPLES)))


def reason(folder: Path, name: Any) -> str:
    with pytest.raises(UserError) as caught:
        imported(folder, name)
    assert len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://example.org/cats/1.jpg", "http://host/x.png", "s3://bucket/x.png", "file:///data/x.png", "hf://a/b.png"]
)  # fmt: skip
@pytest.mark.parametrize("form", [lambda url: url, lambda url: {"bytes": None, "path": url}])
def test_urls_are_not_downloaded(tmp_path: Path, url: str, form: Any) -> None:
    expected = f"line 1: image `{url}` is a URL; URLs are not downloaded, expected the path of a local file"
    assert expected in reason(tmp_path, form(url))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
def test_base64_and_data_uris_are_images(tmp_path: Path, kind: str) -> None:
    data = encoded(kind)
    text = base64.b64encode(data).decode()
    wrapped = base64.encodebytes(data).decode()
    uri = f"data:image/{kind.lower()};base64,{text}"
    table = imported(tmp_path, text, wrapped, uri, uri.replace("data:", "DATA:"), {"bytes": None, "path": uri})
    assert table["images"].to_list() == [[{"bytes": data, "path": None}]] * 5
    assert table["image_sizes"].to_list() == [[[64, 48]]] * 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data:image/svg+xml,%3Csvg/%3E", "a data URI without base64, expected `data:image/...;base64,...`"),
        ("data:image/png;base64", "a data URI without base64"),
        ("data:image/png;base64,iVBOR*", "a data URI that cannot be decoded"),
        ("data:image/png;base64,", "image (in the table): the file is empty"),
        ("data:image/png;base64," + base64.b64encode(b"no image" * 20).decode(), "not an image that Pillow can read"),
        ("iVBORw0KGgo" + "A" * 90 + "*", "base64 that cannot be decoded"),
        ("iVBORw0KGgo" + "A" * 89, "image (in the table): "),
    ],
)
def test_text_that_is_no_image_has_its_reason(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in reason(tmp_path, text)


def test_file_names_like_base64_are_paths(tmp_path: Path) -> None:
    name = "iVBORw0KGgo/" + "A" * 80 + ".png"
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_bytes(encoded("PNG"))
    assert imported(tmp_path, name)["reason"].to_list() == [None]


def test_a_name_in_another_case_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets/Katze.jpg").write_bytes(encoded("JPEG"))
    assert f"looked in `{tmp_path}`; did you mean `pets/Katze.jpg`?\n" in reason(tmp_path, "pets/katze.JPG")
    assert f"looked in `{tmp_path}`\n" in reason(tmp_path, "pets/hund.jpg")


@pytest.mark.parametrize(("stored", "written"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_name_in_another_unicode_form_has_a_hint(tmp_path: Path, stored: Any, written: Any) -> None:
    (tmp_path / unicodedata.normalize(stored, "café.png")).write_bytes(encoded("PNG"))
    message = reason(tmp_path, unicodedata.normalize(written, "café.png"))
    assert (
        f"the file does not exist, looked in `{tmp_path}`; a file whose name looks the same, in Unicode form {stored}, exists"
        in message
    )


def test_names_of_a_shell_and_of_windows_have_a_hint(tmp_path: Path) -> None:
    assert "the file does not exist" in reason(tmp_path, "no.png")
    assert "; `~` is not expanded" in reason(tmp_path, "~/x.png")
    assert "; expected `/` between folders" in reason(tmp_path, "images\\x.png")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often files are read and images decoded."""
    counts = {"read": 0, "decoded": 0}

    def counting(name: str, function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            counts[name] += 1
            return function(*arguments)

        return call

    monkeypatch.setattr(image_facts, "image_bytes", counting("read", image_facts.image_bytes))
    monkeypatch.setattr(image_facts, "decoded", counting("decoded", image_facts.decoded))
    return counts


def test_an_image_of_many_rows_is_read_and_decoded_once(tmp_path: Path, opened: dict[str, int]) -> None:
    (tmp_path / "1.png").write_bytes(encoded("PNG"))
    (tmp_path / "2.png").write_bytes(encoded("PNG", Image.new("RGB", (9, 9))))
    (tmp_path / "copy.png").write_bytes(encoded("PNG"))
    table = imported(tmp_path, *["1.png", "2.png", "./1.png"] * 60, "copy.png")
    assert opened == {"read": 3, "decoded": 2}
    assert table["image_sizes"].to_list()[:3] == [[[64, 48]], [[9, 9]], [[64, 48]]]
    assert table["image_sha256"].n_unique() == 2


def test_an_image_in_the_table_is_decoded_once(tmp_path: Path, opened: dict[str, int]) -> None:
    imported(tmp_path, *[f"data:image/png;base64,{base64.b64encode(encoded('PNG')).decode()}"] * 50)
    assert opened == {"read": 0, "decoded": 1}


def test_a_bad_image_of_many_rows_is_read_once_and_fails_each(tmp_path: Path, opened: dict[str, int]) -> None:
    (tmp_path / "1.png").write_bytes(b"no image")
    table = imported(tmp_path, *["1.png"] * 20, max_failed_share=1.0)
    assert opened == {"read": 1, "decoded": 1}
    assert table["reason"].n_unique() == 1
    assert "not an image that Pillow can read" in table["reason"][0]


def test_a_file_that_changes_is_another_one(tmp_path: Path) -> None:
    known, path = image_facts.FactsOfImages(), tmp_path / "1.png"
    sizes = []
    for number in (1, 2):
        path.write_bytes(encoded("PNG", Image.new("RGB", (number, 1))))
        os.utime(path, ns=(number, number))
        sizes.append(known.of({"bytes": None, "path": str(path)}).size)
    assert sizes == [(1, 1), (2, 1)]


def test_what_is_kept_of_an_image_is_small(tmp_path: Path) -> None:
    known = image_facts.FactsOfImages()
    (tmp_path / "1.png").write_bytes(encoded("PNG"))
    facts = known.of({"bytes": None, "path": str(tmp_path / "1.png")})
    assert {type(value) for value in facts} == {str, tuple, bool, bytes}
