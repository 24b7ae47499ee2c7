"""LLaMA-Factory's preference format (ShareGPT), with the `dataset_info.json` that declares it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceptune.core.exporters.exporter import FACTS, SCORES, Exporter, Ranked


def record(pair: Ranked) -> dict[str, Any]:
    """The record of one pair."""
    (chosen, _), (rejected, _) = pair.answers
    return {
        "conversations": [{"from": "human", "value": pair.marked}],
        "chosen": {"from": "gpt", "value": chosen},
        "rejected": {"from": "gpt", "value": rejected},
        "images": list(pair.images),
        **pair.scores,
        **pair.facts,
    }


def beside(name: str) -> Mapping[str, Any]:
    """`dataset_info.json`, which LLaMA-Factory reads first."""
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "images": "images"}
    described = {"file_name": "data.json", "formatting": "sharegpt", "ranking": True, "columns": columns}
    return {"dataset_info.json": {name: described}}


USAGE = """\
```
llamafactory-cli train ... stage=dpo dataset_dir={folder} media_dir={folder} dataset={name}
```
"""

EXPORTER = Exporter(
    "llama_factory",
    "pairs",
    "data.json",
    record,
    {
        "conversations": "user turn, after one `<image>` placeholder per image",
        "chosen": "chosen response",
        "rejected": "rejected response",
        "images": "image files, relative to this folder",
        **SCORES,
        **FACTS,
    },
    USAGE,
    beside=beside,
)
