"""LogicVista: its own `dataset.json` (images in the folder `images` next to it), Parquet files, or
VLMEvalKit's `LogicVista.tsv`.

The question is used unchanged; its options are in the image or in the text. One published record,
`v1_382`, has neither question nor answer: the model is asked for `NO_QUESTION`, and no answer is
right, as in the published scorer, which counts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perceptune.contracts.errors import UserError
from perceptune.core.data.embedded_images import image_in, listed
from perceptune.core.data.row_checks import RowError, shown
from perceptune.core.importers.importer import Importer, Placed, Row, Source, first_of, made, with_images

SKILLS = ("inductive", "deductive", "numerical", "spatial", "mechanical")
NO_QUESTION = "Answer the question in the image."


def rows(source: Source) -> Iterator[Placed]:
    """The rows of any of the three formats; the JSON file is one object that maps names to records."""
    if not source.path.is_file() or source.path.suffix != ".json":
        yield from with_images(_row, "image")(source)
        return
    document = source.document()
    if not isinstance(document, dict):
        raise UserError(
            f"dataset file `{source.path}` has {shown(document)}, expected an object that maps names to records"
        )
    for name, record in document.items():
        named = (
            {"id": name, "image": f"images/{record.get('imagename')}", **record} if isinstance(record, dict) else record
        )
        yield f"record {name}", made(lambda r: {**_row(r), "image": image_in(r, ("image",), {})}, named)


def _row(record: Mapping[str, Any]) -> Row:
    skill = record["skill"]
    skills = listed(skill, "skill") if isinstance(skill, list) or str(skill).startswith("[") else [str(skill)]
    known = [one for one in SKILLS if any(one in str(given) for given in skills)]
    if not known:
        raise RowError(f"`skill` is {skill!r}, expected one of {', '.join(SKILLS)}")
    return {
        "id": str(first_of(record, "id", "index")),
        "question": str(record["question"]) or NO_QUESTION,
        "answer": str(record["answer"]) or None,
        "split": "test",
        "skills": known,
    }


IMPORTER = Importer("logicvista", rows, task="open", counts={"test": 448})
