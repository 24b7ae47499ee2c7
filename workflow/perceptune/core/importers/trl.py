"""TRL's preference format: `prompt`, `chosen`, `rejected` and `images` or `image`, as text or as messages.

Without `prompt` (or with one that is no conversation beside answers that are one) it is what the two answers begin with, as in
TRL's `maybe_extract_prompt` (1.16, read there).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from perceptune.core.conversations import (
    SCORES,
    Turn,
    answer_text,
    exchange,
    pair,
    question_turn,
    row_of,
    turn_of,
)
from perceptune.core.importers.importer import Importer, Row, each
from perceptune.core.importing import RowError

FILES = "images_file_names"
"""What `datasets` calls the column `images` in the `metadata.jsonl` of a folder of images."""
USED = ("prompt", "chosen", "rejected", FILES, *SCORES)


def row(record: Mapping[str, Any]) -> Row:
    """The row of one record."""
    turn, chosen, rejected = _parted(record)
    if FILES in record:
        record = {**record, "images": record[FILES]}
    return dict(row_of(record, USED, turn, pair(record, chosen, rejected)))


def _parted(record: Mapping[str, Any]) -> tuple[Turn, str, str]:
    prompt, chosen, rejected = record.get("prompt"), record["chosen"], record["rejected"]
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is not None:
            return question_turn(prompt, "prompt"), chosen, rejected
        shared = _shared(chosen, rejected)
        return turn_of("user", chosen[:shared], "chosen"), chosen[shared:], rejected[shared:]
    if isinstance(prompt, list):
        answers = answer_text(chosen, "chosen"), answer_text(rejected, "rejected")
        return question_turn(prompt, "prompt"), *answers
    (turn, good), (other, bad) = exchange(chosen, "chosen"), exchange(rejected, "rejected")
    if turn != other:
        raise RowError("`chosen` and `rejected` begin with different questions, expected the same")
    return turn, good, bad


def _shared(chosen: str, rejected: str) -> int:
    """Characters of the prompt, without the space at its end."""
    shared = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(chosen, rejected, strict=False)))
    return shared - 1 if shared and chosen[shared - 1] == " " else shared


TRL = Importer("trl", each(row), task="open")
