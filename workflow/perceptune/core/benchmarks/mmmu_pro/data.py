"""MMMU-Pro, vision: the published Parquet files of its configuration `vision`, or VLMEvalKit's
`MMMU_Pro_V.tsv`.

The question and its up to ten options are only in the image; the text refers to it, in VLMEvalKit's
words. The instructions are the prompt of the benchmark `mmmu_pro`.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from perceptune.core.data.embedded_images import listed, options_in
from perceptune.core.importers.importer import Importer, Row, first_of, with_images

QUESTION = "Answer the following multiple-choice question in the image."


def _row(record: Mapping[str, Any]) -> Row:
    options = listed(record["options"], "options") if "options" in record else options_in(record, ascii_uppercase)
    return {
        "id": str(first_of(record, "id", "index")),
        "question": QUESTION,
        "answer": str(record["answer"]),
        "split": "test",
        "choices": [str(option) for option in options],
        "subject": record.get("subject", record.get("category")),
    }


IMPORTER = Importer("mmmu_pro", with_images(_row, "image"), task="open", counts={"test": 1730})
