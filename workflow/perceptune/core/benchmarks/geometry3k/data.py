"""Geometry3K as used by EasyR1 and PAPO (hiyouga/geometry3k, Parquet): `images`, `problem` with
`<image>`, `answer`.

Newer copies also have `id`, `choices` and `ground_truth` (the letter of the right choice); these
are kept, and the question is the problem without its choices. The split is the file's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceptune.core.importers.importer import Importer, Row, each, without_image_marks

KEPT = ("choices", "ground_truth")


def _row(record: Mapping[str, Any]) -> Row:
    row = {
        "images": record["images"],
        "question": without_image_marks(record["problem"]),
        "answer": record["answer"],
        **{key: record[key] for key in KEPT if key in record},
    }
    return {"id": str(record["id"]), **row} if "id" in record else row


IMPORTER = Importer("geometry3k", each(_row), task="open", counts={"train": 2101, "validation": 300, "test": 601})
