"""EasyR1's format: problem, answer, images; responses and rewards as an extra column."""

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

EasyR1 samples its own responses: it trains on questions and ground truth and ignores `answers_given`.
"""

EXPORTER = Exporter(
    "easyr1",
    "lists",
    "data.jsonl",
    record,
    {
        "problem": "question, after one `<image>` placeholder per image",
        **FACTS,
        "answer": "ground truth; for grounding, the box as JSON; empty if there is none",
        "images": "image files, relative to this folder",
        "answers_given": "perceptune's responses, best first, each with `text` and `reward`",
    },
    USAGE,
)
