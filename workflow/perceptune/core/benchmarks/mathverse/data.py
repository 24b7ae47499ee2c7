"""MathVerse, testmini: the published Parquet files or VLMEvalKit's `MathVerse_MINI*.tsv`.

Every problem is there in five versions, from all of it in the text to all of it in the image. The question is the published
`query_wo` (answer directly), which is what the TSV calls `question`; `query_cot`, where the file has it, is kept in the source.
Without `problem_index` the versions of a problem could not be told to belong together: intervals would be too narrow.
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
