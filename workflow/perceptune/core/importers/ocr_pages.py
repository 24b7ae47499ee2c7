"""Pages and their text: Fox's `en_page_ocr.json` and `cn_page_ocr.json` (ucaslcl/Fox).

GOT's and LLaVA's training files have the same format: a JSON list of `image` (one, or several for
Fox's multi-page files) and `conversations`, whose first turn is the question and whose second is
the text. The evaluation scripts of Fox and GOT parse `conversations` this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceptune.core.data.conversations import exchange, question_text
from perceptune.core.importers.importer import Importer, Row, Source, each, first_of

PAGES = {"en_page_ocr.json": 112, "cn_page_ocr.json": 100}
"""Number of pages of Fox's two files; the Chinese number is unverified."""


def row(record: Mapping[str, Any]) -> Row:
    """The row of one page; other keys are kept."""
    turn, text = exchange(record["conversations"], "conversations")
    found = first_of(record, "image", "images")
    images = found if isinstance(found, list) else [found]
    others = {key: value for key, value in record.items() if key not in ("image", "images", "conversations")}
    return {**others, "images": images, "question": question_text(turn, len(images)), "answer": text}


def _published(source: Source) -> Mapping[str, int]:
    return {"all": PAGES[source.path.name]} if source.path.name in PAGES else {}


IMPORTER = Importer("ocr_pages", each(row), task="ocr", counts=_published)
