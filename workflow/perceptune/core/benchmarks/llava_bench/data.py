"""LLaVA-Bench (in the wild): a folder with `questions.jsonl`, `answers_gpt4.jsonl` (reference
answers), `context.jsonl` (human-written image descriptions) and a folder `images`; 60 questions
about 24 images.

File names and keys follow the official script; the reader has not been tested on the published
files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from perceptune.contracts.errors import UserError
from perceptune.core.data.row_checks import RowError, shown
from perceptune.core.importers.importer import Importer, Placed, Row, Source, made

CATEGORIES = ("conv", "detail", "complex")


def rows(source: Source) -> Iterator[Placed]:
    """The questions, each with its reference answer and the description of its image."""
    contexts = _by(source, "context.jsonl", "image")
    references = _by(source, "answers_gpt4.jsonl", "question_id")
    for place, record in source.records("questions.jsonl"):
        yield f"questions.jsonl {place}", made(partial(_row, contexts, references), record)


def _by(source: Source, name: str, key: str) -> dict[Any, Mapping[str, Any]]:
    """The records of a file, indexed by `key`. Raises `UserError` for a record without it."""
    found = {}
    for place, record in source.records(name):
        if not isinstance(record, Mapping) or not isinstance(record.get(key), int | str):
            wrong = record if isinstance(record, RowError) else f"found {shown(record)}, expected a record with `{key}`"
            raise UserError(f"`{source.path / name}`, {place}: {wrong}")
        found[record[key]] = record
    return found


def _row(contexts: Mapping[Any, Any], references: Mapping[Any, Any], record: Mapping[str, Any]) -> Row:
    number, image, category = record["question_id"], record["image"], record["category"]
    if category not in CATEGORIES:
        raise RowError(f"`category` is {shown(category)}, expected one of {', '.join(CATEGORIES)}")
    if not isinstance(number, int | str) or not isinstance(image, str):
        raise RowError(f"question {shown(number)} about {shown(image)}, expected a number and a file name")
    if number not in references or image not in contexts:
        absent = "answers_gpt4.jsonl" if number not in references else "context.jsonl"
        raise RowError(f"question {shown(number)} about {shown(image)} has no record in `{absent}`")
    caption = contexts[image].get("caption")
    if not isinstance(caption, str | list):
        raise RowError(f"`caption` of {shown(image)} is {shown(caption)}, expected text or a list of texts")
    return {
        "id": str(number),
        "image": image,
        "question": record["text"],
        "answer": references[number]["text"],
        "split": "test",
        "category": category,
        "caption": caption if isinstance(caption, str) else "\n".join(map(str, caption)),
    }


IMPORTER = Importer("llava_bench", rows, task="open", counts={"test": 60})
