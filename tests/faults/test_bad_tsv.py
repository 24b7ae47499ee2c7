"""TSV files with quotation marks that are never closed, in every format that has a TSV form."""

from collections.abc import Callable
from pathlib import Path

import pytest
from perceptune.contracts.errors import UserError
from perceptune.core.data.read_files import Files
from perceptune.core.data.row_checks import RowError

from tests.plugins import IMPORTERS

KINDS = ["dynamath", "logicvista", "mathverse", "mathvision", "mathvista", "mmmu_pro", "we_math"]
HEADER = ["index", "image", "question", "answer", "category"]


def lines(count: int = 9) -> list[list[str]]:
    return [[str(n), f"{n}.png", f"question {n}?", "5", "general"] for n in range(1, count + 1)]


def written(path: Path, rows: list[list[str]], header: list[str] = HEADER) -> Path:
    path.write_text("\n".join("\t".join(row) for row in [header, *rows]) + "\n")
    return path


def first_column(rows: list[list[str]]) -> None:
    rows[1][0] = '"2'


def middle_column(rows: list[list[str]]) -> None:
    rows[1][2] = '"why'


def last_column(rows: list[list[str]]) -> None:
    rows[1][-1] = '"general'


def last_row(rows: list[list[str]]) -> None:
    rows[1], rows[-1] = rows[-1], ["2", "2.png", "why?", "5", '"general']
    rows.insert(1, rows.pop())


def closed_in_the_next_row(rows: list[list[str]]) -> None:
    rows[1][3], rows[2][3] = '"5', '5"'


def closed_three_rows_later(rows: list[list[str]]) -> None:
    rows[1][3], rows[4][3] = '"5', '5"'


def closed_in_another_column(rows: list[list[str]]) -> None:
    rows[1][2], rows[4][3] = '"why', '5"'


def closed_within_a_field(rows: list[list[str]]) -> None:
    rows[1][2] = '"quoted" and more'


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (first_column, "opened but never closed"),
        (middle_column, "opened but never closed"),
        (last_column, "opened but never closed"),
        (last_row, "opened but never closed"),
        (closed_in_the_next_row, "opens a field that contains the rows after it"),
        (closed_three_rows_later, "opens a field that contains the rows after it"),
        (closed_in_another_column, "opens a field that contains the rows after it"),
        (closed_within_a_field, "expected after"),
    ],
)
def test_an_unclosed_mark_stops_the_import_with_its_line(
    tmp_path: Path, kind: str, damage: Callable[[list[list[str]]], None], reason: str
) -> None:
    rows = lines()
    damage(rows)
    importer = IMPORTERS[kind]
    with pytest.raises(UserError, match=reason) as caught:
        list(importer.rows(Files(written(tmp_path / "data.tsv", rows), importer.reads)))
    assert "data.tsv`, line 3: " in str(caught.value)


def test_fields_in_quotation_marks_are_read(tmp_path: Path) -> None:
    """With line breaks, tabs and doubled marks inside, as pandas writes them."""
    rows = lines(3)
    rows[1][2] = '"a ""b""\nc\td\n\n\te"'
    rows[2][4] = '5" long'  # a mark inside a field is text
    found = list(Files(written(tmp_path / "data.tsv", rows)).records())
    assert [place for place, _ in found] == ["line 2", "line 3", "line 7"]
    assert found[1][1]["question"] == 'a "b"\nc\td\n\n\te'
    assert found[2][1]["category"] == '5" long'


def test_a_row_with_other_columns_is_refused(tmp_path: Path) -> None:
    rows = lines(3)
    rows[0].pop()
    rows[1].append("more")
    found = dict(Files(written(tmp_path / "data.tsv", rows)).records())
    assert str(found["line 2"]) == "4 columns, expected the 5 of the header"
    assert str(found["line 3"]) == "6 columns, expected the 5 of the header"
    assert isinstance(found["line 2"], RowError)
    assert found["line 4"]["index"] == "3"


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two columns `answer`, expected different names"):
        list(Files(written(tmp_path / "data.tsv", lines(), [*HEADER[:2], "answer", "answer", "category"])).records())
