"""POPE's question files: JSON Lines with `question_id`, `image`, `text` and `label`, one file per
object sampling strategy.

`path` is a folder with files such as `coco_pope_random.json`, or one of the files. The files of
A-OKVQA and GQA that VCD distributes (`gqa_pope_seem_random.json`) have the same format. Each of the
three sources needs its own folder, because papers never pool them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from perceptune.contracts.errors import UserError
from perceptune.core.importers.importer import Importer, Placed, Row, Source, made

CATEGORIES = ("random", "popular", "adversarial")
NAME = re.compile(rf"(?P<images>.+)_pope(_seem)?_(?P<category>{'|'.join(CATEGORIES)})\.json")


def rows(source: Source) -> Iterator[Placed]:
    """The rows of every file whose name ends in a sampling strategy."""
    matches = [match for name in source.names("*.json") if (match := NAME.fullmatch(name))]
    if not matches:
        raise UserError(
            f"`{source.path}` has no POPE file, expected names such as `coco_pope_random.json`",
            f"the end of a name is the sampling strategy: {', '.join(CATEGORIES)}",
        )
    if len(kinds := sorted({match["images"] for match in matches})) > 1:
        raise UserError(
            f"`{source.path}` has POPE files of {', '.join(kinds)}, expected one image source",
            "results of different sources are never pooled: use a folder and a dataset block for each",
        )
    for match in sorted(matches, key=lambda m: (m["images"], CATEGORIES.index(m["category"]))):
        row = partial(_row, match["images"], match["category"])
        for place, record in source.records(match[0]):
            yield f"{match[0]} {place}", made(row, record)


def _row(images: str, category: str, record: Mapping[str, Any]) -> Row:
    return {
        "id": f"{images}-{category}-{record['question_id']}",
        "image": record["image"],
        "question": record["text"],
        "answer": record["label"],
        "split": "test",
        "category": category,
        "image_file": record["image"],
        "question_id": record["question_id"],
    }


def _published(source: Source) -> Mapping[str, int]:
    """3,000 per COCO file; the other sources have different counts."""
    coco = [name for name in source.names("*.json") if (match := NAME.fullmatch(name)) and match["images"] == "coco"]
    return {"test": 3000 * len(coco)} if coco else {}


IMPORTER = Importer("pope", rows, task="existence", counts=_published)
