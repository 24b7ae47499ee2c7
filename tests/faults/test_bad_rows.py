"""Invalid rows: one reason for each mistake, and the other rows stay."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table
from perceptune.core.data.image_facts import FactsOfImages
from perceptune.stages.data import import_examples
from perceptune.stages.data.row_batches import checked_batches
from PIL import Image

GOOD = {"image": "0.png", "question": "locate it.", "task": "grounding", "box": [1, 2, 30, 40]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 48), "red").save(tmp_path / "0.png")
    return tmp_path


def imported(folder: Path, lines: list[Any], **settings: Any) -> pl.DataFrame:
    written = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (folder / "data.jsonl").write_bytes(b"\n".join(written) + b"\n")
    config = FileDataset(kind="jsonl", path=str(folder / "data.jsonl"), **{"max_failed_share": 1.0, **settings})
    import_examples.run(config=config, examples=folder / "examples.parquet")
    return pl.DataFrame(pl.from_arrow(read_table(folder / "examples.parquet", EXAMPLES)))


def but(**changes: Any) -> dict[str, Any]:
    """The valid row with other values; `...` removes a key."""
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
    (b"{", "not valid JSON"),
    (b'{"image": }', "not valid JSON: Expecting value at column 11"),
    (b"{'image': '0.png'}", "not valid JSON"),
    (b"image,question", "not valid JSON"),
    (b'{"image": "0.png"} {"image": "0.png"}', "not valid JSON: Extra data"),
    (b"\xff\xfe{\0}\0", "not UTF-8 text"),
    (b'{"question": "\xe9"}', "not UTF-8 text"),
    (DEEP, "nested too deeply"),
    (b'{"box": ' + b"1" * 5000 + b"}", "not valid JSON|number"),
    (b'{"image": "0.png", "question": "a\x01b"}', "not valid JSON: Invalid control character"),
    (but(question=...), "key `question` is missing"),
    (but(question=""), "`question` is '', expected text"),
    (but(question=" \n\t "), "expected text"),
    (but(question=None), "`question` is None, expected text"),
    (but(question=7), "`question` is 7, expected text"),
    (but(question=["a"]), r"`question` is \['a'\], expected text"),
    (but(question="\ud800"), "`question` .* not valid Unicode"),
    (but(question=..., qestion="a"), "key `question` is missing; is it `qestion`, misspelled"),
    (but(image=...), "key `image` is missing"),
    (but(image=None), "expected a"),
    (but(image=[]), "expected a path"),
    (but(image={}), "expected a path"),
    (but(image=..., images=[]), "expected a list of paths"),
    (but(image=..., images="0.png"), "expected a list of paths"),
    (but(image=..., images=[None]), "expected a path"),
    (but(images=["0.png", "1.png"]), r"`image` is '0\.png' and `images` is \['0\.png', '1\.png'\], expected only one of the two keys"),
    (but(images=[]), r"`image` is '0\.png' and `images` is \[\], expected only one of the two keys"),
    (but(task=...), "key `task` is missing"),
    (but(task="groundin"), "`task` is 'groundin', expected one of .*did you mean `grounding`"),
    (but(task=3), "`task` is 3, expected one of"),
    (but(task=0), "`task` is 0, expected one of"),
    (but(task=False), "`task` is False, expected one of"),
    (but(task=""), "`task` is '', expected one of"),
    (but(task=["grounding"]), "`task` is .*, expected one of"),
    (but(task={"a": 1}), "`task` is .*, expected one of"),
    (but(box=..., bbox=[1, 2, 30, 40]), "key `box` is missing; is it `bbox`, misspelled"),
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
    (but(box=[1, 2, 300, 40]), "exceeds the image of 64 x 48 pixels"),
    (but(box=[-20, 2, 30, 40]), "exceeds the image of 64 x 48 pixels"),
    (but(box=[0.1, 0.1, 0.5, 0.5]), "smaller than a pixel; .*`coordinates: normalised`"),
    (but(task="ocr", Answer="a"), "key `answer` is missing; is it `Answer`, misspelled"),
    (but(task="ocr", answer=["a"]), "`answer` is .*, expected text or a number"),
    (but(task="ocr", answer=True), "`answer` is True, expected text or a number"),
    (but(task="ocr", answer={"a": 1}), "expected text or a number"),
    (but(task="counting", answer=float("nan")), "`answer` is nan, expected text or a finite number"),
    (b'{"image": "0.png", "question": "q", "task": "counting", "answer": -1e999}', "`answer` is -inf, expected text or a finite"),
    (but(task="counting", answer=""), "`answer` is '', expected a whole number, such as `3`, for task `counting`"),
    (but(task="counting", answer=" \n"), "expected a whole number"),
    (but(task="counting", answer="viele"), "`answer` is 'viele', expected a whole number"),
    (but(task="counting", answer="three"), "`answer` is 'three', expected a whole number"),
    (but(task="counting", answer="24 coins"), "`answer` is '24 coins', expected a whole number"),
    (but(task="counting", answer=2.5), "`answer` is 2.5, expected a whole number"),
    (but(task="counting", answer=-1), "`answer` is -1, expected a whole number"),
    (but(task="open", answer=""), "`answer` is '', expected text or a number; leave the key out if there is none"),
    (but(task="existence", answer=""), "`answer` is '', expected `yes` or `no`"),
    (but(question="what is <image> it?"), "an image inside the text"),
    (but(image="https://host/0.png"), "is a URL; URLs are not downloaded"),
    (but(task="ocr", answer="\udfff"), "`answer` .* not valid Unicode"),
    (but(task="existence", answer="maybe"), "`answer` is 'maybe', expected `yes` or `no`"),
    (but(task="existence", answer=1), "`answer` is 1, expected `yes` or `no`"),
    (but(task="existence", answer=True), "`answer` is True, expected `yes` or `no`"),
    (but(box="[1 2 30 40]"), r"`box` is '\[1 2 30 40\]', expected four finite numbers"),  # NumPy's, without commas
    (but(box="[1, 2, 300, 40]"), "exceeds the image of 64 x 48 pixels"),
    (but(box="[" * 100_000), "expected four finite numbers"),
    (but(**{"question": ..., "\nquestion\x1b": "a"}), r"key `question` is missing; is it `\\nquestion\\x1b`, misspelled"),
    (b'{"image": "0.png", "question": "' + b"x" * 50_000_000 + b'", }', "not valid JSON: Expecting property name .* at column 500000"),
    (but(id=""), "`id` is '', expected a string or an integer"),
    (but(id=1.5), "`id` is 1.5, expected a string or an integer"),
    (but(id=True), "`id` is True, expected a string or an integer"),
    (but(id=["a"]), "expected a string or an integer"),
    (but(id="\ud800"), "`id` .* not valid Unicode"),
    (but(id="first"), "`id` 'first' was already used in line 1"),
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
        imported(folder, lines, max_failed_share=0.0)
    assert "1 of 3 rows cannot be used, at most a share of 0 may fail\n  data.jsonl, line 2: " in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
    assert len(str(caught.value)) < 1000


def test_an_id_of_any_length_is_quoted_in_a_short_line(folder: Path) -> None:
    lines = [but(id="x" * 100_000), but(id="x" * 100_000), but(id="last")]
    reasons = imported(folder, lines)["reason"].to_list()
    assert reasons[0] is reasons[2] is None
    assert reasons[1].endswith("xxx... was already used in line 1, expected unique ids")
    assert len(reasons[1]) < 200


@pytest.mark.parametrize("depth", [900, 10**5])
def test_a_row_that_is_too_deep_to_be_written_is_one_reason(folder: Path, depth: int) -> None:
    """The deepest readable and writable nesting differ by a few levels, depending on the Python
    version.
    """
    note: list[Any] = []
    for _ in range(depth):
        note = [note]
    rows = [but(), but(note=note), but(question=note)]
    config = FileDataset(kind="jsonl", path=str(folder / "data.jsonl"))
    known = FactsOfImages()
    placed = ((f"line {n}", row) for n, row in enumerate(rows))
    (batch,) = checked_batches(placed, config, folder, False, known)
    reasons = [checked.row["reason"] for checked in batch]
    assert reasons[0] is None
    assert reasons[1] == (None if depth < 10**5 else "nested too deeply")
    assert "`question` is [[" in reasons[2] if depth < 10**5 else reasons[2] == "nested too deeply"


FINE: list[Any] = [
    b'{"image": "0.png", "task": "open", "question": "' + b"x" * 50_000_000 + b'"}',
    b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
    json.dumps(GOOD).encode() + b"\r",
    json.dumps(but(question="é ü 漢字 🙂 \u202e \u0007", answer="x" * 100_000)).encode(),
    but(id=2**70),
    but(note={"any": ["thing", None]}, other=float("nan")),
    but(answer=3.5),
    but(task="existence", box=None, answer=" YES "),
    but(task="ocr", answer=""),
    but(task="open", answer=None),
    but(question="<image>\nwhat is it?"),
]


@pytest.mark.parametrize("line", FINE, ids=range(len(FINE)))
def test_odd_but_good_rows(folder: Path, line: Any) -> None:
    assert imported(folder, [b"", line, b"   "])["reason"].to_list() == [None]


def test_the_blocks_task_does_not_replace_a_bad_one(folder: Path) -> None:
    reasons = imported(folder, [but(task=0), but(task=...)], task="grounding")["reason"].to_list()
    assert reasons[0].startswith("`task` is 0, expected one of grounding, ")
    assert reasons[1] is None


@pytest.mark.parametrize(
    ("settings", "failed", "stops"),
    [
        ({"max_failed_share": 0.5}, 2, None),
        ({"max_failed_share": 0.4}, 2, r"at most a share of 0\.4"),
        ({"max_failed_share": 1.0, "max_failed_rows": 2}, 2, None),
        ({"max_failed_share": 1.0, "max_failed_rows": 1}, 2, "at most 1 row"),
        ({"max_failed_share": 0.0, "max_failed_rows": 2}, 2, None),
        ({"max_failed_share": 0.0, "max_failed_rows": 1}, 2, "at most 1 row"),
        ({"max_failed_share": 0.0, "max_failed_rows": 0}, 0, None),
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
