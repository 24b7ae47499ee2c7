"""MathVerse, testmini: the published Parquet files or VLMEvalKit's `MathVerse_MINI*.tsv`.

Each problem has five versions, from text only to image only. The question is the published
`query_wo` (answer directly), called `question` in the TSV; `query_cot`, if present, is kept in the
source. `problem_index` is required because the versions of a problem are resampled together;
otherwise, intervals would be too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceptune.core.data.embedded_images import mapped
from perceptune.core.importers.importer import Importer, Row, first_of, with_images

VERSIONS = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only")
PROBLEMS = 788


def _row(record: Mapping[str, Any]) -> Row:
    about = {**mapped(record.get("metadata"), "metadata"), **record}
    return {
        "id": str(first_of(record, "sample_index", "index")),
        "question": str(first_of(record, "query_wo", "question")),
        "answer": str(record["answer"]),
        "split": "test",
        "problem": str(record["problem_index"]),
        "problem_version": record["problem_version"],
        "question_type": record["question_type"],
        "question_for_eval": record["question_for_eval"],
        "query_cot": record.get("query_cot"),
        "subfield": about.get("subfield"),
    }


IMPORTER = Importer("mathverse", with_images(_row, "image"), task="open", counts={"test": PROBLEMS * len(VERSIONS)})
