r"""ViRL39K (TIGER-Lab/ViRL39K), also PAPO's copy (PAPOGalaxy/PAPO_ViRL39K_train).

ViRL39K: `question`, `answer` (in `\boxed{}`), `image` (a list of file names; the images are in a
separate zip file), `category`, `source`, `qid`, pass rates. PAPO's copy: `problem`, `answer`,
`images` (in the table), `category`, `qid`, `id`. Both are supported.

Images precede the question: `<image>` placeholders are removed, and the images keep their order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from perceptune.core.answers.boxed_answers import truth_of
from perceptune.core.data.row_checks import RowError, shown
from perceptune.core.importers.importer import (
    Importer,
    Placed,
    Row,
    Source,
    each,
    first_of,
    numbered,
    without_image_marks,
)

USED = ("question", "problem", "answer", "image", "images", "qid", "id")


def rows(source: Source) -> Iterator[Placed]:
    """A row per problem."""
    seen: Counter[str] = Counter()
    yield from each(lambda record: _row(record, seen))(source)


def _row(record: Mapping[str, Any], seen: Counter[str]) -> Row:
    answer, images = record["answer"], first_of(record, "images", "image")
    if not isinstance(answer, str):
        raise RowError(f"`answer` is {shown(answer)}, expected text")
    return {
        "id": numbered(str(first_of(record, "qid", "id")), seen),
        "images": images if isinstance(images, list) else [images],
        "question": without_image_marks(first_of(record, "question", "problem")),
        "answer": truth_of(answer),
        **{key: value for key, value in record.items() if key not in USED},
    }


IMPORTER = Importer("virl39k", rows, task="open", counts={"all": 38870})
