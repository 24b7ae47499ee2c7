"""verl's rows: `data_source`, `prompt` messages with `<image>` marks, `reward_model.ground_truth`, `images`, `extra_info`.

As in its `examples/data_preprocess/geo3k.py`, read there. Our own export keeps in `extra_info` what a row has besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceptune.core.data.conversations import question_turn, row_of, true_answer
from perceptune.core.data.row_checks import RowError, shown
from perceptune.core.importers.importer import Importer, Row, each

OURS = ("id", "task", "split", "box", "answers_given")
"""Keys of `extra_info` that mean what they mean in our own rows."""


def row(record: Mapping[str, Any]) -> Row:
    """The row of one record."""
    judged = record["reward_model"]
    if not isinstance(judged, Mapping):
        raise RowError(f"`reward_model` is {shown(judged)}, expected an object with `ground_truth`")
    found = {**record, "answer": true_answer(judged.get("ground_truth"), "reward_model.ground_truth")}
    extra = record.get("extra_info")
    if isinstance(extra, Mapping):
        found |= {key: extra[key] for key in OURS if extra.get(key) is not None}
        found["extra_info"] = {key: value for key, value in extra.items() if key not in OURS}
    return dict(row_of(found, ("prompt",), question_turn(record["prompt"], "prompt")))


IMPORTER = Importer("verl", each(row), task="open")
