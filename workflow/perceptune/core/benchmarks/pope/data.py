"""POPE's question files: JSON lines of `question_id`, `image`, `text` and `label`, a file per way of sampling objects.

`path` is a folder with files such as `coco_pope_random.json` or one of them; those of A-OKVQA and GQA (`gqa_pope_seem_random.json`,
as VCD hands them on) have the same form, and need a folder of their own, since papers never pool the three.
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
    """The rows of every file whose name says how its objects were sampled."""
    matches = [match for name in source.names("*.json") if (match := NAME.fullmatch(name))]
    if not matches:
        raise UserError(
            f"`{source.path}` has no POPE file, expected names such as `coco_pope_random.json`",
            f"the end of the name says how objects were sampled: {', '.join(CATEGORIES)}",
        )
    if len(kinds := sorted({match["images"] for match in matches})) > 1:
        raise UserError(
            f"`{source.path}` has POPE files of {', '.join(kinds)}, expected those of one of them",
            "their numbers are never pooled: a folder and a dataset block for each",
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
    """3,000 a file of COCO's; those of the other images differ."""
    coco = [name for name in source.names("*.json") if (match := NAME.fullmatch(name)) and match["images"] == "coco"]
    return {"test": 3000 * len(coco)} if coco else {}


IMPORTER = Importer("pope", rows, task="existence", counts=_published)
