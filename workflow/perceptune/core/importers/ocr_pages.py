"""Pages with their text: Fox's `en_page_ocr.json` and `cn_page_ocr.json` (ucaslcl/Fox), and GOT's and LLaVA's training files.

A JSON list of `image` (one, or several for Fox's files of many pages) and `conversations`, of which the first turn asks and the
second is the text; both projects' evaluation scripts read `conversations` so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceptune.core.data.conversations import exchange, question_text
from perceptune.core.importers.importer import Importer, Row, Source, each, first_of

PAGES = {"en_page_ocr.json": 112, "cn_page_ocr.json": 100}
"""Pages of Fox's two files; the Chinese number is from memory."""


def row(record: Mapping[str, Any]) -> Row:
    """The row of one page; other keys are kept."""
    turn, text = exchange(record["conversations"], "conversations")
    given = first_of(record, "image", "images")
    images = given if isinstance(given, list) else [given]
    others = {key: value for key, value in record.items() if key not in ("image", "images", "conversations")}
    return {**others, "images": images, "question": question_text(turn, len(images)), "answer": text}


def _published(source: Source) -> Mapping[str, int]:
    return {"all": PAGES[source.path.name]} if source.path.name in PAGES else {}


IMPORTER = Importer("ocr_pages", each(row), task="ocr", counts=_published)
