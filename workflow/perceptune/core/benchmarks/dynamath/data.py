"""DynaMath: Parquet files of `DynaMath_Sample`, one per variant or all in one folder, or
VLMEvalKit's `DynaMath.tsv`.

501 questions in ten variants each. The question has the official instructions: the JSON format of
the reply, and how to write the short answer. If a file does not number the variants, the n-th row
of a question is its n-th variant.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from perceptune.core.data.embedded_images import image_in, whole
from perceptune.core.importers.importer import Importer, Placed, Row, Source, each, first_of

SEEDS, VARIANTS = 501, 10
INSTRUCTIONS = {
    "multiple choice": "Provide the corresponing choice option in the 'short answer' key, such as 'A', 'B', 'C', or 'D'.",
    "float": "Format the answer as a three-digit floating-point number and provide it in the 'short answer' key.",
    "text": "Float numbers in the answer should be formatted as three-digit floating-point numbers.",
}
"""Verbatim, including the misspelling."""
GUIDE = (
    "\n## Answer Instruction Please provide an answer to the question outlined above. Your response should adhere to the"
    " following JSON format, which includes two keys: 'solution' and 'short answer'. The 'solution' key can contain detailed"
    " steps needed to solve the question, and the 'short answer' key should provide a concise response. {instruction}\n\n"
    "Example of expected JSON response format:\n\n"
)
EXAMPLE = json.dumps({"solution": "[Detailed step-by-step explanation]", "short answer": "[Concise Answer]"}, indent=4)


def rows(source: Source) -> Iterator[Placed]:
    """One row per question and variant."""
    seen: Counter[str] = Counter()

    def row(record: Mapping[str, Any]) -> Row:
        seed = str(first_of(record, "qid", "id"))
        seen[seed] += 1
        variant = whole(record.get("varid", seen[seed]), "varid")
        return {**_row(record, seed, variant), "image": image_in(record, ("decoded_image", "image"), {})}

    yield from each(row)(source)


def _row(record: Mapping[str, Any], seed: str, variant: int) -> Row:
    kind = str(record["answer_type"])
    guide = GUIDE.format(instruction=INSTRUCTIONS.get(kind, INSTRUCTIONS["text"]))
    return {
        "id": f"{seed}-{variant}",
        "question": f"## Question\n {record['question']}{guide}{EXAMPLE}",
        "answer": str(first_of(record, "ground_truth", "answer")),
        "split": "test",
        "seed_question": seed,
        "variant": variant,
        "answer_type": kind,
        "subject": record.get("subject"),
        "level": record.get("knowledge_level", record.get("level")),
    }


IMPORTER = Importer("dynamath", rows, task="open", counts={"test": SEEDS * VARIANTS})
