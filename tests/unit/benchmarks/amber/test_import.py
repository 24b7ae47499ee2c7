"""AMBER's official files: rows, layout, mistakes, and all stages except sampling."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.core.answers.nouns import Language
from perceptune.core.benchmarks.amber.data import PUBLISHED
from perceptune.core.data.read_files import Files

from tests.unit.benchmarks.answering import (
    IMPORTERS,
    Row,
    answered,
    drawn_images,
    questions,
    through_the_stages,
    values,
)

from .texts import SAID, described, drawn_nouns


def test_official_row_counts(rows: list[Row], folder: Path) -> None:
    kinds = Counter((row["type"], row.get("answer")) for row in rows)
    assert kinds == {
        ("generative", None): 1004,
        ("discriminative-attribute-state", "yes"): 2382, ("discriminative-attribute-state", "no"): 2382,
        ("discriminative-attribute-number", "yes"): 1036, ("discriminative-attribute-number", "no"): 1036,
        ("discriminative-attribute-action", "yes"): 396, ("discriminative-attribute-action", "no"): 396,
        ("discriminative-hallucination", "no"): 4924, ("discriminative-relation", "yes"): 975, ("relation", "no"): 689,
    }  # fmt: skip
    assert [row["id"] for row in rows] == [str(number) for number in range(1, 15221)]
    assert len({row["image"] for row in rows}) == 1004
    for name, number in PUBLISHED.items():
        source = Files(folder / name)
        assert len(questions("amber", folder / name)) == number == IMPORTERS["amber"].published(source)["test"]


@pytest.fixture
def data(tmp_path: Path, folder: Path) -> Iterator[Path]:
    """A small copy in the authors' layout, with the queries in a separate folder."""
    (tmp_path / "query").mkdir()
    for name in ("annotations.json", "relation.json", "safe_words.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    records = json.loads((folder / "query_all.json").read_text())
    (tmp_path / "query" / "query_all.json").write_text(json.dumps([records[0], records[1004]]))
    return tmp_path


def test_layout_of_the_authors_folder(data: Path) -> None:
    assert [row["id"] for row in questions("amber", data)] == ["1", "1005"]


def test_mistakes(data: Path) -> None:
    (data / "query" / "query_all.json").write_text(json.dumps([{"id": 15221, "image": "a.jpg", "query": "?"}]))
    ((_, refused),) = IMPORTERS["amber"].rows(Files(data))
    assert str(refused) == "`id` is 15221, expected a number from 1 to 15220, as in `annotations.json`"
    (data / "safe_words.txt").unlink()
    with pytest.raises(UserError, match=r"safe_words.txt` does not exist"):
        list(IMPORTERS["amber"].rows(Files(data)))


def test_full_file_through_the_stages(rows: list[Row], folder: Path, tmp_path: Path, language: Language) -> None:
    """15,220 rows with 1,004 stand-in images go through all stages except sampling."""
    images = drawn_images(tmp_path / "image", [row["image"] for row in rows])
    draw = Random(2)
    nouns = iter(drawn_nouns(described(rows), 2))
    texts: dict[str, str | None] = {
        row["id"]: next(nouns) if row["task"] == "open" else draw.choice(SAID) for row in rows
    }
    dataset = FileDataset(kind="amber", path=str(folder), images=str(images))
    table = through_the_stages(tmp_path, "amber", dataset, texts)
    wanted = values("amber", answered("amber", rows, [texts[row["id"]] for row in rows]))
    assert dict(table.select("metric", "value").iter_rows()) == pytest.approx(wanted, abs=1e-12)
    n = dict(table.select("metric", "n").iter_rows())
    assert (n["discriminative_f1"], n["chair"], n["relation_recall"], n["amber_score"]) == (14216, 1004, 1664, 15220)


def test_full_file_through_the_stages_without_resources(rows: list[Row], folder: Path, tmp_path: Path) -> None:
    images = drawn_images(tmp_path / "image", [row["image"] for row in rows])
    dataset = FileDataset(kind="amber", path=str(folder / "query_generative.json"), images=str(images))
    table = through_the_stages(tmp_path, "amber_generative", dataset, {row["id"]: "A dog." for row in rows})
    assert table["value"].to_list() == [None] * 5
    assert {reason.partition(" the packages")[0] for reason in table["reason"].to_list()} == {"not measured: needs"}
