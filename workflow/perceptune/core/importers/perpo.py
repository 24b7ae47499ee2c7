"""PerPO's training file (ningerhhh/PerPO, `assets/data.json`): ranked model responses.

A JSON list of `image_id`, `image_path`, `question`, `answer`, `answers_gen` and `iou_scores`. The
sampled responses and their rewards are stored as `answers_given`. An answer that consists only of a
box becomes the box; any other (PerPO's OCR data) is the text to read, since a page may contain four
numbers in brackets.

Coordinates: fractions of the image's own width and height, not of LLaVA's padded square. This
follows from the rewards of the published record: they are IoUs with one box whose sides solve to
389/640, 494/640 and a height of 186/424 to the last digit, which are whole pixels of a COCO image
of 640 x 424; in the padded square the height would be 280.75 pixels. `answer` is that box rounded
to two decimals, so the rewards differ from IoUs with it by up to 0.02.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from perceptune.core.answers.boxes import BRACKETED, parse_box
from perceptune.core.data.row_checks import RowError, is_finite, shown
from perceptune.core.importers.importer import Importer, Placed, Row, Source, answers_given, each, numbered


def rows(source: Source) -> Iterator[Placed]:
    """A row per record."""
    seen: Counter[str] = Counter()
    yield from each(lambda record: _row(record, seen))(source)


def _row(record: Mapping[str, Any], seen: Counter[str]) -> Row:
    answer, texts, rewards = record["answer"], record["answers_gen"], record["iou_scores"]
    if not isinstance(answer, str):
        raise RowError(f"`answer` is {shown(answer)}, expected text")
    if not isinstance(texts, list) or not isinstance(rewards, list):
        raise RowError(f"`answers_gen` is {shown(texts)} and `iou_scores` {shown(rewards)}, expected lists")
    for reward in rewards:
        if isinstance(reward, int | float) and not is_finite(reward):
            raise RowError(f"a reward is {shown(reward)}, expected a finite number")
    box = parse_box(answer) if BRACKETED.fullmatch(answer.strip()) else None
    return {
        "id": numbered(str(record["image_id"]), seen),
        "image": record["image_path"],
        "question": record["question"],
        "answer": answer,
        "answers_given": answers_given(texts, rewards),
        **({"task": "ocr"} if box is None else {"task": "grounding", "box": list(box)}),
    }


IMPORTER = Importer("perpo", rows, coordinates="normalised")
