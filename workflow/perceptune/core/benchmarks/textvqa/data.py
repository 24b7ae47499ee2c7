"""TextVQA: `TextVQA_0.5.1_{train,val,test}.json`, with the boxes of the answers where there are any.

`path` is such a file, a folder with one and, if wanted, a file of boxes whose name has `bbox` in it, or the data set of boxes
itself: jrzhang/TextVQA_GT_bbox (Parquet; by the author of ViCrop, whose attention ratios P2-DPO's follow), of 4,370 questions of
`val` with `image`, `question`, `answer` (all of them), `dataset_id` (the question's) and `bbox`, [x, y, width, height] in pixels
(two public programs read it so). A file of boxes has `bbox` and `question_id` or `dataset_id`.

The target is the most frequent of the ten answers, of equally frequent ones the first; all are kept as `answers`.
Images are `<image_id>.jpg`: those of train and val are in the folder `train_images` of the published archive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from perceptune.contracts.errors import UserError
from perceptune.core.data.row_checks import RowError, shown
from perceptune.core.importers.importer import Importer, Placed, Row, Source, corners, first_of, made, split_files

PATTERN = "TextVQA_*.json"
BOXES = "*bbox*"
KEPT = ("image_id", "image_classes")
BOXED = 4370
"""Questions with a box in TextVQA_GT_bbox."""


def rows(source: Source) -> Iterator[Placed]:
    """A row per question."""
    name = _questions(source)
    if name is None:
        # not the split that the file's name says: that of TextVQA_GT_bbox is called `train` and has questions of val
        for place, record, _ in split_files(source):
            yield place, made(partial(_row, {}, None), record)
        return
    read = source.document(name)
    records = read.get("data") if isinstance(read, Mapping) else None
    if not isinstance(records, list):
        raise UserError(f"dataset file `{name}` has no list `data`, expected TextVQA's own file")
    boxes = _boxes(source) if source.path.is_dir() else {}
    asked = {str(record.get("question_id")) for record in records if isinstance(record, Mapping)}
    if boxes and not asked & boxes.keys():
        raise UserError(f"no box in `{source.path}` is of a question in `{name}`: are they of another split?")
    split = name.removesuffix(".json").rpartition("_")[2]
    for number, record in enumerate(records, 1):
        yield f"question {number}", made(partial(_row, boxes, split), record)


def _questions(source: Source) -> str | None:
    """The file of questions; None where the source is boxes with their own questions. Raises `UserError` for several."""
    names = [name for name in source.names(PATTERN) if name not in source.names(BOXES)]
    if len(names) > 1:
        listed = ", ".join(f"`{name}`" for name in names)
        raise UserError(f"dataset `{source.path}` has {listed}, expected one", "name the file in `path`")
    return names[0] if names else None


def _row(boxes: Mapping[str, Any], split: str | None, record: Mapping[str, Any]) -> Row:
    identity = str(first_of(record, "question_id", "dataset_id"))
    box = boxes.get(identity, record.get("bbox"))
    split = record.get("set_name", split)
    row = {
        "id": identity,
        "image": record["image"] if "image" in record else f"{record['image_id']}.jpg",
        "question": record["question"],
        **({"split": split} if split else {}),
        **({} if box is None else {"box": corners(box)}),
        **{key: record[key] for key in KEPT if key in record},
    }
    answers = record.get("answers", record.get("answer"))
    if answers is None:  # those of `test` are not published
        return row
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise RowError(f"`answers` is {shown(answers)}, expected a list of texts")
    return {**row, "answer": Counter(answers).most_common(1)[0][0], "answers": answers}


def _boxes(source: Source) -> dict[str, Any]:
    """Question to box, of the files of boxes; `UserError` for one without boxes, and for a question with two."""
    boxes: dict[str, Any] = {}
    for name in source.names(BOXES):
        empty = True
        for place, record in source.records(name):
            empty = False
            row = made(lambda given: {"of": first_of(given, "question_id", "dataset_id"), "is": given["bbox"]}, record)
            if isinstance(row, RowError):
                raise UserError(f"dataset file `{name}`, {place}: {row}")
            first = boxes.setdefault(str(row["of"]), row["is"])
            if first != row["is"]:
                raise UserError(
                    f"dataset file `{name}`, {place}: question {shown(row['of'])} has the box {shown(row['is'])} and, before,"
                    f" {shown(first)}, expected one box for each question"
                )
        if empty:
            raise UserError(f"dataset file `{name}` has no boxes, expected some of a file of that name")
    return boxes


def _published(source: Source) -> Mapping[str, int]:
    return {"train": 34602, "val": 5000, "test": 5734} if _questions(source) else {"all": BOXED}


IMPORTER = Importer("textvqa", rows, coordinates="pixels", task="open", counts=_published)
