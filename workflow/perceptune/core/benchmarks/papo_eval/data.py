"""PAPO-Eval's test files, as written by its preprocessing (xhguo7/PAPO-Eval): a JSON list of
`messages` and `images` per dataset.

The first message is the question, with `<image>` marks, the second the answer; image paths are
relative to the parent of the folder `images`. The format follows the script and its dataset
descriptions; the reader has not been tested on the published files. PAPO's instructions at the end
of a question are removed, because the prompt of the benchmark `papo_eval` adds them.
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
"""Number of questions by file name, from the paper and its code."""


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
