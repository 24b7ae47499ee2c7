"""MathVista, testmini: the published Parquet files or VLMEvalKit's `MathVista_MINI.tsv`.

The question is the published `query`: a hint on the answer format, the question with its unit, and
the choices. If a file has no `query` and the question has no hint, the query is built by the same
rule. If a file has no `precision`, that of floats is null, and scorers use the number of decimal
places in the ground truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from perceptune.core.data.embedded_images import listed, mapped, whole
from perceptune.core.data.row_checks import RowError, shown
from perceptune.core.importers.importer import Importer, Row, first_of, with_images

OPTION = "provide the correct option letter, e.g., A, B, C, D, at the end."
HINTS: dict[tuple[str, int | None], str] = {
    ("integer", 0): "requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end.",
    (
        "float",
        1,
    ): "requiring a floating-point number with one decimal place and provide the final value, e.g., 1.2, 1.3, 1.4,"
    " at the end.",
    (
        "float",
        2,
    ): "requiring a floating-point number with two decimal places and provide the final value, e.g., 1.23, 1.34,"
    " 1.45, at the end.",
    (
        "list",
        0,
    ): "requiring a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, 1.4], at the end.",
}
"""The text of a hint after `Please answer the question`, by answer type and decimal places."""


def _row(record: Mapping[str, Any]) -> Row:
    choices = [str(choice) for choice in listed(record.get("choices"), "choices")]
    kind, answer = str(record["answer_type"]), str(record["answer"])
    precision = whole(record["precision"], "precision") if "precision" in record else None if kind == "float" else 0
    about = {**mapped(record.get("metadata"), "metadata"), **record}
    return {
        "id": str(first_of(record, "pid", "index")),
        "question": _query(record, choices, kind, precision),
        "answer": _letter(record, choices, answer) if choices else answer,
        "split": "test",
        "choices": choices,
        "question_type": record.get("question_type"),
        "answer_type": "text" if choices else kind,
        "precision": precision,
        "subtask": about.get("task"),
        "skills": listed(about.get("skills"), "skills"),
        "category": about.get("category"),
    }


def _letter(record: Mapping[str, Any], choices: list[str], answer: str) -> str:
    if "answer_option" in record:
        return str(record["answer_option"])
    if answer not in choices:
        raise RowError(f"`answer` is {shown(answer)}, expected one of the `choices`")
    return ascii_uppercase[choices.index(answer)]


def _query(record: Mapping[str, Any], choices: list[str], kind: str, precision: int | None) -> str:
    question = str(record["question"])
    if "query" in record or question.startswith("Hint:"):
        return str(record.get("query", question))
    hint = "and " + OPTION if choices else HINTS.get((kind, precision), "and provide the final answer at the end.")
    unit = f" (Unit: {record['unit']})" if record.get("unit") else ""
    lettered = [f"({letter}) {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)]
    listing = "\n".join(["\nChoices:", *lettered]) if choices else ""
    return f"Hint: Please answer the question {hint}\nQuestion: {question}{unit}{listing}"


IMPORTER = Importer("mathvista", with_images(_row, "decoded_image", "image"), task="open", counts={"test": 1000})
