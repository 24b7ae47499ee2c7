"""TRL's preference format, text or messages: `prompt`, `chosen`, `rejected`, `images`.

Without `prompt` (or if the answers are conversations and `prompt` is not), the prompt is the common
beginning of the two answers, as in TRL's `maybe_extract_prompt` (1.16). In the `metadata.jsonl` of
an image folder, the image columns contain file names and have a suffix that `datasets` removes
(5.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from perceptune.core.data.conversations import (
    PICTURES,
    SCORES,
    Turn,
    answer_text,
    check_alike,
    exchange,
    pair,
    pictures_of,
    question_turn,
    row_of,
    turn_of,
)
from perceptune.core.data.row_checks import RowError
from perceptune.core.importers.importer import Importer, Row, each

FILES = ("file_name", "image_file_name", "file_names", "images_file_names")
"""Names of the columns `image` and `images` in the `metadata.jsonl` of an image folder."""
USED = ("prompt", "chosen", "rejected", *SCORES)


def row(record: Mapping[str, Any]) -> Row:
    """The row of one record."""
    turn, chosen, rejected = _parted(record)
    return dict(row_of(_with_images(record, turn), USED, turn, pair(record, chosen, rejected)))


def _with_images(record: Mapping[str, Any], turn: Turn) -> Mapping[str, Any]:
    """The record with its images in `images`; file names count only without other images."""
    keys = [key for key in PICTURES if record.get(key)]
    if not keys and not turn.pictures:
        keys = [key for key in FILES if record.get(key)]
    if not keys:
        return record
    found = {f"`{key}`": pictures_of(record[key]) for key in keys}
    check_alike(found)
    return {**{key: value for key, value in record.items() if key not in keys}, "images": found[f"`{keys[0]}`"]}


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
        raise RowError("`chosen` and `rejected` have different questions, expected the same")
    return turn, good, bad


def _shared(chosen: str, rejected: str) -> int:
    """Length in characters of the common prompt, without a trailing space."""
    shared = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(chosen, rejected, strict=False)))
    return shared - 1 if shared and chosen[shared - 1] == " " else shared


IMPORTER = Importer("trl", each(row), task="open")
