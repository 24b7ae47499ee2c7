"""TextVQA: `TextVQA_0.5.1_{train,val,test}.json`, with the boxes of the answers if available.

`path` is one of three things:

* such a file
* a folder with such a file and, optionally, a box file: its name contains `bbox`, and it has `bbox`
  and `question_id` or `dataset_id`
* the dataset of boxes jrzhang/TextVQA_GT_bbox (Parquet; by the author of ViCrop, whose attention
  ratios P2-DPO follows): 4,370 questions of `val` with `image`, `question`, `answer` (all answers),
  `dataset_id` (the question's) and `bbox`, which is [x, y, width, height] in pixels (as two public
  programs read it)

The target is the most frequent of the ten answers (the first, if tied); all are kept as `answers`.
Images are `<image_id>.jpg`; those of train and val are in the folder `train_images` of the
published archive.
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
"""Number of questions in TextVQA_GT_bbox."""


def rows(source: Source) -> Iterator[Placed]:
    """One row per question."""
    name = _questions(source)
    if name is None:
        # ignore the split in the file's name: TextVQA_GT_bbox calls it `train`, but its questions
        # are from val
        for place, record, _ in split_files(source):
            yield place, made(partial(_row, {}, None), record)
        return
    read = source.document(name)
    records = read.get("data") if isinstance(read, Mapping) else None
    if not isinstance(records, list):
        raise UserError(f"dataset file `{name}` has no list `data`, expected TextVQA's own file")
    boxes = _boxes(source) if source.path.is_dir() else {}
    questions = {str(record.get("question_id")) for record in records if isinstance(record, Mapping)}
    if boxes and not questions & boxes.keys():
        raise UserError(f"no box in `{source.path}` is for a question in `{name}`: are the boxes of another split?")
    split = name.removesuffix(".json").rpartition("_")[2]
    for number, record in enumerate(records, 1):
        yield f"question {number}", made(partial(_row, boxes, split), record)


def _questions(source: Source) -> str | None:
    """The question file; None if the source is the dataset of boxes. Raises `UserError` if there
    are several.
    """
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
    if answers is None:  # the answers of `test` are not published
        return row
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise RowError(f"`answers` is {shown(answers)}, expected a list of texts")
    given = Counter(answer for answer in answers if answer.strip())
    return {**row, "answer": given.most_common(1)[0][0] if given else None, "answers": answers}


def _boxes(source: Source) -> dict[str, Any]:
    """Maps question to box, from all box files. Raises `UserError` for a file without boxes, and
    for two boxes of one question.
    """
    boxes: dict[str, Any] = {}
    for name in source.names(BOXES):
        empty = True
        for place, record in source.records(name):
            empty = False
            row = made(lambda one: {"question": first_of(one, "question_id", "dataset_id"), "box": one["bbox"]}, record)
            if isinstance(row, RowError):
                raise UserError(f"dataset file `{name}`, {place}: {row}")
            first = boxes.setdefault(str(row["question"]), row["box"])
            if first != row["box"]:
                raise UserError(
                    f"dataset file `{name}`, {place}: question {shown(row['question'])} has the box {shown(row['box'])}"
                    f" and an earlier box {shown(first)}, expected one box per question"
                )
        if empty:
            raise UserError(
                f"dataset file `{name}` has no boxes, expected at least one in a file with `bbox` in its name"
            )
    return boxes


def _published(source: Source) -> Mapping[str, int]:
    return {"train": 34602, "val": 5000, "test": 5734} if _questions(source) else {"all": BOXED}


IMPORTER = Importer("textvqa", rows, coordinates="pixels", task="open", counts=_published)
