"""verl's format: Parquet with embedded images, as verl's own preprocessing writes it."""

from __future__ import annotations

from typing import Any

from perceptune.core.exporters.exporter import Exporter, Ranked


def record(one: Ranked) -> dict[str, Any]:
    """The record of one question."""
    return {
        "data_source": "perceptune",
        "prompt": [{"role": "user", "content": one.marked}],
        "images": list(one.images),
        "ability": one.task,
        "reward_model": {"style": "rule", "ground_truth": one.truth},
        "extra_info": {
            "id": one.id,
            "task": one.task,
            "split": one.split,
            "box": None if one.box is None else list(one.box),
            "answers_given": one.given,
        },
    }


def features() -> Any:
    """Column types."""
    from datasets import Features, Image, List, Value

    text = Value("string")
    return Features(
        {
            "data_source": text,
            "prompt": List({"role": text, "content": text}),
            "images": List(Image()),
            "ability": text,
            "reward_model": {"style": text, "ground_truth": text},
            "extra_info": {
                "id": text,
                "task": text,
                "split": text,
                "box": List(Value("float64")),
                "answers_given": List({"text": text, "reward": Value("float64")}),
            },
        }
    )


USAGE = """\
```
data.train_files={folder}/data.parquet data.prompt_key=prompt data.image_key=images
```

verl samples its own responses: it trains on questions and ground truth and ignores `answers_given`.
`data_source` is `perceptune`: provide a reward function for it (`custom_reward_function.path`).
"""

EXPORTER = Exporter(
    "verl",
    "lists",
    "data.parquet",
    record,
    {
        "data_source": "`perceptune`: key by which verl selects the reward function",
        "prompt": "user turn, after one `<image>` placeholder per image",
        "images": "encoded image files",
        "ability": "perceptune's task of the question",
        "reward_model": "`ground_truth`: ground truth; for grounding, the box as JSON; empty if there is none",
        "extra_info": "`id`, `task`, `split`, `box` in pixels, and `answers_given`, perceptune's responses, best first, "
        "each with `text` and `reward`",
    },
    USAGE,
    inside=True,
    features=features,
)
