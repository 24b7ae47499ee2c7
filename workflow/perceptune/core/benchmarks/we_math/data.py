"""We-Math, testmini: its own `testmini.json` (image paths relative to the folder `data`), Parquet
files of it, or VLMEvalKit's `WeMath.tsv`.

525 problems of two or three steps, each posed step by step and as a whole: 1,740 questions. The
question has its options but no instructions; the official ones are the prompt of the benchmark
`we_math`.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from perceptune.core.data.embedded_images import options_in
from perceptune.core.importers.importer import Importer, Row, first_of, with_images


def _row(record: Mapping[str, Any]) -> Row:
    problem, key = str(first_of(record, "ID", "id")), str(record["key"])
    return {
        "id": f"{problem}-{key}",
        "question": f"Question: {record['question']}\nOption: {_options(record)}",
        "answer": str(record["answer"]),
        "split": "test",
        "problem": problem,
        "key": key,
        "concept": first_of({**record, "none": None}, "knowledge concept", "none"),
    }


def _options(record: Mapping[str, Any]) -> str:
    if "option" in record:
        return str(record["option"])
    if "A" not in record:
        raise KeyError("option")
    options = options_in(record, ascii_uppercase)
    return "; ".join(f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False))


IMPORTER = Importer("we_math", with_images(_row, "image_path", "image"), task="open", counts={"test": 1740})
