"""TRL's conversational preferences as a folder of images with `metadata.jsonl`, which `datasets` loads."""

from __future__ import annotations

from typing import Any

from perceptune.core.exporters.exporter import FACTS, SCORES, Exporter, Ranked


def record(pair: Ranked) -> dict[str, Any]:
    """The record of one pair; `datasets` makes the column `images` of the file names."""
    (chosen, _), (rejected, _) = pair.answers
    return {
        "images_file_names": list(pair.images),
        "prompt": [{"role": "user", "content": pair.question}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        **pair.scores,
        **pair.facts,
    }


USAGE = """\
```python
from datasets import load_dataset

dataset = load_dataset("imagefolder", data_dir="{folder}", split="train")
```

`dataset` is what `trl.DPOTrainer` takes as `train_dataset`; it puts the images before the first user message.
"""

EXPORTER = Exporter(
    "trl",
    "pairs",
    "metadata.jsonl",
    record,
    {
        "images_file_names": "pictures, before the text; `datasets` calls the column `images`",
        "prompt": "the user's turn, as messages",
        "chosen": "the better answer, as messages",
        "rejected": "the worse one",
        **SCORES,
        **FACTS,
    },
    USAGE,
)
