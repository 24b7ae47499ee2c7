"""MATH-Vision: the published Parquet files or VLMEvalKit's `MathVision.tsv` and
`MathVision_MINI.tsv`.

The question has VLMEvalKit's hint on the answer format, and its choices. Marks such as `<image1>`
are removed, because the image precedes the question. The expected count is that of the full set, so
the 304 questions of testmini are reported as a different count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from perceptune.core.data.embedded_images import listed
from perceptune.core.importers.importer import Importer, Row, first_of, with_images

MARK = re.compile(r"[ \t]*<image\d+>[ \t]*\n?")
CHOICE = "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."
FREE = "Hint: Please answer the question and provide the final answer at the end."


def _row(record: Mapping[str, Any]) -> Row:
    choices = [str(choice) for choice in listed(record.get("options", record.get("choices")), "choices")]
    return {
        "id": str(first_of(record, "id", "index")),
        "question": _question(str(record["question"]), choices),
        "answer": str(record["answer"]),
        "split": "test",
        "choices": choices,
        "subject": first_of({**record, "none": None}, "subject", "category", "none"),
        "level": record.get("level"),
    }


def _question(question: str, choices: list[str]) -> str:
    if question.startswith("Hint:"):
        return question
    lettered = [f"({letter}) {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)]
    listing = "\n".join(["\nChoices:", *lettered]) if choices else ""
    return f"{CHOICE if choices else FREE}\nQuestion: {MARK.sub(' ', question).strip()}{listing}"


IMPORTER = Importer("mathvision", with_images(_row, "decoded_image", "image"), task="open", counts={"test": 3040})
