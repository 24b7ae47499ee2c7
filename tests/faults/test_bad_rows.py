"""Rows, files and tables as they come: one reason or one line for each mistake, and nothing else is lost."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables import read_table, write_table
from perceptune.stages import examples
from PIL import Image

GOOD = {"image": "0.png", "question": "locate it.", "task": "grounding", "box": [1, 2, 30, 40]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 48), "red").save(tmp_path / "0.png")
    return tmp_path


def imported(folder: Path, lines: list[Any], **settings: Any) -> pl.DataFrame:
    written = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (folder / "data.jsonl").write_bytes(b"\n".join(written) + b"\n")
    config = FileDataset(kind="jsonl", path=str(folder / "data.jsonl"), **{"max_failed": 1.0, **settings})
    examples.run(config=config, examples=folder / "examples.parquet")
    return pl.DataFrame(pl.from_arrow(read_table(folder / "examples.parquet", "examples")))


def but(**changes: Any) -> dict[str, Any]:
    """The good row with other values; `...` removes a key."""
    row = {**GOOD, **changes}
    return {key: value for key, value in row.items() if value is not ...}


DEEP = b'{"image": "0.png", "question": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BAD: list[tuple[Any, str]] = [
    (3, "found 3, expected an object"),
    ("x", "found 'x', expected an object"),
    (None, "found None, expected an object"),
    ([], r"found \[\], expected an object"),
    (True, "found True, expected an object"),
    ([GOOD], "expected an object"),
    (b"{", "no valid JSON"),
    (b'{"image": }', "no valid JSON: Expecting value at column 11"),
    (b"{'image': '0.png'}", "no valid JSON"),
    (b"image,question", "no valid JSON"),
    (b'{"image": "0.png"} {"image": "0.png"}', "no valid JSON: Extra data"),
    (b"\xff\xfe{\0}\0", "not UTF-8 text"),
    (b'{"question": "\xe9"}', "not UTF-8 text"),
    (DEEP, "nested too deeply"),
    (b'{"box": ' + b"1" * 5000 + b"}", "no valid JSON|number"),
    (b'{"image": "0.png", "question": "a\x01b"}', "no valid JSON: Invalid control character"),
    (but(question=...), "key `question` is missing"),
    (but(question=""), "`question` is '', expected text"),
    (but(question=" \n\t "), "expected text"),
    (but(question=None), "`question` is None, expected text"),
    (but(question=7), "`question` is 7, expected text"),
    (but(question=["a"]), r"`question` is \['a'\], expected text"),
    (but(question="\ud800"), "`question` .* no valid Unicode"),
    (but(question=..., qestion="a"), "key `question` is missing; is it `qestion`, misspelled"),
    (but(image=...), "key `image` is missing"),
    (but(image=None), "expected a"),
    (but(image=[]), "expected a path"),
    (but(image={}), "expected a path"),
    (but(image=..., images=[]), "expected a list of paths"),
    (but(image=..., images="0.png"), "expected a list of paths"),
    (but(image=..., images=[None]), "expected a path"),
    (but(task=...), "key `task` is missing"),
    (but(task="groundin"), "`task` is 'groundin', expected one of .*did you mean `grounding`"),
    (but(task=3), "`task` is 3, expected one of"),
    (but(task=["grounding"]), "`task` is .*, expected one of"),
    (but(task={"a": 1}), "`task` is .*, expected one of"),
    (but(box=...), "key `box` is missing"),
    (but(box=[1, 2, 3]), "expected four finite numbers"),
    (but(box=[1, 2, 3, 4, 5]), "expected four finite numbers"),
    (but(box="1, 2, 3, 4"), "expected four finite numbers"),
    (but(box=["1", "2", "3", "4"]), "expected four finite numbers"),
    (but(box=[1, 2, None, 4]), "expected four finite numbers"),
    (but(box=[1, 2, float("nan"), 4]), "expected four finite numbers"),
    (but(box=[1, 2, float("inf"), 4]), "expected four finite numbers"),
    (b'{"image": "0.png", "question": "q", "task": "grounding", "box": [1, 2, 1e999, 4]}', "expected four finite numbers"),
    (but(box=[1, 2, 10**400, 4]), "expected four finite numbers"),
    (but(box=[True, 2, 30, 40]), "expected four finite numbers"),
    (but(box={"x": 1}), "expected four finite numbers"),
    (but(box=[[1, 2, 30, 40]]), "expected four finite numbers"),
    (but(box=[30, 2, 1, 40]), "has no area"),
    (but(box=[1, 2, 1, 40]), "has no area"),
    (but(box=[1, 2, 300, 40]), "leaves the image of 64 x 48 pixels"),
    (but(box=[-20, 2, 30, 40]), "leaves the image of 64 x 48 pixels"),
    (but(box=[0.1, 0.1, 0.5, 0.5]), "smaller than a pixel; .*`coordinates: normalised`"),
    (but(task="ocr"), "key `answer` is missing"),
    (but(task="ocr", answer=["a"]), "`answer` is .*, expected text or a number"),
    (but(task="ocr", answer=True), "`answer` is True, expected text or a number"),
    (but(task="ocr", answer={"a": 1}), "expected text or a number"),
    (but(task="ocr", answer="\udfff"), "`answer` .* no valid Unicode"),
    (but(task="existence", answer="maybe"), "`answer` is 'maybe', expected `yes` or `no`"),
    (but(task="existence", answer=1), "`answer` is 1, expected `yes` or `no`"),
    (but(id=""), "`id` is '', expected a string or an integer"),
    (but(id=1.5), "`id` is 1.5, expected a string or an integer"),
    (but(id=True), "`id` is True, expected a string or an integer"),
    (but(id=["a"]), "expected a string or an integer"),
    (but(id="\ud800"), "`id` .* no valid Unicode"),
    (but(id="first"), "`id` 'first' was used in line 1 already"),
    (but(split=3), "`split` is 3, expected text"),
    (but(split=""), "`split` is '', expected text"),
    (but(split=["train"]), "expected text"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "reason"), BAD, ids=range(len(BAD)))
def test_a_bad_row_is_one_reason_and_the_others_stay(folder: Path, bad: Any, reason: str) -> None:
    lines = [but(id="first"), bad, but(id="last")]
    table = imported(folder, lines)
    assert table["reason"].is_null().to_list() == [True, False, True]
    assert table["example_id"].to_list()[::2] == ["first", "last"]
    assert pl.Series([table["reason"][1]]).str.contains(f"(?s){reason}").all(), table["reason"][1]
    with pytest.raises(UserError) as caught:
        imported(folder, lines, max_failed=0.0)
    assert "1 of 3 rows cannot be used, at most a share of 0 may fail\n  data.jsonl, line 2: " in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
    assert len(str(caught.value)) < 1000


FINE: list[Any] = [
    b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
    json.dumps(GOOD).encode() + b"\r",
    json.dumps(but(question="é ü 漢字 🙂 \u202e \u0007", answer="x" * 100_000)).encode(),
    but(id=2**70),
    but(note={"any": ["thing", None]}, other=float("nan")),
    but(answer=3.5),
    but(task="existence", box=None, answer=" YES "),
]


@pytest.mark.parametrize("line", FINE, ids=range(len(FINE)))
def test_odd_but_good_rows(folder: Path, line: Any) -> None:
    assert imported(folder, [b"", line, b"   "])["reason"].to_list() == [None]


@pytest.mark.parametrize(
    ("settings", "failed", "stops"),
    [
        ({"max_failed": 0.5}, 2, None),
        ({"max_failed": 0.4}, 2, r"at most a share of 0\.4"),
        ({"max_failed": 1.0, "max_failed_rows": 2}, 2, None),
        ({"max_failed": 1.0, "max_failed_rows": 1}, 2, "at most 1 row"),
        ({"max_failed": 0.0, "max_failed_rows": 9}, 1, r"at most a share of 0"),
        ({"max_failed": 0.0, "max_failed_rows": 0}, 0, None),
    ],
)
def test_the_ceiling_is_a_share_and_a_count(folder: Path, settings: Any, failed: int, stops: str | None) -> None:
    lines = [but(id=f"{n}", image="0.png" if n >= failed else "no.png") for n in range(4)]
    if stops is None:
        assert imported(folder, lines, **settings)["reason"].null_count() == 4 - failed
    else:
        with pytest.raises(UserError, match=f"{failed} of 4 rows cannot be used, {stops}") as caught:
            imported(folder, lines, **settings)
        assert "line 1: image `no.png`" in str(caught.value)


def _file(content: bytes) -> Any:
    return lambda path: path.write_bytes(content)


TABLE = pa.table({"image": ["0.png"], "question": ["q"], "task": ["open"]})


def _parquet(**columns: Any) -> Any:
    return lambda path: pq.write_table(pa.table({**{n: TABLE[n] for n in TABLE.column_names}, **columns}), path)


def _cut(path: Path) -> None:
    pq.write_table(TABLE, path)
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("kind", "make", "message"),
    [
        ("jsonl", lambda path: None, "does not exist"),
        ("jsonl", _file(b""), "has no rows"),
        ("jsonl", _file(b"\n\n  \n"), "has no rows"),
        ("jsonl", lambda path: path.mkdir(), "is a folder, expected a file"),
        ("jsonl", _file('{"a": 1}'.encode("utf-16")), "not UTF-8 text|no valid JSON"),
        ("jsonl", _file(bytes(1000)), "no valid JSON"),
        ("parquet", _file(b""), "not readable as Parquet"),
        ("parquet", _file(b"text"), "not readable as Parquet"),
        ("parquet", _cut, "not readable as Parquet"),
        ("parquet", lambda path: path.mkdir(), "is a folder, expected a file"),
        ("parquet", lambda path: pq.write_table(TABLE.drop_columns("image"), path), "row 1: key `image` is missing"),
        (
            "parquet",
            lambda path: pq.write_table(TABLE.drop_columns("question"), path),
            "row 1: key `question` is missing",
        ),
        ("parquet", _parquet(question=[3]), "`question` is 3, expected text"),
        ("parquet", _parquet(image=[3.5]), "expected a path"),
        ("parquet", _parquet(task=[["open"]]), "`task` is .*, expected one of"),
        ("parquet", lambda path: pq.write_table(TABLE.slice(0, 0), path), "has no rows"),
        ("hf", lambda path: None, "does not exist"),
        ("hf", lambda path: path.mkdir(), "expected a folder written by `datasets.save_to_disk`"),
        ("hf", _file(b"text"), "expected a folder written by `datasets.save_to_disk`"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(folder: Path, kind: str, make: Any, message: str) -> None:
    path = folder / "mine"
    make(path)
    with pytest.raises(UserError, match=message) as caught:
        examples.run(config=FileDataset(kind=kind, path=str(path)), examples=folder / "examples.parquet")  # type: ignore[arg-type]
    assert "mine" in str(caught.value)
    assert not (folder / "examples.parquet").exists()


def _metrics(path: Path) -> None:
    write_table(path, "training", [{"experiment": "e", "step": 1, "metric": "loss", "value": 0.5}], {})


def _changed(change: Any) -> Any:
    def make(path: Path) -> None:
        _metrics(path)
        pq.write_table(change(pq.read_table(path)), path)

    return make


def _half(path: Path) -> None:
    _metrics(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist, expected a `training` table"),
        (_file(b""), "not readable as Parquet"),
        (_file(b"PAR1"), "not readable as Parquet"),
        (_file(b"PAR1" + bytes(100) + b"PAR1"), "not readable as Parquet"),
        (_file(b"<html>"), "not readable as Parquet"),
        (_half, "not readable as Parquet"),
        (lambda path: path.mkdir(), "is a folder, expected a `training` table"),
        (_changed(lambda t: t.drop_columns("value")), "is no `training` table of this version"),
        (_changed(lambda t: t.append_column("more", [[1]])), "is no `training` table of this version"),
        (_changed(lambda t: t.set_column(1, "step", [["1"]])), "is no `training` table of this version"),
        (lambda path: pq.write_table(TABLE, path), "is no `training` table of this version"),
    ],
)
def test_a_bad_table_is_one_line_that_says_what_to_do(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "table.parquet"
    make(path)
    with pytest.raises(UserError, match=message) as caught:
        read_table(path, "training")
    assert str(path) in str(caught.value)
