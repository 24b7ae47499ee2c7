"""PAPO-Eval's test files, as its preprocessing writes them (xhguo7/PAPO-Eval): a JSON list of `messages` and `images` per data set.

The first message asks, with `<image>` marks, the second is the answer; images are named relative to the folder that has
`images`. The script and its data set descriptions were read, the files were not at hand: where a question ends with PAPO's own
instructions, these are taken off, since the prompt of benchmark `papo_eval` adds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceptune.core.answers.boxed_answers import truth_of
from perceptune.core.data.conversations import exchange
from perceptune.core.importers.importer import Importer, Row, each, without_image_marks

INSTRUCTIONS = "You first think through the reasoning process"
COUNTS = {
    "hiyouga_geometry3k": 601,
    "AI4Math_MathVerse": 2180,
    "AI4Math_MathVerse_vision_dependent": 1308,
    "BUAADreamer_clevr_count_70k": 200,
}
"""Questions by the name of the file, as the paper and its code have them (dossier g.2)."""


def row(record: Mapping[str, Any]) -> Row:
    """The row of one question."""
    turn, answer = exchange(record["messages"], "messages")
    text = "".join("<image>" if piece is None else piece for piece in turn.pieces)
    return {
        "images": record["images"],
        "question": without_image_marks(text).partition(INSTRUCTIONS)[0].strip(),
        "answer": truth_of(answer),
        "split": "test",
    }


IMPORTER = Importer(
    "papo_eval",
    each(row),
    task="open",
    counts=lambda source: {"test": n} if (n := COUNTS.get(source.path.stem)) else {},
)
