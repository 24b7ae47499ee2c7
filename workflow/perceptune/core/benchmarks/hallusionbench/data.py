"""HallusionBench's `HallusionBench.json`: 1,129 yes/no questions, 178 of them without an image.

Image names, such as `VD/illusion/0_0.png` (category, subcategory, set and figure), are relative to
the folder of the official archive, which `images` names. `path` is the file or its folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perceptune.core.data.row_checks import RowError, shown
from perceptune.core.importers.importer import Importer, Placed, Row, Source, made

FILE = "HallusionBench.json"
ADDRESS = ("category", "subcategory", "set_id", "figure_id", "question_id")
TRUTHS = {"0": "no", "1": "yes"}


def rows(source: Source) -> Iterator[Placed]:
    """The rows of the file."""
    for place, record in source.records(FILE if source.path.is_dir() else None):
        yield place, made(_row, record)


def _row(record: Mapping[str, Any]) -> Row:
    address = {key: str(record[key]) for key in ADDRESS}
    truth = str(record["gt_answer"])
    if truth not in TRUTHS:
        raise RowError(f"`gt_answer` is {shown(record['gt_answer'])}, expected `0` or `1`")
    return {
        "id": "_".join(address.values()),
        "images": [_image(record)] if str(record["visual_input"]) != "0" else [],
        "question": record["question"],
        "answer": TRUTHS[truth],
        "split": "test",
        **address,
        "visual_input": str(record["visual_input"]),
        "gt_answer_details": record["gt_answer_details"],
    }


def _image(record: Mapping[str, Any]) -> str:
    """The image's path relative to the folder of images."""
    name = record["filename"]
    return name.removeprefix("./").removeprefix("hallusion_bench/") if isinstance(name, str) else name


IMPORTER = Importer("hallusionbench", rows, task="existence", imageless=True, counts={"test": 1129})
