"""MMHal-Bench's `response_template.json`: 96 questions about images of OpenImages, 12 of each of 8
types.

Images are in one folder, under the file names of their URLs (`image_src`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from perceptune.core.importers.importer import Importer, Row, each


def _row(record: Mapping[str, Any]) -> Row:
    return {
        "id": record["image_id"],
        "image": PurePosixPath(urlsplit(str(record["image_src"])).path).name,
        "question": record["question"],
        "answer": record["gt_answer"],
        "split": "test",
        "question_type": record["question_type"],
        "question_topic": record["question_topic"],
        "image_content": record["image_content"],
    }


IMPORTER = Importer("mmhal", each(_row), task="open", counts={"test": 96})
