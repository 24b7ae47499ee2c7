"""ms-swift's preference format: messages with the chosen response, and the rejected response."""

from __future__ import annotations

from typing import Any

from perceptune.core.exporters.exporter import FACTS, SCORES, Exporter, Ranked


def record(pair: Ranked) -> dict[str, Any]:
    """The record of one pair."""
    (chosen, _), (rejected, _) = pair.answers
    return {
        "messages": [{"role": "user", "content": pair.marked}, {"role": "assistant", "content": chosen}],
        "rejected_response": rejected,
        "images": list(pair.images),
        **pair.scores,
        **pair.facts,
    }


USAGE = """\
```
cd {folder} && swift rlhf --rlhf_type dpo --dataset data.jsonl ...
```

Image paths are relative to this folder, so run the command there.
"""

EXPORTER = Exporter(
    "ms_swift",
    "pairs",
    "data.jsonl",
    record,
    {
        "messages": "user turn, after one `<image>` placeholder per image, and the chosen response",
        "rejected_response": "rejected response",
        "images": "image files, relative to this folder",
        **SCORES,
        **FACTS,
    },
    USAGE,
)
