"""LLaMA-Factory's preference formats. Source: its `data/README.md`.

ShareGPT: `conversations` (or `messages`) up to the question, `chosen`, `rejected`, `images`.
Alpaca: `instruction` and `input` instead of messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceptune.core.data.conversations import SCORES, answer_text, pair, question_turn, row_of, turn_of
from perceptune.core.data.row_checks import RowError, shown
from perceptune.core.importers.importer import Importer, Row, each

USED = ("conversations", "messages", "instruction", "input", "chosen", "rejected", *SCORES)


def row(record: Mapping[str, Any]) -> Row:
    """The row of one record."""
    key = next((key for key in ("conversations", "messages") if key in record), None)
    if key is not None:
        turn = question_turn(record[key], key)
    else:
        prompt = [record["instruction"], record.get("input") or ""]
        if not all(isinstance(text, str) for text in prompt):
            raise RowError(f"`instruction` and `input` are {shown(prompt)}, expected text")
        turn = turn_of("user", "\n".join(text for text in prompt if text), "instruction")
    answers = answer_text(record["chosen"], "chosen"), answer_text(record["rejected"], "rejected")
    return dict(row_of(record, USED, turn, pair(record, *answers)))


IMPORTER = Importer("llama_factory", each(row), task="open")
