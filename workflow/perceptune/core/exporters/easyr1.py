"""EasyR1's rows: problem, answer, images; our answers with their rewards go along."""

from __future__ import annotations

from typing import Any

from perceptune.core.exporters.exporter import FACTS, Exporter, Ranked


def record(one: Ranked) -> dict[str, Any]:
    """The record of one question."""
    return {
        "problem": one.marked,
        **one.facts,
        "answer": one.truth,
        "images": list(one.images),
        "answers_given": one.given,
    }


USAGE = """\
```
data.train_files={folder}/data.jsonl data.image_dir={folder}
data.prompt_key=problem data.answer_key=answer data.image_key=images
```

EasyR1 samples by itself: it learns from questions and true answers, not from `answers_given`.
"""

EXPORTER = Exporter(
    "easyr1",
    "lists",
    "data.jsonl",
    record,
    {
        "problem": "the question behind an `<image>` mark per picture",
        **FACTS,
        "answer": "the true answer; the box as JSON where that is the answer; empty where there is none",
        "images": "pictures, relative to this folder",
        "answers_given": "our answers, best first, each with `text` and `reward`",
    },
    USAGE,
)
