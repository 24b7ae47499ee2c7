"""TRL's conversational preference format: an image folder with `metadata.jsonl` for `datasets`."""

from __future__ import annotations

from typing import Any

from perceptune.core.exporters.exporter import FACTS, SCORES, Exporter, Ranked


def record(pair: Ranked) -> dict[str, Any]:
    """The record of one pair; `datasets` turns the file names into the column `images`."""
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

Pass `dataset` to `trl.DPOTrainer` as `train_dataset`; it puts the images before the first user message.
"""

EXPORTER = Exporter(
    "trl",
    "pairs",
    "metadata.jsonl",
    record,
    {
        "images_file_names": "image files, which precede the text; `datasets` calls the column `images`",
        "prompt": "user turn, as messages",
        "chosen": "chosen response, as messages",
        "rejected": "rejected response, as messages",
        **SCORES,
        **FACTS,
    },
    USAGE,
)
