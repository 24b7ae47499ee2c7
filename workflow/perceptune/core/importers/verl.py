"""verl's format, as in its `examples/data_preprocess/geo3k.py`.

`data_source`, `prompt` messages with `<image>` placeholders, `reward_model.ground_truth`, `images`,
`extra_info`. perceptune's own export stores the remaining columns in `extra_info`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceptune.core.data.conversations import question_turn, row_of, true_answer
from perceptune.core.data.row_checks import RowError, shown
from perceptune.core.importers.importer import Importer, Row, each

EXPORTED = ("id", "task", "split", "box", "answers_given")
"""Keys of `extra_info` that have the same meaning as in perceptune's own format."""


def row(record: Mapping[str, Any]) -> Row:
    """The row of one record."""
    reward_model = record["reward_model"]
    if not isinstance(reward_model, Mapping):
        raise RowError(f"`reward_model` is {shown(reward_model)}, expected an object with `ground_truth`")
    found = {**record, "answer": true_answer(reward_model.get("ground_truth"), "reward_model.ground_truth")}
    extra = record.get("extra_info")
    if isinstance(extra, Mapping):
        found |= {key: extra[key] for key in EXPORTED if extra.get(key) is not None}
        found["extra_info"] = {key: value for key, value in extra.items() if key not in EXPORTED}
    return dict(row_of(found, ("prompt",), question_turn(record["prompt"], "prompt")))


IMPORTER = Importer("verl", each(row), task="open")
