"""ms-swift's preferences: messages with the chosen answer, and the rejected one."""

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

Pictures are named relative to this folder, so start it here.
"""

EXPORTER = Exporter(
    "ms_swift",
    "pairs",
    "data.jsonl",
    record,
    {
        "messages": "the user's turn, behind an `<image>` mark per picture, and the better answer",
        "rejected_response": "the worse one",
        "images": "pictures, relative to this folder",
        **SCORES,
        **FACTS,
    },
    USAGE,
)
