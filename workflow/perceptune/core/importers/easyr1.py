"""EasyR1's format: `problem` with `<image>` placeholders, `answer`, `images`.

Source: EasyR1's loader `verl/utils/dataset.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceptune.core.data.conversations import row_of, true_answer, turn_of
from perceptune.core.importers.importer import Importer, Row, each


def row(record: Mapping[str, Any]) -> Row:
    """The row of one record; `answers_given`, as perceptune's own export writes it, is kept."""
    found = {**record, "answer": true_answer(record["answer"], "answer")}
    return dict(row_of(found, ("problem",), turn_of("user", record["problem"], "problem")))


IMPORTER = Importer("easyr1", each(row), task="open")
