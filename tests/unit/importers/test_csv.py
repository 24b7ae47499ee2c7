"""CSV and TSV with rows in perceptune's own format, as Excel and pandas write them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.core.importers import csv
from perceptune.core.importers.sources import source_of

from tests.plugins import IMPORTERS
from tests.unit.importers.conftest import Imported, draw

Mistakes = Callable[..., str]
HEADER = "image;question;task;answer;box"
ROWS = [
    'küche 1.png;"Welche Farbe hat die ""große"" Tasse; und warum?";open;rot;',
    'küche 1.png;"Lies den Text.\n\nAlles, bitte.";ocr;"Kapitel eins\nSeite 3,5";',
    'küche 1.png;Finde die Tasse.;grounding;;"4,5; 6; 30,25; 40"',
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw(tmp_path / "küche 1.png")
    return tmp_path


def written(folder: Path, text: str, encoding: str = "utf-8-sig", name: str = "data.csv") -> Path:
    (folder / name).write_bytes(text.replace("\n", "\r\n").encode(encoding))
    return folder / name


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8", "utf-16"])
@pytest.mark.parametrize("declared", ["", "sep=;\n"])
def test_what_excel_exports(folder: Path, imported: Imported, encoding: str, declared: str) -> None:
    """Semicolons, decimal commas, CRLF, quoted line breaks, and lines that have only separators."""
    text = declared + "\n".join([HEADER, *ROWS, ";;;;", ""])
    found = imported("csv", written(folder, text, encoding))
    assert [row["question"] for row in found] == [
        'Welche Farbe hat die "große" Tasse; und warum?', "Lies den Text.\r\n\r\nAlles, bitte.", "Finde die Tasse.",
    ]  # fmt: skip
    assert [row["target"] for row in found] == ["rot", "Kapitel eins\r\nSeite 3,5", None]
    assert found[2]["box"] == [4.5, 6, 30.25, 40]
    start = 3 if declared else 2
    assert [row["example_id"] for row in found] == [f"line-{start + n}" for n in (0, 1, 5)]


def test_unicode_text_of_excel_is_tabs_in_utf_16(folder: Path, imported: Imported) -> None:
    text = "image\tquestion\ttask\tanswer\nküche 1.png\tWie viele, bitte; genau?\tcounting\t3\n"
    (row,) = imported("csv", written(folder, text, "utf-16", "data.txt"))
    assert (row["question"], row["target"]) == ("Wie viele, bitte; genau?", "3")


def test_the_index_that_pandas_writes_is_no_column(folder: Path, imported: Imported) -> None:
    text = ',image,question,task,images,note\n0,,What?,open,"[""küche 1.png"", ""küche 1.png""]",a\n'
    (row,) = imported("csv", written(folder, text, "utf-8"))
    assert len(row["images"]) == 2
    assert row["source"] == {"note": "a"}


@pytest.mark.parametrize(
    ("columns", "cells", "settings"),
    [
        ("box", '"[4.5, 6, 30.25, 40]"', {}),
        ("box", '"4,5 6 30,25 40"', {}),
        ("box", '"(4.5, 6, 25.75, 34)"', {"boxes": "xywh"}),
        ("box", "6 4.5 40 30.25", {"boxes": "yxyx"}),
        ("x1,y1,x2,y2", '"4,5",6,"30,25",40', {}),
        ("x,y,width,height", "4.5,6,25.75,34", {}),
    ],
)
def test_forms_of_a_box(folder: Path, imported: Imported, columns: str, cells: str, settings: dict[str, str]) -> None:
    text = f"image,question,task,{columns}\nküche 1.png,Where?,grounding,{cells}\n"
    (row,) = imported("csv", written(folder, text), **settings)
    assert row["box"] == [4.5, 6, 30.25, 40]
    assert row["source"] == {}


def test_a_width_and_a_height_alone_are_no_box(folder: Path, imported: Imported) -> None:
    text = "image,question,task,width,height\nküche 1.png,What?,open,64,48\n"
    (row,) = imported("csv", written(folder, text))
    assert (row["box"], row["source"]) == (None, {"width": "64", "height": "48"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{HEADER}\n{ROWS[0]};x\n", "line 2: 6 columns, expected the 5 of the header"),
        (f"{HEADER}\nx.png;Where?;grounding;;1 2 3\n", "line 2: `box` is '1 2 3', expected four numbers such as `[52, 80, 120, 190]`"),
        ("image;question;task;x1;y1;x2;y2\nx.png;Where?;grounding;1;2;;4\n", "line 2: column `x2` is empty and `x1`, `y1`, `y2` are not"),
        ("image;question;task;x1;y1;x2;y2\nx.png;Where?;grounding;1;2;drei;4\n", "line 2: `x2` is 'drei', expected a number"),
        ("image;image;question\nx;y;z\n", "two columns `image`, expected different names"),
        ("image question task\nx.png What? open\n", "line 1 is 'image question task', a single column, expected the names of columns, separated by"),
        (f"{HEADER}\nküche 1.png;\"What?;open;a;\nküche 1.png;What;open;b\";\n", "line 2: a quotation mark opens a field that contains the rows after it"),
        (f"{HEADER}\nküche 1.png;\"What?;open;a;\n", "line 2: a quotation mark is opened but never closed"),
        (f"{HEADER}\nhttps://host/a.png;What?;open;a;\n", "line 2: image `https://host/a.png` is a URL; URLs are not downloaded"),
        ("Bild;question;task\nx.png;What?;open\n", "columns found: `Bild`, `question`, `task`; missing: `image`"),
        (f"{HEADER}\n;;;;\n", "has no rows"),
    ],
)  # fmt: skip
def test_mistakes_name_their_line(folder: Path, mistakes: Mistakes, text: str, expected: str) -> None:
    assert expected in mistakes("csv", written(folder, text))


def test_text_in_another_encoding_names_the_line_and_what_to_do(folder: Path, mistakes: Mistakes) -> None:
    text = "image;question;task\n" + 999 * "a.png;What?;open\n" + "a.png;Größe?;open\n"
    message = mistakes("csv", written(folder, text, "cp1252"))
    assert "line 1001: b'\\xf6' is not UTF-8 text" in message
    assert message.endswith("hint: save the file as UTF-8 (in Excel, `CSV UTF-8`)")


def test_a_workbook_is_named(folder: Path, mistakes: Mistakes) -> None:
    (folder / "data.xlsx").write_bytes(b"PK\x03\x04...")
    message = mistakes("csv", folder / "data.xlsx")
    assert message.endswith(
        "is a zip archive or an Excel workbook\nhint: save the sheet as `CSV UTF-8` and give the path of that file"
    )


def test_columns_that_say_the_order_exclude_the_key(folder: Path, mistakes: Mistakes) -> None:
    text = "image,question,task,x,y,width,height\na.png,Where?,grounding,1,2,3,4\n"
    message = mistakes("csv", written(folder, text), boxes="xywh")
    assert (
        "`boxes: xywh`, but the names of the columns `x`, `y`, `width`, `height` say the order\nhint: remove `boxes`"
        in message
    )


def test_text_with_commas_and_line_breaks_is_no_swallowed_row(folder: Path, imported: Imported) -> None:
    text = 'image,question,task,answer\nküche 1.png,Read.,ocr,"one, two, three\nfour, five, six, seven\na, b, c, d"\n'
    (row,) = imported("csv", written(folder, text))
    assert row["target"].endswith("a, b, c, d")


def test_formats_of_other_trainers_are_read_from_csv(folder: Path, imported: Imported) -> None:
    text = "images;prompt;chosen;rejected\nküche 1.png;What?;a cup;a cat\n"
    (row,) = imported("rlhf_v", written(folder, text.replace("images;prompt", "image;question")))
    assert [one["text"] for one in row["source"]["answers_given"]] == ["a cup", "a cat"]


def blocks(language: str) -> list[str]:
    """The code blocks of a language in the documentation of a user's own data."""
    text = (Path(__file__).parents[3] / "config/README.md").read_text(encoding="utf-8")
    own = text[text.index("## Your own data") : text.index("## Coordinate frames")]
    return [part.partition("```")[0] for part in own.split(f"```{language}\n")[1:]]


def test_the_documented_example_is_read(tmp_path: Path, imported: Imported) -> None:
    draw(tmp_path / "photos/kitchen.jpg", (640, 480))
    draw(tmp_path / "photos/page.png")
    (text,) = (block for block in blocks("text") if block.startswith("image;"))
    found = imported("csv", written(tmp_path, text))
    assert [(row["task"], row["box"], row["target"]) for row in found] == [
        ("grounding", [52.5, 80, 120, 190], None),
        ("ocr", None, "Chapter one"),
    ]


def test_the_documented_blocks_are_valid() -> None:
    datasets = {name: block for text in blocks("yaml") for name, block in yaml.safe_load(text)["datasets"].items()}
    assert {block["kind"] for block in datasets.values()} == {"csv", "coco", "yolo"}
    for block in datasets.values():
        source_of(FileDataset(**block), IMPORTERS[block["kind"]])


@pytest.mark.parametrize("name", ["data.csv", "data.tsv"])
def test_all_missing_columns_are_named_at_once(folder: Path, name: str) -> None:
    separator = "\t" if name.endswith("tsv") else ";"
    path = written(folder, separator.join(["bild", "frage", "answer", "task"]) + f"\na.png{separator * 3}\n", name=name)
    found = "columns found: `bild`, `frage`, `answer`, `task`; missing: `image`, `question`"
    with pytest.raises(UserError) as stopped:
        list(csv.rows(source_of(FileDataset(kind="csv", path=str(path)), csv.IMPORTER)))
    assert stopped.value.args[0] == f"dataset file `{path}`: {found}"


def test_a_misspelled_column_and_an_empty_cell(folder: Path, mistakes: Mistakes) -> None:
    path = written(folder, "image,Question,task\nküche 1.png,What?,open\n")
    with pytest.raises(UserError, match=r"missing: `question` \(is it `Question`, misspelled\?\)"):
        list(csv.rows(source_of(FileDataset(kind="csv", path=str(path)), csv.IMPORTER)))
    assert "line 2: column `question` is empty" in mistakes("csv", written(folder, "image,question\nküche 1.png,\n"))
