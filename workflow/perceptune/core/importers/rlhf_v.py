"""RLHF-V's human corrections (openbmb/RLHF-V-Dataset), and RLAIF-V-Dataset; Parquet or JSON lines.

`ds_name`, `image`, `text` (JSON text with `question`, `chosen` and `rejected`), `origin_dataset`,
`origin_split`, `idx`, `image_path`. The three parts of `text` may also be a list, as in RLHF-V's
own code, or columns, as in RLAIF-V. The pair is stored as `answers_given`; the corrected answer is
the target. Pairs of a user's own may have a `split`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from perceptune.core.data.conversations import pair
from perceptune.core.data.row_checks import RowError, shown
from perceptune.core.importers.importer import Importer, Placed, Row, Source, each, first_of, numbered

PARTS = ("question", "chosen", "rejected")
KEPT = ("ds_name", "origin_dataset", "origin_split", "image_path", "split")


def rows(source: Source) -> Iterator[Placed]:
    """A row per pair."""
    seen: Counter[str] = Counter()
    yield from each(lambda record: _row(record, seen))(source)


def _row(record: Mapping[str, Any], seen: Counter[str]) -> Row:
    question, chosen, rejected = _parts(record)
    row = {
        "image": first_of(record, "image", "image_path"),
        "question": question,
        "answer": chosen,
        "answers_given": pair(record, chosen, rejected),
        **{key: record[key] for key in KEPT if key in record},
    }
    return {"id": numbered(str(record["idx"]), seen), **row} if "idx" in record else row


def _parts(record: Mapping[str, Any]) -> list[str]:
    """Question, chosen and rejected response."""
    text: Any = record.get("text")
    if isinstance(text, str):
        try:
            text = json.loads(text)
        except (ValueError, RecursionError):
            raise RowError(f"`text` is {shown(text)}, expected JSON text with {', '.join(PARTS)}") from None
    if isinstance(text, list) and len(text) == len(PARTS):
        text = dict(zip(PARTS, text, strict=True))
    fields = text if isinstance(text, Mapping) else record
    parts = [fields[key] for key in PARTS]
    for key, part in zip(PARTS, parts, strict=True):
        if not isinstance(part, str) or not part.strip():
            raise RowError(f"`{key}` is {shown(part)}, expected text")
    return parts


IMPORTER = Importer("rlhf_v", rows, task="open", counts={"all": 5733})
