"""ms-swift's preference format.

`messages` with the chosen response, `rejected_response` or `rejected_messages`, `images`. Source:
ms-swift's documentation of custom data sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceptune.core.data.conversations import SCORES, exchange, pair, row_of
from perceptune.core.data.row_checks import RowError, shown
from perceptune.core.importers.importer import Importer, Row, each

USED = ("messages", "rejected_response", "rejected_messages", "rejected_images", *SCORES)
FILLED = ("<bbox>", "<ref-object>")
"""Placeholders that ms-swift fills from `objects`."""


def row(record: Mapping[str, Any]) -> Row:
    """The row of one record."""
    if record.get("objects"):
        raise RowError("`objects` fills `<bbox>` and `<ref-object>` placeholders, expected their values in the text")
    if record.get("rejected_images") not in (None, [], record.get("images")):
        raise RowError("`rejected_images` differs from `images`, expected the same images for both answers")
    turn, chosen = exchange(record["messages"], "messages")
    if record.get("rejected_messages"):
        other, rejected = exchange(record["rejected_messages"], "rejected_messages")
        if other != turn:
            raise RowError("`messages` and `rejected_messages` have different questions, expected the same")
    else:
        rejected = record["rejected_response"]
        if not isinstance(rejected, str):
            raise RowError(f"`rejected_response` is {shown(rejected)}, expected text")
    texts = {"`messages`": "".join(piece or "" for piece in turn.pieces) + chosen, "the rejected answer": rejected}
    for name, text in texts.items():
        if mark := next((mark for mark in FILLED if mark in text), None):
            raise RowError(f"{name}: `{mark}` in the text and no `objects` to fill it, expected the values in the text")
    return dict(row_of(record, USED, turn, pair(record, chosen, rejected)))


IMPORTER = Importer("ms_swift", each(row), task="open")
