"""RefCOCO, RefCOCO+ and RefCOCOg as Parquet, in the two forms on the Hugging Face hub.

One row per expression.

`lmms-lab/RefCOCO`, `.../RefCOCOplus`, `.../RefCOCOg`: `question_id`, `image`, `answer` (the
expressions), `bbox` as [x, y, width, height] in pixels (as in lmms-eval), `file_name`; the split is
the file's name. Their `val` is not the official split: it has 8,811 objects, RefCOCO's has 3,811,
and it includes objects of the division `google`. `testA`, `testB` and RefCOCOg's `test` have the
official counts. Their `question` asks for a caption and is not used.

`jxu124/refcoco`, `.../refcocoplus`, `.../refcocog`: `ref_id`, `sentences`, `split`, `image_path`,
`raw_image_info` and `raw_anns` (COCO's records as JSON), `bbox` as [x1, y1, x2, y2] in pixels (as
in Hugging Face's cookbook); it is checked against the box of `raw_anns`. The images are COCO's
train2014.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from perceptune.core.data.row_checks import RowError, shown
from perceptune.core.importers.importer import (
    Importer,
    Placed,
    Row,
    Source,
    corners,
    made,
    missing_key,
    numbered,
    split_files,
)
from perceptune.core.importers.refer import SENTENCES, data_set_of

APART = 1.0
"""Pixels by which the two boxes of a record may differ."""


def rows(source: Source) -> Iterator[Placed]:
    """A row per expression."""
    seen: Counter[str] = Counter()
    for place, record, split in split_files(source):
        if not isinstance(record, Mapping):
            yield place, made(dict, record)
            continue
        try:
            found = list(_of_sentences(record) if "sentences" in record else _of_answers(record, split, seen))
        except KeyError as missing:
            found = [missing_key(missing, record)]
        except RowError as wrong:
            found = [wrong]
        for order, row in enumerate(found, 1):
            yield f"{place}, expression {order}", row


def _of_answers(record: Mapping[str, Any], split: str | None, seen: Counter[str]) -> Iterator[Row | RowError]:
    expressions = record["answer"]
    if not isinstance(expressions, list) or not expressions:
        raise RowError(f"`answer` is {shown(expressions)}, expected a list of expressions")
    identity = numbered(f"{split or 'all'}-{record['question_id']}", seen)
    for order, expression in enumerate(expressions):
        yield {
            "id": f"{identity}.{order}",
            "image": record["image"],
            "question": expression,
            "box": corners(record["bbox"]),
            **({"split": split} if split else {}),
            "ann_id": record["question_id"],
            "file_name": record.get("file_name"),
        }


def _of_sentences(record: Mapping[str, Any]) -> Iterator[Row | RowError]:
    info, annotation = _json(record, "raw_image_info"), _json(record, "raw_anns")
    box = record["bbox"]
    corners(box)  # checks that there are four finite numbers
    if "bbox" in annotation:
        found = corners(annotation["bbox"])
        if max(abs(a - b) for a, b in zip(found, box, strict=True)) > APART:
            raise RowError(f"`bbox` is {shown(box)}, expected the box {found} of `raw_anns`")
        box = found
    size = {"image_size": [info["width"], info["height"]]} if {"width", "height"} <= set(info) else {}
    sentences, image = record["sentences"], record["image_path"]
    if not isinstance(sentences, list) or not sentences:
        raise RowError(f"`sentences` is {shown(sentences)}, expected a list of objects with `sent`")
    if not isinstance(image, str):
        raise RowError(f"`image_path` is {shown(image)}, expected text")
    for sentence in sentences:
        if not isinstance(sentence, Mapping):
            raise RowError(f"`sentences` has {shown(sentence)}, expected objects with `sent`")
        yield {
            "id": f"{record['ref_id']}-{sentence['sent_id']}",
            "image": PurePosixPath(image).name,
            "question": sentence["sent"],
            "box": box,
            "split": record["split"],
            **size,
            "ref_id": record["ref_id"],
            "ann_id": record["ann_id"],
        }


def _json(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object that is stored as JSON text; empty if the key is missing."""
    try:
        value = json.loads(record[key]) if key in record else {}
    except (ValueError, TypeError, RecursionError):
        raise RowError(f"`{key}` is {shown(record[key])}, expected an object as JSON text") from None
    return value if isinstance(value, Mapping) else {}


def _published(source: Source) -> Mapping[str, int]:
    name = data_set_of(source.path)
    return SENTENCES.get(f"{name} umd" if name == "refcocog" else f"{name} unc", {})


IMPORTER = Importer("refcoco_parquet", rows, coordinates="pixels", task="grounding", counts=_published)
